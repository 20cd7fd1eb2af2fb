"""Fields of requests with "_" in their names are dropped by default: what waits for one of them is told so when it is written, at the
start and by the trace, and works where the setting keepUnderscores is on."""
import pytest
from consumer_kit import Signer, key, keys
from gw import Gateway, numbers
from policy_kit import check_error


@pytest.fixture(scope="module")
def keeping():
	with Gateway(keep_underscores=True) as gateway:
		yield gateway


def condition(name):
	return [{"name": "x-plain", "type": "Exact", "value": "1"}, {"name": name, "type": "Exact", "value": "2"}]


def new_route(gw, headers):
	return {"name": f"route-{next(numbers)}", "gatewayId": gw.default.id, "match": {"path": {"type": "Prefix", "value": "/u"}, "headers": headers}}


def remedy(answer):
	return "dropped" in answer[1]["errorMessage"] and "keepUnderscores" in answer[1]["errorMessage"]


def test_a_route_that_could_never_match_is_refused(gw):
	before = gw.ask("GET", "/api/v1/routes")["totalSize"]
	answer = gw.api("POST", "/api/v1/routes", new_route(gw, condition("X_Version")))
	check_error(answer, 400, "ErrInvalidParameter", "match.headers[1].name")
	assert '"X_Version"' in answer[1]["errorMessage"] and remedy(answer)
	assert gw.api("POST", "/api/v1/routes?dryRun=true", new_route(gw, condition("X_Version")))[0] == 400
	assert gw.ask("GET", "/api/v1/routes")["totalSize"] == before


def test_nor_can_a_route_become_one(gw):
	made = gw.create("Route", "/api/v1/routes", "routeId", new_route(gw, condition("x-version")))
	item = gw.ask("GET", made.path)
	item["match"]["headers"][1]["name"] = "x_version"
	check_error(gw.api("PUT", made.path, item), 400, "ErrInvalidParameter", "match.headers[1].name")
	assert gw.ask("GET", made.path)["match"]["headers"][1]["name"] == "x-version"


def test_names_of_query_parameters_may_have_them(gw):
	gw.route("/query", None, queryParams=[{"name": "a_b", "type": "Exact", "value": "1"}])


@pytest.mark.parametrize("identities, field", [
	(lambda: {"apiKey": keys(key(), source="Header", value="x_key")}, "identities.apiKey.source.value"),
	(lambda: {"jwt": Signer().identity("shop", jwtTokenConfig={"position": "header", "key": "x_token"})}, "identities.jwt.jwtTokenConfig.key")])
def test_credentials_that_could_never_come_are_refused(gw, keeping, identities, field):
	body = {"name": f"consumer-{next(numbers)}", "enable": True, "identities": identities()}
	answer = gw.api("POST", "/api/v1/consumers", body)
	check_error(answer, 400, "ErrInvalidParameter", field)
	assert remedy(answer)
	assert keeping.api("POST", "/api/v1/consumers", body)[0] == 200


def test_a_key_in_the_query_may_have_one(gw):
	gw.create("Consumer", "/api/v1/consumers", "consumerId",
		{"name": f"consumer-{next(numbers)}", "enable": True, "identities": {"apiKey": keys(key(), source="QueryString", value="x_key")}})


def test_where_they_are_kept_the_route_matches(keeping):
	route = keeping.route("/kept", None, headers=condition("x_version"))
	keeping.attach("DirectResponse", {"code": "200", "body": "found"}, to=route)
	assert keeping.get("/kept", {"x-plain": "1", "X_Version": "2"}).text == "found"
	assert keeping.get("/kept", {"x-plain": "1", "X-Version": "2"}).status == 404


@pytest.mark.parametrize("is_kept", [False, True])
def test_the_trace_drops_what_the_gateway_drops(request, backend, is_kept):
	gw = request.getfixturevalue("keeping" if is_kept else "gw")
	gw.route("/trace", backend)
	sent = {"X_Version": "2", "X-Plain": "1"}
	answer = gw.ask("POST", "/api/v1/trace", {"url": f"http://gw.test:{gw.port}/trace/echo",
		"headers": [{"name": name, "value": value} for name, value in sent.items()]})
	told = {item["name"].lower() for item in answer["upstream"]["headers"]}
	seen = gw.echo("/trace/echo", sent)["fields"]
	for name in sent:
		assert (name.lower() in told) == (name.lower() in seen), name
	assert ("x_version" in told) == is_kept
	assert any("X_Version is dropped" in note and "keepUnderscores" in note for note in answer["notes"]) != is_kept


def test_when_the_setting_goes_off_the_start_warns_and_routes_stay_writable():
	with Gateway(keep_underscores=True) as gw:
		route = gw.route("/stored", None, headers=condition("x_version"))
		gw.settings["keep_underscores"] = False
		assert not gw.events("control.never_matches")
		gw.restart()
		(warning,) = gw.events("control.never_matches")
		assert (warning["resource"], warning["field"]) == (route.id, "match.headers[1].name")
		assert "x_version" in warning["why"] and "keepUnderscores" in warning["why"]
		item = gw.ask("GET", route.path)
		gw.ask("PUT", route.path, {**item, "description": "still here"})
		item["match"]["headers"][1]["name"] = "y_version"
		check_error(gw.api("PUT", route.path, item), 400, "ErrInvalidParameter", "match.headers[1].name")
		item["match"]["headers"][1]["name"] = "x-version"
		gw.ask("PUT", route.path, item)
		assert gw.ask("GET", route.path)["match"]["headers"][1]["name"] == "x-version"
