"""AiToolSelection on live traffic: which tools of a request a model gets to see. test_ex<n> are the contract's examples, test_trap_ those
of its traps; what create refuses is in policy_rejects.json."""
import json

import pytest
from ai_kit import ModelServer, ai_log, ai_route, ai_service, anthropic, chat, chat_body, generation, llm_api, post, responses, stream
from h2wire import H2, head
from policy_kit import outcomes, phase


@pytest.fixture(scope="module")
def model_process():
	with ModelServer() as model:
		yield model


@pytest.fixture
def model(model_process):
	model_process.requests.clear()
	return model_process


def table(**tools):
	"""calculator=True: a row; calculator=(True, "text"): with its description."""
	rows = [(name, *(value if isinstance(value, tuple) else (value, ""))) for name, value in tools.items()]
	return {"enable": True, "tools": [{"name": name, "description": text, "enabled": on} for name, on,
		text in rows]}


CALCULATOR_ONLY = table(calculator=True, shell=False)


def select(gw, model, config=CALCULATOR_ONLY, **more):
	"""A route to the model with the policy: its path."""
	select.route = ai_route(gw, model)
	select.attachment = gw.attach("AiToolSelection", {**config, **more}, to=select.route)
	return select.route.base


def function(name, **more):
	return {"type": "function", "function": {"name": name, "description": f"does {name}",
		"parameters": {"type": "object"}, **more}}


def named(name, **more):
	return {"name": name, "description": f"does {name}", **more}


def sent(gw, model, base, body, path="/v1/chat/completions"):
	"""What the model gets for these bytes (or this JSON)."""
	answer = post(gw, base + path, body)
	assert answer.status == 200, answer
	assert int(model.last.header("Content-Length")) == len(model.last.raw)
	return model.last


# ---- examples of the contract ----

def test_ex1_only_what_is_enabled_stays_with_its_bytes(gw, model):
	kept = b'{ "type":"function","function" : {"parameters":{"type":"object","x":1.50,"y":[1, 2]},"name":"calculator",' \
		b'"description":"adds\\u00e9"} }'
	begin, end = b'{"model":"gpt-4", "tools" :[ ', b' ] ,"temperature":1.0,\n"messages":[{"role":"user","content":"2+2"}]}'
	shell, other = b'{"type":"function","function":{"name":"shell"}}', b'{"type":"function","function":{"name":"other"}}'
	base = select(gw, model)
	seen = sent(gw, model, base, begin + kept + b', ' + shell + b',' + other + end)
	assert seen.raw == begin + kept + end
	assert [tool["function"]["name"] for tool in seen.body["tools"]] == ["calculator"]
	assert sent(gw, model, base, begin + shell + b', ' + kept + b',' + other + end).raw == begin + kept + end
	assert sent(gw, model, base, begin + other + b' ,' + shell + b',' + kept + end).raw == begin + kept + end
	assert outcomes(gw, select.attachment)[select.route.name, "filtered"] == 3


def test_ex2_with_no_tool_left_nothing_speaks_of_tools(gw, model):
	base = select(gw, model)
	body = chat_body("run it", tools=[function("shell")], tool_choice="required", parallel_tool_calls=False,
		temperature=0.5)
	seen = sent(gw, model, base, body).body
	assert seen == chat_body("run it", temperature=0.5)


def test_ex3_a_choice_of_a_tool_that_went_is_automatic(gw, model):
	base = select(gw, model)
	choice = {"type": "function", "function": {"name": "shell"}}
	seen = sent(gw, model, base, chat_body("x", tools=[function("shell"), function("calculator")],
		tool_choice=choice)).body
	assert seen == chat_body("x", tools=[function("calculator")], tool_choice="auto")


def test_ex4_anthropic(gw, model):
	base = select(gw, model)
	tools = [named("shell", input_schema={"type": "object"}), named("calculator", input_schema={"type": "object"})]
	assert anthropic(gw, base, "x", tools=tools, tool_choice={"type": "tool", "name": "shell"}).status == 200
	assert model.last.body["tools"] == tools[1:]
	assert model.last.body["tool_choice"] == {"type": "auto"}


