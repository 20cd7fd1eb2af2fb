# serial: it counts what the release program does for one request, with one worker; repeats to about one per cent.
"""User instructions of a request whose token this worker has verified before. Needs valgrind, which knows no SHA instructions: there the
digest of the token is most of the cost, on a processor that has them it is about a fifth of a microsecond."""
import os
import time

import pytest
import test_cost
from gw import Gateway, free_port
from tokens import jwt_auth, key

INSTRUCTIONS = 24_000                     # a verification of RS256 is about 100,000 more


@pytest.mark.parametrize("passes", [True, False], ids=["passed on", "taken off"])
def test_user_instructions_of_a_known_token(tmp_path, monkeypatch, passes):
	token = key().sign(exp=int(time.time()) + 36000)
	load = test_cost.load
	monkeypatch.setattr(test_cost, "load", lambda port, upstream, connections, requests, routes: load(port, upstream, connections, requests,
		path=f"/r%u/b/1024?token={token}", routes=1))
	each = {}
	for name in ("open", "guarded"):
		upstream = free_port()
		folder = tmp_path / name
		os.mkdir(folder)
		with Gateway(program=test_cost.PROGRAM, data=folder / "data") as gw:
			route = gw.route("/r0", upstream)
			if name == "guarded":
				gw.attach("JWTAuth", jwt_auth(key(), tokenPosition="query", tokenName="token", tokenNamePrefix=None, tokenPass=passes), to=route)
			data = folder / "data", gw.port, upstream
		few, few_served = test_cost.count_instructions(data, 2000)
		many, many_served = test_cost.count_instructions(data, 8000)
		each[name] = (many - few) / (many_served - few_served)
	print(f"{each['open']:.0f} instructions without, {each['guarded']:.0f} with JWTAuth")
	assert each["guarded"] - each["open"] <= INSTRUCTIONS, each
