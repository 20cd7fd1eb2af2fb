"""Model APIs: what is served below their base path, which service a model goes to, what providers get to see."""
import json

import pytest
from ai_kit import (ANTHROPIC, DASHSCOPE, OPENAI, ModelServer, ai_service, anthropic, at_once, chat, chat_body, embeddings, entries,
	generation, llm_api, post, record_of, stream)
from consumer_kit import allow, bearer, consumer, key as secret_key, keys
from gw import numbers
from policy_kit import LIMIT_BODY, concurrency, headers, op, phase, rate, raw_get
from tokens import jwt_auth, key
from wire import wait_until


@pytest.fixture
def model():
	with ModelServer() as server:
		yield server


@pytest.fixture
def other():
	with ModelServer("Hello from the other.") as server:
		yield server


def error_of(answer):
	assert answer.header("Content-Type", "").startswith("application/json"), answer.body
	return answer.json["error"]


# ---- paths ----

def test_chat_goes_to_the_provider(gw, model):
	api = llm_api(gw, ai_service(gw, model))
	answer = chat(gw, api.base, "Hello")
	assert answer.status == 200, answer.body
	assert answer.json["choices"][0]["message"]["content"] == "Hello from the model."
	asked = model.last
	assert asked.path == "/v1/chat/completions"
	assert asked.header("Host") == model.url.removeprefix("http://")


def test_streams_pass_as_they_are(gw, model):
	api = llm_api(gw, ai_service(gw, model))
	read = stream(gw, api.base, "Hello")
	assert read.status == 200 and read.is_done
	assert read.text == "Hello from the model."


@pytest.mark.parametrize("path", ["/v1/files", "/v1/fine_tuning/jobs", "/", "/v1/models/x/delete"])
def test_other_paths_of_the_provider_are_not_opened(gw, model, path):
	"""With the gateway's key a client could read what the account has."""
	api = llm_api(gw, ai_service(gw, model))
	answer = post(gw, api.base + path, {"model": "gpt-4"})
	assert answer.status == 404
	assert error_of(answer)["code"] == "not_found"
	assert model.hits == 0


@pytest.mark.parametrize("at,sent", [
	("", "/v1/chat/completions"), ("/v1", "/v1/chat/completions"), ("/proxy/v1/", "/proxy/v1/chat/completions"),
	("/proxy", "/proxy/v1/chat/completions")])
def test_path_of_the_address(gw, model, at, sent):
	api = llm_api(gw, ai_service(gw, model.url + at))
	assert chat(gw, api.base, "Hello").status == 200
	assert model.last.path == sent


def test_base_path_slash(gw, model):
	site = gw.gateway()
	api = llm_api(gw, ai_service(gw, model, site=site), site=site, basePath="/")
	assert chat(gw, api.base, "Hello", site=site).status == 200
	assert model.last.path == "/v1/chat/completions"


@pytest.mark.parametrize("removes,sent", [(True, "/v1/chat/completions"), (False, "{base}/v1/chat/completions")])
def test_base_path_towards_a_service_that_is_no_provider(gw, model, removes, sent):
	service = gw.service(f"127.0.0.1:{model.port}")
	api = llm_api(gw, service, removeBasePathOnForward=removes)
	assert chat(gw, api.base, "Hello").status == 200
	assert model.last.path == sent.format(base=api.base)


def test_two_apis_of_one_domain_side_by_side(gw, model, other):
	one, two = llm_api(gw, ai_service(gw, model)), llm_api(gw, ai_service(gw, other))
	assert chat(gw, one.base, "Hello").json["choices"][0]["message"]["content"] == "Hello from the model."
	assert chat(gw, two.base, "Hello").json["choices"][0]["message"]["content"] == "Hello from the other."


