"""The gateways that are compared, configured alike: one worker, kept upstream connections, X-Forwarded-For, no access log.

Variants: "plain" has 10 routes; "full" the same with a rate limit, header edits in both directions and a buffered access log; "many"
has 10,000 routes; "h2" is "plain" for clients of HTTP/2 without TLS; "sse" passes on at once what comes.
"""
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import threading

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/integration"))
import gw as sluice    # noqa: E402
from backends import find_program    # noqa: E402

PROGRAM = os.environ.get("SLUICE_RELEASE_BIN", str(ROOT / "build/release/sluice"))
ROUTES = {"plain": 10, "full": 10, "many": 10_000, "h2": 10, "sse": 1}
NO_LIMIT = {"threshold": 2_147_483_647, "behaviorType": 0, "bodyEncoding": 0, "responseStatusCode": 429}


def header_edits(value="1"):
	item = {"opType": "Update", "key": "X-Bench", "value": value, "policyValueGenerateMode": "Custom"}
	return {"headerOpItems": [{"directionType": "Request", **item}, {"directionType": "Response", **item}]}


def in_parallel(work, items, threads=16):
	"""Calls work(item) for all items; the first exception is raised."""
	items, problems = iter(items), []
	lock = threading.Lock()

	def run():
		while not problems:
			with lock:
				item = next(items, None)
			if item is None:
				return
			try:
				work(item)
			except BaseException as problem:    # handed to the caller
				problems.append(problem)

	workers = [threading.Thread(target=run) for _ in range(threads)]
	for worker in workers:
		worker.start()
	for worker in workers:
		worker.join()
	if problems:
		raise problems[0]


class Sluice:
	name = "sluice"

	def __init__(self, variant, upstream, core, workers=1):
		self.variant = variant
		prefix = ["taskset", "-c", str(core)] if core is not None else []
		self.gw = sluice.Gateway(program=PROGRAM, prefix=prefix, workers=workers, access_log=variant == "full", requests_per_connection=0)
		site = self.gw.default
		self.service = self.gw.service(upstream)
		in_parallel(lambda i: self.gw.route(f"/r{i}", self.service), range(ROUTES[variant]))
		if variant == "full":
			self.gw.attach("RateLimit", NO_LIMIT, to=site)
			self.gw.attach("HeaderModify", header_edits(), to=site)
		self.port = site.port

	def pids(self):
		return [self.gw.process.pid]

	def forget_log(self):
		os.truncate(self.gw.log_path, 0)

	def stop(self):
		self.gw.__exit__(None)


class Peer:
	"""A process of Debian with a configuration file of ours."""

	def __init__(self, variant, upstream, core):
		self.variant, self.upstream = variant, upstream
		self.port = sluice.free_port()
		self.folder = tempfile.mkdtemp(prefix="sluice-bench-")
		self.file = os.path.join(self.folder, "conf")
		pathlib.Path(self.file).write_text(self.configuration())
		prefix = ["taskset", "-c", str(core)] if core is not None else []
		with open(os.path.join(self.folder, "stderr"), "wb") as log:
			self.process = subprocess.Popen([*prefix, *self.command()], stdout=log, stderr=log)
		sluice.wait_until(self.is_listening, 20, f"{self.name} on its port")

	def is_listening(self):
		assert self.process.poll() is None, pathlib.Path(self.folder, "stderr").read_text()
		try:
			sluice.Connection(self.port).close()
			return True
		except OSError:
			return False

	def pids(self):
		"""The process and its children."""
		children = pathlib.Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
		return [self.process.pid, *map(int, children)]

	def forget_log(self):
		for path in pathlib.Path(self.folder).glob("access*"):
			os.truncate(path, 0)

	def stop(self):
		self.process.send_signal(signal.SIGTERM)
		try:
			self.process.wait(5)
		except subprocess.TimeoutExpired:
			self.process.kill()
			self.process.wait()
		shutil.rmtree(self.folder, ignore_errors=True)


