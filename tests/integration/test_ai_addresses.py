"""Where a client is, towards providers of models and agents: nothing of it leaves the gateway but what the operator wrote with HeaderModify, field by
field. The gateway here lets names with underscores pass, which is the worst case."""
import pytest

from ai_kit import ModelServer, agent_api, agent_service, ai_service, chat, llm_api, post, stream
from gw import Gateway, numbers
from policy_kit import headers, op
from scripted import Scripted, read_request
from test_identity_smuggling import behind
from test_trailers import trailers_at
from wire import wait_until

CLIENT = "203.0.113.7"
WRITTEN = "192.0.2.1"
# What proxies in front of the gateway say, or a client that passes for one.
NAMES = ["X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "X-Forwarded-Port", "X-Real-IP", "Forwarded", "Via", "X-Forwarded-Prefix",
	"X-Forwarded-Client-Cert", "X-Forwarded", "X-Client-IP", "X-Cluster-Client-IP", "CF-Connecting-IP", "CF-Connecting-IPv6", "CF-IPCountry",
	"True-Client-IP", "Fastly-Client-IP", "X-Azure-ClientIP", "X-Original-Forwarded-For", "X-Original-Host", "X-Envoy-External-Address",
	"CloudFront-Viewer-Address", "Remote-Addr"]
ODD_NAMES = ["X_Forwarded_For", "x-forwarded_for", "X_REAL_IP", "x_real-ip", "FORWARDED", "vIA", "X_Forwarded_Whatever", "cf_connecting_ip"]
# The client's address is told by its own connection too.
TELLING = (CLIENT, "127.0.0.1", "gw.test")
FIELDS = [(name, CLIENT) for name in NAMES + ODD_NAMES]


@pytest.fixture(scope="module")
def gw():
	with Gateway(keep_underscores=True) as gateway:
		yield gateway


@pytest.fixture
def model():
	with ModelServer() as server:
		yield server


@pytest.fixture
def other():
	with ModelServer("From the other.") as server:
		yield server


def told(request):
	"""What a model server learnt of addresses: its own name aside, fields whose value tells something or whose name is one of these."""
	names = {name.lower() for name in NAMES + ODD_NAMES}
	return sorted((name.lower(), value) for name, value in request.headers if name.lower() != "host" and
		(name.lower() in names or any(part in value for part in TELLING)))


def ask(gw, api, fields=()):
	answer = chat(gw, api.base, "Hello", headers=FIELDS + list(fields))
	assert answer.status == 200, answer
	return answer


def edit(gw, to, *items):
	return gw.attach("HeaderModify", headers(*[op("Request", *item) for item in items]), to=to)


def test_nothing_is_told(gw, model):
	api = llm_api(gw, ai_service(gw, model))
	ask(gw, api, [("X-Custom", "kept"), ("X_Custom", "kept"), ("X-Skip", "kept"), ("X-Viability", "kept")])
	assert told(model.last) == []
	assert [model.last.header(name) for name in ("X-Custom", "X_Custom", "X-Skip", "X-Viability")] == ["kept"] * 4
	assert stream(gw, api.base, "Hello", headers=FIELDS).text and told(model.last) == []


@pytest.mark.parametrize("item, field", [(("Update", "X-Request-Id", "mine"), ("x-request-id", "mine")), (("Update", "X-Other", "1"), ("x-other", "1"))])
def test_edits_of_other_fields_tell_nothing(gw, model, item, field):
	api = llm_api(gw, ai_service(gw, model))
	edit(gw, api, item)
	ask(gw, api)
	assert told(model.last) == [] and model.last.header(field[0]) == field[1]


@pytest.mark.parametrize("name", [*NAMES, "X_Forwarded_For"])
@pytest.mark.parametrize("action", ["Update", "Add"])
def test_what_is_written_is_told_and_nothing_else(gw, model, action, name):
	"""Also when it is added to what the client or the gateway says: that part stays here."""
	api = llm_api(gw, ai_service(gw, model))
	edit(gw, api, (action, name, WRITTEN))
	ask(gw, api)
	assert told(model.last) == [(name.lower(), WRITTEN)]


