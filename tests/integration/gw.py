"""The real program for tests: starts it on free ports, creates resources through its API, sends traffic, stops and judges it.

    with Gateway() as gw, Backend() as backend:
        gw.attach("RateLimit", {"threshold": 2, ...}, to=gw.route("/a", backend))
        assert gw.get("/a").status == 200

A Gateway is one process. Its methods create resources with unique names, so that tests can share a process. When it stops it must
exit with 0 and no sanitizer may have complained.
"""
import http.client
import itertools
import json
import os
import pathlib
import random
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time

from backends import ROOT, Backend
from wire import Connection, wait_until

PROGRAM = os.environ.get("SLUICE_BIN", str(ROOT / "build/asan/sluice"))
COMPLAINTS = re.compile(rb"AddressSanitizer|LeakSanitizer|ThreadSanitizer|runtime error:|BUG:")
IS_SANITIZED = "asan" in PROGRAM or "tsan" in PROGRAM
numbers = itertools.count(1)
ports = itertools.count(random.Random(os.getpid()).randrange(10000))


def free_port():
	"""A port nobody listens on, below the range from which the kernel takes ports for outgoing connections."""
	while True:
		port = 20000 + next(ports) % 10000
		with socket.socket() as probe:
			try:
				probe.bind(("127.0.0.1", port))
				return port
			except OSError:
				continue


class Resource:
	"""What was created. `type` is its name as attachResourceType."""

	def __init__(self, kind, identifier, path, **more):
		self.type = kind
		self.id = identifier
		self.path = path
		self.__dict__.update(more)

	def __repr__(self):
		return f"<{self.type} {self.id}>"


def find_addresses(target):
	"""Addresses of a Backend, a port, or a list of addresses as the API takes them."""
	if isinstance(target, Backend):
		return [target.address]
	if isinstance(target, int):
		return [f"127.0.0.1:{target}"]
	return [target] if isinstance(target, str) else list(target)


