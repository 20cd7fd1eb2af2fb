# seconds: 600
"""AiCache, semantic mode: similar questions hit; partitions never mix; whatever fails is a miss. With real PostgreSQL and Redis."""
import json
import socket
import threading
import time

import pytest

from ai_kit import ModelServer, ai_service, anthropic, chat, llm_api, record_of, stream
from consumer_kit import allow, bearer, consumer, keys
from policy_kit import raw_get
from postgres_kit import Postgres
from redis_kit import RedisServer
from semantic_kit import DASHSCOPE_PATH, DashVector, Embeddings, at, semantic
from wire import wait_until

KEY = "sk-embedding-secret"
FIRST, SIMILAR, OTHER = "How do I reset my password?", "I forgot my password, what now?", "What is the weather like?"
PATIENCE_S = 30


@pytest.fixture(scope="module")
def store():
	with Postgres() as server:
		yield server


@pytest.fixture(scope="module")
def redis():
	with RedisServer() as server:
		yield server


@pytest.fixture(scope="module")
def model_server():
	with ModelServer() as server:
		yield server


@pytest.fixture(scope="module")
def embedder():
	with Embeddings() as server:
		yield server


class Setup:
	"""A model API with the cache, and everything it depends on."""

	def __init__(self, gw, model, redis, store, embeddings):
		self.gw, self.model, self.redis, self.store, self.embeddings = gw, model, redis, store, embeddings
		self.service = ai_service(gw, embeddings.url, provider="dashscope", keys=[KEY])
		self.attachments = []

	def api(self, host=None, key=None, service=None, **more):
		api = llm_api(self.gw, ai_service(self.gw, self.model))
		api.config = semantic(self.redis, host or self.store.address, key or self.store.key, service or self.service, **more)
		api.attachment = self.gw.attach("AiCache", api.config, to=api)
		self.attachments.append(api.attachment)
		return api

	def change(self, api, **vector):
		api.config = {**api.config, "vectorConfig": {**api.config["vectorConfig"], **vector}}
		self.gw.change_policy(api.attachment, api.config)

	def ask(self, api, what, status="hit", **more):
		answer = chat(self.gw, api.base, what, **more)
		assert answer.status == 200, answer.body
		assert answer.header("X-Cache-Status") == status, (what, answer.headers)
		return answer

	def phase(self, api):
		return self.gw.ask("GET", api.attachment.path)["status"]

	def forget_exact(self):
		"""What is found from now on is found by its meaning."""
		self.redis("FLUSHALL")

	def rows(self, columns="question", table="ai_cache"):
		return self.store.run(f"SELECT {columns} FROM {table} ORDER BY created_at")


@pytest.fixture
def cache(gw, model_server, redis, store, embedder):
	model_server.clear()
	model_server.say("You can reset it on the login page.")
	embedder.clear()
	embedder.vectors = {FIRST: [1.0, 0.0], SIMILAR: at(0.92), OTHER: [0.0, 1.0]}
	redis("FLUSHALL")
	if store.run("SELECT to_regclass('ai_cache') IS NOT NULL") == [["t"]]:
		store.run("TRUNCATE ai_cache")
	made = Setup(gw, model_server, redis, store, embedder)
	yield made
	for attachment in made.attachments:
		gw.delete(attachment)


# ---- examples of the contract ----

def test_ex7_a_similar_question_hits_from_the_threshold_on(cache):
	api = cache.api(threshold=0.9)
	first = cache.ask(api, FIRST, "miss")
	similar = cache.ask(api, SIMILAR)
	assert similar.header("X-Cache-Similarity") == "0.9200"
	assert similar.json["choices"][0]["message"]["content"] == first.json["choices"][0]["message"]["content"]
	assert similar.json["usage"]["total_tokens"] == 0
	assert int(similar.header("Age")) >= 0
	assert len(cache.model.requests) == 1
	cache.ask(api, OTHER, "miss")
	strict = cache.api(threshold=0.95)
	cache.ask(strict, FIRST, "miss")
	cache.ask(strict, SIMILAR, "miss")
	with_system = [{"role": "system", "content": "Answer in French."}, {"role": "user", "content": SIMILAR}]
	cache.ask(api, with_system, "miss")


