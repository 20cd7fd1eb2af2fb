"""DynamicRoute on live traffic: which lane a request takes, and which endpoints serve it. B is the baseline, C carries the tag of a lane.

Chances are bounded so that a right program fails with less than 1e-9.
"""
import collections
import hashlib

import pytest
from gw import numbers
from policy_kit import as_text, check_error, headers, op, outcomes, raw_get, seen
from tries import Reply, upstream
from wire import wait_until

TAG = "lane-v2"
GROUP, LANE = 1001, 2001


@pytest.fixture
def site(gw):
	return gw.gateway()


@pytest.fixture
def b(backend):
	return backend.peers[0]


@pytest.fixture
def c(backend):
	return backend.peers[1]


def predicate(kind="Header", name="x-env", condition="==", value="test", **more):
	return {"type": kind, "name": name, "condition": condition, "value": value, **more}


def lane(*predicates, tag=TAG, group=GROUP, number=None, match="And", enable=True, **more):
	"""A content lane of these predicates."""
	return {"swimmingLaneGroupId": group, "swimmingLaneId": next(numbers) if number is None else number, "canaryModel": 0,
		"swimmingLaneTag": tag, "predicates": list(predicates), "matchCondition": match, "enable": enable, **more}


def share(percent, tag=TAG, group=GROUP, **more):
	"""A percentage lane."""
	return lane(tag=tag, group=group, canaryModel=1, percentage=percent, **more)


def lanes(*items, **more):
	return {"dynamicRouteSwimmingLaneConfigs": list(items), **more}


def tagged(address, tag=TAG, label="alicloud.service.tag", **more):
	return {"address": address, "labels": {label: tag}, **more}


def dead(backend, i=9):
	"""An endpoint with the port of backend.peers on which nobody listens."""
	return f"127.0.0.{i}:" + backend.peers[0].split(":")[1]


def check():
	return {"enable": True, "protocol": "HTTP", "httpPath": "/status/200", "interval": 1, "timeout": 1, "healthyThreshold": 1,
		"unhealthyThreshold": 1}


def serve(gw, site, addresses, *items, **more):
	"""A service on every path, and the lanes of the gateway. Its `lanes` is the attachment."""
	service = gw.service(addresses, site, **more)
	gw.route("/", service, site=site)
	service.lanes = gw.attach("DynamicRoute", lanes(*items), to=site)
	return service


def ask(gw, site, fields=(), path="/echo"):
	"""(endpoint, x-mse-tag that it saw)."""
	echo = gw.echo(path, fields, site=site)
	return echo["address"], seen(echo, "x-mse-tag")


@pytest.fixture
def pair(gw, site, b, c):
	"""serve() with B and C."""
	return lambda *items, **more: serve(gw, site, [b, tagged(c)], *items, **more)


# ---- examples of the contract ----

def test_ex1_header(gw, site, pair, b, c):
	service = pair(lane(predicate()))
	for _ in range(6):
		assert ask(gw, site, {"X-Env": "test"}) == (c, TAG)
		assert ask(gw, site) == (b, None)
	assert outcomes(gw, service.lanes) == {(site.name, "lane"): 6, (site.name, "baseline"): 6, (site.name, "kept"): 0}


def test_ex2_values_are_compared_byte_by_byte(gw, site, pair, b):
	pair(lane(predicate()))
	for value in ("Test", "tes", "test2", ""):
		assert ask(gw, site, {"x-env": value}) == (b, None)


@pytest.mark.parametrize("kind, path, fields", [("Cookie", "/echo", {"Cookie": "a=1; x-env=test"}),
	("Parameter", "/echo?x-env=te%73t", ()), ("Parameter", "/echo?a&x-env=test&x-env=prod", ()),
	("Cookie", "/echo", {"Cookie": "x-env=test; x-env=prod"})])
