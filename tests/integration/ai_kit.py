"""What the tests of AI policies share: services, model and agent APIs, requests, streams as clients read them, the AI record.

    with ModelServer() as model:
        service = ai_service(gw, model)
        api = llm_api(gw, service, basePath="/ai")
        answer = chat(gw, api.base, "Hello")                 # a wire.Response; answer.json
        events = stream(gw, api.base, "Hello")               # Stream: .events, .text, .raw
        ai_log(gw, answer)["total_token"]
"""
import json
import threading
import time
import uuid

import model_shapes
import node
from gw import numbers
from model_server import Event, Live, Manner, ModelServer, Said, Usage, Whole    # noqa: F401 (for those who import from here)
from policy_kit import raw_get
from wire import Closed, wait_until

OPENAI, ANTHROPIC, DASHSCOPE = "OpenAI/v1", "Anthropic/v1", "DashScope/v1"
PROTOCOLS = {"openai": OPENAI, "anthropic": ANTHROPIC, "dashscope": DASHSCOPE}


def url_of(target):
	if isinstance(target, int):
		return f"http://127.0.0.1:{target}"
	return target if isinstance(target, str) else target.url


# ---- resources ----

def ai_service(gw, target, provider="openai", keys=("sk-upstream",), protocols=None, site=None, **more):
	"""A service of models. `target`: a ModelServer, a port or a URL. `more`: members of the service, e.g. healthCheckConfig."""
	site = site or gw.default
	config = {"provider": provider, "address": url_of(target), "protocols": list(protocols or [PROTOCOLS.get(provider, OPENAI)])}
	if keys:
		config["apiKeys"] = list(keys)
	config.update(more.pop("config", {}))
	made = gw.create("Service", "/api/v1/services", "serviceId", {"name": f"models-{next(numbers)}", "gatewayId": site.id,
		"sourceType": "AI", "aiServiceConfig": config, **more})
	made.gateway, made.environment = site.id, None
	return made


def agent_service(gw, target, site=None, **config):
	"""A service of agents. `config`: dashScopeConfig, difyConfig or customConfig."""
	site = site or gw.default
	made = gw.create("Service", "/api/v1/services", "serviceId", {"name": f"agents-{next(numbers)}", "gatewayId": site.id,
		"sourceType": "AGENT", "agentServiceConfig": {"address": url_of(target), **config}})
	made.gateway, made.environment = site.id, None
	return made


def entries(services):
	"""The `services` of an API: one service, several, or dicts with more members beside `service`."""
	listed = services if isinstance(services, (list, tuple)) else [services]
	made = []
	for one in listed:
		if isinstance(one, dict):
			one = dict(one)
			made.append({"serviceId": one.pop("service").id, **one} if "service" in one else one)
		else:
			made.append({"serviceId": one.id})
	return made


def make_api(gw, kind, path, id_field, services, site, domains, body):
	site = site or gw.default
	body.setdefault("basePath", f"/ai-{next(numbers)}")
	made = gw.create(kind, path, id_field, {"name": f"{kind.lower()}-{next(numbers)}", "gatewayId": site.id,
		"environmentId": site.environment, "domainIds": [domain.id for domain in domains], "services": entries(services), **body})
	made.gateway, made.environment, made.base = site.id, site.environment, body["basePath"].rstrip("/")
	return made


def llm_api(gw, services, site=None, domains=(), protocols=(OPENAI,), **more):
	"""A model API; `base` is its base path without a slash at its end, which is not sent to the services."""
	return make_api(gw, "LLMApi", "/api/v1/llm-apis", "llmApiId", services, site, domains,
		{"aiProtocols": list(protocols), "removeBasePathOnForward": True, **more})


def agent_api(gw, services, protocol, site=None, domains=(), **more):
	return make_api(gw, "AgentApi", "/api/v1/agent-apis", "agentApiId", services, site, domains, {"protocol": protocol, **more})


def ai_route(gw, target, site=None, base=None, **more):
	"""An ordinary route to a model server: a route with an Ai* policy sees AI requests too."""
	base = base or f"/plain-{next(numbers)}"
	port = target if isinstance(target, int) else target.port
	made = gw.route(base, [f"127.0.0.1:{port}"], site, **more)
	made.base = base
	return made


# ---- requests ----

