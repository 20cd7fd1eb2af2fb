"""AiCache with every API: what is kept of it, and that what is given again is what its clients read."""
import pytest

from ai_kit import (ANTHROPIC, DASHSCOPE, agent_api, agent_service, ai_log, ai_service, anthropic, client, completion, embeddings,
	generation, llm_api, post, responses, stream_of)
from cache_kit import cache_config, cached, status_of, text_of
from gw import Gateway
from model_server import ModelServer
from redis_kit import RedisServer

TEXT = "A text with \"quotes\",\nlines, emoji \U0001f600 and %s in it."


@pytest.fixture(scope="module")
def gw():
	with Gateway() as gateway:
		yield gateway


@pytest.fixture(scope="module")
def redis():
	with RedisServer() as server:
		yield server


def check_twice(one, ask):
	"""The second answer is a hit; both are returned."""
	first, again = ask(), ask()
	assert (first.status, status_of(first)) == (200, "miss"), first.body
	assert (again.status, status_of(again)) == (200, "hit"), again.body
	assert int(again.header("Age")) >= 0 and one.model.hits == 1
	return first, again


def test_completions(gw, redis):
	with cached(gw, redis) as one:
		one.model.say(TEXT)
		first, again = check_twice(one, lambda: completion(gw, one.base, "Say"))
		assert again.json["choices"][0]["text"] == first.json["choices"][0]["text"] == TEXT
		assert again.json["object"] == "text_completion" and again.json["usage"]["total_tokens"] == 0
		events = stream_of(gw, f"{one.base}/v1/completions", {"model": "gpt-3.5-turbo-instruct", "prompt": "Say", "stream": True})
		assert status_of(events) == "hit" and events.text == TEXT and events.is_done


def test_completions_of_several_prompts_are_not_kept(gw, redis):
	with cached(gw, redis) as one:
		for _ in range(2):
			assert status_of(completion(gw, one.base, ["a", "b"])) == "miss"
		assert one.keys() == []


def test_responses(gw, redis):
	with cached(gw, redis) as one:
		one.model.say(TEXT)
		first, again = check_twice(one, lambda: responses(gw, one.base, "Say", instructions="Be kind."))
		assert again.json["output"][0]["content"][0]["text"] == first.json["output"][0]["content"][0]["text"] == TEXT
		assert again.json["status"] == "completed" and again.json["usage"]["total_tokens"] == 0
		assert status_of(responses(gw, one.base, "Say", instructions="Be rude.")) == "miss"
		body = {"model": "gpt-4", "input": "Say", "instructions": "Be kind.", "stream": True}
		events = stream_of(gw, f"{one.base}/v1/responses", body)
		assert status_of(events) == "hit" and events.text == TEXT
		assert events.docs[0]["type"] == "response.created" and events.docs[-1]["type"] == "response.completed"
		assert [doc["sequence_number"] for doc in events.docs] == list(range(len(events.docs)))
		assert events.docs[-1]["response"]["output"][0]["content"][0]["text"] == TEXT


@pytest.mark.parametrize("state", [{"store": True}, {"previous_response_id": "resp_1"}, {"background": True}, {"conversation": "c"}],
	ids=lambda state: next(iter(state)))
def test_responses_that_are_remembered_are_not_cached(gw, redis, state):
	with cached(gw, redis) as one:
		for _ in range(2):
			assert status_of(responses(gw, one.base, "Say", **state)) == "skip"
		assert one.model.hits == 2 and one.keys() == []


def test_responses_as_a_list_of_items(gw, redis):
	def items(said):
		return [{"role": "user", "content": [{"type": "input_text", "text": "A"}]}, {"role": "assistant", "content": said},
			{"role": "user", "content": [{"type": "input_text", "text": "B"}]}]

	with cached(gw, redis, cacheKeyStrategy="allQuestions") as one:
		assert status_of(responses(gw, one.base, items("one"))) == "miss"
		assert status_of(responses(gw, one.base, items("two"))) == "hit"


def test_messages(gw, redis):
	with cached(gw, redis, provider="anthropic", protocol=ANTHROPIC) as one:
		one.model.say(TEXT)
		first, again = check_twice(one, lambda: anthropic(gw, one.base, "Say", system="Be kind."))
		assert again.json["content"] == [{"type": "text", "text": TEXT}] and first.json["content"][0]["text"] == TEXT
		assert again.json["stop_reason"] == "end_turn" and again.json["usage"] == {"input_tokens": 0, "output_tokens": 0}
		assert status_of(anthropic(gw, one.base, "Say", system="Be rude.")) == "miss"
		body = {"model": "claude-3", "max_tokens": 100, "messages": [{"role": "user", "content": "Say"}], "system": "Be kind."}
		events = stream_of(gw, f"{one.base}/v1/messages", {**body, "stream": True})
		assert status_of(events) == "hit" and events.text == TEXT
		assert [event.name for event in events.events][0] == "message_start" and events.events[-1].name == "message_stop"