def test_ex3_cookie_and_parameter(gw, site, pair, b, c, kind, path, fields):
	pair(lane(predicate(kind)))
	assert ask(gw, site, fields, path) == (c, TAG)
	assert ask(gw, site) == (b, None)
	assert ask(gw, site, {"x-env": "test"}) == (b, None), "a header is neither"
	assert ask(gw, site, {"Cookie": "x-env=prod; x-env=test"}, "/echo?x-env=prod&x-env=test") == (b, None), "the first one counts"
	assert ask(gw, site, {"Cookie": "X-Env=test"}, "/echo?X-Env=test") == (b, None), "their names are case-sensitive"


def test_ex4_different_needs_a_value(gw, site, pair, b, c):
	pair(lane(predicate(condition="!=", value="prod")))
	assert ask(gw, site) == (b, None)
	assert ask(gw, site, {"x-env": "prod"}) == (b, None)
	assert ask(gw, site, {"x-env": "qa"}) == (c, TAG)


def hash_percent(text):
	return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") % 100


def test_ex5_percent_of_a_value_is_a_rule(gw, site, pair, b, c):
	pair(lane(predicate(name="uid", condition="%", value="20")))
	uids = [f"user-{i}" for i in range(1000)]
	with gw.connect(site) as connection:
		chosen = {uid for uid in uids[:500] if connection.get("/echo", {"uid": uid}).json["address"] == c}
	with gw.connect(site) as connection:
		chosen |= {uid for uid in uids[500:] if connection.get("/echo", {"uid": uid}).json["address"] == c}
	assert chosen == {uid for uid in uids if hash_percent(uid) < 20}
	assert 100 < len(chosen) < 300
	for uid in uids[:20]:
		assert {ask(gw, site, {"uid": uid})[0] for _ in range(3)} == {c if uid in chosen else b}


def test_ex6_percentage(gw, site, pair, b, c):
	"""1,500 draws at 20 %: a deviation of 15.5, six and a half of them are 101."""
	pair(share(20))
	counts = collections.Counter(ask(gw, site) for _ in range(1500))
	assert set(counts) == {(c, TAG), (b, None)}
	assert 300 - 101 <= counts[c, TAG] <= 300 + 101, counts


def test_ex7_lane_that_is_down_falls_to_the_baseline(gw, site, backend, b):
	service = serve(gw, site, [b, tagged(dead(backend))], lane(predicate()), healthCheckConfig=check())
	wait_until(lambda: gw.get("/echo", {"x-env": "test"}, site=site).status == 200, 10, "the lane is out of use")
	assert ask(gw, site, {"x-env": "test"}) == (b, TAG), "later hops can rejoin the lane"
	_, text, _ = raw_get(gw, "/metrics")
	line = next(line for line in text.split("\n") if line.startswith("sluice_service_lane_misses_total{")
		and f'service="{service.name}"' in line)
	assert float(line.rsplit(" ", 1)[1]) >= 2


def test_ex7_baseline_that_is_down_is_503(gw, site, backend, c):
	"""Production is never dumped on a canary."""
	serve(gw, site, [dead(backend), tagged(c)], lane(predicate()), healthCheckConfig=check())
	wait_until(lambda: "healthy" in gw.get("/echo", site=site).text, 10, "the baseline is out of use")
	answer = gw.get("/echo", site=site)
	assert answer.status == 503
	assert ask(gw, site, {"x-env": "test"}) == (c, TAG)


def test_ex8_tag_of_the_client(gw, site, pair, b, c):
	service = pair(lane(predicate()))
	assert ask(gw, site, {"x-mse-tag": TAG}) == (c, TAG)
	assert ask(gw, site, {"X-MSE-Tag": TAG, "x-env": "prod"}) == (c, TAG)
	# Whatever else it says: it is kept, and served by the baseline when no endpoint carries it.
	assert ask(gw, site, {"x-mse-tag": "elsewhere", "x-env": "test"}) == (b, "elsewhere")
	assert outcomes(gw, service.lanes)[site.name, "kept"] == 3
	gw.feature("stripInboundTag", True, site)
	assert ask(gw, site, {"x-mse-tag": TAG}) == (b, None)
	assert ask(gw, site, {"x-mse-tag": "elsewhere", "x-env": "test"}) == (c, TAG)
	gw.feature("stripInboundTag", False, site)
	assert ask(gw, site, {"x-mse-tag": TAG}) == (c, TAG)