def test_several_fields_each_by_itself(gw, model):
	api = llm_api(gw, ai_service(gw, model))
	edit(gw, api, ("Add", "Via", "1.1 ours"), ("Add", "Via", "1.1 edge"), ("Update", "X-Real-IP", "192.0.2.2"), ("Remove", "X-Real-IP"),
		("Update", "Forwarded", "for=_hidden"), ("Remove", "X-Forwarded-For"), ("Add", "X-Request-Id", "more"))
	ask(gw, api)
	assert told(model.last) == [("forwarded", "for=_hidden"), ("via", "1.1 ours,1.1 edge")]


def test_levels_narrowest_last(gw, model):
	site = gw.gateway()
	api = llm_api(gw, ai_service(gw, model, site=site), site=site)
	edit(gw, site, ("Update", "X-Real-IP", "192.0.2.2"), ("Update", "Via", "1.1 site"), ("Update", "Forwarded", "for=_site"))
	edit(gw, api, ("Update", "X-Real-IP", "192.0.2.3"), ("Remove", "Via"), ("Add", "Forwarded", "for=_api"))
	assert chat(gw, api.base, "Hello", headers=FIELDS, site=site).status == 200
	assert told(model.last) == [("forwarded", "for=_site,for=_api"), ("x-real-ip", "192.0.2.3")]


def test_an_operator_may_tell_the_clients_own(gw, model):
	"""By reference, also of the field itself."""
	api = llm_api(gw, ai_service(gw, model))
	edit(gw, api, ("Update", "X-Real-IP", "client.ip", "Reference"), ("Update", "X-Client-IP", "request.header.X-Client-IP", "Reference"),
		("Update", "Via", "request.header.x-not-there", "Reference"))
	ask(gw, api)
	assert told(model.last) == [("x-client-ip", CLIENT), ("x-real-ip", "127.0.0.1")]


@pytest.mark.parametrize("config, protocol, path", [
	({"customConfig": {"apiKey": "agent-key"}}, "Custom", "/ask"),
	({"dashScopeConfig": {"appCredentials": [{"appId": "app-1", "apiKey": "key-1"}]}}, "DashScope", "/api/v1/apps/app-1/completion")])
def test_agents(gw, model, config, protocol, path):
	api = agent_api(gw, agent_service(gw, model, **config), protocol)
	assert post(gw, api.base + path, {"input": {"prompt": "Hi"}}, FIELDS).status == 200
	assert told(model.last) == []
	edit(gw, api, ("Update", "X-Forwarded-For", WRITTEN), ("Update", "X-Request-Id", "mine"))
	assert post(gw, api.base + path, {"input": {"prompt": "Hi"}}, FIELDS).status == 200
	assert told(model.last) == [("x-forwarded-for", WRITTEN)]


def test_an_ordinary_route_to_a_provider(gw, model):
	path = f"/plain-{next(numbers)}"
	route = gw.route(path, ai_service(gw, model))
	edit(gw, route, ("Update", "X-Request-Id", "mine"), ("Add", "Via", "1.1 ours"))
	assert chat(gw, path, "Hello", headers=FIELDS).status == 200
	assert told(model.last) == [("via", "1.1 ours")]


def test_a_service_of_ones_own_gets_all(gw, model):
	"""It has no key: what the client says, what the gateway says, and what was added to it."""
	api = llm_api(gw, ai_service(gw, model, keys=()))
	edit(gw, api, ("Add", "X-Forwarded-For", WRITTEN), ("Add", "Via", "1.1 ours"))
	assert chat(gw, api.base, "Hello", headers={"X-Forwarded-For": CLIENT, "Via": "1.1 edge"}).status == 200
	assert model.last.header("X-Forwarded-For") == f"{CLIENT}, 127.0.0.1,{WRITTEN}" and model.last.header("Via") == "1.1 edge,1.1 ours"
	assert model.last.header("X-Real-IP") == "127.0.0.1"


@pytest.mark.parametrize("first_keys, other_keys", [(("sk-1",), ()), ((), ("sk-2",)), (("sk-1",), ("sk-2",))])
def test_services_that_are_turned_to(gw, model, other, first_keys, other_keys):
	"""Each gets what it may know, whoever was asked before it."""
	first, second = ai_service(gw, model, keys=first_keys), ai_service(gw, other, keys=other_keys)
	gw.attach("AiFallback", {"fallbackModelMappings": [{"model": "*", "fallbackModels": [{"serviceId": second.id, "model": "m"}]}]}, first)
	api = llm_api(gw, first)
	edit(gw, api, ("Add", "Via", "1.1 ours"), ("Update", "X-Request-Id", "mine"))
	model.fail(503)
	assert chat(gw, api.base, "Hello", headers={"Via": "1.1 edge", "X_Forwarded_For": CLIENT}).status == 200
	for server, keys in ((model, first_keys), (other, other_keys)):
		if keys:
			assert told(server.last) == [("via", "1.1 ours")]
		else:
			assert server.last.header("Via") == "1.1 edge,1.1 ours" and server.last.header("X-Real-IP") == "127.0.0.1"
			assert server.last.header("X_Forwarded_For") == CLIENT