def test_deleted_apis_answer_404_and_changed_ones_at_once(gw, model, other):
	service = ai_service(gw, model)
	api = llm_api(gw, service)
	assert chat(gw, api.base, "Hello").status == 200
	doc = gw.ask("GET", api.path)
	doc["services"] = entries(ai_service(gw, other))
	gw.ask("PUT", api.path, doc)
	assert chat(gw, api.base, "Hello").json["choices"][0]["message"]["content"] == "Hello from the other."
	gw.ask("DELETE", api.path)
	assert chat(gw, api.base, "Hello").status == 404


# ---- models ----

def test_exact_pattern_then_longest_then_none(gw):
	servers = [ModelServer(name) for name in ("exact", "long", "short", "rest")]
	try:
		patterns = ["qwen-max", "qwen-m*", "qwen-*", None]
		listed = [{"service": ai_service(gw, server), **({"modelNamePattern": pattern} if pattern else {})}
			for server, pattern in zip(servers, patterns)]
		api = llm_api(gw, listed[::-1])
		for asked, text in (("qwen-max", "exact"), ("qwen-mini", "long"), ("qwen-plus", "short"), ("gpt-4", "rest"), ("Qwen-max", "rest")):
			assert chat(gw, api.base, "Hello", model=asked).json["choices"][0]["message"]["content"] == text, asked
	finally:
		for server in servers:
			server.stop()


def test_model_without_an_entry(gw, model):
	api = llm_api(gw, {"service": ai_service(gw, model), "modelNamePattern": "gpt-*"})
	answer = chat(gw, api.base, "Hello", model="claude-3")
	assert answer.status == 404
	assert error_of(answer)["code"] == "model_not_found" and "claude-3" in error_of(answer)["message"]
	answer = anthropic(gw, api.base, "Hello", model="claude-3")
	assert answer.status == 404
	assert answer.json["type"] == "error" and answer.json["error"]["type"] == "not_found_error"
	assert model.hits == 0


def test_only_the_model_changes_in_the_body(gw, model):
	api = llm_api(gw, {"service": ai_service(gw, model), "modelName": "gpt-4o-mini"})
	body = b'{ "messages" : [{"role":"user","content":"\\u00e4 1e3"}],"temperature":1.10, "model"  :"alias" ,"x":[1.0,2e5]}'
	assert post(gw, f"{api.base}/v1/chat/completions", body).status == 200
	assert model.last.raw == body.replace(b'"alias"', b'"gpt-4o-mini"')


def test_bodies_without_a_change_are_the_same_bytes(gw, model):
	api = llm_api(gw, ai_service(gw, model))
	body = b'{"model":"gpt-4",\n "messages":[{"role":"user","content":"Hello"}] , "seed":9007199254740993 }'
	assert post(gw, f"{api.base}/v1/chat/completions", body).status == 200
	assert model.last.raw == body


def test_weights(gw, model, other):
	api = llm_api(gw, [{"service": ai_service(gw, model), "weight": 0}, {"service": ai_service(gw, other), "weight": 5}])
	for _ in range(10):
		assert chat(gw, api.base, "Hello").status == 200
	assert (model.hits, other.hits) == (0, 10)


def test_list_of_models(gw, model):
	api = llm_api(gw, [{"service": ai_service(gw, model), "modelNamePattern": name} for name in ("gpt-4", "qwen-*", "o1")])
	answer = gw.get(f"{api.base}/v1/models")
	assert answer.status == 200
	assert [one["id"] for one in answer.json["data"]] == ["gpt-4", "o1"]
	assert model.hits == 0


# ---- credentials ----

CLIENT = {"Authorization": "Bearer sk-client", "x-api-key": "sk-client", "api-key": "sk-client", "Cookie": "session=sk-client"}


@pytest.mark.parametrize("provider,field,value", [
	("openai", "Authorization", "Bearer sk-upstream"), ("azure", "api-key", "sk-upstream"), ("dashscope", "Authorization", "Bearer sk-upstream"),
	("deepseek", "Authorization", "Bearer sk-upstream")])