def messages(*texts):
	"""Turns of a conversation, the user's first; dicts as they are."""
	return [text if isinstance(text, dict) else {"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]


def listed(what):
	return messages(what) if isinstance(what, str) else list(what)


def chat_body(what, model="gpt-4", **more):
	return {"model": model, "messages": listed(what), **more}


def asking(body, headers):
	"""A body's bytes and all fields of a request: its id is the test's, to find its records."""
	data = body if isinstance(body, bytes) else json.dumps(body, ensure_ascii=False).encode()
	return data, {"Content-Type": "application/json", "X-Request-Id": str(uuid.uuid4()), **dict(headers)}


def post(gw, target, body, headers=(), site=None, **options):
	"""`body`: bytes, or what is written as JSON."""
	data, fields = asking(body, headers)
	answer = gw.request("POST", target, fields, data, site=site, **options)
	answer.request_id = fields["X-Request-Id"]
	return answer


def chat(gw, base, what, model="gpt-4", headers=(), site=None, **more):
	"""POST BASE/v1/chat/completions, not as a stream. `what`: the user's text, or messages. `more`: members of the body."""
	return post(gw, f"{base}/v1/chat/completions", chat_body(what, model, **more), headers, site)


def completion(gw, base, prompt, model="gpt-3.5-turbo-instruct", headers=(), **more):
	return post(gw, f"{base}/v1/completions", {"model": model, "prompt": prompt, **more}, headers)


def responses(gw, base, text, model="gpt-4", headers=(), **more):
	return post(gw, f"{base}/v1/responses", {"model": model, "input": text, **more}, headers)


def embeddings(gw, base, text, model="text-embedding-3-small", headers=(), **more):
	return post(gw, f"{base}/v1/embeddings", {"model": model, "input": text, **more}, headers)


def anthropic(gw, base, what, model="claude-3", headers=(), **more):
	body = {"model": model, "max_tokens": 100, "messages": listed(what), **more}
	return post(gw, f"{base}/v1/messages", body, {"anthropic-version": "2023-06-01", **dict(headers)})


def generation(gw, base, what, model="qwen-max", headers=(), **more):
	body = {"model": model, "input": {"messages": listed(what)}, "parameters": {"result_format": "message"}, **more}
	return post(gw, f"{base}/api/v1/services/aigc/text-generation/generation", body, headers)


# ---- streams ----

class Got:
	"""An event as a client reads it. `raw`: its bytes with the blank line; `at`: when it was there."""

	def __init__(self, raw):
		self.raw, self.at = raw, time.monotonic()
		self.name, self.comment, lines = None, None, []
		for line in raw.decode("utf-8", "replace").replace("\r\n", "\n").replace("\r", "\n").split("\n"):
			field, _, value = line.partition(":")
			value = value[1:] if value.startswith(" ") else value
			if line.startswith(":"):
				self.comment = value
			elif field == "event":
				self.name = value
			elif field == "data":
				lines.append(value)
		self.data = "\n".join(lines) if lines else None

	@property
	def json(self):
		try:
			return json.loads(self.data) if self.data else None
		except ValueError:
			return None

	def __repr__(self):
		return f"<{self.name} {self.data!r}>"


def event_text(event):
	"""The text that an event adds, whatever API it is of (DashScope: incremental)."""
	doc = event.json
	if not isinstance(doc, dict):
		return ""
	if doc.get("type") == "response.output_text.delta":
		return doc["delta"]
	if doc.get("type") == "content_block_delta":
		return doc["delta"].get("text") or ""
	if doc.get("event") in ("message", "text_chunk"):
		return doc.get("answer") or (doc.get("data") or {}).get("text") or ""
	output = doc.get("output") if isinstance(doc.get("output"), dict) else {}
	choices = doc.get("choices") or output.get("choices") or []
	made = output.get("text") or ""
	for choice in choices[:1]:
		part = choice.get("delta") or choice.get("message") or choice
		made += part.get("content") or part.get("text") or ""
	return made


class Stream:
	"""A request whose answer is read event by event. Ends: rest(), close(). `whole`: body bytes so far; `is_cut`: the connection broke."""

	def __init__(self, gw, target, body, headers=(), site=None, timeout=30, connection=None):
		data, fields = asking(body, headers)
		self.request_id = fields["X-Request-Id"]
		self.connection = connection or gw.connect(site, timeout=timeout)
		self.at = time.monotonic()
		self.connection.start("POST", target, fields, data)
		self.head, self.events, self.pending, self.raw, self.is_over, self.is_cut = None, [], b"", b"", False, False

	def read_head(self):
		if not self.head:
			self.head = self.connection.read_head()
			if self.head.header("Transfer-Encoding") is None:    # no stream after all
				self.left = int(self.head.header("Content-Length", "0"))
		return self.head

	def read_piece(self):
		"""Some more bytes of the body; False at its end."""
		self.read_head()
		if self.is_over:
			return False
		try:
			piece = self.connection.take(self.left) if hasattr(self, "left") else self.connection.read_chunk()
			if not piece and not hasattr(self, "left"):
				self.connection.read_trailers()
		except Closed:
			self.is_cut, piece = True, b""
		self.is_over = not piece or hasattr(self, "left")
		self.raw += piece
		self.pending += piece
		return bool(piece)

	def split(self):
		"""One event from what is pending, or None."""
		ends = [(self.pending.index(mark) + len(mark)) for mark in (b"\n\n", b"\r\n\r\n", b"\r\r") if mark in self.pending]
		if not ends:
			return None
		event, self.pending = Got(self.pending[:min(ends)]), self.pending[min(ends):]
		self.events.append(event)
		return event

	def next(self):
		"""The next event, or None at the end (also for what stands there without a blank line)."""
		while not (event := self.split()):
			if not self.read_piece():
				return None
		return event

	def rest(self):
		"""Everything to the end."""
		while self.next():
			pass
		self.connection.close()
		return self

	def close(self):
		self.connection.close()

	def __enter__(self):
		return self

	def __exit__(self, *_):
		self.close()

	@property
	def status(self):
		return self.read_head().status

	def header(self, name, default=None):
		return self.read_head().header(name, default)

	@property
	def text(self):
		return "".join(map(event_text, self.events))

	@property
	def docs(self):
		"""The events' data as JSON, those alone that are objects."""
		return [event.json for event in self.events if isinstance(event.json, dict)]

	@property
	def json(self):
		"""Of an answer that is no stream."""
		return json.loads(self.raw)

	@property
	def usage(self):
		"""The last one of OpenAI's chunks."""
		found = [doc["usage"] for doc in self.docs if doc.get("usage")]
		return found[-1] if found else None

	@property
	def is_done(self):
		return bool(self.events) and self.events[-1].data == "[DONE]"


def open_chat(gw, base, what, model="gpt-4", headers=(), site=None, **more):
	"""A chat's stream that the test reads itself."""
	return Stream(gw, f"{base}/v1/chat/completions", chat_body(what, model, stream=True, **more), headers, site)


def stream(gw, base, what, model="gpt-4", headers=(), site=None, **more):
	"""A chat's stream read to its end."""
	return open_chat(gw, base, what, model, headers, site, **more).rest()


def stream_of(gw, target, body, headers=(), site=None):
	"""Any stream read to its end."""
	return Stream(gw, target, body, headers, site).rest()


# ---- what the gateway wrote down ----

def record_of(gw, answer, seconds=10):
	"""The access record of an answer (a Response or a Stream), or of a request id."""
	return gw.wait_record(seconds, requestId=answer if isinstance(answer, str) else answer.request_id)


def ai_log(gw, answer, seconds=10):
	"""The AI record of an answer; {} where the access record has none."""
	return record_of(gw, answer, seconds).get("ai_log", {})


def metric(gw, name, **labels):
	"""The sum of a metric's series with these labels; 0 where there is none."""
	total = 0
	for line in raw_get(gw, "/metrics")[1].split("\n"):
		start, _, value = line.rpartition(" ")
		at, _, rest = start.partition("{")
		if at == name and all(f'{key}="{wanted}"' in rest for key, wanted in labels.items()):
			total += float(value)
	return total


def wait_metric(gw, name, value, seconds=10, **labels):
	wait_until(lambda: metric(gw, name, **labels) == value, seconds, f"{name}{labels} = {value}")


def at_once(*calls):
	"""Runs the calls in threads and returns what they returned, in order."""
	found = [None] * len(calls)

	def run(i, call):
		try:
			found[i] = call()
		except BaseException as error:    # given to the caller
			found[i] = error

	threads = [threading.Thread(target=run, args=one) for one in enumerate(calls)]
	for thread in threads:
		thread.start()
	for thread in threads:
		thread.join(120)
	for one in found:
		if isinstance(one, BaseException):
			raise one
	return found


def said_by(kind, said, model="gpt-4"):
	"""What a model server sends for this, as one text: to compare bytes."""
	return b"".join(event.encode() for event in model_shapes.events(kind, said, model))


# ---- clients of other makers ----

def client(name, base, port=None, **options):
	"""One request of a real client (tests/node/model_clients.js): what it understood. `base`: path or URL of its base URL."""
	url = base if port is None else f"http://127.0.0.1:{port}{base}"
	return json.loads(node.run("model_clients.js", name, url, json.dumps(options)))