def test_of_several_tags_the_first_is_the_only_one(gw, site, pair, b, c):
	"""Whoever reads the header behind the gateway finds the lane that the gateway used."""
	pair(lane(predicate()))
	assert ask(gw, site, [("x-mse-tag", TAG), ("x-mse-tag", "elsewhere")]) == (c, TAG)
	assert ask(gw, site, [("x-mse-tag", "elsewhere"), ("x-env", "test"), ("x-mse-tag", TAG)]) == (b, "elsewhere")
	assert ask(gw, site, [("x-mse-tag", ""), ("x-mse-tag", TAG)]) == (c, TAG)
	assert ask(gw, site, [("x-mse-tag", ""), ("x-env", "test"), ("x-mse-tag", "")]) == (c, TAG)


# ---- operators ----

@pytest.mark.parametrize("condition, more, fits, fits_not", [
	("Pre", {"value": "te"}, ["te", "test"], ["Te", "ate", "t"]),
	("Regex", {"value": "^v[0-9]+$"}, ["v1", "v23"], ["v", "xv1", "v1x"]),
	("Regex", {"value": "b+c"}, ["abbcd", "bc"], ["ac", "b"]),
	("List", {"value": "", "names": ["one", "two", "a,b"]}, ["one", "two", "a,b"], ["three", "on", "One", "one,two"]),
	("!=", {"value": "a"}, ["b", "aa", "A"], ["a"]),
	("==", {"value": "a b"}, ["a b"], ["a  b", "ab"]),
	("%", {"value": "100"}, ["anything", "1"], []),
	("%", {"value": "0"}, [], ["anything", "1"])])
def test_operator(gw, site, pair, b, c, condition, more, fits, fits_not):
	pair(lane(predicate(condition=condition, **more)))
	assert ask(gw, site) == (b, None), "a missing key satisfies no operator"
	for value in fits:
		assert ask(gw, site, {"x-env": value}) == (c, TAG), value
	for value in fits_not:
		assert ask(gw, site, {"x-env": value}) == (b, None), value


def test_header_that_comes_twice_is_joined_by_commas(gw, site, pair, c):
	pair(lane(predicate(value="a,b")))
	with gw.connect(site) as connection:
		connection.send("GET /echo HTTP/1.1\r\nHost: gw.test\r\nX-Env: a\r\nx-env: b\r\n\r\n")
		assert connection.read_response("GET").json["address"] == c


def test_and_or(gw, site, pair, b, c):
	service = pair(lane(predicate(), predicate("Parameter", "u", "==", "1"), match="And"))
	cases = [((), "/echo"), ({"x-env": "test"}, "/echo"), ((), "/echo?u=1"), ({"x-env": "test"}, "/echo?u=1")]
	assert [ask(gw, site, fields, path)[0] for fields, path in cases] == [b, b, b, c]
	gw.change_policy(service.lanes, lanes(lane(predicate(), predicate("Parameter", "u", "==", "1"), match="Or")))
	assert [ask(gw, site, fields, path)[0] for fields, path in cases] == [b, c, c, c]


def test_first_content_lane_wins_and_comes_before_any_draw(gw, site, backend, b, c):
	d = backend.peers[2]
	serve(gw, site, [b, tagged(c, "one"), tagged(d, "two")], share(100, tag="one", group=7), lane(predicate(), tag="two"),
		lane(predicate(), tag="one"))
	assert ask(gw, site, {"x-env": "test"}) == (d, "two")
	assert ask(gw, site) == (c, "one")


