"""JWTAuth and another maker's idea of tokens: what the npm package jose signs, with its own keys."""
import json

import node
import pytest
from gw import numbers
from tokens import ISSUER, Issuer, bearer, fault, jwt_auth


@pytest.fixture(scope="module")
def made():
	if not (node.FOLDER / "node_modules/jose").is_dir():
		pytest.skip("the npm package jose is not installed: tools/install_deps test")
	return json.loads(node.run("jose_tokens.js", ISSUER))


def guarded(gw, backend, keys):
	base = f"/jose-{next(numbers)}"
	gw.attach("JWTAuth", jwt_auth(keys), to=gw.route(base, backend))
	return base


def test_tokens_of_jose(gw, backend, made):
	with Issuer(*made["keys"]) as issuer:
		base = guarded(gw, backend, issuer)
		for _ in range(2):    # verified, and from memory
			assert {name: gw.get(base, bearer(token)).status for name, token in made["good"].items()} == dict.fromkeys(made["good"], 200)
		backend.clear()
		said = {name: fault(gw.get(base, bearer(token))) for name, token in made["bad"].items()}
		assert backend.requests() == []
		assert len(issuer.asked) == 1
	expected = {"expired": "expired", "issuer": "issuer", "yet": "not yet valid", "stranger": "signature", "key": "signature", "secret": "algorithm",
		"HS256": "algorithm", "unsecured": "algorithm", "encrypted": "malformed", "b64": "malformed"}
	assert said == {name: expected[name.split(" ")[-1]] for name in said}


def test_secrets_of_jose(gw, backend, made):
	base = guarded(gw, backend, [made["symmetric"]])
	assert {name: gw.get(base, bearer(token)).status for name, token in made["hmac"].items()} == dict.fromkeys(made["hmac"], 200)
	for name, token in made["good"].items():
		assert gw.get(base, bearer(token)).status == 401, name