def test_credentials_of_the_service_replace_the_clients(gw, model, provider, field, value):
	api = llm_api(gw, ai_service(gw, model, provider, protocols=[OPENAI]))
	assert chat(gw, api.base, "Hello", headers=CLIENT).status == 200
	asked = model.last
	assert asked.header(field) == value
	assert "sk-client" not in str(asked)


def test_credentials_of_anthropic(gw, model):
	api = llm_api(gw, ai_service(gw, model, "anthropic"), protocols=[ANTHROPIC])
	assert anthropic(gw, api.base, "Hello", headers=CLIENT).status == 200
	asked = model.last
	assert (asked.path, asked.header("x-api-key"), asked.header("Authorization")) == ("/v1/messages", "sk-upstream", None)
	assert asked.header("anthropic-version") == "2023-06-01"


@pytest.mark.parametrize("position, name", [("query", "token"), ("header", "X-Gateway-Token"), ("cookie", "t"), ("header", "Authorization")])
def test_LLM4_tokens_of_JWTAuth_never_reach_a_provider(gw, model, position, name):
	"""Not even where tokenPass has them sent on: the provider is no service of ours."""
	api = llm_api(gw, ai_service(gw, model))
	gw.attach("JWTAuth", jwt_auth([key().jwk()], tokenPosition=position, tokenName=name, tokenNamePrefix=None, tokenPass=True), to=api)
	token = key().sign()
	fields = {"header": {name: token}, "cookie": {"Cookie": f"{name}={token}"}, "query": {}}[position]
	query = f"?{name}={token}&a=1" if position == "query" else ""
	assert post(gw, f"{api.base}/v1/chat/completions{query}", chat_body("Hello"), fields).status == 200
	asked = model.last
	assert token not in str(asked) and asked.header("Authorization") == "Bearer sk-upstream"
	assert asked.target == "/v1/chat/completions" + ("?a=1" if query else "")


def test_keys_of_consumers_never_reach_a_provider(gw, model):
	"""Wherever they are carried."""
	key_in_field = f"client-key-{next(numbers):04d}-aaaa"
	gw.create("Consumer", "/api/v1/consumers", "consumerId", {"name": f"c-{next(numbers)}", "identities": {"apiKey": {
		"credentials": [{"apikey": key_in_field, "generateMode": "Custom"}], "source": {"source": "Header", "value": "X-Team-Key"}}}})
	key_in_query = f"client-key-{next(numbers):04d}-bbbb"
	gw.create("Consumer", "/api/v1/consumers", "consumerId", {"name": f"c-{next(numbers)}", "identities": {"apiKey": {
		"credentials": [{"apikey": key_in_query, "generateMode": "Custom"}], "source": {"source": "QueryString", "value": "team"}}}})
	api = llm_api(gw, ai_service(gw, model))
	assert post(gw, f"{api.base}/v1/chat/completions?a=1&team={key_in_query}&b=2", chat_body("Hello"), {"X-Team-Key": key_in_field}).status == 200
	asked = model.last
	assert "client-key" not in str(asked)
	assert asked.target == "/v1/chat/completions?a=1&b=2"


ADDRESSES = {"X-Forwarded-For": "203.0.113.7", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "inside.example", "X-Forwarded-Port": "8443",
	"X-Real-IP": "203.0.113.7", "Forwarded": "for=203.0.113.7", "Via": "1.1 edge", "X-Client-IP": "203.0.113.7",
	"CF-Connecting-IP": "203.0.113.7", "X-Forwarded-Prefix": "/inside"}
SECRETS = {"Cookie": "session=secret", "Proxy-Authorization": "Basic c2VjcmV0", "Authorization": "Bearer of-the-client"}


def told(request):
	"""What a provider learns about clients."""
	return {name for name in (*ADDRESSES, "Cookie", "Proxy-Authorization") if request.header(name) is not None}