def test_ex8_the_last_question_alone_or_all_messages(cache):
	earlier = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hello!"}]
	last = cache.api(strategy="lastQuestion")
	cache.ask(last, FIRST, "miss")
	cache.ask(last, [*earlier, {"role": "user", "content": FIRST}])
	answer = cache.ask(last, [*earlier, {"role": "user", "content": SIMILAR}])
	assert answer.header("X-Cache-Similarity") == "0.9200"
	whole = cache.api(strategy="messages")
	cache.ask(whole, FIRST, "miss")
	cache.ask(whole, [*earlier, {"role": "user", "content": FIRST}], "miss")
	cache.ask(whole, [*earlier, {"role": "user", "content": SIMILAR}])


def test_all_questions_are_embedded_together(cache):
	api = cache.api(strategy="allQuestions")
	turns = [{"role": "user", "content": "one"}, {"role": "assistant", "content": "1"}, {"role": "user", "content": "two"}]
	cache.ask(api, turns, "miss")
	asked = cache.embeddings.texts()
	assert len(asked) == 1 and "one" in asked[0] and "two" in asked[0] and "1" not in asked[0]


# ---- hits ----

def test_a_stream_hits_what_was_kept_of_a_whole_answer(cache):
	api = cache.api()
	cache.ask(api, FIRST, "miss")
	got = stream(cache.gw, api.base, SIMILAR)
	assert got.header("X-Cache-Status") == "hit" and got.header("X-Cache-Similarity") == "0.9200"
	assert got.text == "You can reset it on the login page." and got.is_done


def test_a_similar_hit_becomes_an_exact_one(cache):
	api = cache.api()
	cache.ask(api, FIRST, "miss")
	cache.ask(api, SIMILAR)
	asked = len(cache.embeddings.asked)
	again = cache.ask(api, SIMILAR)
	assert again.header("X-Cache-Similarity") is None
	assert len(cache.embeddings.asked) == asked


def test_rows_outlive_the_gateway_and_redis(cache):
	api = cache.api()
	cache.ask(api, FIRST, "miss")
	wait_until(lambda: cache.rows() == [[FIRST]], PATIENCE_S, "the row")
	cache.forget_exact()
	cache.gw.restart()
	answer = cache.ask(api, SIMILAR)
	assert answer.header("X-Cache-Similarity") == "0.9200"


def test_the_nearest_of_several_is_given(cache):
	api = cache.api(threshold=0.5)
	cache.embeddings.vectors.update({"a": [1.0, 0.0, 0.0], "b": [0.0, 1.0, 0.0], "c": [0.0, 0.0, 1.0], "near b": [0.1, 1.0, 0.2]})
	for text in "abc":
		cache.model.say(f"answer to {text}")
		cache.ask(api, text, "miss")
	answer = cache.ask(api, "near b")
	assert answer.json["choices"][0]["message"]["content"] == "answer to b"
	wait_until(lambda: len(cache.rows()) == 3, PATIENCE_S, "three rows")
	cache.forget_exact()
	answer = cache.ask(api, "near b")
	assert answer.json["choices"][0]["message"]["content"] == "answer to b"


def test_other_apis_are_cached_by_meaning_too(cache):
	api = llm_api(cache.gw, ai_service(cache.gw, cache.model, provider="anthropic"), protocols=["Anthropic/v1"])
	cache.attachments.append(cache.gw.attach("AiCache", semantic(cache.redis, cache.store.address, cache.store.key, cache.service), to=api))
	assert anthropic(cache.gw, api.base, FIRST).header("X-Cache-Status") == "miss"
	answer = anthropic(cache.gw, api.base, SIMILAR)
	assert answer.header("X-Cache-Similarity") == "0.9200"
	assert answer.json["content"][0]["text"] == "You can reset it on the login page."


# ---- what never hits ----