def test_ex5_a_request_without_tools_is_as_it_was(gw, model):
	base = select(gw, model)
	body = b'{ "model" : "gpt-4" ,"messages":[ {"role":"user","content":"\\u4f60 hi"} ] , "n": 1.0,"tool_choice":"none" }\n'
	assert sent(gw, model, base, body).raw == body
	for tools in (b"[]", b"null", b"{}", b'"shell"'):
		body = b'{"messages":[{"role":"user","content":"x"}], "tools":' + tools + b"}"
		assert sent(gw, model, base, body).raw == body
	assert outcomes(gw, select.attachment)[select.route.name, "untouched"] == 5


def test_ex6_switched_off(gw, model):
	base = select(gw, model, enable=False)
	body = chat_body("x", tools=[function("shell")], tool_choice="required")
	assert sent(gw, model, base, body).body == body


# ---- rules ----

def test_it_is_enforced(gw, model):
	select(gw, model)
	assert phase(gw, select.attachment) == "Active"
	assert gw.ask("GET", "/api/v1/policy-classes/AiToolSelection")["enforced"]


def test_TSL1_names_are_compared_exactly(gw, model):
	base = select(gw, model)
	tools = [function("Calculator"), function("calculator "), function("calc"), function("calculator"),
		function("calculatorx"), function("")]
	assert sent(gw, model, base, chat_body("x", tools=tools)).body["tools"] == [function("calculator")]
	# Escapes are another way to write the same name, and none around the list.
	body = b'{"messages":[],"tools":[{"function":{"name":"she\\u006cl"}},{"function":{"n\\u0061me":"calcul\\u0061tor"}}]}'
	assert sent(gw, model, base, body).raw == b'{"messages":[],"tools":[{"function":{"n\\u0061me":"calcul\\u0061tor"}}]}'


@pytest.mark.parametrize("tool", [{}, {"type": "function"}, {"function": {}}, {"function": {"name": 7}},
	{"function": "calculator"}, None, 1, [],
	"calculator", {"type": "function", "name": "calculator", "function": {"name": "shell"}},
		{"custom": {"name": "shell"}},
	{"type": "custom", "custom": {"name": "shell"}, "name": "calculator"}])
def test_TSL1_what_has_no_name_of_the_table_goes(gw, model, tool):
	base = select(gw, model)
	assert sent(gw, model, base, chat_body("x", tools=[tool,
		function("calculator")])).body["tools"] == [function("calculator")]


def test_TSL2_legacy_functions(gw, model):
	base = select(gw, model)
	seen = sent(gw, model, base, chat_body("x", functions=[named("shell"), named("calculator")],
		function_call={"name": "shell"})).body
	assert seen == chat_body("x", functions=[named("calculator")], function_call="auto")
	seen = sent(gw, model, base, chat_body("x", functions=[named("calculator")],
		function_call={"name": "calculator"})).body
	assert seen["function_call"] == {"name": "calculator"}
	assert sent(gw, model, base, chat_body("x", functions=[named("shell")],
		function_call={"name": "shell"})).body == chat_body("x")
	# Both at once, each with its own choice.
	body = chat_body("x", functions=[named("calculator")], function_call="auto", tools=[function("shell")],
		tool_choice="auto")
	assert sent(gw, model, base, body).body == chat_body("x", functions=[named("calculator")], function_call="auto")


def test_TSL2_responses(gw, model):
	base = select(gw, model, table(calculator=True, web_search=True, shell=False, file_search=False))
	tools = [{"type": "function", **named("shell")}, {"type": "web_search", "search_context_size": "low"},
		{"type": "file_search"},
		{"type": "function", **named("calculator")}, {"type": "code_interpreter",
			"container": {"type": "auto"}}, {"type": "mcp", "name": "calculator"}]
	assert responses(gw, base, "x", tools=tools, tool_choice={"type": "file_search"}).status == 200
	assert model.last.body["tools"] == [tools[1], tools[3]]
	assert model.last.body["tool_choice"] == "auto"
	assert responses(gw, base, "x", tools=tools, tool_choice={"type": "function",
		"name": "calculator"}).status == 200
	assert model.last.body["tool_choice"] == {"type": "function", "name": "calculator"}
	assert responses(gw, base, "x", tools=tools[4:], tool_choice="auto", parallel_tool_calls=True).status == 200
	assert not {"tools", "tool_choice", "parallel_tool_calls"} & set(model.last.body)


