"""What would become of a request: POST /api/v1/trace and `sluice trace`, against what becomes of it when it is sent."""
import json
import os
import subprocess

import pytest
from ai_kit import ModelServer, agent_api, agent_service, ai_service, chat, llm_api
from consumer_kit import allow, basic, consumer, key, keys
from gw import PROGRAM, IS_SANITIZED, free_port, numbers
from policy_kit import Told, breaker, check_error, concurrency, cors, direct, headers, ip_list, op, outcomes, raw_get, rate, rest_api
from wire import wait_until


@pytest.fixture
def path():
	return f"/trace-{next(numbers)}"


def trace(gw, target, method="GET", site=None, fields=(), host="gw.test", **more):
	site = site or gw.default
	url = target if target.startswith("http") else f"http://{host}:{site.port}{target}"
	question = {"method": method, "url": url, "headers": [{"name": name, "value": value} for name, value in dict(fields).items()], **more}
	return gw.ask("POST", "/api/v1/trace", question)


def verdicts(answer, leg="request"):
	return [(item["className"], item["verdict"]) for item in answer["policies"] if item["leg"] == leg]


def fields_of(part):
	return {item["name"].lower(): item["value"] for item in part["headers"]}


# ---- the way ----

def test_names_listener_gateway_domain_and_route(gw, backend, path):
	site = gw.gateway()
	domain = gw.domain("way.test", site)
	route = gw.route(path, backend, site=site, domains=[domain])
	answer = trace(gw, f"{path}/size/1?a=1&b=%20", host="way.test", site=site)
	assert answer["listener"] == {"address": f"127.0.0.1:{site.port}", "tls": False}
	assert answer["gateway"] == {"gatewayId": site.id, "name": site.name}
	assert answer["domain"] == {"domainId": domain.id, "name": "way.test"}
	assert (answer["route"]["resourceId"], answer["route"]["matchType"], answer["route"]["path"]) == (route.id, "Prefix", path)
	assert (answer["request"]["path"], answer["request"]["query"]) == (f"{path}/size/1", "a=1&b=%20")
	assert "answer" not in answer and answer["upstream"]["endpoint"] == backend.address
	assert answer["upstream"]["target"] == f"{path}/size/1?a=1&b=%20" and answer["notes"] == []


def test_paths_are_brought_into_normal_form_as_on_the_wire(gw, backend, path):
	gw.route(path, backend)
	answer = trace(gw, f"{path}//x/../%41%2fb")
	assert answer["request"]["path"] == f"{path}/A%2Fb"
	assert gw.echo(f"{path}//x/../%41%2fb/echo")["target"] == f"{path}/A%2Fb/echo"


@pytest.mark.parametrize("change, reason", [({"url": "/a/%00"}, "target"), ({"url": "/a/%2e%2e%2f"}, "target"),
	({"headers": [{"name": "Host", "value": "a b"}]}, "host_bad"), ({"headers": [{"name": "Content-Length", "value": "x"}]}, "content_length")])
def test_what_the_parser_refuses(gw, change, reason):
	question = {"url": "/", "listener": str(gw.port), **change}
	answer = gw.ask("POST", "/api/v1/trace", question)
	assert answer == {"answer": {"status": 400, "reason": f"not understood, and refused: {reason}"}}
	host = (dict((item["name"], item["value"]) for item in question.get("headers", [])))
	with gw.connect() as connection:
		lines = [f"GET {question['url']} HTTP/1.1", *(f"{name}: {value}" for name, value in {"Host": "a", **host}.items())]
		connection.send(("\r\n".join(lines) + "\r\n\r\n").encode())
		assert connection.read_response().status == 400


def ask_about_server(gw, site, method="OPTIONS"):
	"""What is told, and what comes when it is sent."""
	told = gw.ask("POST", "/api/v1/trace", {"method": method, "url": "*", "listener": str(site.port)})
	with gw.connect(site=site) as connection:
		connection.send(f"{method} * HTTP/1.1\r\nHost: a.test\r\n\r\n".encode())
		return told, connection.read_response()