def test_partitions_never_mix(cache):
	api, other = cache.api(), cache.api()
	cache.ask(api, FIRST, "miss")
	cache.ask(api, FIRST, "miss", model="gpt-4o")
	cache.ask(api, FIRST, "miss", temperature=0.5)
	cache.ask(api, FIRST, "miss", response_format={"type": "json_object"})
	cache.ask(other, FIRST, "miss")
	cache.ask(api, SIMILAR)


def test_an_expired_row_is_never_given(cache):
	api = cache.api(ttl=2)
	cache.ask(api, FIRST, "miss")
	wait_until(lambda: chat(cache.gw, api.base, SIMILAR).header("X-Cache-Status") == "miss", PATIENCE_S, "the end of the row")
	api = cache.api(ttl=300)
	cache.ask(api, FIRST, "miss")
	wait_until(lambda: len(cache.rows()) >= 1, PATIENCE_S, "the row")
	cache.store.run("UPDATE ai_cache SET expires_at = now() - interval '1 second'")
	cache.forget_exact()
	cache.ask(api, SIMILAR, "miss")


def test_expired_rows_are_purged(cache):
	api = cache.api()
	cache.ask(api, FIRST, "miss")
	wait_until(lambda: len(cache.rows()) == 1, PATIENCE_S, "the row")
	cache.store.run("UPDATE ai_cache SET expires_at = now() - interval '1 hour', id = 'old'")
	cache.gw.restart()                        # each worker purges with its first row, then once a minute
	cache.ask(api, OTHER, "miss")
	wait_until(lambda: cache.rows() == [[OTHER]], PATIENCE_S, "the purge")


def test_vectors_of_other_models_are_never_compared(cache):
	api = cache.api()
	cache.ask(api, FIRST, "miss")
	cache.ask(api, SIMILAR)
	wait_until(lambda: len(cache.rows()) == 1, PATIENCE_S, "the row")
	cache.forget_exact()
	api.config["embeddingConfig"]["modelName"] = "text-embedding-v4"
	cache.gw.change_policy(api.attachment, api.config)
	cache.ask(api, SIMILAR, "miss")
	assert cache.embeddings.asked[-1].body["model"] == "text-embedding-v4"


def test_vectors_of_other_dimensions_are_never_compared(cache):
	api = cache.api()
	cache.ask(api, FIRST, "miss")
	wait_until(lambda: len(cache.rows()) == 1, PATIENCE_S, "the row")
	cache.forget_exact()
	cache.embeddings.vectors[SIMILAR] = [0.92, 0.39, 0.0]
	cache.ask(api, SIMILAR, "miss")
	assert cache.phase(api)["phase"] == "Active"


def test_answers_that_are_not_kept_have_no_rows(cache):
	api = cache.api()
	cache.model.say("cut", finish="length")
	cache.ask(api, FIRST, "miss")
	cache.ask(api, SIMILAR, "miss")
	image = [{"role": "user", "content": [{"type": "text", "text": FIRST}, {"type": "image_url", "image_url": {"url": "data:,x"}}]}]
	asked = len(cache.embeddings.asked)
	cache.ask(api, image, "miss")
	assert len(cache.embeddings.asked) == asked


# ---- the store ----

def test_the_table_is_made_and_texts_are_kept_as_they_are(cache):
	cache.store.run('DROP TABLE IF EXISTS "ai_cache"; DROP SCHEMA IF EXISTS other CASCADE; CREATE SCHEMA other')
	question = "Robert'); DROP TABLE ai_cache;-- \"{}\\ \u4f60\u597d \U0001f600 $1 %s\nsecond line"
	cache.model.say("quotes ' \" \\ {1,2} \U0001f600 %s")
	api, nested = cache.api(), cache.api(table="other.Select")
	cache.ask(api, question, "miss")
	cache.ask(nested, question, "miss")
	for table in ("ai_cache", 'other."Select"'):
		wait_until(lambda table=table: cache.rows("count(*) OVER ()", table)[:1] == [["1"]], PATIENCE_S, "the row")
	assert "\n".join(row[0] for row in cache.rows()) == question
	assert cache.store.run("SELECT format_type(atttypid, NULL) FROM pg_attribute WHERE attrelid = 'ai_cache'::regclass AND "
		"attname = 'embedding'") == [["real[]"]]
	cache.forget_exact()
	answer = cache.ask(api, question)
	assert answer.json["choices"][0]["message"]["content"] == "quotes ' \" \\ {1,2} \U0001f600 %s"
	assert cache.rows("partition ~ '^[0-9a-f]{64}$', id ~ '^[0-9a-f]{64}$'") == [["t", "t"]]


