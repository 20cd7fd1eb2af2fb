"""Clients of one API before models behind another: official clients read what comes out, the model reads what goes in."""
import json

import ai_kit
import model_shapes
import pytest
from ai_kit import ANTHROPIC, DASHSCOPE, OPENAI, Event, ModelServer, Usage, ai_log, ai_service, chat, llm_api, stream, stream_of

TOOLS = ({"id": "call_1", "name": "get_weather", "arguments": '{"city":"Zürich","days":[1,2]}'},
	{"id": "call_2", "name": "get_time", "arguments": "{}"})
OPENAI_TOOLS = [{"type": "function", "function": {"name": name, "description": name, "parameters": {"type": "object", "properties": {}}}}
	for name in ("get_weather", "get_time")]
ANTHROPIC_TOOLS = [{"name": name, "description": name, "input_schema": {"type": "object", "properties": {}}} for name in ("get_weather", "get_time")]
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
BOTH = {"whole": {}, "stream": {"stream": True}}
styles = pytest.mark.parametrize("style", BOTH)


@pytest.fixture
def model():
	with ModelServer() as server:
		yield server


@pytest.fixture
def port(gw):
	return gw.default.port


def api_for(gw, model, provider, protocols=None):
	"""A model API whose clients speak all, before a service that speaks one."""
	return llm_api(gw, ai_service(gw, model, provider=provider, protocols=protocols), protocols=(OPENAI, ANTHROPIC))


def openai(api, port, messages="Hello", style="whole", call="chat", **body):
	listed = ai_kit.messages(messages) if isinstance(messages, str) else messages
	return ai_kit.client("openai", f"{api.base}/v1", port, call=call, body={"model": "m", "messages": listed, **body}, **BOTH[style])


def claude(api, port, messages="Hello", style="whole", **body):
	listed = ai_kit.messages(messages) if isinstance(messages, str) else messages
	return ai_kit.client("anthropic", api.base, port, body={"model": "m", "messages": listed, **body}, **BOTH[style])


def arguments(tool):
	return {**tool, "arguments": json.loads(tool["arguments"])}


# ---- an Anthropic client, a model that speaks OpenAI's API ----