def test_options_star_is_answered_by_the_gateway(gw, backend):
	"""It was told to be a 404."""
	site = gw.gateway()
	gw.route("/", backend, site=site)
	gw.attach("Cors", cors(), to=site)
	told, sent = ask_about_server(gw, site)
	assert told["answer"]["status"] == sent.status == 200
	assert fields_of(told["answer"])["allow"] == sent.header("Allow")
	assert "the gateway itself" in told["answer"]["reason"] and "route" not in told and "upstream" not in told
	assert ("Cors", "Passes") in verdicts(told)
	gw.attach("IpAccessControl", ip_list("Black", "127.0.0.1", "Gateway"), to=site)
	told, sent = ask_about_server(gw, site)
	assert told["answer"]["status"] == sent.status == 403 and told["answer"]["className"] == "IpAccessControl"
	assert backend.requests() == []


def test_a_star_is_for_options_alone(gw):
	told, sent = ask_about_server(gw, gw.default, "GET")
	assert told["answer"] == {"status": 400, "reason": "not understood, and refused: target"}
	assert sent.status == 400


@pytest.mark.parametrize("strips", [False, True])
def test_what_clients_may_not_send_is_taken_off_as_it_is_on_the_wire(gw, backend, path, strips):
	site = gw.gateway()
	gw.feature("stripInboundTag", strips, site)
	gw.route(path, backend, site=site)
	sent = {"x-mse-tag": "v2", "x-mse-consumer": "root", "x-sluice-user": "root", "x-higress-fallback-from": "a", "x-plain": "1"}
	told = fields_of(trace(gw, f"{path}/echo", site=site, fields=sent)["upstream"])
	seen = gw.echo(f"{path}/echo", sent, site=site)["fields"]
	assert {name for name in sent if name in told} == {name for name in sent if name in seen} == \
		({"x-plain"} if strips else {"x-plain", "x-mse-tag"})


def test_tells_why_other_routes_were_passed_over(gw, backend, path):
	site = gw.gateway()
	def condition(name, value):
		return [{"name": name, "type": "Exact", "value": value}]

	post = gw.route(path, backend, site=site, methods=["POST"], headers=condition("x-a", "1"), queryParams=condition("q", "1"))
	header = gw.route(path, backend, site=site, headers=condition("x-a", "1"), queryParams=condition("q", "1"))
	query = gw.route(path, backend, site=site, queryParams=condition("q", "1"))
	plain = gw.route(path, backend, site=site)

	def passed(**options):
		answer = trace(gw, path, site=site, **options)
		return [(item["resourceId"], item["reason"]) for item in answer["passedOver"]], answer["route"]["resourceId"]

	assert passed() == ([(post.id, "its methods do not include GET"), (header.id, "the header x-a is missing"),
		(query.id, "the query parameter q is missing")], plain.id)
	assert passed(fields={"x-a": "2"})[0][1] == (header.id, "the header x-a does not fit")
	assert passed(method="POST", fields={"x-a": "1"})[0][0] == (post.id, "the query parameter q is missing")
	answer = trace(gw, f"{path}?q=2", fields={"x-a": "1"}, site=site)
	assert [item["reason"] for item in answer["passedOver"]] == ["its methods do not include GET"] + ["the query parameter q does not fit"] * 2


def test_no_route_and_no_gateway(gw, backend, path):
	site = gw.gateway(hosts=["only.test"])
	miss = gw.route(path, backend, site=site, methods=["POST"])
	answer = trace(gw, path, site=site, host="only.test")
	assert (answer["answer"]["status"], answer["answer"]["reason"]) == (404, "no route matches")
	assert [item["resourceId"] for item in answer["passedOver"]] == [miss.id] and "route" not in answer and "upstream" not in answer
	answer = trace(gw, path, site=site, host="other.test")
	assert (answer["answer"]["status"], answer["answer"]["reason"]) == (404, "no gateway serves this host") and "gateway" not in answer


def test_operations_and_regexes(gw, backend, path):
	site = gw.gateway()
	operation = rest_api(gw, backend, site=site, base=path).operation("GET", "/pets/{id}")
	other = gw.route(f"{path}/x[0-9]+", backend, site=site, type="Regex", methods=["PUT"])
	answer = trace(gw, f"{path}/pets/7", site=site)
	assert (answer["route"]["resourceType"], answer["route"]["resourceId"]) == ("Operation", operation.id)
	answer = trace(gw, f"{path}/x12", site=site)
	assert [(item["resourceId"], item["reason"]) for item in answer["passedOver"]] == [(other.id, "its methods do not include GET")]


