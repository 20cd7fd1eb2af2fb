"""AiCache, semantic mode, with pgvector: the type `vector` is used where the server has it."""
import pytest

from ai_kit import ModelServer, ai_service, chat, llm_api
from postgres_kit import Pglite
from redis_kit import RedisServer
from semantic_kit import Embeddings, at, semantic
from wire import wait_until

PATIENCE_S = 60


@pytest.fixture(scope="module")
def store():
	with Pglite() as server:
		yield server


def test_rows_are_vectors_and_the_nearest_is_found(gw, store):
	with ModelServer() as model, RedisServer() as redis, Embeddings() as embeddings:
		embeddings.vectors = {"one": [1.0, 0.0], "like one": at(0.92), "other": [0.0, 1.0]}
		model.say("One.")
		service = ai_service(gw, embeddings.url, provider="dashscope", keys=["k"])
		api = llm_api(gw, ai_service(gw, model))
		config = semantic(redis, store.address, store.key, service, timeout=30000)
		attachment = gw.attach("AiCache", config, to=api)

		def ask(what):
			answer = chat(gw, api.base, what)
			assert answer.status == 200
			return answer.header("X-Cache-Status"), answer.header("X-Cache-Similarity")
		assert ask("one") == ("miss", None)
		wait_until(lambda: store.run("SELECT to_regclass('ai_cache') IS NOT NULL") == [["t"]] and
			store.run("SELECT count(*) FROM ai_cache") == [["1"]], PATIENCE_S, "the row")
		assert store.run("SELECT format_type(atttypid, NULL) FROM pg_attribute WHERE attrelid = 'ai_cache'::regclass AND "
			"attname = 'embedding'") == [["vector"]]
		redis("FLUSHALL")
		assert ask("like one") == ("hit", "0.9200")
		assert ask("other") == ("miss", None)
		# Another number of dimensions in the same table is another partition.
		embeddings.vectors["like one"] = [0.9, 0.4, 0.1]
		redis("FLUSHALL")
		assert ask("like one") == ("miss", None)
		store.run("UPDATE ai_cache SET expires_at = now() - interval '1 second'")
		embeddings.vectors["like one"] = at(0.92)
		redis("FLUSHALL")
		wait_until(lambda: gw.ask("GET", attachment.path)["status"]["phase"] == "Active", PATIENCE_S, "Active")
		assert ask("like one") == ("miss", None)
