"""TLS 1.3 in front of sluice and nginx: kept connections by wrk, handshakes by openssl s_time. Part "tls" of tests/bench/run.

Both have one worker on core 0 and the same P-256 certificate; the load and the upstream share core 1. CPU is that of the gateway, user
and system, per request or per handshake.
"""
import os
import pathlib
import re
import socket
import ssl
import statistics
import subprocess
import time

import peers
from backends import Backend
from peers import Nginx, sluice
from pki import Authority

CASES = [    # name, what one run does, goal for sluice / nginx
	("1 KB, kept", lambda gateway, seconds: run_wrk(gateway, seconds, 1024), 0.87),
	("100 KB, kept", lambda gateway, seconds: run_wrk(gateway, seconds, 102400), 0.85),
	("full handshake", lambda gateway, seconds: run_s_time(gateway, seconds, "-new"), 0.82),
	("resumed handshake", lambda gateway, seconds: run_s_time(gateway, seconds, "-reuse"), 0.82),
]


class SecureSluice:
	name = "sluice"

	def __init__(self, upstream, pair):
		self.gw = sluice.Gateway(program=peers.PROGRAM, prefix=["taskset", "-c", "0"], workers=1, access_log=False,
			requests_per_connection=0, idle_timeout_ms=600_000)    # none may go while idle ones are counted
		self.gw.ask("POST", "/api/v1/certificates", {"name": "bench", "certificate": pair.cert, "privateKey": pair.key})
		site = self.gw.gateway(protocol="HTTPS", certList=[{"secretName": "bench"}])
		self.gw.route("/", self.gw.service(upstream, site), site=site)
		self.port = site.port

	def pids(self):
		return [self.gw.process.pid]

	def stop(self):
		self.gw.__exit__(None)


class SecureNginx(Nginx):
	def __init__(self, upstream, pair):
		self.pair = pair
		super().__init__("plain", upstream, 0)

	def configuration(self):
		listen = f"listen 127.0.0.1:{self.port} backlog=4096;"
		secure = (f"listen 127.0.0.1:{self.port} ssl backlog=4096; ssl_certificate {self.pair.cert_file}; "
			f"ssl_certificate_key {self.pair.key_file}; ssl_protocols TLSv1.2 TLSv1.3; location / {{ proxy_pass http://up; "
			"proxy_http_version 1.1; proxy_set_header Connection \"\"; proxy_set_header Host $host; "
			"proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; proxy_set_header X-Forwarded-Proto $scheme; }")
		return super().configuration().replace(listen, secure).replace("keepalive_timeout 75s", "keepalive_timeout 600s")


def cpu_seconds(gateway):
	ticks = 0
	for pid in gateway.pids():
		fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
		ticks += int(fields[11]) + int(fields[12])
	return ticks / os.sysconf("SC_CLK_TCK")


def count(what, output):
	found = re.search(what, output)
	if not found or found.group(1) == "0":
		raise SystemExit(f"the load did nothing: {output}")
	return int(found.group(1))


def run_wrk(gateway, seconds, size):
	output = subprocess.run(["taskset", "-c", "1", "wrk", "-t1", "-c64", f"-d{max(1, round(seconds))}",
		f"https://127.0.0.1:{gateway.port}/size/{size}"], capture_output=True, text=True, check=True).stdout
	assert "Non-2xx" not in output and "Socket errors" not in output, output
	return count(r"(\d+) requests in", output)


def run_s_time(gateway, seconds, how):
	output = subprocess.run(["taskset", "-c", "1", "openssl", "s_time", how, "-tls1_3", "-connect", f"127.0.0.1:{gateway.port}", "-www",
		"/size/1", "-time", str(max(1, round(seconds)))], capture_output=True, text=True, check=False).stdout
	return count(r"(\d+) connections in \d+ real seconds", output)


def open_idle(port, count):
	"""Connections that had one request each."""
	context = ssl.create_default_context()
	context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
	connections = []
	for _ in range(count):
		connection = context.wrap_socket(socket.create_connection(("127.0.0.1", port)), server_hostname="bench.test")
		connection.sendall(b"GET /size/1 HTTP/1.1\r\nHost: bench.test\r\n\r\n")
		assert connection.recv(4096).startswith(b"HTTP/1.1 200"), "an idle connection could not be opened"
		connections.append(connection)
	return connections


def resident_bytes(gateway):
	return sum(int(re.search(r"VmRSS:\s+(\d+) kB", pathlib.Path(f"/proc/{pid}/status").read_text()).group(1)) * 1024
		for pid in gateway.pids())


def measure_idle(options, report, goal):
	"""Memory of an idle TLS connection: what 1,000 take beyond the 500 that pay for what is made once."""
	pair = Authority().issue("bench.test")
	each = {}
	with Backend() as backend:
		for start in (SecureSluice, SecureNginx):
			gateway = start(backend.port, pair)
			try:
				held = open_idle(gateway.port, 500)
				before = resident_bytes(gateway)
				held += open_idle(gateway.port, 1000)
				each[gateway.name] = (resident_bytes(gateway) - before) / 1000
				for connection in held:
					connection.close()
			finally:
				gateway.stop()
	print(f"\nan idle TLS connection: {each['sluice'] / 1024:.1f} KiB; nginx {each['nginx'] / 1024:.1f} KiB")
	goal("an idle TLS connection", each["sluice"] / 1024, 12, " KiB")
	report["idle_tls_bytes"] = each


def measure_tls(options, report, goal):
	pair = Authority().issue("bench.test")
	with Backend() as backend:
		subprocess.run(["taskset", "-cp", "1", str(backend.process.pid)], stdout=subprocess.DEVNULL, check=True)
		gateways = [SecureSluice(backend.port, pair), SecureNginx(backend.port, pair)]
		costs = {name: {gateway.name: [] for gateway in gateways} for name, _, _ in CASES}
		try:
			for turn in range(options.rounds):
				for name, run, _ in CASES:
					for gateway in gateways[turn % 2:] + gateways[:turn % 2]:
						before, start = cpu_seconds(gateway), time.monotonic()
						n = run(gateway, options.seconds)
						cost = (cpu_seconds(gateway) - before) / n * 1e6
						costs[name][gateway.name].append({"cpu_us": cost, "rate": n / (time.monotonic() - start)})
		finally:
			for gateway in gateways:
				gateway.stop()
	print("\nTLS 1.3, P-256, pinned: CPU us and rate of nginx, then sluice's ratios to them")
	for name, _, limit in CASES:
		cpu, rate = ([statistics.median(result[member] for result in costs[name][which]) for which in ("nginx", "sluice")]
			for member in ("cpu_us", "rate"))
		print(f"{name:28}{cpu[0]:9.1f}{rate[0]:9.0f}   CPU {cpu[1] / cpu[0]:5.2f}   rate {rate[1] / rate[0]:5.2f}")
		goal(f"TLS, {name}: CPU against nginx", cpu[1] / cpu[0], limit)
	report["tls"] = costs