# ---- policies ----

def test_order_is_that_of_the_effective_policies(gw, backend, path):
	site = gw.gateway()
	route = gw.route(path, backend, site=site)
	for to in (route, site):
		gw.attach("RateLimit", rate(1000), to=to)
		gw.attach("HeaderModify", headers(op("Request", "Update", "x", to.type), op("Response", "Add", "y", "1")), to=to)
	gw.attach("Cors", cors(), to=site)
	answer = trace(gw, path, site=site)
	items = gw.ask("GET", f"{route.path}/effective-policies")["items"]
	assert [(item["leg"], item["stage"], item["attachmentId"]) for item in answer["policies"]] == [
		(item["leg"], item["stage"], item["attachmentId"]) for item in items]
	assert {item["verdict"] for item in answer["policies"]} == {"Passes"}


def test_limits_are_looked_at_and_not_used(gw, backend, path):
	site = gw.gateway()
	route = gw.route(path, backend, site=site)
	limit = gw.attach("RateLimit", rate(3), to=route)
	for _ in range(10):
		answer = trace(gw, path, site=site)
		assert verdicts(answer) == [("RateLimit", "Passes")]
		assert answer["policies"][0]["note"] == "0 of 3 were admitted in the last second"
	assert [gw.get(f"{path}/size/1", site=site).status for _ in range(4)] == [200, 200, 200, 429]
	answer = trace(gw, path, site=site)
	if answer["policies"][0]["note"].startswith("3 of 3"):      # the second may be over on a slow machine
		assert verdicts(answer) == [("RateLimit", "Answers")]
		assert answer["answer"]["status"] == 429 and answer["answer"]["attachmentId"] == limit.id
		assert fields_of(answer["answer"])["retry-after"] == "1" and "upstream" not in answer
	assert outcomes(gw, limit) == {(route.name, "admitted"): 3, (route.name, "refused"): 1}


def test_concurrency_and_breaker_are_looked_at(gw, path):
	site = gw.gateway()
	with Told() as upstream:
		route = gw.route(path, upstream.port, site=site)
		gw.attach("ConcurrencyLimit", concurrency(1), to=route)
		gw.attach("CircuitBreaker", breaker(minRequestAmount=2, recoveryTimeoutSec=60), to=route)
		answer = trace(gw, path, site=site)
		assert verdicts(answer) == [("ConcurrencyLimit", "Passes"), ("CircuitBreaker", "Passes")]
		upstream.hold()
		with gw.connect(site) as connection:
			connection.start("GET", path)
			wait_until(lambda: upstream.hits == 1, 10, "the request at the upstream")
			answer = trace(gw, path, site=site)
			assert verdicts(answer) == [("ConcurrencyLimit", "Answers"), ("CircuitBreaker", "NotReached")]
			assert answer["policies"][0]["note"] == "1 of 1 requests are in flight" and answer["answer"]["status"] == 503
			upstream.release()
			assert connection.read_response().status == 200
		upstream.status = 500
		wait_until(lambda: gw.get(path, site=site).status == 503, 20, "an open circuit")
		answer = trace(gw, path, site=site)
		assert verdicts(answer) == [("ConcurrencyLimit", "Passes"), ("CircuitBreaker", "Answers")]
		assert "the circuit is open" in answer["policies"][1]["note"]


def test_a_reply_ends_it_and_is_shaped_as_on_live_traffic(gw, backend, path):
	site = gw.gateway()
	route = gw.route(path, backend, site=site)
	gw.attach("IpAccessControl", ip_list("Black", "192.0.2.0/24"), to=route)
	own = gw.attach("DirectResponse", direct("418", "teapot"), to=route)
	gw.attach("HeaderModify", headers(op("Request", "Update", "x", "1"), op("Response", "Update", "x-shaped", "yes")), to=route)
	answer = trace(gw, path, site=site)
	assert verdicts(answer) == [("IpAccessControl", "Passes"), ("DirectResponse", "Answers"), ("HeaderModify", "NotReached")]
	assert verdicts(answer, "response") == [("HeaderModify", "Passes")]
	live = gw.get(path, site=site)
	assert (answer["answer"]["status"], answer["answer"]["attachmentId"]) == (live.status, own.id) == (418, own.id)
	assert fields_of(answer["answer"])["x-shaped"] == live.header("x-shaped") == "yes"
	answer = trace(gw, path, site=site, clientIp="192.0.2.7")
	assert answer["answer"]["status"] == 403 and verdicts(answer)[0] == ("IpAccessControl", "Answers")