def test_lanes_of_a_group_share_a_draw_and_groups_follow_each_other(gw, site, backend, b, c):
	"""50 + 50 of one group is everything: the other group gets none, and there is no baseline. 400 draws of one half: a deviation of
	10, six and a half of them are 65."""
	d, e = backend.peers[2:]
	service = serve(gw, site, [b, tagged(c, "one"), tagged(d, "two"), tagged(e, "three")], share(50, tag="one", group=8),
		share(100, tag="three", group=9), share(50, tag="two", group=8))
	counts = collections.Counter(ask(gw, site) for _ in range(400))
	assert set(counts) == {(c, "one"), (d, "two")}
	assert 135 <= counts[c, "one"] <= 265
	gw.change_policy(service.lanes, lanes(share(0, tag="one", group=8), share(100, tag="three", group=9)))
	assert {ask(gw, site) for _ in range(10)} == {(e, "three")}


def test_lane_that_is_switched_off_takes_nobody(gw, site, pair, b):
	pair(lane(predicate(), enable=False), share(100, enable=False))
	assert {ask(gw, site, {"x-env": "test"}) for _ in range(6)} == {(b, None)}


def test_lane_that_is_switched_off_keeps_its_version(gw, site, b, c):
	"""The version that a lane is named after is no place for everybody, whether or not anybody is sent there."""
	serve(gw, site, [b, {"address": c, "version": TAG}], lane(predicate(), enable=False))
	assert {ask(gw, site, {"x-env": "test"}) for _ in range(6)} == {(b, None)}


def test_tag_of_no_lane_keeps_from_versions_of_lanes(gw, site, b, c):
	"""A request whose tag nobody carries is served by the baseline, of which the lane's version is no part."""
	serve(gw, site, [b, {"address": c, "version": TAG}], lane(predicate()))
	assert {ask(gw, site, {"x-mse-tag": "elsewhere"}) for _ in range(6)} == {(b, "elsewhere")}


def test_no_lanes_at_all(gw, site, pair, b):
	"""The policy without lanes still keeps everybody's requests from tagged endpoints."""
	pair()
	assert {ask(gw, site) for _ in range(6)} == {(b, None)}


def test_large_ids_are_kept_exactly(gw, site, pair):
	"""Lanes that differ only above 2^53 are different ones; read back they are what was written."""
	low, high = 9007199254740992, 9007199254740993
	service = pair(share(60, group=low, number=1), share(60, group=high, number=high), lane(predicate(), group=high, number=low))
	config = gw.ask("GET", service.lanes.policy.path)["config"]
	assert str(high) in config and f'"swimmingLaneId":{low}' in config.replace(" ", "")
	twice = lanes(share(60, group=high, number=1), share(60, group=high, number=2))
	answer = gw.api("POST", "/api/v2/policies", {"name": "twice", "className": "DynamicRoute", "config": as_text({"enable": True, **twice})})
	check_error(answer, 400, "ErrInvalidParameter", "config.dynamicRouteSwimmingLaneConfigs[1].percentage")
	gw.change_policy(service.lanes, lanes(share(60, group=9223372036854775807)))


# ---- endpoints ----

@pytest.mark.parametrize("canary", [{"labels": {"alicloud.service.tag": TAG}}, {"labels": {"tag": TAG}}, {"version": TAG},
	{"labels": {"alicloud.service.tag": TAG, "tag": "other"}}, {"labels": {"color": "green"}}])
def test_what_carries_a_tag(gw, site, b, c, canary):
	"""Its label, or membership in the version named like it."""
	serve(gw, site, [b, {"address": c, **canary}], lane(predicate()), versions=[{"name": TAG, "labels": {"color": "green"}}])
	for _ in range(4):
		assert ask(gw, site, {"x-env": "test"}) == (c, TAG)
		assert ask(gw, site) == (b, None)


def test_versions_that_no_lane_names_are_baseline(gw, site, backend, b, c):
	serve(gw, site, [{"address": b, "version": "v1"}, {"address": c, "version": TAG}], lane(predicate()))
	assert {ask(gw, site) for _ in range(6)} == {(b, None)}