@pytest.mark.parametrize("provider", ["openai", "anthropic", "dashscope", "azure"])
def test_a_provider_does_not_learn_where_clients_are(gw, model, provider):
	api = llm_api(gw, ai_service(gw, model, provider))
	answer = chat(gw, api.base, "Hello", headers={**ADDRESSES, **SECRETS, "X-Custom": "kept"})
	assert answer.status == 200 and not told(model.last)
	assert model.last.header("X-Custom") == "kept" and model.last.header("X-Request-Id") == answer.request_id
	assert all("secret" not in value and "203.0.113.7" not in value for _, value in model.last.headers)


def test_who_asks_is_told_unless_it_is_taken_out(gw, model):
	"""ID-2: the name of the consumer goes on; HeaderModify takes it out, and says what else a provider is to know."""
	api, secret = llm_api(gw, ai_service(gw, model)), secret_key()
	who = consumer(gw, apiKey=keys(secret))
	gw.attach("Authentication", {"authenticationType": "key-auth"}, to=api)
	allow(gw, who, api)
	assert chat(gw, api.base, "Hello", headers=bearer(secret)).status == 200
	assert model.last.header("X-Mse-Consumer") == who.name and not told(model.last)
	gw.attach("HeaderModify", headers(op("Request", "Remove", "X-Mse-Consumer"), op("Request", "Add", "X-Forwarded-For", "192.0.2.1")), to=api)
	assert chat(gw, api.base, "Hello", headers=bearer(secret)).status == 200
	assert model.last.header("X-Mse-Consumer") is None and "192.0.2.1" in model.last.header("X-Forwarded-For")


def test_a_service_of_ones_own_learns_it(gw, model):
	"""Without a credential it is no third party that is asked in the gateway's name."""
	api = llm_api(gw, ai_service(gw, model, keys=()))
	assert chat(gw, api.base, "Hello", headers=SECRETS).status == 200
	assert model.last.header("X-Real-IP") == "127.0.0.1" and model.last.header("X-Forwarded-Host")
	assert model.last.header("Cookie") is None and model.last.header("Proxy-Authorization") is None


def test_keys_in_turn(gw, model):
	api = llm_api(gw, ai_service(gw, model, keys=["sk-one", "sk-two"]))
	for _ in range(40):
		assert chat(gw, api.base, "Hello").status == 200
	assert {asked.header("Authorization") for asked in model.requests} == {"Bearer sk-one", "Bearer sk-two"}


def test_keys_are_not_read_back(gw, model):
	service = ai_service(gw, model, keys=["sk-very-secret"])
	assert "sk-very-secret" not in json.dumps(gw.ask("GET", service.path))
	llm_api(gw, service)
	assert "sk-very-secret" not in raw_get(gw, "/metrics")[1]
	assert "sk-very-secret" not in gw.stderr()


def test_azure_has_the_deployment_in_the_path(gw, model):
	api = llm_api(gw, {"service": ai_service(gw, f"{model.url}/?api-version=2025-01-01", "azure"), "modelName": "my deployment"})
	assert chat(gw, api.base, "Hello").status == 200
	assert model.last.target == "/openai/deployments/my%20deployment/chat/completions?api-version=2025-01-01"


@pytest.mark.parametrize("ask,sent", [
	(chat, "/compatible-mode/v1/chat/completions"), (embeddings, "/compatible-mode/v1/embeddings"),
	(anthropic, "/apps/anthropic/v1/messages"), (generation, "/api/v1/services/aigc/text-generation/generation")])
def test_paths_of_dashscope(gw, model, ask, sent):
	api = llm_api(gw, ai_service(gw, model, "dashscope", protocols=[OPENAI, ANTHROPIC, DASHSCOPE]), protocols=[OPENAI, ANTHROPIC, DASHSCOPE])
	ask(gw, api.base, "Hello")
	assert model.last.path == sent


def test_plain_route_to_a_provider_has_its_key_too(gw, model):
	service = ai_service(gw, model)
	base = f"/plain-{next(numbers)}"
	gw.route(base, service)
	answer = chat(gw, base, "Hello", headers=CLIENT)
	assert model.last.header("Authorization") == "Bearer sk-upstream", answer.body


