"""What semantic caching needs beside the model and Redis: a service of embeddings, a DashVector, and configs of AiCache."""
import json
import math
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

DASHSCOPE_PATH = "/api/v1/services/embeddings/text-embedding/text-embedding"


def at(cosine):
	"""A vector of this cosine with [1, 0]."""
	return [cosine, math.sqrt(1 - cosine * cosine)]


class Asked:
	def __init__(self, handler, raw):
		self.path, self.headers, self.body = handler.path, dict(handler.headers.items()), json.loads(raw)


class JsonServer:
	"""Answers POSTs by self.answer(asked): (status, document or bytes). `delay`: seconds before each answer."""

	def __init__(self, port=0):
		outer = self

		class Handler(BaseHTTPRequestHandler):
			protocol_version, wbufsize, disable_nagle_algorithm = "HTTP/1.1", 1 << 16, True

			def do_POST(self):    # noqa: N802
				asked = Asked(self, self.rfile.read(int(self.headers["Content-Length"])))
				with outer.lock:
					outer.asked.append(asked)
				if outer.delay:
					time.sleep(outer.delay)
				status, document = outer.answer(asked)
				data = document if isinstance(document, bytes) else json.dumps(document).encode()
				try:
					self.send_response(status)
					self.send_header("Content-Type", "application/json")
					self.send_header("Content-Length", str(len(data)))
					self.end_headers()
					self.wfile.write(data)
				except OSError:
					self.close_connection = True

			def log_message(self, *_):
				pass

		class Server(ThreadingHTTPServer):
			daemon_threads, block_on_close = True, False

			def handle_error(self, *_):
				pass

		self.lock, self.asked, self.delay = threading.Lock(), [], 0
		self.server = Server(("127.0.0.1", port), Handler)
		self.port = self.server.server_port
		threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

	@property
	def url(self):
		return f"http://127.0.0.1:{self.port}"

	def __enter__(self):
		return self

	def __exit__(self, *_):
		self.server.shutdown()
		self.server.server_close()


class Embeddings(JsonServer):
	"""DashScope's API and Azure's. vectors[text], or `default`. `broken`: (status, document) instead of an embedding."""

	def __init__(self, port=0):
		self.vectors, self.default, self.broken = {}, [0.0, 1.0], None
		super().__init__(port)

	def answer(self, asked):
		if self.broken:
			return self.broken
		if asked.path.partition("?")[0] == DASHSCOPE_PATH:
			text = asked.body["input"]["texts"][0]
			return 200, {"output": {"embeddings": [{"text_index": 0, "embedding": self.vectors.get(text, self.default)}]},
				"usage": {"total_tokens": 3}, "request_id": "r"}
		text = asked.body["input"]
		return 200, {"object": "list", "data": [{"object": "embedding", "index": 0, "embedding": self.vectors.get(text, self.default)}]}

	def texts(self):
		with self.lock:
			return [one.body["input"]["texts"][0] if isinstance(one.body["input"], dict) else one.body["input"] for one in self.asked]

	def clear(self):
		with self.lock:
			self.asked.clear()
		self.vectors, self.default, self.broken, self.delay = {}, [0.0, 1.0], None, 0


class DashVector(JsonServer):
	"""Collections with cosine as their metric: `score` is a distance. `ignores_filter`: a server that gives whatever is near."""

	def __init__(self):
		self.docs, self.ignores_filter, self.broken = [], False, None
		super().__init__()

	def answer(self, asked):
		if self.broken:
			return self.broken
		if asked.path.endswith("/docs"):
			self.docs += asked.body["docs"]
			return 200, {"code": 0, "message": "", "output": [{"doc_op": "insert", "id": doc["id"], "code": 0} for doc in asked.body["docs"]]}
		wanted = asked.body["filter"]
		partition = wanted.split("'")[1]
		expires = int(wanted.rsplit("> ", 1)[1])
		found = [doc for doc in self.docs if self.ignores_filter or
			(doc["fields"]["partition"] == partition and doc["fields"]["expires_at"] > expires)]
		found.sort(key=lambda doc: -cosine(doc["vector"], asked.body["vector"]))
		return 200, {"code": 0, "message": "Success", "request_id": "r", "output": [{"id": doc["id"], "vector": doc["vector"],
			"fields": {name: doc["fields"][name] for name in asked.body["output_fields"]},
			"score": 1 - cosine(doc["vector"], asked.body["vector"])} for doc in found[:asked.body["topk"]]]}


def cosine(a, b):
	return sum(x * y for x, y in zip(a, b)) / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))


def semantic(redis, host, key, service, threshold=0.9, ttl=300, strategy="messages", timeout=5000, table="ai_cache", **embedding):
	"""AiCache. `embedding`: members of embeddingConfig."""
	return {"enable": True, "cacheTTL": ttl, "cacheMode": "semantic", "cacheKeyStrategy": strategy, "redisConfig": redis.config,
		"vectorConfig": {"type": "adb-postgres", "serviceHost": host, "apiKey": key, "timeout": timeout, "collectionId": table,
			"threshold": threshold},
		"embeddingConfig": {"type": "dashscope", "serviceId": service.id, **embedding}}