def test_connections_that_are_closed(gw, backend, path):
	site = gw.gateway()
	route = gw.route(path, backend, site=site)
	gw.attach("IpAccessControl", ip_list("Black", "192.0.2.1", "Gateway", "L4"), to=site)
	gw.attach("IpAccessControl", ip_list("Black", "192.0.2.2", layer="L4"), to=route)
	answer = trace(gw, path, site=site, clientIp="192.0.2.1")
	assert verdicts(answer, "connect") == [("IpAccessControl", "Closes")]
	assert "status" not in answer["answer"] and "upstream" not in answer
	answer = trace(gw, path, site=site, clientIp="192.0.2.2")
	assert verdicts(answer) == [("IpAccessControl", "Passes"), ("IpAccessControl", "Closes")]


def test_clients_behind_trusted_proxies(gw, backend, path):
	site = gw.gateway()
	gw.feature("xffTrustedNum", 1, site)
	gw.attach("IpAccessControl", ip_list("Black", "192.0.2.1"), to=gw.route(path, backend, site=site))
	answer = trace(gw, path, site=site, fields={"X-Forwarded-For": "192.0.2.1"})
	assert answer["request"]["clientIp"] == "192.0.2.1" and answer["answer"]["status"] == 403


def test_preflights(gw, backend, path):
	site = gw.gateway()
	gw.attach("Cors", cors(), to=gw.route(path, backend, site=site, methods=["PUT"]))
	fields = {"Origin": "https://example.com", "Access-Control-Request-Method": "PUT"}
	answer = trace(gw, path, "OPTIONS", site=site, fields=fields)
	assert answer["answer"]["status"] == 200 and verdicts(answer) == [("Cors", "Answers")]
	assert fields_of(answer["answer"])["access-control-allow-origin"] == "https://example.com"
	answer = trace(gw, path, "OPTIONS", site=site, fields={**fields, "Origin": "https://evil.example"})
	assert answer["answer"]["status"] == 403


def test_consumers_are_those_in_force(gw, backend, path):
	site = gw.gateway()
	route = gw.route(path, backend, site=site)
	gw.attach("Authentication", {"authenticationType": "key-auth"}, to=route)
	own = key()
	answer = trace(gw, path, site=site, fields={"X-API-Key": own})
	assert verdicts(answer) == [("Authentication", "Answers")] and answer["answer"]["status"] == 401
	who = consumer(gw, apiKey=keys(own))
	assert trace(gw, path, site=site, fields={"X-API-Key": own})["answer"]["status"] == 403
	allow(gw, who, route)
	answer = trace(gw, path, site=site, fields={"X-API-Key": own})
	assert verdicts(answer) == [("Authentication", "Passes")] and who.name in answer["policies"][0]["note"]
	assert gw.get(f"{path}/size/1", {"X-API-Key": own}, site=site).status == 200
	assert trace(gw, path, site=site, fields={"X-API-Key": "some other key"})["answer"]["status"] == 401


def test_what_only_the_real_thing_could_tell_is_not_judged(gw, backend, path):
	"""Passwords are compared on threads of their own; services of policies are not asked; lots are not drawn."""
	site = gw.gateway()
	route = gw.route(path, backend, site=site)
	who = consumer(gw, basic={"username": f"user-{next(numbers)}", "password": "a password"})
	allow(gw, who, route)
	gw.attach("Authentication", {"authenticationType": "basic-auth"}, to=route)
	user = who.body["identities"]["basic"]["username"]
	for password in ("a password", "a wrong one"):
		answer = trace(gw, path, site=site, fields=basic(user, password))
		assert verdicts(answer) == [("Authentication", "NotJudged")] and answer["policies"][0]["note"]
	gw.attach("ExternalZAuth", {"authServiceUrl": f"http://127.0.0.1:{free_port()}/check", "timeout": 5000}, to=route)
	answer = trace(gw, path, site=site, fields=basic(user, "a password"))
	assert ("ExternalZAuth", "NotJudged") in verdicts(answer) and "answer" not in answer


