"""Waf in front of models: what users, models and tools say is no attack, everything else of a request is inspected."""
import pytest
from ai_kit import ModelServer, ai_service, anthropic, chat, chat_body, llm_api, post
from policy_kit import phase
from test_waf import has_packages, is_blocked as is_blocked_route

pytestmark = pytest.mark.skipif(not has_packages(), reason="libmodsecurity and its rules are not installed")

SQL = "id=1' UNION SELECT password FROM users-- <script>alert(1)</script> $(/bin/bash -c id)"


def is_blocked(answer):
	"""In the shape of the client's API, and without a word of why."""
	return answer.status == 403 and answer.json == {
		"error": {"message": "Request blocked", "type": "permission_error", "param": None, "code": "access_denied"}}


@pytest.fixture
def model():
	with ModelServer() as server:
		yield server


@pytest.fixture
def api(gw, model):
	made = llm_api(gw, ai_service(gw, model))
	gw.attach("Waf", {}, to=made)
	return made


def test_what_users_ask_is_no_attack(gw, model, api):
	answer = chat(gw, api.base, [{"role": "system", "content": SQL}, {"role": "user", "content": [{"type": "text", "text": SQL}]},
		{"role": "assistant", "content": None, "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": SQL}}]},
		{"role": "tool", "tool_call_id": "c", "content": SQL}])
	assert answer.status == 200, answer.body
	assert model.last.body["messages"][0]["content"] == SQL
	assert anthropic(gw, api.base, SQL).status == 200


@pytest.mark.parametrize("more", [{"user": SQL}, {"metadata": {"a": SQL}}, {"model": SQL}], ids=["user", "metadata", "model"])
def test_other_members_are_inspected(gw, model, api, more):
	assert is_blocked(post(gw, f"{api.base}/v1/chat/completions", {**chat_body("Hello"), **more}))
	assert model.hits == 0


def test_query_and_headers_are_inspected(gw, model, api):
	assert is_blocked(post(gw, f"{api.base}/v1/chat/completions?q=<script>alert(1)</script>", chat_body("Hello")))
	assert is_blocked(post(gw, f"{api.base}/v1/chat/completions", chat_body("Hello"), {"Referer": "http://a.test/?q=<script>alert(1)</script>"}))
	assert model.hits == 0


def test_long_prompts_pass(gw, model, api):
	"""Beyond waf.body_nofiles_limit: bodies for models have their own."""
	assert chat(gw, api.base, "Tell me. " * 40000).status == 200


def test_an_ordinary_route_is_no_way_around_the_rules(gw, model):
	"""A body that looks like one for a model is one only where models are."""
	base = "/waf-plain"
	route = gw.route(base, [f"127.0.0.1:{model.port}"])
	gw.attach("Waf", {}, to=route)
	assert is_blocked_route(chat(gw, base, SQL))
	gw.attach("AiTokenRateLimit", {"rules": [{"limitType": "LimitByModel", "threshold": 1000000, "timeWindow": 60}],
		"redisConfig": {"serviceHost": "127.0.0.1", "servicePort": 9}}, to=route)
	assert chat(gw, base, SQL).status == 200


def test_prompts_can_be_inspected_too(gw, model):
	site = gw.gateway()
	gw.feature("waf.ai_inspect_prompts", True, site)
	made = llm_api(gw, ai_service(gw, model, site=site), site=site)
	attachment = gw.attach("Waf", {}, to=made)
	assert phase(gw, attachment) == "Active"
	assert is_blocked(chat(gw, made.base, SQL, site=site))
	assert chat(gw, made.base, "Hello", site=site).status == 200


def test_unreadable_bodies_are_refused(gw, model, api):
	answer = post(gw, f"{api.base}/v1/chat/completions", b'{"model": "m", "messages": [')
	assert answer.status in (400, 403)
	assert model.hits == 0