def test_a_table_that_went_is_made_again(cache):
	api = cache.api()
	cache.ask(api, FIRST, "miss")
	wait_until(lambda: len(cache.rows()) == 1, PATIENCE_S, "the row")
	cache.store.run("DROP TABLE ai_cache")
	cache.forget_exact()
	cache.ask(api, FIRST, "miss")
	wait_until(lambda: len(cache.rows()) == 1, PATIENCE_S, "the row")
	assert cache.phase(api)["phase"] == "Active"


def test_a_table_of_another_kind_is_left_alone(cache):
	cache.store.run("CREATE TABLE IF NOT EXISTS people (name text); INSERT INTO people VALUES ('Ann')")
	api = cache.api(table="people")
	cache.ask(api, FIRST, "miss")
	wait_until(lambda: cache.phase(api)["phase"] == "Degraded", PATIENCE_S, "Degraded")
	assert "no column" in cache.phase(api)["lastError"]
	assert cache.store.run("SELECT * FROM people LIMIT 1") == [["Ann"]]


def has_ipv6():
	try:
		with socket.create_server(("::1", 0), family=socket.AF_INET6):
			return True
	except OSError:
		return False


@pytest.mark.parametrize("options", [{"method": "md5"}, {"tls": True}, {"method": "password"}], ids=["md5", "tls", "password"])
def test_servers_of_other_manners(cache, options):
	with Postgres(**options) as server:
		host = "[::1]" if has_ipv6() else "127.0.0.1"
		api = cache.api(host=f"postgres://{host}:{server.port}/cache", key=server.key)
		cache.ask(api, FIRST, "miss")
		cache.ask(api, SIMILAR)
		wait_until(lambda: server.run("SELECT to_regclass('ai_cache') IS NOT NULL") == [["t"]] and
			server.run("SELECT count(*) FROM ai_cache") == [["1"]], PATIENCE_S, "the row")
		cache.forget_exact()
		cache.ask(api, SIMILAR)
		if "tls" in options:
			assert server.run("SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name = 'sluice'") == \
				[["t"]]


# ---- embeddings ----

def test_what_the_apis_of_embeddings_are_asked(cache):
	api = cache.api()
	cache.ask(api, FIRST, "miss")
	asked = cache.embeddings.asked[-1]
	assert asked.path == DASHSCOPE_PATH and asked.headers["Authorization"] == f"Bearer {KEY}"
	assert asked.headers["Host"] == f"127.0.0.1:{cache.embeddings.port}"
	assert asked.body == {"model": "text-embedding-v2", "input": {"texts": [FIRST]}, "parameters": {"text_type": "query"}}
	azure = ai_service(cache.gw, f"{cache.embeddings.url}/base/?api-version=2024-06-01", provider="azure", keys=["azure-key"])
	api = cache.api(service=azure, type="azure", modelName="my model")
	cache.ask(api, FIRST, "miss")
	asked = cache.embeddings.asked[-1]
	assert asked.path == "/base/openai/deployments/my%20model/embeddings?api-version=2024-06-01"
	assert asked.headers["api-key"] == "azure-key" and "Authorization" not in asked.headers
	assert asked.body == {"input": FIRST}
	assert cache.ask(api, SIMILAR).header("X-Cache-Similarity") == "0.9200"