class Gateway:
	"""`settings`: flags of `sluice run`, with _ for -, e.g. header_timeout_ms=300. `file`: members of the settings file."""

	def __init__(self, data=None, program=PROGRAM, start=True, file=None, environment=None, prefix=(), **settings):
		self.program = program
		self.prefix = list(prefix)    # a command that runs the program: taskset, valgrind
		self.own_folder = tempfile.mkdtemp(prefix="sluice-test-")
		self.data = str(data or os.path.join(self.own_folder, "data"))
		self.settings = {"workers": 2, "drain_timeout_ms": 5000, **settings}
		self.environment = environment or {}
		self.arguments = []
		if file is not None:
			path = pathlib.Path(self.own_folder, "settings.yaml")
			path.write_text(file if isinstance(file, str) else json.dumps(file))
			self.arguments += ["--config", str(path)]
		self.process = None
		self.starts = 0
		self.local = threading.local()
		self.connections = {}
		self.site = None
		if start:
			self.start()

	def __enter__(self):
		return self

	def __exit__(self, kind, *_):
		try:
			self.stop(judge=kind is None)
		finally:
			shutil.rmtree(self.own_folder, ignore_errors=True)

	# ---- the process ----

	def start(self, wait=True):
		flags = [f"--{name.replace('_', '-')}={str(value).lower() if isinstance(value, bool) else value}"
			for name, value in self.settings.items()]
		self.starts += 1
		self.log_path = os.path.join(self.own_folder, f"stderr.{self.starts}")
		admin = [] if "admin" in self.settings else ["--admin=127.0.0.1:0"]
		with open(self.log_path, "wb") as log:
			self.process = subprocess.Popen([*self.prefix, self.program, "run", *self.arguments, f"--data={self.data}", *admin, *flags],
				stderr=log, stdin=subprocess.DEVNULL, env={**os.environ, **self.environment})
		if wait:
			self.wait_ready()
		return self

	def wait_ready(self, seconds=60):
		def is_ready():
			assert self.process.poll() is None, f"exited with {self.process.returncode}: {self.stderr()}"
			return "ready" in self.stderr().split("\n") and self.events("start")

		record = wait_until(is_ready, seconds, "a line `ready`")[-1]
		self.admin_port = record["adminPort"]
		self.admin = f"127.0.0.1:{self.admin_port}"
		self.token = pathlib.Path(self.data, "admin.token").read_text().strip()
		self.forget_connections()

	def forget_connections(self):
		self.local = threading.local()
		for connection in self.connections.values():
			connection.close()
		self.connections = {}

	def stop(self, judge=True, seconds=30):
		"""SIGTERM, then judges how it ended."""
		if not self.process:
			return
		self.forget_connections()
		if self.process.poll() is None:
			self.process.send_signal(signal.SIGTERM)
		try:
			code = self.process.wait(seconds)
		except subprocess.TimeoutExpired:
			self.process.kill()
			code = self.process.wait()
		self.process = None
		if judge:
			self.judge(code)

	def judge(self, code):
		text = pathlib.Path(self.log_path).read_bytes()
		found = COMPLAINTS.search(text)
		assert not found, text[max(0, found.start() - 200):][:8000].decode("latin-1")
		assert code == 0, f"exited with {code}: {text[-3000:].decode('latin-1')}"

	def kill9(self):
		self.process.kill()
		self.process.wait()
		self.process = None
		self.forget_connections()

	def restart(self):
		self.stop()
		return self.start()

	def wait_exit(self, seconds=30):
		code = self.process.wait(seconds)
		self.process = None
		return code

	def stderr(self):
		return pathlib.Path(self.log_path).read_text("utf-8", "replace")

	def log(self):
		"""All whole records so far."""
		lines = self.stderr().split("\n")[:-1]
		return [json.loads(line) for line in lines if line.startswith("{")]

	def events(self, name):
		return [record for record in self.log() if record.get("event") == name]

	def records(self, **fields):
		"""Access records with these values, e.g. path="/a"."""
		return [r for r in self.log() if "status" in r and all(r.get(name) == value for name, value in fields.items())]

	def wait_record(self, seconds=5, **fields):
		"""The access record of a request: it is written a little after the answer."""
		return wait_until(lambda: self.records(**fields), seconds, f"an access record with {fields}")[-1]

	def rss_kb(self):
		text = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
		return int(re.search(r"VmRSS:\s+(\d+) kB", text).group(1))

	def descriptors(self):
		return len(os.listdir(f"/proc/{self.process.pid}/fd"))

	# ---- the API ----

	def api(self, method, path, body=None, headers=None, raw=None):
		"""(status, answer as JSON or None, header fields). `raw`: bytes of the body as they are."""
		data = raw if raw is not None else None if body is None else json.dumps(body).encode()
		fields = {"X-Auth-Token": self.token}
		if data is not None:
			fields["Content-Type"] = "application/json"
		fields.update(headers or {})
		fields = {name: value for name, value in fields.items() if value is not None}
		for attempt in (1, 2):
			connection = getattr(self.local, "connection", None)
			fresh = connection is None
			if fresh:
				connection = self.local.connection = http.client.HTTPConnection(self.admin, timeout=60)
			try:
				connection.request(method, path, data, fields)
				answer = connection.getresponse()
				text = answer.read()
				break
			except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError, http.client.CannotSendRequest):
				# A kept connection that was closed meanwhile: once more on a new one.
				connection.close()
				self.local.connection = None
				if fresh or attempt == 2:
					raise
		return answer.status, json.loads(text) if text else None, answer.headers

	def ask(self, method, path, body=None, **options):
		"""As api(), for calls that must succeed: the answer alone."""
		status, answer, _ = self.api(method, path, body, **options)
		assert status == 200, f"{method} {path} {body}: {status} {answer}"
		return answer

	def create(self, kind, path, id_field, body):
		answer = self.ask("POST", path, body)
		return Resource(kind, answer[id_field], f"{path}/{answer[id_field]}", body=body, name=body.get("name"))

	# ---- resources ----

	def gateway(self, port=None, hosts=("*",), **more):
		port = port or free_port()
		name = f"gateway-{next(numbers)}"
		external = {"number": str(port), "protocol": more.pop("protocol", "HTTP"), "hosts": list(hosts)}
		body = {"cluster": "local", "gateway": name, "namespace": "default", "elbId": f"elb-{name}", "externalPort": external,
			"serviceType": "LoadBalancer", "externalIPs": ["127.0.0.1"], "maxProtocolVersion": "TLSV1_3",
			"minProtocolVersion": "TLSV1_2", **more}
		answer = self.ask("POST", "/v2/meshes/default/gateways", body)
		path = f"/v2/meshes/default/gateways/{body['gateway']}"
		item = self.ask("GET", path)
		return Resource("Gateway", answer["gatewayId"], path, name=body["gateway"], port=port, body=body,
			gateway=answer["gatewayId"], environment=item["defaultEnvironmentId"])

	@property
	def default(self):
		"""The gateway that is meant when none is named; made when first asked for."""
		if not self.site:
			self.site = self.gateway()
		return self.site

	@property
	def port(self):
		return self.default.port

	def feature(self, name, value, site=None):
		site = site or self.default
		self.ask("PUT", f"/api/v1/gateways/{site.id}/gateway-features/{name}", {"value": value})

	def service(self, target, site=None, **more):
		site = site or self.default
		body = {"name": f"service-{next(numbers)}", "gatewayId": site.id, "sourceType": "VIP",
			"addresses": find_addresses(target), **more}
		made = self.create("Service", "/api/v1/services", "serviceId", body)
		made.gateway, made.environment = site.id, None
		return made

	def domain(self, name, site=None, **more):
		site = site or self.default
		made = self.create("Domain", "/api/v1/domains", "domainId",
			{"name": name, "gatewayId": site.id, "protocol": "HTTP", **more})
		made.gateway, made.environment = site.id, None
		return made

	def backend_of(self, service, site):
		"""A route's backend: one service, a list of (service, weight), or whatever service() takes."""
		if isinstance(service, dict) or service is None:
			return service
		if isinstance(service, Resource):
			return {"scene": "SingleService", "services": [{"serviceId": service.id}]}
		if isinstance(service, list) and service and isinstance(service[0], tuple):
			services = [{"serviceId": one.id, "weight": weight} for one, weight in service]
			return {"scene": "MultiServiceByRatio", "services": services}
		return self.backend_of(self.service(service, site), site)

	def route(self, path, service=None, site=None, type="Prefix", domains=(), name=None, **match):
		"""`match`: methods, headers, queryParams, ignoreUriCase as in the API."""
		site = site or self.default
		body = {"name": name or f"route-{next(numbers)}", "gatewayId": site.id, "environmentId": site.environment,
			"domainIds": [domain.id for domain in domains], "match": {"path": {"type": type, "value": path}, **match}}
		backend = self.backend_of(service, site)
		if backend:
			body["backend"] = backend
		made = self.create("Route", "/api/v1/routes", "routeId", body)
		made.gateway, made.environment = site.id, site.environment
		return made

	def policy(self, class_name, config):
		body = {"name": f"policy-{next(numbers)}", "className": class_name, "config": json.dumps({"enable": True, **config})}
		return self.create("Policy", "/api/v2/policies", "policyId", body)

	def attach(self, class_name, config, to, **more):
		"""Creates a policy and attaches it. The attachment's `policy` is the policy."""
		policy = self.policy(class_name, config)
		body = {"attachResourceId": to.id, "attachResourceType": to.type, "gatewayId": to.gateway, "policyId": policy.id,
			**({"environmentId": to.environment} if to.environment and to.type != "Gateway" else {}), **more}
		made = self.create("Attachment", "/api/v1/policy-attachments", "policyAttachmentId", body)
		made.policy = policy
		return made

	def change_policy(self, policy, config):
		"""Replaces the config of a policy, or of an attachment's policy."""
		policy = getattr(policy, "policy", policy)
		self.ask("PUT", policy.path, {**policy.body, "config": json.dumps({"enable": True, **config})})

	def delete(self, resource):
		self.ask("DELETE", resource.path)
		if resource.type == "Attachment":
			self.ask("DELETE", resource.policy.path)

	# ---- traffic ----

	def connect(self, site=None, **options):
		"""A new connection to a gateway's listener."""
		return Connection((site or self.default).port, **options)

	def request(self, method, target, headers=(), body=None, site=None, **options):
		"""One request on a kept connection of this thread's own, or a new one when that was closed."""
		port = (site or self.default).port
		key = (port, threading.get_ident())
		connection = self.connections.get(key)
		if connection and (connection.buffer or connection.is_closed(0)):
			connection.close()
			connection = None
		if not connection:
			connection = self.connections[key] = Connection(port)
		keeps = False
		try:
			answer = connection.request(method, target, headers, body, **options)
			keeps = "close" not in answer.all("Connection")
			return answer
		finally:
			if not keeps:
				del self.connections[key]
				connection.close()

	def get(self, target, headers=(), **options):
		return self.request("GET", target, headers, **options)

	def echo(self, target, headers=(), method="GET", body=None, **options):
		"""The request as the upstream's /echo saw it. `fields`: its header lines by lower-case name."""
		answer = self.request(method, target, headers, body, **options)
		assert answer.status == 200, answer
		seen = answer.json
		seen["fields"] = {}
		for name, value in seen["headers"]:
			seen["fields"].setdefault(name.lower(), []).append(value)
		return seen


def wait_millis(millis):
	"""Lets real time pass, for what has no state to poll: keep it short."""
	time.sleep(millis / 1000)
