"""What the tests of policies share: configs, bursts of requests, REST APIs, and an upstream that answers what it is told."""
import http.client
import json
import socket
import threading
import time

from gw import numbers
from scripted import Scripted, field, read_request

LIMIT_BODY = '{"error":"x"}'


def rate(threshold, **more):
	"""RateLimit. Refuses with 429 and JSON unless `more` says otherwise."""
	return {"threshold": threshold, "behaviorType": 0, "bodyEncoding": 1, "responseStatusCode": 429,
		"responseContentBody": LIMIT_BODY, "enable": True, **more}


def concurrency(most, **more):
	"""ConcurrencyLimit."""
	return {"maxConcurrency": most, "behaviorType": 0, "bodyEncoding": 0, "responseStatusCode": 503, "responseContentBody": "busy",
		"enable": True, **more}


def breaker(**more):
	"""CircuitBreaker: that of the contract's examples."""
	return {"strategy": 1, "minRequestAmount": 10, "triggerRatio": 50, "statDurationSec": 30, "recoveryTimeoutSec": 2,
		"responseStatusCode": 503, "bodyEncoding": 0, "responseContentBody": "open", "behaviorType": 0, "enable": True, **more}


def op(direction, action, key, value="", mode="Custom"):
	return {"directionType": direction, "opType": action, "key": key, "value": value, "policyValueGenerateMode": mode}


def headers(*items, **more):
	"""HeaderModify of op() items."""
	return {"headerOpItems": list(items), "enable": True, **more}


def direct(code="200", body="direct", **more):
	return {"code": code, "body": body, "enable": True, **more}


def ip_list(kind, content, resource="Route", layer="L7", **more):
	return {"name": "list", "description": "", "ipAccessControlResourceName": "r", "ipAccessControlResourceType": resource,
		"ipAccessControlType": kind, "ipAccessControlContent": content, "protocolLayer": layer, "enable": True, **more}


def cors(origins="https://example.com,https://app.example.com", **more):
	"""Cors: the sample of the API reference."""
	return {"allowOrigins": origins, "allowMethods": ["GET", "POST", "PUT", "DELETE"], "allowHeaders": "Content-Type,Authorization",
		"exposeHeaders": "X-Custom-Header", "timeUnit": "s", "unitNum": 3600, "allowCredentials": True, "enable": True, **more}


def preflight(gw, target, origin="https://example.com", method="PUT", ask=None, **options):
	fields = {"Origin": origin, "Access-Control-Request-Method": method}
	if ask:
		fields["Access-Control-Request-Headers"] = ask
	return gw.request("OPTIONS", target, fields, **options)


def burst(gw, n, target, site=None, method="GET", host="gw.test", fields=()):
	"""n requests at once, each on a connection of its own; all are sent before an answer is read."""
	connections = [gw.connect(site) for _ in range(n)]
	try:
		for connection in connections:
			connection.start(method, target, fields, host=host)
		return [connection.read_response(method) for connection in connections]
	finally:
		for connection in connections:
			connection.close()


def count(answers):
	"""{status: how many}"""
	statuses = [answer.status for answer in answers]
	return {status: statuses.count(status) for status in set(statuses)}


def rest_api(gw, service, site=None, base=None, domains=(), **more):
	"""A REST API; its operation(method, path) adds one."""
	site = site or gw.default
	base = base or f"/rest-{next(numbers)}"
	api = gw.create("Api", "/api/v1/http-apis", "httpApiId", {"name": f"api-{next(numbers)}", "gatewayId": site.id,
		"environmentId": site.environment, "domainIds": [domain.id for domain in domains], "basePath": base,
		"backend": gw.backend_of(service, site), **more})
	api.gateway, api.environment, api.base = site.id, site.environment, base

	def operation(method, path):
		made = gw.create("Operation", f"{api.path}/operations", "operationId",
			{"name": f"operation-{next(numbers)}", "method": method, "path": path})
		made.gateway, made.environment = site.id, site.environment
		return made
	api.operation = operation
	return api


def phase(gw, attachment):
	return gw.ask("GET", attachment.path)["status"]["phase"]


def is_enforced(gw, name):
	return gw.ask("GET", f"/api/v1/policy-classes/{name}")["enforced"]


def outcomes(gw, attachment):
	"""{(resource, outcome): count} from the metrics of one attachment."""
	_, text, _ = raw_get(gw, "/metrics")
	found = {}
	for line in text.split("\n"):
		if line.startswith("sluice_policy_outcomes_total{") and f'attachment="{attachment.id}"' in line:
			labels = dict(part.split("=", 1) for part in line[line.index("{") + 1:line.index("}")].split(","))
			key = labels["resource"].strip('"'), labels["outcome"].strip('"')
			found[key] = found.get(key, 0) + int(float(line.rsplit(" ", 1)[1]))
	return found


def raw_get(gw, path):
	connection = http.client.HTTPConnection(gw.admin, timeout=30)
	try:
		connection.request("GET", path, headers={"X-Auth-Token": gw.token})
		answer = connection.getresponse()
		return answer.status, answer.read().decode(), answer.headers
	finally:
		connection.close()