def test_a_new_key_of_the_service_is_used(cache):
	api = cache.api()
	cache.ask(api, FIRST, "miss")
	path = cache.service.path
	document = cache.gw.ask("GET", path)
	document["aiServiceConfig"]["apiKeys"] = ["sk-rotated"]
	cache.gw.ask("PUT", path, {name: document[name] for name in ("name", "gatewayId", "sourceType", "aiServiceConfig")})
	cache.ask(api, OTHER, "miss")
	assert cache.embeddings.asked[-1].headers["Authorization"] == "Bearer sk-rotated"


def test_secrets_are_nowhere_to_be_read(cache):
	api = cache.api()
	cache.ask(api, FIRST, "miss")
	cache.embeddings.broken = (500, {"message": KEY})
	cache.ask(api, OTHER, "miss")
	shown = json.dumps([cache.gw.ask("GET", path) for path in (api.attachment.path, api.attachment.policy.path, cache.service.path,
		"/api/v1/services?pageSize=100", "/api/v2/policies?pageSize=100")])
	for text in (shown, raw_get(cache.gw, "/metrics")[1], cache.gw.stderr()):
		assert KEY not in text and cache.store.password not in text and json.dumps(cache.store.password)[1:-1] not in text


@pytest.mark.parametrize("answer", [
	(500, {"message": "no"}), (401, {"code": "InvalidApiKey"}), (200, b"not JSON"), (200, {}), (200, {"output": {"embeddings": []}}),
	(200, {"output": {"embeddings": [{"embedding": []}]}}), (200, {"output": {"embeddings": [{"embedding": [0, 0]}]}}),
	(200, {"output": {"embeddings": [{"embedding": [1, "x"]}]}}), (200, b'{"output":{"embeddings":[{"embedding":[1e999,1]}]}}'),
	(200, {"output": {"embeddings": [{"embedding": [1] * 20000}]}}), (200, b"[" * 100000), (200, b" " * (3 << 20)),
], ids=["500", "401", "no-json", "empty", "none", "no-numbers", "zeros", "texts", "infinite", "many", "deep", "huge"])
def test_embeddings_that_are_none_are_misses(cache, answer):
	api = cache.api()
	cache.embeddings.broken = answer
	cache.ask(api, FIRST, "miss")
	wait_until(lambda: cache.phase(api)["phase"] == "Degraded", PATIENCE_S, "Degraded")
	assert "embedding" in cache.phase(api)["reason"]
	cache.embeddings.broken = None

	def works():
		cache.forget_exact()
		chat(cache.gw, api.base, FIRST)
		return cache.phase(api)["phase"] == "Active"
	wait_until(works, PATIENCE_S, "Active")


def test_a_service_that_hangs_costs_its_time_once(cache):
	api = cache.api(timeout=300)
	api.config["embeddingConfig"]["timeout"] = 300
	cache.gw.change_policy(api.attachment, api.config)
	cache.embeddings.delay = 20
	began = time.monotonic()
	answer = cache.ask(api, FIRST, "miss")
	assert 0.25 < time.monotonic() - began < 10
	assert record_of(cache.gw, answer)["status"] == 200
	asked = len(cache.embeddings.asked)
	cache.ask(api, OTHER, "miss")             # at once: it is left alone for a second
	assert len(cache.embeddings.asked) == asked


# ---- stores that are dead or hostile ----

def until_active(cache, api):
	def works():
		chat(cache.gw, api.base, f"ping {time.monotonic()}")
		return cache.phase(api)["phase"] == "Active"
	wait_until(works, PATIENCE_S, "Active")


def test_a_store_that_is_stopped_is_a_miss_and_comes_back(cache):
	with Postgres() as server:
		api = cache.api(host=server.address, key=server.key)
		cache.ask(api, FIRST, "miss")
		wait_until(lambda: server.run("SELECT to_regclass('ai_cache') IS NOT NULL") == [["t"]] and
			server.run("SELECT count(*) FROM ai_cache") == [["1"]], PATIENCE_S, "the row")
		server.halt()
		cache.forget_exact()
		cache.ask(api, SIMILAR, "miss")
		wait_until(lambda: cache.phase(api)["phase"] == "Degraded", PATIENCE_S, "Degraded")
		assert "vector store" in cache.phase(api)["reason"]
		wait_until(lambda: any(event["part"] == "vector" for event in cache.gw.events("cache.unavailable")), PATIENCE_S, "the log")
		server.start()
		server.wait()
		until_active(cache, api)
		cache.forget_exact()
		cache.ask(api, SIMILAR)