# ---- where it goes ----

def test_what_the_upstream_would_get_is_what_it_gets(gw, backend, path):
	site = gw.gateway()
	route = gw.route(path, backend, site=site)
	gw.attach("HeaderModify", headers(op("Request", "Update", "x-client", "client.ip", "Reference"), op("Request", "Remove", "x-gone")), to=route)
	gw.attach("HttpRewrite", {"pathType": "Prefix", "path": "/echo", "host": "new.test"}, to=route)
	fields = {"x-gone": "1", "x-kept": "2", "X-Request-Id": "given-1"}
	answer = trace(gw, f"{path}/deeper?q=1", site=site, fields=fields)
	seen = gw.echo(f"{path}/deeper?q=1", fields, site=site, host=f"gw.test:{site.port}")
	upstream = answer["upstream"]
	assert upstream["host"] == seen["fields"]["host"][0] == "new.test"
	assert upstream["target"] == "/echo/deeper?q=1" and seen["target"] == "/echo/deeper?q=1"
	told, got = fields_of(upstream), {name: values[0] for name, values in seen["fields"].items()}
	assert told == {name: value for name, value in got.items() if name not in ("host", "content-length", "accept")}
	assert told["x-client"] == "127.0.0.1" and told["x-kept"] == "2" and "x-gone" not in told


def test_response_headers_of_policies_are_told(gw, backend, path):
	site = gw.gateway()
	gw.attach("HeaderModify", headers(op("Response", "Update", "x-added", "1")), to=gw.route(path, backend, site=site))
	assert fields_of(trace(gw, path, site=site)["response"]) == {"x-added": "1"}


def test_weights_and_the_service_to_follow(gw, backend, path):
	site = gw.gateway()
	big, small = gw.service(backend, site), gw.service(backend, site)
	gw.route(path, [(small, 1), (big, 3)], site=site)
	gw.attach("RateLimit", rate(1000), to=small)
	answer = trace(gw, path, site=site)
	assert (answer["upstream"]["serviceId"], answer["upstream"]["sharePercent"]) == (big.id, 75)
	answer = trace(gw, path, site=site, serviceId=small.id)
	assert (answer["upstream"]["serviceId"], answer["upstream"]["sharePercent"]) == (small.id, 25)
	assert verdicts(answer, "service") == [("RateLimit", "Passes")]
	status, body, _ = gw.api("POST", "/api/v1/trace", {"url": f"http://a:{site.port}{path}", "serviceId": "svc-none"})
	assert status == 400 and body["errorMessage"].startswith("Invalid parameter: serviceId: the route does not lead to")


