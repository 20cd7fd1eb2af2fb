"""AiSecurityGuard: configs, places and settings that are refused."""
import json

import pytest

from ai_kit import ai_service, llm_api
from gw import Gateway
from model_server import ModelServer
from policy_kit import check_error


@pytest.fixture(scope="module")
def gw():
	with Gateway() as gateway:
		yield gateway


GOOD = {"enable": True, "serviceAddress": "http://guard:8080", "checkRequest": True, "checkResponse": True, "riskAlertLevel": "high"}
REJECTS = [
	({"enable": None}, "config.enable"), ({"enable": 1}, "config.enable"),
	({"checkRequest": None}, "config.checkRequest"), ({"checkResponse": "true"}, "config.checkResponse"),
	({"serviceAddress": None}, "config.serviceAddress"), ({"serviceAddress": "guard:8080"}, "config.serviceAddress"),
	({"serviceAddress": "ftp://guard"}, "config.serviceAddress"), ({"serviceAddress": "http://u:p@guard"}, "config.serviceAddress"),
	({"serviceAddress": "http://guard/#x"}, "config.serviceAddress"), ({"serviceAddress": "http://169.254.169.254/"}, "config.serviceAddress"),
	({"riskAlertLevel": None}, "config.riskAlertLevel"), ({"riskAlertLevel": "none"}, "config.riskAlertLevel"),
	({"riskAlertLevel": "High"}, "config.riskAlertLevel"), ({"riskAlertLevel": "block"}, "config.riskAlertLevel"),
	({"requestCheckService": "query_security_check"}, "config.requestCheckService"), ({"requestCheckService": "llm"}, "config.requestCheckService"),
	({"responseCheckService": 1}, "config.responseCheckService"),
	({"bufferLimit": 0}, "config.bufferLimit"), ({"bufferLimit": 1501}, "config.bufferLimit"), ({"bufferLimit": "100"}, "config.bufferLimit"),
	({"bufferLimit": 1.5}, "config.bufferLimit"), ({"bufferLimit": -1}, "config.bufferLimit"),
	({"riskConfig": {}}, "config.riskConfig"), ({"riskConfig": [{"type": "Global"}]}, "config.riskConfig[0].level"),
	({"riskConfig": [{"level": "low"}]}, "config.riskConfig[0].type"), ({"riskConfig": [{"type": "Other", "level": "low"}]}, "config.riskConfig[0].type"),
	({"riskConfig": [{"type": "Global", "level": "S3"}]}, "config.riskConfig[0].level"),
	({"riskConfig": [{"type": "Global", "level": "low"}, {"type": "Global", "level": "low"}]}, "config.riskConfig[1].type"),
	({"riskConfig": [{"type": "Global", "level": "low", "x": 1}]}, "config.riskConfig[0].x"),
	({"riskConfig": [{"type": "Global", "level": "low"}] * 7}, "config.riskConfig"),
	({"checkRequest": False, "checkResponse": False}, "config.checkRequest"),
	({"riskaction": "mask"}, "config.riskaction"), ({"accessKeyId": "x"}, "config.accessKeyId"),
]


@pytest.mark.parametrize("members, field", REJECTS)
def test_configs_that_are_refused(gw, members, field):
	made = {name: value for name, value in {**GOOD, **members}.items() if value is not None}
	before = gw.ask("GET", "/api/v2/policies")["totalSize"]
	answer = gw.api("POST", "/api/v2/policies", {"name": "g", "className": "AiSecurityGuard", "config": json.dumps(made)})
	check_error(answer, 400, "ErrInvalidParameter", field)
	assert gw.ask("GET", "/api/v2/policies")["totalSize"] == before


def test_limits_that_are_accepted(gw):
	for members in ({"bufferLimit": 1}, {"bufferLimit": 1500}, {"riskConfig": []}, {"checkRequest": False}, {"checkResponse": False},
			{"riskConfig": [{"type": kind, "level": "max"} for kind in ("Global", "ContentModeration", "PromptAttack", "SensitiveData",
				"MaliciousUrl", "ModelHallucination")]}):
		gw.ask("DELETE", gw.policy("AiSecurityGuard", {**GOOD, **members}).path)


@pytest.mark.parametrize("kind", ["Route", "Gateway", "Domain", "LLMApi"])
def test_it_goes_on_services_alone(gw, kind):
	with ModelServer() as model:
		service = ai_service(gw, model)
		holder = {"Route": lambda: gw.route("/nowhere-guarded", service), "Gateway": lambda: gw.default, "Domain": lambda: gw.domain("guard.test"),
			"LLMApi": lambda: llm_api(gw, service)}[kind]()
		policy = gw.policy("AiSecurityGuard", GOOD)
		body = {"attachResourceId": holder.id, "attachResourceType": kind, "gatewayId": gw.default.id, "policyId": policy.id}
		if kind != "Gateway" and holder.environment:
			body["environmentId"] = holder.environment
		check_error(gw.api("POST", "/api/v1/policy-attachments", body), 400, "ErrInvalidParameter", "attachResourceType")


@pytest.mark.parametrize("name, value", [("fail_mode", "ajar"), ("fail_mode", True), ("timeout_ms", 0), ("timeout_ms", 60001),
	("timeout_ms", "2000"), ("access_key_id", 7), ("access_key_secret", None), ("access_key_id", "x" * 257)])
def test_settings_that_are_refused(gw, name, value):
	status, body, _ = gw.api("PUT", f"/api/v1/gateways/{gw.default.id}/gateway-features/ai.guard.{name}", {"value": value})
	assert status == 400 and body["errorCode"] == "ErrInvalidParameter", body