@styles
def test_anthropic_client_reads_text(gw, model, port, style):
	model.say("Grüezi 你好 😀!", reasoning="Let me think.", usage=Usage(10, 5, cached=4))
	found = claude(api_for(gw, model, "openai"), port, style=style, system="Be kind.", temperature=0.5, stop_sequences=["END"])
	assert "error" not in found, found
	assert found["text"] == "Grüezi 你好 😀!" and found["reasoning"] == "Let me think."
	assert found["finish"] == "end_turn"
	assert (found["usage"]["input_tokens"], found["usage"]["cache_read_input_tokens"], found["usage"]["output_tokens"]) == (6, 4, 5)
	asked = model.last
	assert asked.path == "/v1/chat/completions"
	assert asked.header("Authorization") == "Bearer sk-upstream" and asked.header("x-api-key") is None
	assert asked.body["messages"] == [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hello"}]
	assert (asked.body["max_tokens"], asked.body["temperature"], asked.body["stop"]) == (100, 0.5, ["END"])
	assert asked.body.get("stream_options") == ({"include_usage": True} if style == "stream" else None)


@styles
def test_anthropic_client_calls_tools(gw, model, port, style):
	model.say("I look.", tools=TOOLS)
	api = api_for(gw, model, "openai")
	found = claude(api, port, style=style, tools=ANTHROPIC_TOOLS, tool_choice={"type": "any", "disable_parallel_tool_use": True})
	assert "error" not in found, found
	assert found["text"] == "I look." and found["finish"] == "tool_use"
	assert list(map(arguments, found["tools"])) == list(map(arguments, TOOLS))
	assert model.last.body["tool_choice"] == "required" and model.last.body["parallel_tool_calls"] is False
	assert [one["function"]["name"] for one in model.last.body["tools"]] == ["get_weather", "get_time"]
	# The conversation goes on with what the client read.
	said = [{"type": "text", "text": found["text"]}] + [{"type": "tool_use", "id": one["id"], "name": one["name"],
		"input": json.loads(one["arguments"])} for one in found["tools"]]
	results = [{"type": "tool_result", "tool_use_id": one["id"], "content": f"result of {one['name']}"} for one in found["tools"]]
	model.say("Warm.")
	found = claude(api, port, [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": said},
		{"role": "user", "content": results}], style=style, tools=ANTHROPIC_TOOLS)
	assert found["text"] == "Warm."
	messages = model.last.body["messages"]
	assert [one["role"] for one in messages] == ["user", "assistant", "tool", "tool"]
	assert [(one["id"], json.loads(one["function"]["arguments"])) for one in messages[1]["tool_calls"]] == \
		[(one["id"], json.loads(one["arguments"])) for one in TOOLS]
	assert [(one["tool_call_id"], one["content"]) for one in messages[2:]] == \
		[("call_1", "result of get_weather"), ("call_2", "result of get_time")]


def test_anthropic_client_reads_mixed_calls(gw, model, port):
	"""Pieces of two calls in turn: the client gets one block after the other."""
	def piece(index, part, **first):
		call = {"index": index, "function": {"arguments": part, **({"name": first["name"]} if first else {})}, **({"id": first["id"]} if first else {})}
		return Event({"id": "c", "object": "chat.completion.chunk", "model": "m", "choices": [{"index": 0, "delta": {"tool_calls": [call]},
			"finish_reason": None}]})

	live = model.live()
	api = api_for(gw, model, "openai")
	events = [piece(0, '{"a":', id="x", name="f"), piece(1, '{"b":"', id="y", name="g"), piece(0, '"}{"'), piece(1, '2"'), piece(0, "}"), piece(1, "}"),
		Event({"id": "c", "model": "m", "choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]}), Event("[DONE]")]

	def send():
		live.head()
		for event in events:
			live.event(event)
		live.end()

	_, found = ai_kit.at_once(send, lambda: claude(api, port, style="stream"))
	assert "error" not in found, found
	assert found["tools"] == [{"id": "x", "name": "f", "arguments": '{"a":"}{"}'}, {"id": "y", "name": "g", "arguments": '{"b":"2"}'}]
	assert found["finish"] == "tool_use"


def test_anthropic_client_sends_images(gw, model, port):
	source = {"type": "base64", "media_type": "image/png", "data": PIXEL}
	found = claude(api_for(gw, model, "openai"), port, [{"role": "user", "content": [{"type": "text", "text": "What is it?"},
		{"type": "image", "source": source}, {"type": "image", "source": {"type": "url", "url": "https://images.test/1.png"}}]}])
	assert "error" not in found, found
	assert model.last.body["messages"][0]["content"] == [{"type": "text", "text": "What is it?"},
		{"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}},
		{"type": "image_url", "image_url": {"url": "https://images.test/1.png"}}]


@styles
def test_anthropic_client_reads_errors(gw, model, port, style):
	model.fail(429)
	found = claude(api_for(gw, model, "openai"), port, style=style)
	assert found["error"]["class"] == "RateLimitError" and found["error"]["status"] == 429
	assert found["error"]["body"]["error"]["type"] == "rate_limit_error"


def test_anthropic_client_reads_errors_in_streams(gw, model, port):
	model.manner(error_after=2)
	found = claude(api_for(gw, model, "openai"), port, style="stream")
	assert "the model says no" in found["error"]["message"]


def test_anthropic_client_sees_that_streams_are_cut(gw, model):
	model.say("one two three four")
	model.manner(cut_after=3)
	api = api_for(gw, model, "openai")
	read = stream_of(gw, f"{api.base}/v1/messages", {"model": "m", "max_tokens": 9, "stream": True, "messages": ai_kit.messages("Hello")})
	assert read.events[0].name == "message_start"
	assert not {"message_delta", "message_stop"} & {event.name for event in read.events}


def test_refused_members_name_themselves(gw, model, port):
	found = claude(api_for(gw, model, "openai"), port, tools=[{"type": "web_search_20250305", "name": "web_search"}])
	assert found["error"]["status"] == 400 and found["error"]["body"]["error"]["type"] == "invalid_request_error"
	assert "tools[0].type" in found["error"]["message"]
	assert model.hits == 0


# ---- an OpenAI client, a model that speaks Anthropic's API ----

@styles
def test_openai_client_reads_text(gw, model, port, style):
	model.say("Grüezi 你好 😀!", reasoning="Let me think.", usage=Usage(10, 5, cached=100))
	found = openai(api_for(gw, model, "anthropic"), port, [{"role": "developer", "content": "Be kind."}, {"role": "user", "content": "Hello"}],
		style, temperature=0.5, stop="END", user="u-1", **({"stream_options": {"include_usage": True}} if style == "stream" else {}))
	assert "error" not in found, found
	assert found["text"] == "Grüezi 你好 😀!" and found["reasoning"] == "Let me think."
	assert found["finish"] == "stop"
	usage = found["usage"]
	assert (usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]) == (110, 5, 115)
	assert usage["prompt_tokens_details"]["cached_tokens"] == 100
	asked = model.last
	assert asked.path == "/v1/messages"
	assert asked.header("x-api-key") == "sk-upstream" and asked.header("Authorization") is None
	assert asked.header("anthropic-version")
	assert asked.body["system"] == [{"type": "text", "text": "Be kind."}]
	assert asked.body["messages"] == [{"role": "user", "content": [{"type": "text", "text": "Hello"}]}]
	assert (asked.body["max_tokens"], asked.body["temperature"], asked.body["stop_sequences"]) == (8192, 0.5, ["END"])
	assert asked.body["metadata"] == {"user_id": "u-1"} and "stream_options" not in asked.body


@styles
@pytest.mark.parametrize("call", ["chat", "helper"])
def test_openai_client_calls_tools(gw, model, port, style, call):
	"""helper: the client's own assembly of streams."""
	model.say("I look.", tools=TOOLS)
	api = api_for(gw, model, "anthropic")
	found = openai(api, port, style=style, call=call, tools=OPENAI_TOOLS, tool_choice="required", parallel_tool_calls=False)
	assert "error" not in found, found
	assert found["text"] == "I look." and found["finish"] == "tool_calls"
	assert list(map(arguments, found["tools"])) == list(map(arguments, TOOLS))
	assert model.last.body["tool_choice"] == {"type": "any", "disable_parallel_tool_use": True}
	calls = [{"id": one["id"], "type": "function", "function": {"name": one["name"], "arguments": one["arguments"]}} for one in found["tools"]]
	results = [{"role": "tool", "tool_call_id": one["id"], "content": f"result of {one['name']}"} for one in found["tools"]]
	model.say("Warm.")
	found = openai(api, port, [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": found["text"], "tool_calls": calls}, *results],
		style, call, tools=OPENAI_TOOLS)
	assert found["text"] == "Warm."
	messages = model.last.body["messages"]
	assert [one["role"] for one in messages] == ["user", "assistant", "user"]
	assert messages[1]["content"] == [{"type": "text", "text": "I look."}] + [{"type": "tool_use", "id": one["id"], "name": one["name"],
		"input": json.loads(one["arguments"])} for one in TOOLS]
	assert messages[2]["content"] == [{"type": "tool_result", "tool_use_id": one["id"], "content": f"result of {one['name']}"} for one in TOOLS]


def test_openai_client_sees_usage_only_if_it_asks(gw, model, port):
	found = openai(api_for(gw, model, "anthropic"), port, style="stream")
	assert found["emptyChoices"] == 0 and "usage" not in found


def test_openai_client_sends_images(gw, model, port):
	found = openai(api_for(gw, model, "anthropic"), port, [{"role": "user", "content": [{"type": "text", "text": "What is it?"},
		{"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}},
		{"type": "image_url", "image_url": {"url": "https://images.test/1.png"}}]}])
	assert "error" not in found, found
	assert model.last.body["messages"][0]["content"] == [{"type": "text", "text": "What is it?"},
		{"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}},
		{"type": "image", "source": {"type": "url", "url": "https://images.test/1.png"}}]


@styles
def test_openai_client_reads_errors(gw, model, port, style):
	model.fail(401)
	found = openai(api_for(gw, model, "anthropic"), port, style=style)
	assert found["error"]["class"] == "AuthenticationError" and found["error"]["status"] == 401
	assert found["error"]["code"] == "invalid_api_key"


def test_openai_client_reads_errors_in_streams(gw, model, port):
	model.manner(error_after=3)
	found = openai(api_for(gw, model, "anthropic"), port, style="stream")
	assert "the model says no" in found["error"]["message"]


def test_openai_client_sees_that_streams_are_cut(gw, model):
	model.say("one two three four")
	model.manner(cut_after=4)
	read = stream(gw, api_for(gw, model, "anthropic").base, "Hello")
	assert read.text.startswith("one") and not read.is_done
	assert all(not choice["finish_reason"] for doc in read.docs for choice in doc["choices"])


@pytest.mark.parametrize("member", [{"n": 2}, {"logprobs": True}, {"response_format": {"type": "json_object"}}])
def test_openai_members_without_counterpart(gw, model, port, member):
	found = openai(api_for(gw, model, "anthropic"), port, **member)
	assert found["error"]["class"] == "BadRequestError" and found["error"]["body"]["type"] == "invalid_request_error"
	assert next(iter(member)) in found["error"]["message"]
	assert model.hits == 0


@pytest.mark.parametrize("body", [b"", b"<html>no</html>", b"[]", b'{"type":"message"}', b'{"type":"message","content":7}'])
def test_answers_that_are_none(gw, model, body):
	model.answer(body)
	answer = chat(gw, api_for(gw, model, "anthropic").base, "Hello")
	assert answer.status == 502 and answer.json["error"]["type"] == "api_error"


@pytest.mark.parametrize("client", ["ai", "ai-anthropic"])
def test_other_makers_client(gw, model, port, client):
	"""The "ai" package, before the API that it does not speak."""
	provider = "anthropic" if client == "ai" else "openai"
	api = api_for(gw, model, provider)
	model.say("Hello there, you.")
	for options in BOTH.values():
		found = ai_kit.client(client, f"{api.base}/v1", port, body={"model": "m", "messages": ai_kit.messages("Hello")}, **options)
		assert "error" not in found, found
		assert found["text"] == "Hello there, you." and found["finish"] == "stop"
	assert model.last.kind == ("anthropic.messages" if provider == "anthropic" else "openai.chat")


# ---- an OpenAI client, DashScope's native API ----

@styles
def test_dashscope_text(gw, model, port, style):
	model.say("Grüezi 你好 😀!", reasoning="Hm.", usage=Usage(10, 5))
	found = openai(api_for(gw, model, "dashscope", [DASHSCOPE]), port, [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hello"}],
		style, max_tokens=50, **({"stream_options": {"include_usage": True}} if style == "stream" else {}))
	assert "error" not in found, found
	assert (found["text"], found["reasoning"], found["finish"], found["model"]) == ("Grüezi 你好 😀!", "Hm.", "stop", "m")
	assert (found["usage"]["prompt_tokens"], found["usage"]["completion_tokens"]) == (10, 5)
	asked = model.last
	assert asked.path == "/api/v1/services/aigc/text-generation/generation"
	assert asked.header("X-DashScope-SSE") == ("enable" if style == "stream" else None)
	assert asked.body["input"] == {"messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hello"}]}
	assert asked.body["parameters"] == {"result_format": "message", "max_tokens": 50,
		**({"incremental_output": True} if style == "stream" else {})}


@styles
def test_dashscope_tools(gw, model, port, style):
	"""Streams with tools say everything again in each event."""
	model.say("I look for it.", tools=TOOLS)
	found = openai(api_for(gw, model, "dashscope", [DASHSCOPE]), port, style=style, tools=OPENAI_TOOLS)
	assert "error" not in found, found
	assert found["text"] == "I look for it." and found["finish"] == "tool_calls"
	assert found["tools"] == list(TOOLS)
	assert model.last.body["parameters"].get("incremental_output") is None


def test_dashscope_images_and_errors(gw, model, port):
	api = api_for(gw, model, "dashscope", [DASHSCOPE])
	openai(api, port, [{"role": "user", "content": [{"type": "text", "text": "See"}, {"type": "image_url", "image_url": {"url": "https://images.test/1.png"}}]}])
	assert model.last.path == "/api/v1/services/aigc/multimodal-generation/generation"
	assert model.last.body["input"]["messages"] == [{"role": "user", "content": [{"text": "See"}, {"image": "https://images.test/1.png"}]}]
	model.fail(429)
	assert openai(api, port)["error"]["class"] == "RateLimitError"
	model.say("one two three")
	model.manner(error_after=2)
	assert "the model says no" in openai(api, port, style="stream")["error"]["message"]


# ---- hostile models, and what is left behind ----

@pytest.mark.parametrize("what", model_shapes.BAD_EVENTS)
@pytest.mark.parametrize("provider", ["openai", "anthropic"])
def test_events_no_server_should_send(gw, model, provider, what):
	"""What comes out are events with JSON; the gateway goes on."""
	api = api_for(gw, model, provider)
	model.stream([model_shapes.BAD_EVENTS[what]])
	path, body = ("/v1/messages", {"model": "m", "max_tokens": 9}) if provider == "openai" else ("/v1/chat/completions", {"model": "m"})
	read = stream_of(gw, api.base + path, {**body, "stream": True, "messages": ai_kit.messages("Hello")})
	for event in read.events:
		assert event.data in (None, "[DONE]") or isinstance(event.json, dict), event
	model.say("Still here.")
	assert chat(gw, api.base, "Hello").status == 200


def test_record_of_converted_streams(gw, model):
	"""What is written down is what the model said."""
	model.say("one two three", usage=Usage(10, 5, cached=4))
	api = api_for(gw, model, "anthropic")
	read = stream(gw, api.base, "Hello")
	assert read.is_done
	if log := ai_log(gw, read):
		assert (log["input_token"], log["output_token"]) == (10, 5)