def test_TSL2_dashscope(gw, model):
	base = select(gw, model)
	parameters = {"result_format": "message", "tools": [function("shell"), function("calculator")],
		"tool_choice": {"type": "function", "function": {"name": "shell"}}, "parallel_tool_calls": True}
	assert generation(gw, base, "x", parameters=parameters).status == 200
	assert model.last.body["parameters"] == {**parameters, "tools": [function("calculator")], "tool_choice": "auto"}
	assert generation(gw, base, "x", parameters={**parameters, "tools": [function("shell")]}).status == 200
	assert model.last.body["parameters"] == {"result_format": "message"}


def test_TSL3_a_description_where_there_is_none(gw, model):
	text = 'Adds "numbers"\\ – 數'
	base = select(gw, model, table(calculator=(True, text), shell=(False, "no"), web_search=(True, "searches")))
	bare = {"type": "function", "function": {"name": "calculator", "parameters": {}}}
	filled = {"type": "function", "function": {"name": "calculator", "parameters": {}, "description": text}}
	for nothing in ({}, {"description": None}, {"description": ""}):
		tool = {"type": "function", "function": {**bare["function"], **nothing}}
		assert sent(gw, model, base, chat_body("x", tools=[tool])).body["tools"] == [filled]
	assert sent(gw, model, base, chat_body("x",
		tools=[function("calculator")])).body["tools"] == [function("calculator")]
	assert anthropic(gw, base, "x", tools=[{"name": "calculator", "input_schema": {}}]).status == 200
	assert model.last.body["tools"] == [{"name": "calculator", "input_schema": {}, "description": text}]
	# Providers describe what is built in, and refuse members that they do not know.
	built_in = [{"type": "web_search"}, {"type": "function", "name": "calculator"}]
	assert responses(gw, base, "x", tools=built_in).status == 200
	assert model.last.body["tools"] == [built_in[0], {**built_in[1], "description": text}]
	assert anthropic(gw, base, "x", tools=[{"type": "web_search_20250305", "name": "web_search"}]).status == 200
	assert model.last.body["tools"] == [{"type": "web_search_20250305", "name": "web_search"}]


def test_TSL4_choices_that_force_nothing_stay(gw, model):
	base = select(gw, model)
	both = [function("shell"), function("calculator")]
	for choice in ("auto", "none", "required", None, {"type": "function", "function": {"name": "calculator"}}):
		seen = sent(gw, model, base, chat_body("x", tools=both, tool_choice=choice)).body
		assert seen["tool_choice"] == choice
	for choice in ({"type": "auto"}, {"type": "any"}, {"type": "none"}, {"type": "tool", "name": "calculator"}):
		anthropic(gw, base, "x", tools=[named("shell"), named("calculator")], tool_choice=choice)
		assert model.last.body["tool_choice"] == choice
	choice = {"name": "shell", "type": "tool", "disable_parallel_tool_use": True}
	anthropic(gw, base, "x", tools=[named("shell"), named("calculator")], tool_choice=choice)
	assert model.last.body["tool_choice"] == {"type": "auto", "disable_parallel_tool_use": True}