@pytest.mark.parametrize("first_keys, copy_keys", [(("sk-1",), ()), ((), ("sk-2",))])
def test_copies(gw, model, other, first_keys, copy_keys):
	api = llm_api(gw, ai_service(gw, model, keys=first_keys))
	gw.attach("FlowCopy", {"targetServiceId": ai_service(gw, other, keys=copy_keys).id, "percentage": 100, "enable": True}, api)
	edit(gw, api, ("Add", "Via", "1.1 ours"))
	assert chat(gw, api.base, "Hello", headers={"Via": "1.1 edge", "X_Forwarded_For": CLIENT}).status == 200
	wait_until(lambda: other.hits == 1, what="the copy")
	for server, keys in ((model, first_keys), (other, copy_keys)):
		if keys:
			assert told(server.last) == [("via", "1.1 ours")]
		else:
			assert server.last.header("Via") == "1.1 edge,1.1 ours" and server.last.header("X_Forwarded_For") == CLIENT


TRAILERS = [("Via", "1.1 edge"), ("CF-Connecting-IP", CLIENT), ("x_forwarded_for", CLIENT), ("X-Forwarded-Server", "edge"), ("X-Sum", "1")]


@pytest.mark.parametrize("content_type", ["application/json", "text/plain"])
def test_behind_the_body(gw, backend, content_type):
	"""Whether the body is read whole before it goes on, or passes."""
	for config, expected in (({"apiKey": "agent-key"}, [("X-Sum", "1")]), ({}, TRAILERS)):
		api = agent_api(gw, agent_service(gw, backend.port, customConfig=config), "Custom")
		assert behind(gw, f"{api.base}/echo", TRAILERS, [("Content-Type", content_type)]) == 200
		assert trailers_at(backend) == expected


def test_a_copy_leaves_what_is_behind_the_body(gw, model):
	"""To a provider: the request itself is not for one, and keeps what follows its body, also when it is sent once more behind the copy."""
	got = []

	def talk(connection):
		while connection.buffer or connection.fill():
			read_request(connection)
			while connection.read_chunk():
				pass
			got.append(connection.read_trailers())
			if len(got) == 1:
				wait_until(lambda: model.hits == 1, what="the copy")
			connection.send(b"HTTP/1.1 %s\r\nContent-Length: 0\r\n\r\n" % (b"503 No" if len(got) == 1 else b"200 OK"))

	with Scripted(talk) as server:
		path = f"/copied-{next(numbers)}"
		route = gw.route(path, server.port)
		gw.attach("Retry", {"attempts": 1, "retryOn": ["5xx", "non_idempotent"], "enable": True}, route)
		gw.attach("FlowCopy", {"targetServiceId": ai_service(gw, model).id, "percentage": 100, "enable": True}, route)
		assert behind(gw, path, TRAILERS) == 200
		assert got == [TRAILERS, TRAILERS] and not server.errors
	assert told(model.last) == []


def test_a_dry_run_says_what_is_told(gw, model):
	site = gw.gateway()
	api = llm_api(gw, ai_service(gw, model, site=site), site=site)
	edit(gw, site, ("Add", "Via", "1.1 ours"), ("Update", "X-Request-Id", "mine"))
	fields = [{"name": name, "value": value} for name, value in FIELDS]
	answer = gw.ask("POST", "/api/v1/trace", {"method": "POST", "url": f"http://gw.test:{site.port}{api.base}/v1/chat/completions", "headers": fields})
	names = {name.lower() for name in NAMES + ODD_NAMES}
	shown = [(item["name"].lower(), item["value"]) for item in answer["upstream"]["headers"]]
	assert [item for item in shown if item[0] in names or CLIENT in item[1]] == [("via", "1.1 ours")]