def test_endpoints_and_how_one_is_chosen(gw, backend, path):
	site = gw.gateway()
	service = gw.service([backend.address, f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"], site)
	gw.route(path, service, site=site)
	before = [trace(gw, path, site=site)["upstream"] for _ in range(5)]
	assert all(one["chosen"] == "in turn, by weight" and "endpoint" not in one for one in before)
	assert [item["candidate"] for item in before[0]["endpoints"]] == [True] * 3
	gw.attach("ServiceLb", {"loadBalancerType": "CONSISTENT_HASH", "consistentHashLBConfig":
		{"consistentHashLBType": "HEADER", "parameterName": "x-user", "minimumRingSize": 1024}}, to=service)
	chosen = {trace(gw, path, site=site, fields={"x-user": f"user {n}"})["upstream"]["endpoint"] for n in range(30)}
	assert len(chosen) == 3
	same = {trace(gw, path, site=site, fields={"x-user": "somebody"})["upstream"]["endpoint"] for _ in range(5)}
	assert len(same) == 1
	assert trace(gw, path, site=site)["upstream"]["chosen"] == "at random, by weight"


def test_the_hash_leads_where_it_says(gw, path):
	site = gw.gateway()
	with Told(body=b"one") as one, Told(body=b"two") as two:
		service = gw.service([f"127.0.0.1:{one.port}", f"127.0.0.1:{two.port}"], site)
		gw.route(path, service, site=site)
		gw.attach("ServiceLb", {"loadBalancerType": "CONSISTENT_HASH", "consistentHashLBConfig":
			{"consistentHashLBType": "QUERY_PARAMETER", "parameterName": "u", "minimumRingSize": 1024}}, to=service)
		names = {f"127.0.0.1:{one.port}": "one", f"127.0.0.1:{two.port}": "two"}
		for n in range(12):
			told = trace(gw, f"{path}?u={n}", site=site)["upstream"]["endpoint"]
			assert gw.get(f"{path}?u={n}", site=site).text == names[told]


def test_no_endpoint_and_fallback(gw, backend, path):
	site = gw.gateway()
	dead = gw.service([{"address": f"127.0.0.1:{free_port()}", "weight": 0}], site)
	backup = gw.service(backend, site)
	route = gw.route(path, dead, site=site)
	answer = trace(gw, path, site=site)
	live = gw.get(f"{path}/size/1", site=site)
	assert answer["answer"]["status"] == live.status == 503 and answer["answer"]["reason"] in live.text
	gw.attach("Fallback", {"fallBackDestination": [{"serviceId": backup.id}]}, to=route)
	gw.attach("RateLimit", rate(1000), to=backup)
	gw.attach("Timeout", {"unitNum": 7, "timeUnit": "s"}, to=backup)
	answer = trace(gw, path, site=site)
	assert gw.get(f"{path}/size/1", site=site).status == 200
	upstream = answer["upstream"]
	assert (upstream["fallbackFrom"], upstream["serviceId"], upstream["endpoint"]) == (dead.id, backup.id, backend.address)
	assert verdicts(answer, "service") == [("RateLimit", "Passes")] and "answer" not in answer
	assert {item["className"]: item["config"].get("unitNum") for item in upstream["settings"]}["Timeout"] == 7


def test_settings_in_force(gw, backend, path):
	site = gw.gateway()
	service = gw.service(backend, site)
	route = gw.route(path, service, site=site)
	gw.attach("Timeout", {"unitNum": 5, "timeUnit": "s"}, to=service)
	gw.attach("Retry", {"attempts": 2, "retryOn": ["5xx"]}, to=service)
	gw.attach("Timeout", {"unitNum": 1, "timeUnit": "s"}, to=route)
	settings = {item["className"]: item for item in trace(gw, path, site=site)["upstream"]["settings"]}
	assert (settings["Timeout"]["level"], settings["Timeout"]["config"]["unitNum"]) == ("Route", 1)
	assert (settings["Retry"]["level"], settings["Retry"]["config"]["attempts"]) == ("Service", 2)


def test_unhealthy_endpoints_are_down(gw, backend, path):
	site = gw.gateway()
	port = free_port()
	check = {"enable": True, "protocol": "TCP", "interval": 1, "timeout": 1, "healthyThreshold": 1, "unhealthyThreshold": 1}
	service = gw.service([backend.address, f"127.0.0.1:{port}"], site, healthCheckConfig=check)
	gw.route(path, service, site=site)

	def states():
		return {item["address"]: (item["up"], item["candidate"]) for item in trace(gw, path, site=site)["upstream"]["endpoints"]}

	wait_until(lambda: states()[f"127.0.0.1:{port}"] == (False, False), 30, "an endpoint that is down")
	assert states()[backend.address] == (True, True)
	assert trace(gw, path, site=site)["upstream"]["endpoint"] == backend.address


def test_nothing_is_sent_and_nothing_counted(gw, backend, path):
	site = gw.gateway()
	route = gw.route(path, backend, site=site)
	attachments = [gw.attach(*policy, to=route) for policy in [("RateLimit", rate(5)), ("ConcurrencyLimit", concurrency(2)),
		("Cors", cors()), ("HeaderModify", headers(op("Request", "Update", "x", "1"))), ("CircuitBreaker", breaker())]]
	def figures():
		_, text, _ = raw_get(gw, "/metrics")
		names = (route.name, *(one.id for one in attachments))
		return sorted(line for line in text.split("\n") if any(f'"{name}"' in line for name in names))

	before = figures()
	for method in ("GET", "POST", "OPTIONS"):
		for fields in ({}, {"Origin": "https://example.com", "Access-Control-Request-Method": "GET"}):
			trace(gw, path, method, site=site, fields=fields)
	assert figures() == before and backend.stats()["requests"] == 0
	assert not gw.records(path=path)


def test_a_flood_of_traces_leaves_traffic_alone(gw, backend, path):
	"""They run where the API runs: with traffic under way nothing is refused, and they see each change at once."""
	site = gw.gateway()
	route = gw.route(path, backend, site=site)
	gw.attach("RateLimit", rate(1000000), to=route)
	gw.attach("ServiceLb", {"loadBalancerType": "LEAST_CONN"}, to=gw.service(backend, site))
	for n in range(20 if IS_SANITIZED else 100):
		extra = gw.attach("HeaderModify", headers(op("Request", "Update", "x-n", str(n))), to=route)
		assert fields_of(trace(gw, path, site=site)["upstream"])["x-n"] == str(n)
		assert gw.get(f"{path}/size/1", site=site).status == 200
		gw.delete(extra)


# ---- listeners ----

def test_which_listener_is_meant(gw, backend, path):
	other = gw.gateway(hosts=["named.test"])
	gw.route(path, backend, site=other)
	answer = trace(gw, f"http://named.test{path}")
	assert answer["gateway"]["gatewayId"] == other.id
	assert answer["notes"] == [f"nothing listens on port 80: taken to arrive at 127.0.0.1:{other.port}"]
	for listener in (f"127.0.0.1:{other.port}", str(other.port), f":{other.port}"):
		answer = gw.ask("POST", "/api/v1/trace", {"url": path, "listener": listener, "headers": [{"name": "Host", "value": "named.test"}]})
		assert answer["gateway"]["gatewayId"] == other.id and answer["request"]["method"] == "GET"
	status, body, _ = gw.api("POST", "/api/v1/trace", {"url": path, "listener": "1"})
	assert status == 400 and body["errorMessage"].startswith("Invalid parameter: listener: no gateway listens there")
	assert "listeners: 127.0.0.1:" in body["errorMessage"]
	status, body, _ = gw.api("POST", "/api/v1/trace", {"url": path})
	assert status == 400 and "listener: which one is meant?" in body["errorMessage"]


@pytest.mark.parametrize("change, field", [
	({"url": "ftp://a/"}, "url"), ({"url": "a"}, "url"), ({"url": ""}, "url"), ({"url": "/a b"}, "url"), ({"url": None}, "url"),
	({"method": "G T"}, "method"), ({"method": "GET /x HTTP/1.1\r\n"}, "method"), ({"clientIp": "here"}, "clientIp"),
	({"headers": [{"name": "x y", "value": "1"}]}, "headers[0].name"),
	({"headers": [{"name": "x", "value": "1\r\n\r\nGET / HTTP/1.1"}]}, "headers[0].value"),
	({"headers": [{"value": "1"}]}, "headers[0].name"), ({"headers": {"x": "1"}}, "headers"), ({"nosuch": 1}, "nosuch"),
])
def test_bad_questions(gw, change, field):
	question = {name: value for name, value in {"url": f"http://a.test:{gw.port}/", **change}.items() if value is not None}
	check_error(gw.api("POST", "/api/v1/trace", question), 400, "ErrInvalidParameter", field)


# ---- the command ----

def sluice(gw, *arguments):
	flags = ["--server", f"http://{gw.admin}", "--token-file", os.path.join(gw.data, "admin.token")]
	return subprocess.run([PROGRAM, "trace", *flags, *arguments], capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL,
		check=False)


def test_command_tells_it_in_words(gw, backend, path):
	site = gw.gateway()
	other = gw.route(path, backend, site=site, headers=[{"name": "x-v", "type": "Exact", "value": "2"}])
	route = gw.route(path, backend, site=site)
	gw.attach("HeaderModify", headers(op("Request", "Update", "x-set", "by policy")), to=route)
	gw.attach("Timeout", {"unitNum": 5, "timeUnit": "s"}, to=route)
	done = sluice(gw, "POST", f"http://a.test:{site.port}{path}?q=1", "-H", "X-Own: mine", "--header=X-Second:  two ")
	assert (done.returncode, done.stderr) == (0, "")
	for words in (f"POST a.test:{site.port}{path}?q=1", f"listener   127.0.0.1:{site.port}", site.name, route.name,
			f"not        {other.name} ({other.id}), because the header x-v is missing", "x-set: by policy", "X-Own: mine",
			"X-Second: two", "Timeout of Route", f"endpoint   {backend.address}, this one", "HeaderModify"):
		assert words in done.stdout, (words, done.stdout)
	answer = json.loads(sluice(gw, f"http://a.test:{site.port}{path}", "-o", "json").stdout)
	assert answer["route"]["resourceId"] == route.id and answer["request"]["method"] == "GET"


def test_command_tells_who_refuses(gw, backend, path):
	site = gw.gateway()
	own = gw.attach("IpAccessControl", ip_list("Black", "192.0.2.1"), to=gw.route(path, backend, site=site))
	done = sluice(gw, f"http://a.test:{site.port}{path}", "--client-ip", "192.0.2.1")
	assert done.returncode == 0 and f"403 answered by a policy (IpAccessControl, attachment {own.id})" in done.stdout


@pytest.mark.parametrize("arguments, code, words", [
	([], 2, "URL: is missing"),
	(["GET", "http://a/", "more"], 2, "more: is one argument too many"),
	(["http://a/", "-H", "no colon"], 2, "--header: must be 'NAME: VALUE'"),
	(["nowhere"], 1, "400 ErrInvalidParameter: Invalid parameter: url: must be an absolute"),
	(["http://a/", "--client-ip", "x"], 1, "clientIp"),
])
def test_command_refuses(gw, arguments, code, words):
	done = sluice(gw, *arguments)
	assert (done.returncode, done.stdout) == (code, "") and words in done.stderr, done


# ---- model and agent APIs ----

JSON_TYPE = {"Content-Type": "application/json"}


def test_a_model_api_says_what_the_provider_would_get(gw):
	with ModelServer() as model:
		api = llm_api(gw, ai_service(gw, f"{model.url}/at", keys=["sk-secret"]))
		gw.attach("AiStatistics", {}, to=api)
		target = f"{api.base}/v1/chat/completions"
		answer = trace(gw, target, "POST", fields={**JSON_TYPE, "Authorization": "Bearer client"})
		assert chat(gw, api.base, "Hello").status == 200
		told, sent = answer["upstream"], model.last
		assert (told["target"], told["host"]) == (sent.path, sent.header("Host"))
		assert fields_of(told)["authorization"] == "Bearer ******" and "sk-secret" not in json.dumps(answer)
		assert verdicts(answer) == [("AiStatistics", "Passes"), ("AI", "NotJudged"), ("AiStatistics", "Passes")]
		assert verdicts(answer, "service") == verdicts(answer, "attempt") == []


@pytest.mark.parametrize("method, path, fields, status", [("POST", "/v1/files", JSON_TYPE, 404), ("PUT", "/v1/embeddings", {}, 405),
	("POST", "/v1/embeddings", {"Content-Type": "text/plain"}, 415), ("GET", "/v1/models", {}, 200)])
def test_a_model_api_says_what_it_answers_itself(gw, method, path, fields, status):
	with ModelServer() as model:
		api = llm_api(gw, {"service": ai_service(gw, model), "modelNamePattern": "gpt-4"})
		answer = trace(gw, api.base + path, method, fields=fields)
		assert answer["answer"]["status"] == status == gw.request(method, api.base + path, fields, b"" if method != "GET" else None).status
		assert model.hits == 0


def test_an_agent_api_knows_its_apps(gw):
	with ModelServer() as model:
		api = agent_api(gw, agent_service(gw, model, dashScopeConfig={"appCredentials": [{"appId": "a1", "apiKey": "sk-secret"}]}), "DashScope")
		answer = trace(gw, f"{api.base}/api/v1/apps/a1/completion", "POST", fields=JSON_TYPE)
		assert answer["upstream"]["target"] == "/api/v1/apps/a1/completion" and "sk-secret" not in json.dumps(answer)
		assert trace(gw, f"{api.base}/api/v1/apps/a2/completion", "POST", fields=JSON_TYPE)["answer"]["status"] == 404