# ---- errors ----

def test_long_bodies_get_413_in_the_clients_shape(gw, model):
	site = gw.gateway()
	gw.feature("ai.max_request_body", 2000, site)
	api = llm_api(gw, ai_service(gw, model, site=site), site=site)
	answer = chat(gw, api.base, "x" * 3000, site=site)
	assert answer.status == 413
	assert error_of(answer)["code"] == "request_too_large"
	assert chat(gw, api.base, "x" * 1000, site=site).status == 200


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"model":"a","model":"b"}', b"\xff", b""])
def test_bodies_that_are_no_json(gw, model, body):
	api = llm_api(gw, {"service": ai_service(gw, model), "modelNamePattern": "*"})
	answer = post(gw, f"{api.base}/v1/chat/completions", body)
	assert answer.status == 400
	assert error_of(answer)["type"] == "invalid_request_error"
	assert model.hits == 0


def test_unreachable_provider(gw):
	api = llm_api(gw, ai_service(gw, "http://127.0.0.1:9"))
	answer = chat(gw, api.base, "Hello")
	assert answer.status == 503
	assert error_of(answer)["type"] == "api_error"
	answer = anthropic(gw, api.base, "Hello")
	assert (answer.status, answer.json["type"]) == (503, "error")


def test_errors_of_the_provider_pass_as_they_are(gw, model):
	api = llm_api(gw, ai_service(gw, model))
	model.fail(429, "slow down", "rate_limit_exceeded")
	answer = chat(gw, api.base, "Hello")
	assert answer.status == 429 and "slow down" in answer.body.decode()


def test_deep_and_wide_bodies_are_bounded(gw, model):
	api = llm_api(gw, {"service": ai_service(gw, model), "modelNamePattern": "*"})
	deep = b'{"model":"m","messages":' + b"[" * 5000 + b"]" * 5000 + b"}"
	wide = b'{"model":"m","x":[' + b"0," * 1000000 + b"0]}"
	for body in (deep, wide):
		assert post(gw, f"{api.base}/v1/chat/completions", body).status == 400
	assert model.hits == 0
	assert chat(gw, api.base, "Hello").status == 200


# ---- with the rest ----

def test_policies_attach_to_it(gw, model):
	api = llm_api(gw, ai_service(gw, model))
	attachment = gw.attach("RateLimit", {"threshold": 2, "behaviorType": 0, "bodyEncoding": 0, "responseStatusCode": 429}, to=api)
	assert phase(gw, attachment) == "Active"
	assert [chat(gw, api.base, "Hello").status for _ in range(3)] == [200, 200, 429]


def test_authentication_refuses_in_the_clients_shape(gw, model):
	api = llm_api(gw, ai_service(gw, model))
	gw.attach("Authentication", {"authenticationType": "key-auth"}, to=api)
	answer = chat(gw, api.base, "Hello")
	assert answer.status == 401
	assert error_of(answer)["code"] == "invalid_api_key"
	answer = anthropic(gw, api.base, "Hello")
	assert (answer.status, answer.json["error"]["type"]) == (401, "authentication_error")


def test_record_names_the_api(gw, model):
	api = llm_api(gw, ai_service(gw, model))
	record = record_of(gw, chat(gw, api.base, "Hello"))
	assert record["route"] == gw.ask("GET", api.path)["name"]


def test_the_list_of_models_is_only_read(gw, model):
	"""A POST with JSON to the list is a request for nothing that providers have."""
	api = llm_api(gw, ai_service(gw, model))
	hits = model.hits
	for fields in ({}, {"Content-Type": "text/plain"}):
		answer = post(gw, f"{api.base}/v1/models", chat_body("Hello"), fields)
		assert (answer.status, answer.header("Allow")) == (405, "GET, HEAD") and answer.json["error"]
	assert model.hits == hits
	assert gw.get(f"{api.base}/v1/models").status == 200