def check_error(answer, status, code, start):
	"""The error shape of the policy API; the message names the field."""
	got, body, fields = answer
	assert got == status, answer
	assert set(body) == {"errorCode", "errorMessage", "requestId"}
	assert body["errorCode"] == code
	assert fields["X-Request-Id"] == body["requestId"]
	message = body["errorMessage"].removeprefix("Invalid parameter: ") if status == 400 else body["errorMessage"]
	assert message == start or message.startswith(f"{start}:") or (status != 400 and start in message), body


def attach_raw(gw, policy, to, **more):
	"""The answer to attaching a policy, whatever it is."""
	body = {"attachResourceId": to.id, "attachResourceType": to.type, "policyId": policy.id, "gatewayId": to.gateway}
	if to.environment and to.type != "Gateway":
		body["environmentId"] = to.environment
	return gw.api("POST", "/api/v1/policy-attachments", {**body, **more})


def refuse_attach(gw, policy, to, status, field, **more):
	"""Attaching is refused for this field, and nothing was attached."""
	before = gw.ask("GET", "/api/v1/policy-attachments")["totalSize"]
	code = {400: "ErrInvalidParameter", 404: "ErrNotFound", 409: "ErrConflict"}[status]
	answer = attach_raw(gw, policy, to, **more)
	check_error(answer, status, code, field)
	assert gw.ask("GET", "/api/v1/policy-attachments")["totalSize"] == before
	return answer[1]["errorMessage"]


class Canned:
	"""An upstream that answers every request with the same header lines and a body. `hits`: how many came."""

	def __init__(self, fields, body=b"canned", status=200):
		lines = [f"HTTP/1.1 {status} Canned", *(f"{name}: {value}" for name, value in fields), f"Content-Length: {len(body)}"]
		self.answer = ("\r\n".join(lines) + "\r\n\r\n").encode() + body
		self.hits = 0
		self.listener = socket.create_server(("127.0.0.1", 0))
		self.port = self.listener.getsockname()[1]
		self.thread = threading.Thread(target=self.accept, daemon=True)
		self.thread.start()

	def accept(self):
		while True:
			try:
				peer = self.listener.accept()[0]
			except OSError:
				return
			threading.Thread(target=self.serve, args=(peer,), daemon=True).start()

	def serve(self, peer):
		pending = b""
		with peer:
			while True:
				try:
					data = peer.recv(65536)
				except OSError:
					return
				if not data:
					return
				pending += data
				while b"\r\n\r\n" in pending:    # requests without a body
					head, pending = pending.split(b"\r\n\r\n", 1)
					self.hits += 1
					end = self.answer.index(b"\r\n\r\n") + 4
					peer.sendall(self.answer[:end] if head.startswith(b"HEAD ") else self.answer)

	def __enter__(self):
		return self

	def __exit__(self, *_):
		self.listener.close()


class Told:
	"""An upstream that answers as it was told last: `status`, `delay` in seconds, `hold()` until release(). `hits` counts requests, also
	those that wait; `targets` are what was asked for."""

	def __init__(self, status=200, delay=0, body=b"told"):
		self.status, self.delay, self.body = status, delay, body
		self.hits, self.targets, self.lock = 0, [], threading.Lock()
		self.gate = threading.Event()
		self.gate.set()
		self.server = Scripted(self.serve)
		self.port = self.server.port

	def hold(self):
		self.gate.clear()

	def release(self):
		self.gate.set()

	def serve(self, connection):
		while connection.buffer or connection.fill():
			lines = read_request(connection)
			with self.lock:
				self.hits += 1
				self.targets.append(lines[0].split(" ")[1])
			status, body, delay = self.status, self.body, self.delay    # as it was when the request came
			connection.take(int(field(lines, "Content-Length") or 0))
			self.gate.wait(60)
			time.sleep(delay)
			connection.send(f"HTTP/1.1 {status} Told\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)

	def __enter__(self):
		self.server.__enter__()
		return self

	def __exit__(self, *exits):
		self.release()
		self.server.__exit__(*exits)


def gauge(gw, attachment, name="sluice_circuit_breaker_state"):
	"""{resource: value} of a metric that stands for what an attachment keeps."""
	_, text, _ = raw_get(gw, "/metrics")
	found = {}
	for line in text.split("\n"):
		if line.startswith(f"{name}{{") and f'attachment="{attachment.id}"' in line:
			labels = dict(part.split("=", 1) for part in line[line.index("{") + 1:line.index("}")].split(","))
			found[labels["resource"].strip('"')] = int(float(line.rsplit(" ", 1)[1]))
	return found


def seen(fields, name):
	"""The one value of a field in the dict that Gateway.echo() returns, or None."""
	values = fields["fields"].get(name.lower(), [])
	assert len(values) <= 1, values
	return values[0] if values else None


def as_text(config):
	return json.dumps(config)
