# serial: it counts what the release program does for one request, with one worker; repeats to about one per cent.
"""User instructions of a request with an API key, among few consumers and among many. Needs valgrind."""
import pytest
from consumer_kit import keys
from gw import Gateway, free_port
from test_cost import PROGRAM, count_instructions
import test_cost

KEY = "the-key-of-one-consumer"
FEW, MANY = 10, 2000
SAME = 1.01
KEY_COST = 7_500                          # most of it the digest, without the SHA instructions that valgrind does not know


def make(folder, kind, n):
	"""A store with n consumers, one of which may call the route."""
	upstream = free_port()
	with Gateway(program=PROGRAM, data=folder / "data") as gw:
		route = gw.route("/", upstream)
		if kind:
			gw.attach("Authentication", {"authenticationType": "key-auth", "enable": True}, to=route)
		for i in range(n):
			text = KEY if i == n // 2 else f"key-number-{i:06}-of-many"
			identity = {"apiKey": keys(text, source="QueryString", value="k")}
			who = gw.ask("POST", "/api/v1/consumers", {"name": f"c{i}", "identities": identity})["consumerId"]
			gw.ask("POST", f"/api/v1/consumers/{who}/authorization-rules", {"resourceType": "Route", "resourceId": route.id})
		return folder / "data", gw.port, upstream


def each_request(data):
	few, few_served = count_instructions(data, 1000)
	many, many_served = count_instructions(data, 5000)
	return (many - few) / (many_served - few_served)


@pytest.fixture(autouse=True)
def with_key(monkeypatch):
	load = test_cost.load
	monkeypatch.setattr(test_cost, "load", lambda *most, **more: load(*most, **{**more, "path": f"/b/1024?k={KEY}", "routes": 1}))


def test_a_key_costs_the_same_among_few_and_many(tmp_path_factory):
	folders = [tmp_path_factory.mktemp(f"consumers-{n}") for n in (0, FEW, MANY)]
	open_route, few, many = (each_request(make(folder, bool(n), n)) for folder, n in zip(folders, (0, FEW, MANY)))
	print(f"{open_route:.0f} instructions without, {few:.0f} among {FEW} consumers, {many:.0f} among {MANY}")
	assert many <= few * SAME
	assert few - open_route <= KEY_COST