def test_TSL4_lists_to_choose_from_are_filtered_likewise(gw, model):
	base = select(gw, model)
	both = [function("shell"), function("calculator")]

	def allowed(*names):
		listed = [{"type": "function", "function": {"name": name}} for name in names]
		return {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": listed}}
	seen = sent(gw, model, base, chat_body("x", tools=both, tool_choice=allowed("shell", "calculator",
		"other"))).body
	assert seen["tool_choice"] == allowed("calculator")
	assert sent(gw, model, base, chat_body("x", tools=both,
		tool_choice=allowed("shell"))).body["tool_choice"] == "auto"
	tools = [{"type": "function", **named("shell")}, {"type": "function", **named("calculator")}]
	names = [{"type": "function", "name": "shell"}, {"type": "function", "name": "calculator"},
		{"type": "image_generation"}]
	responses(gw, base, "x", tools=tools, tool_choice={"type": "allowed_tools", "mode": "auto", "tools": names})
	assert model.last.body["tool_choice"] == {"type": "allowed_tools", "mode": "auto", "tools": names[1:2]}


def test_TSL5_the_history_is_not_edited(gw, model):
	base = select(gw, model)
	history = [{"role": "user", "content": "run ls"},
		{"role": "assistant", "content": None, "tool_calls": [{"id": "c1", "type": "function",
			"function": {"name": "shell", "arguments": "{}"}}]},
		{"role": "tool", "tool_call_id": "c1", "name": "shell", "content": "a b"}, {"role": "user",
			"content": "and now?"}]
	assert sent(gw, model, base, chat_body(history, tools=[function("shell")])).body == chat_body(history)


def test_TSL5_the_answer_is_not_filtered(gw, model):
	base = select(gw, model)
	model.then(model.saying("", tools=({"id": "c1", "name": "shell", "arguments": "{}"},)))
	answer = chat(gw, base, "x", tools=[function("calculator")])
	assert answer.json["choices"][0]["message"]["tool_calls"][0]["function"]["name"] == "shell"


def test_other_kinds_and_other_requests_pass(gw, model):
	base = select(gw, model)
	for path, body in (("/v1/completions", {"prompt": "x", "tools": [function("shell")]}), ("/v1/embeddings",
		{"input": "x", "tools": [function("shell")]}),
		("/v1/anything", {"tools": [function("shell")]})):
		post(gw, base + path, body)
		assert model.last.body == body
	post(gw, base + "/v1/chat/completions", b'{"tools":[{"function":{"name":"shell"}}]',
		{"Content-Type": "application/json"})
	assert model.last.raw == b'{"tools":[{"function":{"name":"shell"}}]'
	# No JSON by its type: none of an AI policy's.
	post(gw, base + "/v1/chat/completions", b'{"messages":[],"tools":[{"function":{"name":"shell"}}]}',
		{"Content-Type": "text/plain"})
	assert model.last.body["tools"]


def test_streams(gw, model):
	base = select(gw, model)
	got = stream(gw, base, "x", tools=[function("shell"), function("calculator")])
	assert got.is_done and got.text == "Hello from the model."
	assert model.last.body["tools"] == [function("calculator")]


def test_X9_both_versions_of_http(gw, model):
	base = select(gw, model)
	body = json.dumps(chat_body("x", tools=[function("shell"), function("calculator")])).encode()
	sent(gw, model, base, body)
	first = model.last.raw
	with H2(gw.port) as connection:
		fields = head(base + "/v1/chat/completions", "POST", more=[("content-type", "application/json")])
		assert connection.request(fields, body).status == 200
	assert model.last.raw == first


# ---- traps ----

def test_trap_names_of_servers_before_the_name(gw, model):
	"""A table names tools as requests do: with the prefix, where there is one."""
	base = select(gw, model, table(**{"mcp__files__read": True, "read": False}))
	tools = [function("mcp__files__read"), function("mcp__shell__read"), function("read")]
	assert sent(gw, model, base, chat_body("x", tools=tools)).body["tools"] == tools[:1]


def test_trap_bodies_that_others_read(gw, model):
	"""A model's server takes \\u0000, half a surrogate or an infinite number: they are no way around the table."""
	base = select(gw, model)
	for odd in (b'"\\u0000"', b'"\\ud800"', b"1e999"):
		body = b'{"messages":[],"x":' + odd + b',"tools":[{"function":{"name":"shell"}}]}'
		assert sent(gw, model, base, body).raw == b'{"messages":[],"x":' + odd + b"}"


@pytest.mark.parametrize("body", [b'{"messages":[],"tools":[],"tools":[{"function":{"name":"shell"}}]}',
	b'{"messages":[],"x":{"a":1,"a":2},"tools":[{"function":{"name":"shell"}}]}',
	b'{"messages":[],"x":' + b"[" * 70 + b"]" * 70 + b',"tools":[{"function":{"name":"shell"}}]}',
	b'{"messages":[],"x":[0' + b",0" * 450_000 + b'],"tools":[{"function":{"name":"shell"}}]}'])
def test_trap_bodies_that_can_be_read_in_two_ways(gw, model, body):
	"""What a model's server may read and the gateway does not is refused: else no policy would hold for it."""
	base = select(gw, model)
	answer = post(gw, base + "/v1/chat/completions", body)
	assert answer.status == 400
	assert answer.json["error"]["type"] == "invalid_request_error"
	assert model.requests == []
	api = llm_api(gw, ai_service(gw, model))
	gw.attach("AiToolSelection", CALCULATOR_ONLY, to=api)
	assert post(gw, api.base + "/v1/chat/completions", body).status == 400
	assert model.requests == []


def test_trap_many_tools(gw, model):
	names = [f"tool{i}" for i in range(512)]
	base = select(gw, model, table(**{name: i % 2 == 0 for i, name in enumerate(names)}))
	tools = [function(name) for name in names + [f"unknown{i}" for i in range(1500)]]
	assert sent(gw, model, base, chat_body("x", tools=tools)).body["tools"] == tools[:512:2]


def test_a_model_api(gw, model):
	"""On the API itself, and with a service that speaks another language than the client."""
	api = llm_api(gw, ai_service(gw, model))
	gw.attach("AiToolSelection", CALCULATOR_ONLY, to=api)
	answer = chat(gw, api.base, "x", tools=[function("shell"), function("calculator")], tool_choice="required")
	assert answer.status == 200
	assert model.last.body["tools"] == [function("calculator")]
	assert model.last.body["tool_choice"] == "required"


def test_a_service_that_speaks_another_language(gw, model):
	"""Tools are selected in the client's words, before they become the service's."""
	api = llm_api(gw, ai_service(gw, model, provider="anthropic"))
	gw.attach("AiToolSelection", CALCULATOR_ONLY, to=api)
	choice = {"type": "function", "function": {"name": "shell"}}
	assert chat(gw, api.base, "x", tools=[function("shell"), function("calculator")], tool_choice=choice).status == 200
	assert model.last.path.endswith("/v1/messages")
	assert [tool["name"] for tool in model.last.body["tools"]] == ["calculator"]
	assert model.last.body["tool_choice"] == {"type": "auto"}
	assert chat(gw, api.base, "x", tools=[function("shell")], tool_choice=choice).status == 200
	assert not {"tools", "tool_choice"} & set(model.last.body)


def test_a_fallback_gets_the_same_selection(gw, model):
	with ModelServer() as broken:
		broken.fail(503)
		primary, other = ai_service(gw, broken), ai_service(gw, model)
		api = llm_api(gw, primary)
		gw.attach("AiToolSelection", CALCULATOR_ONLY, to=api)
		gw.attach("AiFallback", {"enable": True, "fallbackModelMappings": [{"model": "gpt-4", "fallbackModels": [
			{"serviceId": other.id, "model": "gpt-5"}]}]}, to=primary)
		assert chat(gw, api.base, "x", tools=[function("shell"), function("calculator")]).status == 200
		for seen in (broken.last, model.last):
			assert seen.body["tools"] == [function("calculator")]
		assert model.last.body["model"] == "gpt-5"


def test_the_most_specific_table_counts(gw, model):
	api = llm_api(gw, ai_service(gw, model))
	attachment = gw.attach("AiToolSelection", table(shell=True), to=api)
	chat(gw, api.base, "x", tools=[function("shell"), function("calculator")])
	assert model.last.body["tools"] == [function("shell")]
	gw.change_policy(attachment, CALCULATOR_ONLY)
	chat(gw, api.base, "x", tools=[function("shell"), function("calculator")])
	assert model.last.body["tools"] == [function("calculator")]


def test_TSL6_the_record_counts_them(gw, model):
	base = select(gw, model)
	gw.attach("AiStatistics", {"aiStatisticsConfig": {}, "enable": True}, to=select.route)
	log = ai_log(gw, chat(gw, base, "x", tools=[function("shell"), function("calculator")],
		functions=[named("shell")]))
	assert (log["tools_in"], log["tools_out"]) == (3, 1)
	log = ai_log(gw, chat(gw, base, "x"))
	assert (log["tools_in"], log["tools_out"]) == (0, 0)