def test_many_at_once(gw, model):
	api = llm_api(gw, {"service": ai_service(gw, model), "modelName": "other"})
	answers = at_once(*[lambda i=i: chat(gw, api.base, f"Hello {i}") for i in range(16)])
	assert [answer.status for answer in answers] == [200] * 16


@pytest.mark.parametrize("change,field", [
	({"services": []}, "services"), ({"services": [{"serviceId": "svc-none"}]}, "services[0].serviceId"),
	({"basePath": "nope"}, "basePath"), ({"aiProtocols": ["Gopher/v1"]}, "aiProtocols[0]"), ({"unknown": 1}, "unknown")])
def test_bad_documents(gw, model, change, field):
	body = {"name": f"bad-{next(numbers)}", "gatewayId": gw.default.id, "basePath": f"/bad-{next(numbers)}",
		"services": entries(ai_service(gw, model)), **change}
	status, answer, _ = gw.api("POST", "/api/v1/llm-apis", body)
	assert status == 400
	assert answer["errorCode"] == "ErrInvalidParameter" and field in answer["errorMessage"], answer


# ---- answers that are compressed though they were not to be ----

@pytest.mark.parametrize("coding", ["gzip", "deflate", "br"])
def test_compressed_answers_are_read(gw, model, coding):
	api = llm_api(gw, ai_service(gw, model))
	model.manner(coding=coding)
	answer = chat(gw, api.base, "Hello")
	assert model.last.header("Accept-Encoding") == "identity"
	assert answer.header("Content-Encoding") is None
	assert answer.json["choices"][0]["message"]["content"] == "Hello from the model."
	read = stream(gw, api.base, "Hello")
	assert read.header("Content-Encoding") is None
	assert read.text == "Hello from the model." and read.is_done


def test_unknown_codings_pass_as_they_are(gw, model):
	api = llm_api(gw, ai_service(gw, model))
	model.answer(b"\x00\x01secret coding", fields=[("Content-Encoding", "x-own")])
	answer = chat(gw, api.base, "Hello")
	assert (answer.header("Content-Encoding"), answer.body) == ("x-own", b"\x00\x01secret coding")


@pytest.mark.parametrize("client,service,ask", [
	(ANTHROPIC, OPENAI, anthropic), (OPENAI, ANTHROPIC, chat), (OPENAI, DASHSCOPE, chat)])
def test_other_apis_are_converted(gw, model, client, service, ask):
	provider = {OPENAI: "openai", ANTHROPIC: "anthropic", DASHSCOPE: "dashscope"}[service]
	api = llm_api(gw, ai_service(gw, model, provider, protocols=[service]), protocols=[client])
	answer = ask(gw, api.base, "Hello")
	assert answer.status == 200, answer.body
	sent = {OPENAI: "/v1/chat/completions", ANTHROPIC: "/v1/messages", DASHSCOPE: "/api/v1/services/aigc/text-generation/generation"}
	assert model.last.path == sent[service]
	said = answer.json["content"][0]["text"] if client == ANTHROPIC else answer.json["choices"][0]["message"]["content"]
	assert said == "Hello from the model."


def test_a_fallback_gets_nothing_of_the_provider_before(gw, model):
	"""A service of another kind that the Fallback of a provider leads to: the client's own request, without the key."""
	dead, other = ai_service(gw, "http://127.0.0.1:9"), gw.service(f"127.0.0.1:{model.port}")
	gw.attach("Fallback", {"fallBackDestination": [{"serviceId": other.id}]}, to=dead)
	base = f"/plain-{next(numbers)}"
	gw.route(base, dead)
	body = b'{"model":"gpt-4", "messages":[{"role":"user","content":"Hello"}]}'
	assert post(gw, f"{base}/v1/chat/completions", body, {"Authorization": "Bearer mine"}).status == 200
	asked = model.last
	assert (asked.path, asked.raw) == (f"{base}/v1/chat/completions", body)
	assert asked.header("Authorization") == "Bearer mine"
	assert "sk-upstream" not in str(asked)