def test_all_tagged_is_all(gw, site, b, c):
	"""No endpoint without a tag is registered: the baseline is everybody."""
	serve(gw, site, [tagged(b, "one"), tagged(c)], lane(predicate()))
	assert {ask(gw, site)[0] for _ in range(8)} == {b, c}
	assert {ask(gw, site, {"x-env": "test"})[0] for _ in range(8)} == {c}


def test_several_endpoints_of_a_lane_take_turns(gw, site, backend, b):
	serve(gw, site, [b, *(tagged(address) for address in backend.peers[1:])], lane(predicate()))
	with gw.connect(site) as connection:
		row = [connection.get("/echo", {"x-env": "test"}).json["address"] for _ in range(30)]
	assert collections.Counter(row) == {address: 10 for address in backend.peers[1:]}


def test_without_the_policy_tags_mean_nothing(gw, site, pair, b, c):
	service = pair(lane(predicate()))
	gw.change_policy(service.lanes, lanes(lane(predicate()), enable=False))
	assert {ask(gw, site, {"x-env": "test"}) for _ in range(8)} == {(b, None), (c, None)}
	assert {ask(gw, site, {"x-mse-tag": TAG})[0] for _ in range(8)} == {b, c}
	gw.delete(service.lanes)
	assert {ask(gw, site)[0] for _ in range(8)} == {b, c}


def test_every_route_and_service_of_the_gateway(gw, site, backend, b, c):
	pair = gw.service([b, tagged(c)], site)
	other = gw.service([backend.peers[2], tagged(backend.peers[3], label="tag")], site)
	gw.route("/a", pair, site=site)
	gw.route("/b", other, site=site)
	gw.attach("DynamicRoute", lanes(lane(predicate())), to=site)
	assert ask(gw, site, {"x-env": "test"}, "/a/echo") == (c, TAG)
	assert ask(gw, site, {"x-env": "test"}, "/b/echo") == (backend.peers[3], TAG)
	assert ask(gw, site, path="/b/echo") == (backend.peers[2], None)


def test_version_weighted_routes_keep_their_split(gw, site, b, c):
	"""The lane adds the header there, and nothing else."""
	service = gw.service([{"address": b, "version": "v1"}, tagged(c, version="v2")], site)
	gw.attach("DynamicRoute", lanes(lane(predicate()), share(0, tag="v1")), to=site)
	for version, address in (("v1", b), ("v2", c)):
		gw.route(f"/{version}", {"scene": "SingleService", "services": [{"serviceId": service.id, "version": version}]}, site=site)
		assert {ask(gw, site, {"x-env": "test"}, f"/{version}/echo") for _ in range(4)} == {(address, TAG)}
		assert {ask(gw, site, path=f"/{version}/echo") for _ in range(4)} == {(address, None)}
	both = [{"serviceId": service.id, "version": "v1", "weight": 50}, {"serviceId": service.id, "version": "v2", "weight": 50}]
	gw.route("/both", {"scene": "MultiServiceByRatio", "services": both}, site=site)
	# 200 draws of one half: a deviation of 7, six and a half of them are 46.
	counts = collections.Counter(ask(gw, site, {"x-env": "test"}, "/both/echo") for _ in range(200))
	assert set(counts) == {(b, TAG), (c, TAG)} and 54 <= counts[b, TAG] <= 146


def test_hash_within_a_lane(gw, site, backend, b):
	"""Keys stick within the candidates of the lane."""
	service = serve(gw, site, [b, *(tagged(address) for address in backend.peers[1:])], lane(predicate()))
	gw.attach("ServiceLb", {"loadBalancerType": "CONSISTENT_HASH", "consistentHashLBConfig": {"consistentHashLBType": "HEADER",
		"parameterName": "k"}}, to=service)
	for i in range(20):
		assert len({ask(gw, site, {"x-env": "test", "k": str(i)}) for _ in range(3)}) == 1
		assert ask(gw, site, {"k": str(i)}) == (b, None)
	assert {ask(gw, site, {"x-env": "test", "k": str(i)})[0] for i in range(60)} == set(backend.peers[1:])


