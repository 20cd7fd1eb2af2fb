"""Consumers for tests: with keys, passwords and signed tokens, and rules that let them call."""
import base64
import hashlib
import hmac
import json
import time

from gw import Resource, numbers


def b64(data):
	return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def consumer(gw, name=None, **identities):
	"""`identities`: apiKey, basic, jwt as in the API."""
	body = {"name": name or f"consumer-{next(numbers)}", "enable": True, "identities": identities}
	return gw.create("Consumer", "/api/v1/consumers", "consumerId", body)


def keys(*texts, source=None, value=None):
	"""The identity apiKey."""
	identity = {"credentials": [{"apikey": text, "generateMode": "Custom"} for text in texts]}
	if source:
		identity["source"] = {"source": source, **({"value": value} if value else {})}
	return identity


def key():
	"""A key of its own."""
	return f"key-of-a-test-{next(numbers)}"


def basic(user, password):
	"""Header fields."""
	return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


def bearer(text):
	return {"Authorization": f"Bearer {text}"}


def allow(gw, who, to, **more):
	body = {"resourceType": to.type, "resourceId": to.id, **more}
	if to.environment:
		body.setdefault("environmentId", to.environment)
	return gw.create("Rule", f"{who.path}/authorization-rules", "authorizationRuleId", body)


def change(gw, who, **members):
	"""Replaces members of a consumer, the others as they were read."""
	item = gw.ask("GET", who.path)
	item.update(members)
	gw.ask("PUT", who.path, item)


class Signer:
	"""Signs tokens with a shared secret; `jwks` is the text that lets others verify them."""

	def __init__(self, secret=None, kid=None):
		self.secret = (secret or f"a secret of 32 bytes and more, number {next(numbers)}").encode()
		self.kid = kid
		jwk = {"kty": "oct", "k": b64(self.secret), "alg": "HS256", **({"kid": kid} if kid else {})}
		self.jwks = json.dumps({"keys": [jwk]})

	def sign(self, claims, header=None):
		head = {"alg": "HS256", "typ": "JWT", **({"kid": self.kid} if self.kid else {}), **(header or {})}
		signed = ".".join(b64(json.dumps(part).encode()) for part in (head, claims))
		return f"{signed}.{b64(hmac.new(self.secret, signed.encode(), hashlib.sha256).digest())}"

	def token(self, value, name="uid", **claims):
		return self.sign({name: value, "exp": int(time.time()) + 600, **claims})

	def identity(self, value, name=None, **more):
		"""The identity jwt."""
		payload = {"payloadKeyValue": value, **({"payloadKeyName": name} if name else {})}
		return {"jwks": self.jwks, "secretType": "Symmetry", "jwtPayloadConfig": payload, **more}