def test_a_stream_of_messages_is_kept(gw, redis):
	with cached(gw, redis, provider="anthropic", protocol=ANTHROPIC) as one:
		one.model.say(TEXT, reasoning="Hm.")
		body = {"model": "claude-3", "max_tokens": 100, "messages": [{"role": "user", "content": "Say"}]}
		assert stream_of(gw, f"{one.base}/v1/messages", {**body, "stream": True}).text == TEXT
		again = anthropic(gw, one.base, "Say")
		assert status_of(again) == "hit" and again.json["content"] == [{"type": "text", "text": TEXT}]


def test_tool_use_is_not_kept(gw, redis):
	with cached(gw, redis, provider="anthropic", protocol=ANTHROPIC) as one:
		one.model.say("I look.", tools=({"id": "t-1", "name": "f", "arguments": "{}"},))
		for _ in range(2):
			assert status_of(anthropic(gw, one.base, "Say")) == "miss"
		assert one.keys() == []


def test_generation(gw, redis):
	with cached(gw, redis, provider="dashscope", protocol=DASHSCOPE) as one:
		one.model.say(TEXT)
		first, again = check_twice(one, lambda: generation(gw, one.base, "Say"))
		assert again.json["output"]["choices"][0]["message"]["content"] == first.json["output"]["choices"][0]["message"]["content"] == TEXT
		assert again.json["usage"]["total_tokens"] == 0
		body = {"model": "qwen-max", "input": {"messages": [{"role": "user", "content": "Say"}]},
			"parameters": {"result_format": "message", "incremental_output": True}}
		events = stream_of(gw, f"{one.base}/api/v1/services/aigc/text-generation/generation", body, {"X-DashScope-SSE": "enable"})
		assert status_of(events) == "hit" and events.text == TEXT and events.docs[-1]["output"]["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize("incremental", [True, False])
def test_a_stream_of_generation_is_kept(gw, redis, incremental):
	with cached(gw, redis, provider="dashscope", protocol=DASHSCOPE) as one:
		one.model.say(TEXT)
		body = {"model": "qwen-max", "input": {"messages": [{"role": "user", "content": "Say"}]},
			"parameters": {"result_format": "message", "incremental_output": incremental}}
		events = stream_of(gw, f"{one.base}/api/v1/services/aigc/text-generation/generation", body, {"X-DashScope-SSE": "enable"})
		assert status_of(events) == "miss"
		again = generation(gw, one.base, "Say")
		assert status_of(again) == "hit" and again.json["output"]["choices"][0]["message"]["content"] == TEXT


def test_embeddings(gw, redis):
	with cached(gw, redis) as one:
		first, again = check_twice(one, lambda: embeddings(gw, one.base, ["a text", "b"]))
		assert again.json["data"] == first.json["data"]
		assert first.json["usage"]["total_tokens"] > 0 and again.json["usage"] == {"prompt_tokens": 0, "total_tokens": 0}
		assert status_of(embeddings(gw, one.base, ["b", "a text"])) == "miss"
		assert status_of(embeddings(gw, one.base, ["a text", "b"], encoding_format="base64")) == "miss"
		assert status_of(embeddings(gw, one.base, [1, 2, 3])) == "miss" and status_of(embeddings(gw, one.base, [1, 2, 3])) == "hit"


@pytest.mark.parametrize("strategy", ["lastQuestion", "allQuestions"])
def test_embeddings_are_their_whole_input_whatever_the_strategy(gw, redis, strategy):
	with cached(gw, redis, cacheKeyStrategy=strategy) as one:
		check_twice(one, lambda: embeddings(gw, one.base, "a text"))
		assert status_of(embeddings(gw, one.base, "another")) == "miss"


def test_converted_answers_are_kept_as_the_client_got_them(gw, redis):
	"""An Anthropic client in front of a model that speaks OpenAI."""
	with cached(gw, redis, protocol="OpenAI/v1") as one:
		one.model.say(TEXT)
		service = ai_service(gw, one.model)
		api = llm_api(gw, service, protocols=(ANTHROPIC, "OpenAI/v1"))
		gw.attach("AiCache", cache_config(redis), to=api)
		first, again = check_twice(one, lambda: anthropic(gw, api.base, "Say"))
		assert one.model.last.path.endswith("/chat/completions")
		assert again.json["content"][0]["text"] == first.json["content"][0]["text"] == TEXT
		assert again.json["type"] == "message"


def test_reasoning_is_given_again(gw, redis):
	with cached(gw, redis) as one:
		one.model.say("Four.", reasoning="Two and two.")
		one.chat("2+2?")
		again = one.chat("2+2?")
		assert again.json["choices"][0]["message"]["reasoning_content"] == "Two and two."
		assert text_of(again) == "Four."


# ---------- agents ----------

def app(gw, api, **more):
	return post(gw, f"{api.base}/api/v1/apps/app-1/completion", {"input": {"prompt": "Say", **more}})


def test_apps_without_a_session(gw, redis):
	with ModelServer() as model:
		config = {"appCredentials": [{"appId": "app-1", "apiKey": "k"}, {"appId": "app-2", "apiKey": "k"}]}
		api = agent_api(gw, agent_service(gw, model, dashScopeConfig=config), "DashScope")
		gw.attach("AiCache", cache_config(redis), to=api)
		model.say(TEXT)
		assert status_of(app(gw, api)) == "miss"
		again = app(gw, api)
		assert status_of(again) == "hit" and again.json["output"]["text"] == TEXT and "session_id" not in again.json["output"]
		for _ in range(2):
			assert status_of(app(gw, api, session_id="s-1")) == "skip"
		other = post(gw, f"{api.base}/api/v1/apps/app-2/completion", {"input": {"prompt": "Say"}})
		assert status_of(other) == "miss"


def test_dify_without_a_conversation(gw, redis):
	with ModelServer() as model:
		api = agent_api(gw, agent_service(gw, model, difyConfig={"apiKey": "app-dify"}), "Dify")
		gw.attach("AiCache", cache_config(redis), to=api)
		model.say(TEXT)

		def ask(**more):
			return post(gw, f"{api.base}/v1/chat-messages", {"inputs": {}, "query": "Say", "user": "u", "response_mode": "blocking", **more})

		assert status_of(ask()) == "miss"
		again = ask(conversation_id="")
		assert status_of(again) in ("hit", "miss")
		again = ask()
		assert status_of(again) == "hit" and again.json["answer"] == TEXT and again.json["conversation_id"] == ""
		assert status_of(ask(conversation_id="c-1")) == "skip"
		assert status_of(ask(inputs={"a": 1})) == "miss"
		body = {"inputs": {}, "query": "Say", "user": "u", "response_mode": "streaming"}
		events = stream_of(gw, f"{api.base}/v1/chat-messages", body)
		assert status_of(events) == "hit" and events.text == TEXT and events.docs[-1]["event"] == "message_end"


def test_workflows_and_other_paths_have_no_status(gw, redis):
	with cached(gw, redis) as one:
		assert status_of(post(gw, f"{one.base}/v1/images/generations", {"model": "m", "prompt": "p"})) is None
		assert status_of(gw.get(f"{one.base}/v1/models")) is None


# ---------- clients of other makers read what is given again ----------

CHAT = {"model": "gpt-4", "messages": [{"role": "user", "content": "Say"}]}
CALLS = [("openai", "chat", CHAT), ("openai", "completions", {"model": "m", "prompt": "Say"}),
	("openai", "responses", {"model": "m", "input": "Say"}), ("ai", "text", CHAT), ("ai", "responses", CHAT)]


@pytest.mark.parametrize("name, call, body", CALLS, ids=[f"{name}-{call}" for name, call, _ in CALLS])
def test_clients_read_hits(gw, redis, name, call, body):
	with cached(gw, redis) as one:
		one.model.say(TEXT)
		base = f"{one.base}/v1"
		first = client(name, base, gw.port, call=call, body=body)
		assert first["headers"]["x-cache-status"] == "miss", first
		again = client(name, base, gw.port, call=call, body=body)
		assert again["headers"]["x-cache-status"] == "hit" and again["text"] == TEXT, again
		events = client(name, base, gw.port, call=call, body=body, stream=True)
		assert events["text"] == TEXT and events["headers"]["x-cache-status"] == "hit", events
		assert events["finish"] == again["finish"] in ("stop", "completed")


def test_the_strict_helper_reads_hits(gw, redis):
	with cached(gw, redis) as one:
		one.model.say(TEXT)
		for _ in range(2):
			assert client("openai", f"{one.base}/v1", gw.port, call="helper", body=CHAT)["text"] == TEXT
		assert one.model.hits == 1


@pytest.mark.parametrize("name", ["anthropic", "ai-anthropic"])
def test_anthropic_clients_read_hits(gw, redis, name):
	with cached(gw, redis, provider="anthropic", protocol=ANTHROPIC) as one:
		one.model.say(TEXT)
		base = one.base + ("/v1" if name == "ai-anthropic" else "")
		for stream in (False, True, False, True):
			found = client(name, base, gw.port, call="messages", body={"model": "claude-3", "messages": CHAT["messages"]}, stream=stream)
			assert found["text"] == TEXT, found
		assert one.model.hits == (1 if name == "anthropic" else one.model.hits)
		assert one.outcomes()["hit"] >= 2