def test_a_wrong_password_is_a_miss_that_says_so(cache):
	api = cache.api(key="cache:wrong-password")
	cache.ask(api, FIRST, "miss")
	wait_until(lambda: cache.phase(api)["phase"] == "Degraded", PATIENCE_S, "Degraded")
	assert "password authentication failed" in cache.phase(api)["lastError"]
	assert "wrong-password" not in json.dumps(cache.phase(api))


@pytest.mark.parametrize("bytes_sent", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"N" + b"R\0\0\0\x08\0\0\0\0" + b"S\x7f\xff\xff\xff"],
	ids=["silent", "http", "endless"])
def test_a_server_that_is_no_postgres_is_a_miss_in_time(cache, bytes_sent):
	with socket.create_server(("127.0.0.1", 0)) as listener:
		api = cache.api(host=f"127.0.0.1:{listener.getsockname()[1]}/x", timeout=400)
		listener.settimeout(PATIENCE_S)
		began = time.monotonic()
		if bytes_sent:
			def serve():
				peer = listener.accept()[0]
				peer.sendall(bytes_sent)
				peer.recv(4096)
				time.sleep(1)
				peer.close()
			threading.Thread(target=serve, daemon=True).start()
		cache.ask(api, FIRST, "miss")
		assert time.monotonic() - began < 15
		wait_until(lambda: cache.phase(api)["phase"] == "Degraded", PATIENCE_S, "Degraded")


def test_many_at_once_share_few_connections(cache):
	api = cache.api()
	cache.ask(api, FIRST, "miss")
	connections = [cache.gw.connect() for _ in range(40)]
	try:
		for i, connection in enumerate(connections):
			body = json.dumps({"model": "gpt-4", "messages": [{"role": "user", "content": SIMILAR}], "seed": i})
			connection.start("POST", f"{api.base}/v1/chat/completions", {"Content-Type": "application/json"}, body.encode())
		assert {connection.read_response("POST").status for connection in connections} == {200}
	finally:
		for connection in connections:
			connection.close()
	wait_until(lambda: len(cache.rows()) == 41, PATIENCE_S, "the rows")
	used = int(cache.store.run("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'sluice'")[0][0])
	assert 1 <= used <= 4 * 8                 # of each worker


# ---- life ----

def test_a_client_that_leaves_meanwhile_leaves_nothing_behind(cache):
	api = cache.api()
	cache.embeddings.delay = 2
	for _ in range(10):
		connection = cache.gw.connect()
		body = json.dumps({"model": "gpt-4", "messages": [{"role": "user", "content": SIMILAR}]})
		connection.start("POST", f"{api.base}/v1/chat/completions", {"Content-Type": "application/json"}, body.encode())
		wait_until(lambda: cache.embeddings.asked, PATIENCE_S, "the embedding is asked for")
		connection.close()
	cache.embeddings.delay = 0
	wait_until(lambda: chat(cache.gw, api.base, FIRST).header("X-Cache-Status") in ("miss", "hit"), PATIENCE_S, "an answer")
	assert len(cache.model.requests) <= 11


def test_what_is_being_kept_outlives_its_policy(cache):
	"""The embedding is made after the answer: `no-cache` asks for none before."""
	api = cache.api()
	cache.embeddings.delay = 1
	answer = chat(cache.gw, api.base, FIRST, headers={"Cache-Control": "no-cache"})
	assert answer.status == 200
	wait_until(lambda: cache.embeddings.asked, PATIENCE_S, "the embedding is asked for")
	cache.gw.delete(cache.attachments.pop())
	wait_until(lambda: cache.rows() == [[FIRST]], PATIENCE_S, "the row")