def test_a_provider_after_another_has_its_own_key_and_model(gw, model):
	first, second = ai_service(gw, "http://127.0.0.1:9", keys=["sk-first"]), ai_service(gw, model, "azure", keys=["sk-second"])
	gw.attach("Fallback", {"fallBackDestination": [{"serviceId": second.id}]}, to=first)
	api = llm_api(gw, {"service": first, "modelName": "deployed"})
	assert chat(gw, api.base, "Hello", model="alias").status == 200
	asked = model.last
	assert asked.path == "/openai/deployments/deployed/chat/completions"
	assert (asked.header("api-key"), asked.header("Authorization"), asked.model) == ("sk-second", None, "deployed")


def test_errors_of_other_requests_of_such_a_route_are_the_usual_ones(gw, model):
	base = f"/plain-{next(numbers)}"
	route = gw.route(base, [f"127.0.0.1:{model.port}"])
	gw.attach("AiTokenRateLimit", {"rules": [{"limitType": "LimitByModel", "threshold": 1000000, "timeWindow": 60}],
		"redisConfig": {"serviceHost": "127.0.0.1", "servicePort": 9}}, to=route)
	gw.attach("Authentication", {"authenticationType": "key-auth"}, to=route)
	assert set(gw.get(f"{base}/page").json) == {"errorCode", "errorMessage", "requestId"}
	assert error_of(chat(gw, base, "Hello"))["code"] == "invalid_api_key"


@pytest.mark.parametrize("fields", [{"Content-Type": "text/plain"}, {"Content-Type": "application/jsonp"}, {"Content-Type": ""}])
def test_a_model_api_takes_json_alone(gw, model, fields):
	"""Upstreams may not look at the type, and no limit or guard would have seen the body."""
	api = llm_api(gw, ai_service(gw, model))
	answer = post(gw, f"{api.base}/v1/chat/completions", chat_body("Hello"), fields)
	assert answer.status == 415
	assert error_of(answer)["type"] == "invalid_request_error"
	assert model.hits == 0


@pytest.mark.parametrize("method,path,allow", [("PUT", "/v1/chat/completions", "POST"), ("DELETE", "/v1/models", "GET, HEAD"),
	("GET", "/v1/responses", "POST"), ("OPTIONS", "/v1/chat/completions", "POST")])
def test_a_model_api_takes_post_alone(gw, model, method, path, allow):
	api = llm_api(gw, ai_service(gw, model))
	answer = gw.request(method, api.base + path)
	assert (answer.status, answer.header("Allow")) == (405, allow)
	assert model.hits == 0


@pytest.mark.parametrize("entry", [{}, {"modelName": "mapped"}])
def test_FBK4_a_body_without_a_model_gets_that_of_the_candidate(gw, model, other, entry):
	primary, backup = ai_service(gw, model), ai_service(gw, other)
	gw.attach("AiFallback", {"fallbackModelMappings": [{"model": "*", "fallbackModels": [{"serviceId": backup.id, "model": "backup"}]}]}, primary)
	api = llm_api(gw, {"service": primary, **entry})
	model.then(model.failure(503))
	assert post(gw, f"{api.base}/v1/chat/completions", {"messages": [{"role": "user", "content": "Hello"}]}).status == 200
	assert model.last.body.get("model") == entry.get("modelName")
	assert other.last.body == {"messages": [{"role": "user", "content": "Hello"}], "model": "backup"}


@pytest.mark.parametrize("base", ["/twice", "/twice/"])
def test_A2_a_base_path_is_of_one_api_whatever_its_slash(gw, model, base):
	first = llm_api(gw, ai_service(gw, model), basePath=base)
	for again in ("/twice", "/twice/"):
		status, body, _ = gw.api("POST", "/api/v1/llm-apis", {"name": "again", "gatewayId": gw.default.id, "basePath": again,
			"aiProtocols": [OPENAI], "services": entries(ai_service(gw, model))})
		assert status == 409 and "basePath" in body["errorMessage"], body
	gw.delete(first)