def test_lane_that_refuses_connections_is_retried_at_the_baseline(gw, site, backend, b):
	service = serve(gw, site, [b, tagged(dead(backend))], lane(predicate()))
	gw.attach("Retry", {"attempts": 1, "retryOn": ["connect-failure"]}, to=service)
	for _ in range(4):
		assert ask(gw, site, {"x-env": "test"}) == (b, TAG)


# ---- with others ----

def test_lane_is_retried_where_the_baseline_is_down(gw, site):
	"""The lane's only endpoint failed, and is the only one that is up."""
	with upstream("h1", Reply(503), Reply(200, b"lane")) as up:
		check = {"enable": True, "protocol": "TCP", "interval": 1, "timeout": 1, "healthyThreshold": 1, "unhealthyThreshold": 1}
		service = serve(gw, site, [f"127.0.0.9:{up.port}", tagged(up.address)], lane(predicate()), healthCheckConfig=check)
		gw.attach("Retry", {"attempts": 1, "retryOn": ["5xx"]}, to=service)
		wait_until(lambda: gw.records(path="/", flag="UH") or gw.get("/", site=site).status == 0, 10, "a baseline that is down")
		answer = gw.get("/", {"x-env": "test"}, site=site)
		assert (answer.status, answer.body, len(up.hits)) == (200, b"lane", 2)


def test_lane_is_chosen_by_the_clients_own_headers(gw, site, pair, b, c):
	"""HeaderModify comes later: it sees the tag and changes nothing of the choice."""
	pair(lane(predicate()))
	gw.attach("HeaderModify", headers(op("Request", "Update", "X-Env", "test"), op("Request", "Update", "X-Lane", "lane.tag", "Reference"),
		op("Response", "Update", "X-Lane", "lane.tag", "Reference")), to=site)
	assert ask(gw, site) == (b, None)
	answer = gw.get("/echo", site=site)
	assert answer.header("X-Lane") is None
	answer = gw.get("/echo", {"x-env": "test"}, site=site)
	assert answer.header("X-Lane") == TAG and ["X-Lane", TAG] in answer.json["headers"]
	answer = gw.get("/echo", {"x-mse-tag": "mine"}, site=site)
	assert answer.header("X-Lane") == "mine"


def test_refused_requests_choose_no_lane(gw, site, pair):
	"""A request that is refused earlier chooses no lane."""
	service = pair(lane(predicate()))
	gw.attach("IpAccessControl", {"name": "n", "ipAccessControlResourceName": "r", "ipAccessControlResourceType": "Gateway",
		"ipAccessControlType": "Black", "ipAccessControlContent": "127.0.0.1", "protocolLayer": "L7"}, to=site)
	assert gw.get("/echo", {"x-env": "test"}, site=site).status == 403
	assert sum(outcomes(gw, service.lanes).values()) == 0


def test_answer_says_nothing(gw, site, pair):
	pair(lane(predicate()))
	answer = gw.get("/echo", {"x-env": "test"}, site=site)
	assert not answer.all("x-mse-tag") and not answer.all("Vary")


def test_tags_that_clients_invent_cost_nothing(gw, site, pair, b):
	"""Each is a baseline request; nothing is kept of them."""
	pair(lane(predicate()))
	ask(gw, site, {"x-mse-tag": "warm"})
	before = gw.rss_kb()
	with gw.connect(site) as connection:
		for i in range(900):
			assert connection.get("/echo", {"x-mse-tag": f"tag-{i}-" + "x" * 500}).json["address"] == b
	assert gw.rss_kb() - before < 8000


def test_attach_to_a_route_is_refused(gw, site, pair, b):
	route = gw.route("/r", gw.service([b], site), site=site)
	policy = gw.policy("DynamicRoute", lanes())
	answer = gw.api("POST", "/api/v1/policy-attachments", {"attachResourceId": route.id, "attachResourceType": "Route",
		"gatewayId": site.id, "environmentId": site.environment, "policyId": policy.id})
	check_error(answer, 400, "ErrInvalidParameter", "attachResourceType")