def test_a_gateway_stops_while_something_is_being_kept(cache):
	api = cache.api()
	cache.embeddings.delay = 3
	chat(cache.gw, api.base, FIRST, headers={"Cache-Control": "no-cache"})
	wait_until(lambda: cache.embeddings.asked, PATIENCE_S, "the embedding is asked for")
	cache.gw.restart()                        # judged: nothing leaks
	cache.embeddings.delay = 0
	cache.ask(api, OTHER, "miss")


def test_other_routes_do_not_wait_for_a_store_that_hangs(cache, backend):
	with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
		api = cache.api(host=f"127.0.0.1:{listener.getsockname()[1]}", timeout=8000)
		cache.gw.route("/plain", backend.addresses[:1])
		connections = [cache.gw.connect() for _ in range(20)]
		try:
			for i, connection in enumerate(connections):
				body = json.dumps({"model": "gpt-4", "messages": [{"role": "user", "content": FIRST}], "seed": i})
				connection.start("POST", f"{api.base}/v1/chat/completions", {"Content-Type": "application/json"}, body.encode())
			wait_until(lambda: len(cache.embeddings.asked) >= 20, PATIENCE_S, "all wait")
			began = time.monotonic()
			for _ in range(20):
				assert cache.gw.get("/plain").status == 200
			assert time.monotonic() - began < 6
		finally:
			for connection in connections:
				connection.close()


def test_consumers_do_not_share(cache):
	api = cache.api()
	one, two = (consumer(cache.gw, apiKey=keys(f"semantic-key-{name}")) for name in ("one", "two"))
	for who in (one, two):
		allow(cache.gw, who, api)
	attached = cache.gw.attach("Authentication", {"authenticationType": "key-auth", "enable": True}, to=api)
	cache.attachments.append(attached)
	as_one, as_two = bearer("semantic-key-one"), bearer("semantic-key-two")
	cache.ask(api, FIRST, "miss", headers=as_one)
	cache.ask(api, SIMILAR, "miss", headers=as_two)
	cache.ask(api, SIMILAR, headers=as_one)


# ---- DashVector ----

def test_dashvector_keeps_and_finds(cache):
	with DashVector() as vectors:
		api = cache.api(host=f"{vectors.url}/", key="dash-secret", table="my-collection")
		cache.ask(api, FIRST, "miss")
		wait_until(lambda: len(vectors.docs) == 1, PATIENCE_S, "the document")
		answer = cache.ask(api, SIMILAR)
		assert answer.header("X-Cache-Similarity") == "0.9200"
		assert [asked.path for asked in vectors.asked][0] == "/v1/collections/my-collection/query"
		assert {asked.headers["dashvector-auth-token"] for asked in vectors.asked} == {"dash-secret"}
		assert vectors.docs[0]["fields"]["query"] == FIRST
		cache.forget_exact()
		answer = cache.ask(api, SIMILAR)      # by the vector that comes back, whichever way its score points
		assert answer.header("X-Cache-Similarity") == "0.9200"
		cache.ask(api, SIMILAR, "miss", temperature=0.1)
		vectors.ignores_filter = True
		cache.ask(api, FIRST, "miss", temperature=0.2)
		vectors.docs[:] = vectors.docs[:1]
		vectors.docs[0]["fields"]["expires_at"] = 1
		cache.forget_exact()
		cache.ask(api, SIMILAR, "miss")


@pytest.mark.parametrize("answer", [(500, {}), (200, {"code": -2021, "message": "no collection"}), (200, b"[]")], ids=["500", "code", "list"])
def test_dashvector_that_fails_is_a_miss(cache, answer):
	with DashVector() as vectors:
		vectors.broken = answer
		api = cache.api(host=vectors.url, key="k", table="c")
		cache.ask(api, FIRST, "miss")
		wait_until(lambda: cache.phase(api)["phase"] == "Degraded", PATIENCE_S, "Degraded")
		vectors.broken = 200, {"code": 0}
		until_active(cache, api)
		cache.forget_exact()
		cache.ask(api, FIRST, "miss")