class Nginx(Peer):
	name = "nginx"

	def command(self):
		return ["nginx", "-p", self.folder, "-c", self.file]

	def configuration(self):
		full = self.variant == "full"
		forward = ("proxy_pass http://up; proxy_http_version 1.1; proxy_set_header Connection \"\"; proxy_set_header Host $host; "
			"proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; proxy_set_header X-Forwarded-Proto $scheme;")
		if full:
			forward += " proxy_set_header X-Bench 1; add_header X-Bench 1 always; limit_req zone=z burst=1000000 nodelay;"
		if self.variant == "sse":
			forward += " proxy_buffering off;"
		locations = "\n".join(f"location /r{i}/ {{ {forward} }}" for i in range(ROUTES[self.variant]))
		record = ("log_format j escape=json '{\"time\":\"$time_iso8601\",\"method\":\"$request_method\",\"uri\":\"$request_uri\","
			"\"status\":$status,\"bytes\":$bytes_sent,\"seconds\":$request_time,\"upstream\":\"$upstream_addr\","
			"\"upstream_seconds\":\"$upstream_response_time\",\"peer\":\"$remote_addr\"}';\n"
			f"access_log {self.folder}/access.log j buffer=64k flush=1s;") if full else "access_log off;"
		zone = "limit_req_zone $server_name zone=z:1m rate=1000000r/s;" if full else ""
		return f"""
daemon off; worker_processes 1; pid {self.folder}/pid; error_log {self.folder}/error.log error;
events {{ worker_connections 16384; multi_accept on; }}
http {{
	{record}
	{zone}
	tcp_nodelay on; keepalive_timeout 75s; keepalive_requests 1000000000; server_tokens off;
	client_body_temp_path {self.folder}/b; proxy_temp_path {self.folder}/p; fastcgi_temp_path {self.folder}/f;
	uwsgi_temp_path {self.folder}/u; scgi_temp_path {self.folder}/s;
	upstream up {{ server 127.0.0.1:{self.upstream}; keepalive 1024; keepalive_requests 1000000000; }}
	server {{
		listen 127.0.0.1:{self.port} backlog=4096{" http2" if self.variant == "h2" else ""}; server_name _;
		{locations}
	}}
}}
"""


class Haproxy(Peer):
	name = "haproxy"

	def command(self):
		return ["haproxy", "-db", "-f", self.file]

	def configuration(self):
		full = self.variant == "full"
		routes = pathlib.Path(self.folder, "routes.map")
		routes.write_text("".join(f"/r{i}/ up\n" for i in range(ROUTES[self.variant])))
		rules = ("stick-table type integer size 1 expire 1s store http_req_rate(1s)\n"
			"	http-request track-sc0 int(1)\n"
			"	http-request deny deny_status 429 if { sc_http_req_rate(0) gt 2147483647 }\n"
			"	http-request set-header X-Bench 1\n	http-response set-header X-Bench 1") if full else ""
		return f"""
global
	nbthread 1
	maxconn 8000
	pidfile {self.folder}/pid
defaults
	mode http
	timeout client 60s
	timeout server 60s
	timeout connect 5s
	timeout http-keep-alive 60s
	option forwardfor
	http-reuse always
	{"option http-no-delay" if self.variant == "sse" else ""}
frontend in
	bind 127.0.0.1:{self.port} backlog 4096
	{rules}
	http-request set-header X-Forwarded-Proto http
	use_backend %[path,map_beg({routes},none)]
backend up
	server one 127.0.0.1:{self.upstream} pool-max-conn -1
backend none
	http-request return status 404
"""


class Relay(Peer):
	"""No gateway: it passes bytes on, as sluice does. What it costs is the kernel's TCP, the floor of all others."""
	name = "relay"

	def command(self):
		return [find_program("test_relay", ROOT / "tests/bench/relay", ["-luring"]), str(self.port), str(self.upstream)]

	def configuration(self):
		return ""


GATEWAYS = [Sluice, Nginx, Haproxy]
