"""Tokens (JWS in compact form) and the keys they are signed with, made by openssl; and issuers that serve key sets, good and bad ones."""
import base64
import functools
import hashlib
import hmac
import itertools
import json
import pathlib
import re
import tempfile
import time

from pki import openssl
from side_services import SideService, plain

FOLDER = tempfile.mkdtemp(prefix="sluice-keys-")
ISSUER = "https://issuer.test"
DIGESTS = {"256": "sha256", "384": "sha384", "512": "sha512"}
CURVES = {"P-256": ("prime256v1", 32), "P-384": ("secp384r1", 48), "P-521": ("secp521r1", 66)}


def b64(data):
	return base64.urlsafe_b64encode(data if isinstance(data, bytes) else data.encode()).rstrip(b"=").decode()


def compact(value):
	return value if isinstance(value, (str, bytes)) else json.dumps(value, separators=(",", ":"))


def raw_signature(der, size):
	"""r || s of an ECDSA signature."""
	at, parts = 3 if der[1] & 0x80 else 2, []
	for _ in range(2):
		n = der[at + 1]
		parts.append(int.from_bytes(der[at + 2:at + 2 + n], "big").to_bytes(size, "big"))
		at += 2 + n
	return b"".join(parts)


class Key:
	"""A key pair. `kid` may be None. `jwk(**more)` is its public half; sign() a token; `pem` and `der` the public key as text and bytes."""

	def __init__(self, kind, kid=None, bits=2048):
		self.kind, self.kid = kind, kid
		self.file = tempfile.mktemp(dir=FOLDER)
		options = {"RSA": ["RSA", "-pkeyopt", f"rsa_keygen_bits:{bits}"], "Ed25519": ["ed25519"]}.get(kind)
		options = options or ["EC", "-pkeyopt", f"ec_paramgen_curve:{CURVES[kind][0]}"]
		openssl("genpkey", "-algorithm", *options, "-out", self.file)
		self.pem = openssl("pkey", "-in", self.file, "-pubout").decode()
		self.der = openssl("pkey", "-in", self.file, "-pubout", "-outform", "DER")

	def jwk(self, **more):
		made = {"use": "sig", **({"kid": self.kid} if self.kid is not None else {})}
		if self.kind == "RSA":
			modulus = openssl("rsa", "-in", self.file, "-noout", "-modulus").decode().split("=")[1].strip()
			made.update(kty="RSA", n=b64(bytes.fromhex(modulus)), e="AQAB")
		elif self.kind == "Ed25519":
			made.update(kty="OKP", crv="Ed25519", x=b64(self.der[-32:]))
		else:
			size = CURVES[self.kind][1]
			made.update(kty="EC", crv=self.kind, x=b64(self.der[-2 * size:-size]), y=b64(self.der[-size:]))
		made.update(more)
		return {name: value for name, value in made.items() if value is not None}

	@property
	def algorithm(self):
		return {"RSA": "RS256", "Ed25519": "EdDSA", "P-256": "ES256", "P-384": "ES384", "P-521": "ES512"}[self.kind]

	def signature(self, text, algorithm):
		path = pathlib.Path(tempfile.mktemp(dir=FOLDER))
		path.write_bytes(text)
		try:
			if algorithm == "EdDSA":
				return openssl("pkeyutl", "-sign", "-inkey", self.file, "-rawin", "-in", str(path))
			options = ["-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:-1"] if algorithm.startswith("PS") else []
			made = openssl("dgst", f"-{DIGESTS[algorithm[2:]]}", "-sign", self.file, *options, str(path))
		finally:
			path.unlink()
		return raw_signature(made, CURVES[self.kind][1]) if algorithm.startswith("ES") else made

	def sign(self, claims=None, algorithm=None, header=None, **more):
		"""A token. `header`: members that are added or, with None, left out. `more`: claims added to good ones when `claims` is None."""
		algorithm = algorithm or self.algorithm
		head = {"alg": algorithm, "typ": "JWT", **({"kid": self.kid} if self.kid is not None else {}), **(header or {})}
		head = {name: value for name, value in head.items() if value is not None}
		text = f"{b64(compact(head))}.{b64(compact(good(**more) if claims is None else claims))}"
		return f"{text}.{b64(self.signature(text.encode(), algorithm))}"


@functools.lru_cache(maxsize=None)
def key(kind="RSA", kid="k1"):
	"""The same one for all tests."""
	return Key(kind, kid)


def good(**more):
	"""Claims of a good token; None leaves one out."""
	claims = {"iss": ISSUER, "sub": "alice", "exp": int(time.time()) + 600, **more}
	return {name: value for name, value in claims.items() if value is not None}


def symmetric(secret, kid=None, **more):
	return {"kty": "oct", "k": b64(secret), **({"kid": kid} if kid is not None else {}), **more}


def sign_hmac(secret, claims=None, algorithm="HS256", header=None):
	head = {"alg": algorithm, **(header or {})}
	text = f"{b64(compact(head))}.{b64(compact(good() if claims is None else claims))}"
	return f"{text}.{b64(hmac.new(secret, text.encode(), getattr(hashlib, DIGESTS[algorithm[2:]])).digest())}"


def unsigned(header, claims=None, signature=b""):
	return f"{b64(compact(header))}.{b64(compact(good() if claims is None else claims))}.{b64(signature)}"


def key_set(*jwks):
	return {"keys": [one.jwk() if isinstance(one, Key) else one for one in jwks]}


issuers = itertools.count(1)


class Issuer(SideService):
	"""Serves a key set at `jwks`, a URL that no other has: a port may come back. `keys`: Keys or JWKs, may be changed; `fields`: of the
	answer. `asked`: fetches so far."""

	def __init__(self, *keys, fields=(), **options):
		self.keys, self.fields = list(keys), fields
		super().__init__(self.serve_keys, **options)
		self.path = f"/jwks/{next(issuers)}"
		self.jwks = self.url + self.path

	def serve_keys(self, request, connection):
		body = json.dumps(key_set(*self.keys)).encode()
		return plain(200, [("Content-Type", "application/jwk-set+json"), *self.fields], body)


def jwt_auth(jwks, **more):
	"""JWTAuth. `jwks`: a URL, an Issuer, or JWKs for an inline set."""
	if isinstance(jwks, Issuer):
		jwks = jwks.jwks
	if not isinstance(jwks, str):
		jwks = json.dumps(key_set(*(jwks if isinstance(jwks, (list, tuple)) else [jwks])))
	config = {"name": "jwt", "issuer": ISSUER, "jwks": jwks, "tokenPosition": "header", "tokenName": "Authorization",
		"tokenNamePrefix": "Bearer ", "tokenPass": True, "enable": True, **more}
	return {name: value for name, value in config.items() if value is not None}


def bearer(token):
	return {"Authorization": f"Bearer {token}"}


def fault(answer):
	"""error_description of a 401, "" of one without an error."""
	assert answer.status == 401, answer
	challenge = answer.header("WWW-Authenticate")
	found = re.fullmatch(r'Bearer realm="sluice"(?:, error="invalid_token", error_description="([a-z ]+)")?', challenge)
	assert found, challenge
	return found.group(1) or ""