LIMITS = {"RateLimit": rate(1, responseContentBody=""), "ConcurrencyLimit": concurrency(1, responseContentBody="", responseStatusCode=429)}


@pytest.mark.parametrize("name", sorted(LIMITS))
def test_A8_a_limit_without_a_body_says_it_as_the_clients_api_does(gw, model, name):
	api = llm_api(gw, ai_service(gw, model))
	gw.attach(name, LIMITS[name], api)
	model.manner(head_delay=0.5)

	def refused_of(ask):
		return [answer for answer in at_once(*[lambda: ask(gw, api.base, "Hello")] * 4) if answer.status == 429]

	for ask, member in ((chat, lambda doc: doc["error"]["code"]), (anthropic, lambda doc: doc["error"]["type"])):
		refused = wait_until(lambda: refused_of(ask), 60, "a refusal")
		assert all(answer.header("Content-Type") == "application/json" and answer.header("Retry-After") for answer in refused)
		assert {member(answer.json) for answer in refused} == {"rate_limit_exceeded" if ask is chat else "rate_limit_error"}


def test_A8_a_limit_with_a_body_says_that(gw, model):
	api = llm_api(gw, ai_service(gw, model))
	gw.attach("RateLimit", rate(1), api)
	refused = wait_until(lambda: [answer for answer in at_once(*[lambda: chat(gw, api.base, "Hello")] * 4) if answer.status == 429], what="a refusal")
	assert refused[0].json == json.loads(LIMIT_BODY)


# ---- copies ----

def copy_to(gw, service, api):
	return gw.attach("FlowCopy", {"targetServiceId": service.id, "percentage": 100, "enable": True}, api)


def test_LLM4_a_copy_has_the_key_of_the_service_that_gets_it(gw, model, other):
	"""Neither the key of the provider that answers nor what the client proved itself with."""
	api = llm_api(gw, ai_service(gw, model, keys=["sk-first"]))
	copy_to(gw, ai_service(gw, other.url + "/shadow", keys=["sk-second"]), api)
	answer = chat(gw, api.base, "Hello", headers={"x-api-key": "sk-client", "Cookie": "session=1"})
	assert answer.status == 200 and answer.json["choices"][0]["message"]["content"] == "Hello from the model."
	wait_until(lambda: other.hits == 1, what="the copy")
	asked = other.last
	assert asked.path == "/shadow/v1/chat/completions" and asked.raw == model.last.raw
	assert asked.header("Authorization") == "Bearer sk-second" and model.last.header("Authorization") == "Bearer sk-first"
	assert asked.header("x-api-key") is None and asked.header("Cookie") is None
	assert asked.header("Host") == other.url.removeprefix("http://")


def test_LLM4_a_copy_to_a_service_that_is_no_provider_has_no_key_of_one(gw, model, other):
	api = llm_api(gw, ai_service(gw, model, keys=["sk-first"]))
	copy_to(gw, gw.service(f"127.0.0.1:{other.port}"), api)
	assert chat(gw, api.base, "Hello").status == 200
	wait_until(lambda: other.hits == 1, what="the copy")
	assert other.last.path == "/v1/chat/completions" and other.last.header("Authorization") is None


def test_LLM4_a_copy_from_an_ordinary_route_has_the_key_of_the_service(gw, model, other):
	base = f"/copied-{next(numbers)}"
	copy_to(gw, ai_service(gw, other.url + "/shadow", keys=["sk-second"]), gw.route(base, f"127.0.0.1:{model.port}"))
	assert chat(gw, base, "Hello", headers={"Authorization": "Bearer sk-client", "Cookie": "session=1"}).status == 200
	wait_until(lambda: other.hits == 1, what="the copy")
	assert other.last.header("Authorization") == "Bearer sk-second" and other.last.header("Cookie") is None
	assert other.last.path == f"/shadow{base}/v1/chat/completions"
	assert model.last.header("Authorization") == "Bearer sk-client"
