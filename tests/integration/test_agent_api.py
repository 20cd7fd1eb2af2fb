"""Agent APIs: DashScope apps, Dify, and any other agent."""
import pytest
from ai_kit import ModelServer, agent_api, agent_service, post, stream_of
from policy_kit import check_error, phase


@pytest.fixture
def model():
	with ModelServer() as server:
		yield server


APPS = {"dashScopeConfig": {"appCredentials": [{"appId": "app-1", "apiKey": "sk-one"}, {"appId": "app-2", "apiKey": "sk-two"}]}}
CLIENT = {"Authorization": "Bearer sk-client", "Cookie": "a=sk-client"}


@pytest.mark.parametrize("app,key", [("app-1", "sk-one"), ("app-2", "sk-two")])
def test_agt1_key_is_that_of_the_app(gw, model, app, key):
	api = agent_api(gw, agent_service(gw, model, **APPS), "DashScope")
	answer = post(gw, f"{api.base}/api/v1/apps/{app}/completion", {"input": {"prompt": "Hello"}}, CLIENT)
	assert answer.status == 200, answer.body
	asked = model.last
	assert (asked.path, asked.header("Authorization")) == (f"/api/v1/apps/{app}/completion", f"Bearer {key}")
	assert "sk-client" not in str(asked)


def test_CFG6_a_key_stays_with_its_app(gw, model):
	"""Apps in another order, or fewer, keep their keys; a new one needs its own."""
	service = agent_service(gw, model, **APPS)
	api = agent_api(gw, service, "DashScope")

	def put(*apps):
		item = gw.ask("GET", service.path)
		item["agentServiceConfig"]["dashScopeConfig"]["appCredentials"] = list(apps)
		return gw.api("PUT", service.path, item)

	def sent(app):
		assert post(gw, f"{api.base}/api/v1/apps/{app}/completion", {"input": {"prompt": "Hello"}}).status == 200
		return model.last.header("Authorization")

	assert put({"appId": "app-2"}, {"appId": "app-1"})[0] == 200
	assert (sent("app-1"), sent("app-2")) == ("Bearer sk-one", "Bearer sk-two")
	check_error(put({"appId": "app-3"}, {"appId": "app-1"}), 400, "ErrInvalidParameter",
		"agentServiceConfig.dashScopeConfig.appCredentials[0].apiKey")
	assert put({"appId": "app-3", "apiKey": "sk-three"}, {"appId": "app-1"}, {"appId": "app-2"})[0] == 200
	assert [sent(f"app-{i}") for i in (1, 2, 3)] == ["Bearer sk-one", "Bearer sk-two", "Bearer sk-three"]


def test_agt1_app_of_the_second_service(gw, model):
	with ModelServer("from the second") as second:
		other = {"dashScopeConfig": {"appCredentials": [{"appId": "app-3", "apiKey": "sk-three"}]}}
		api = agent_api(gw, [agent_service(gw, model, **APPS), agent_service(gw, second, **other)], "DashScope")
		for app, server in (("app-3", second), ("app-1", model), ("app-3", second)):
			before = server.hits
			assert post(gw, f"{api.base}/api/v1/apps/{app}/completion", {"input": {"prompt": "Hello"}}).status == 200
			assert server.hits == before + 1


@pytest.mark.parametrize("path", ["/api/v1/apps/app-9/completion", "/api/v1/apps//completion", "/api/v1/apps/app-1", "/other", ""])
def test_agt1_unknown_apps(gw, model, path):
	api = agent_api(gw, agent_service(gw, model, **APPS), "DashScope")
	answer = post(gw, api.base + path, {"input": {"prompt": "Hello"}})
	assert answer.status == 404
	assert set(answer.json) >= {"code", "message", "request_id"}
	assert model.hits == 0


@pytest.mark.parametrize("path", ["/v1/chat-messages", "/v1/completion-messages", "/v1/workflows/run"])
def test_agt2_dify(gw, model, path):
	api = agent_api(gw, agent_service(gw, model, difyConfig={"apiKey": "app-dify", "botType": "Chat"}), "Dify")
	body = {"inputs": {"query": "Hello"}, "query": "Hello", "user": "u", "response_mode": "blocking"}
	answer = post(gw, api.base + path, body, CLIENT)
	assert answer.status == 200, answer.body
	assert (model.last.path, model.last.header("Authorization")) == (path, "Bearer app-dify")
	read = stream_of(gw, api.base + path, {**body, "response_mode": "streaming"})
	assert read.status == 200 and read.events


def test_agt2_other_paths_of_dify_are_not_opened(gw, model):
	api = agent_api(gw, agent_service(gw, model, difyConfig={"apiKey": "app-dify"}), "Dify")
	assert post(gw, f"{api.base}/v1/files/upload", {"a": 1}).status == 404
	assert model.hits == 0


def test_custom_agents(gw, model):
	api = agent_api(gw, agent_service(gw, model, customConfig={"apiKey": "key-custom"}), "Custom")
	body = b'{ "any" : [1.50, "thing"] }'
	post(gw, f"{api.base}/any/path?x=1", body, CLIENT)
	asked = model.last
	assert (asked.target, asked.raw) == ("/any/path?x=1", body)
	assert asked.header("Authorization") == "Bearer key-custom"


@pytest.mark.parametrize("protocol, config, path", [
	("Custom", {"customConfig": {"apiKey": "agent-key"}}, "/ask"),
	("Dify", {"difyConfig": {"apiKey": "app-key", "botType": "Chat"}}, "/v1/chat-messages"),
	("DashScope", {"dashScopeConfig": {"appCredentials": [{"appId": "app-1", "apiKey": "key-1"}]}}, "/api/v1/apps/app-1/completion")])
def test_agents_of_others_do_not_learn_where_clients_are(gw, model, protocol, config, path):
	api = agent_api(gw, agent_service(gw, model, **config), protocol)
	body = {"query": "Hi", "input": {"prompt": "Hi"}, "inputs": {}, "user": "u-1"}
	answer = post(gw, api.base + path, body, {"X-Forwarded-For": "203.0.113.7", "Cookie": "a=b", "X-Custom": "kept"})
	assert answer.status == 200
	assert not [name for name, _ in model.last.headers if name.lower() in ("x-forwarded-for", "x-real-ip", "x-forwarded-host", "cookie")]
	assert model.last.header("X-Custom") == "kept" and model.last.body == body


def test_agt3_bodies_are_not_converted(gw, model):
	api = agent_api(gw, agent_service(gw, model, **APPS), "DashScope")
	body = b'{"input" : {"prompt":"Hello"},  "parameters":{}}'
	assert post(gw, f"{api.base}/api/v1/apps/app-1/completion", body).status == 200
	assert model.last.raw == body


def test_policies_attach_to_it(gw, model):
	api = agent_api(gw, agent_service(gw, model, **APPS), "DashScope")
	attachment = gw.attach("RateLimit", {"threshold": 1, "behaviorType": 0, "bodyEncoding": 0, "responseStatusCode": 429}, to=api)
	assert phase(gw, attachment) == "Active"
	answers = [post(gw, f"{api.base}/api/v1/apps/app-1/completion", {"input": {"prompt": "Hello"}}).status for _ in range(2)]
	assert answers == [200, 429]


def test_deleted_agents_answer_404(gw, model):
	api = agent_api(gw, agent_service(gw, model, **APPS), "DashScope")
	gw.delete(api)
	assert post(gw, f"{api.base}/api/v1/apps/app-1/completion", {"input": {"prompt": "Hello"}}).status == 404
