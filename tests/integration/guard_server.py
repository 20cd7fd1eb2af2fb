"""A moderation service as tests drive it. It checks form and signature of what it is asked by an implementation of its own, and says what
it is told, or misbehaves.

    with GuardServer({"key-1": "secret-1"}) as guard:
        guard.flag("bad", RiskLevel="high")                  # a text with "bad" in it gets this Data
        ...
        guard.last.content, guard.last.signed_by
"""
import datetime
import hashlib
import hmac
import json
import threading
import time
import urllib.parse

from side_services import SideService, plain

CODES = {
	"llm_query_moderation": "TextModerationPlus", "llm_response_moderation": "TextModerationPlus",
	"query_security_check": "MultiModalGuard", "response_security_check": "MultiModalGuard",
}
POINTS_MAX = 2000    # what the service takes


def acs3_signature(secret, method, path, query, lines, body):
	"""`lines`: {lower-case name: value} of all lines that are signed."""
	names = sorted(lines)
	parameters = sorted(part if "=" in part else part + "=" for part in query.split("&") if part)
	canonical = "\n".join([method, path, "&".join(parameters), "".join(f"{name}:{lines[name].strip()}\n" for name in names),
		";".join(names), hashlib.sha256(body).hexdigest()])
	text = "ACS3-HMAC-SHA256\n" + hashlib.sha256(canonical.encode()).hexdigest()
	return hmac.new(secret.encode(), text.encode(), hashlib.sha256).hexdigest()


def level_data(level):
	"""Data of MultiModalGuard that says one level for the content."""
	return {"Suggestion": "block" if level != "none" else "pass", "Detail": [detail("contentModeration", level)]}


def detail(kind, level, label=None):
	return {"Type": kind, "Level": level, "Suggestion": "pass" if level in ("none", "S0") else "block",
		"Result": [{"Label": label or ("nonLabel" if level in ("none", "S0") else f"{kind}_label"), "Confidence": 90.5}]}


class Check:
	"""One call, judged: `signed_by` is the key's id, None where it is not signed. Anything wrong is an AssertionError."""

	def __init__(self, asked, secrets):
		self.at = time.monotonic()
		self.asked = asked
		assert asked.method == "POST", asked
		assert asked.header("Content-Type") == "application/x-www-form-urlencoded"
		self.path, _, self.query = asked.target.partition("?")
		parameters = urllib.parse.parse_qs(self.query, strict_parsing=True)
		self.service = parameters["Service"][0].removesuffix("_intl")
		self.action = asked.header("x-acs-action")
		assert CODES[self.service] == self.action
		assert asked.header("x-acs-version") == "2022-03-02"
		assert asked.header("x-acs-content-sha256") == hashlib.sha256(asked.body).hexdigest()
		date = datetime.datetime.strptime(asked.header("x-acs-date"), "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=datetime.timezone.utc)
		assert abs((datetime.datetime.now(datetime.timezone.utc) - date).total_seconds()) < 60
		self.nonce = asked.header("x-acs-signature-nonce")
		assert len(self.nonce) == 36
		form = urllib.parse.parse_qs(asked.body.decode("ascii"), strict_parsing=True, errors="strict")
		assert list(form) == ["ServiceParameters"]
		self.parameters = json.loads(form["ServiceParameters"][0])
		self.content, self.session = self.parameters["content"], self.parameters["sessionId"]
		assert 0 < len(self.content) <= POINTS_MAX, len(self.content)
		assert len(self.session) == 20 and all(c in "0123456789abcdef" for c in self.session)
		assert self.parameters["requestFrom"]
		self.signed_by = self.verify(secrets) if asked.header("Authorization") else None

	@property
	def is_request(self):
		return "query" in self.service

	def verify(self, secrets):
		scheme, _, rest = self.asked.header("Authorization").partition(" ")
		assert scheme == "ACS3-HMAC-SHA256"
		parts = dict(part.split("=", 1) for part in rest.split(","))
		names = parts["SignedHeaders"].split(";")
		present = sorted(name.lower() for name, _ in self.asked.headers)
		for name in present:    # all of these have to be covered
			assert name in names or not (name in ("host", "content-type") or name.startswith("x-acs-")), (name, names)
		lines = {name: self.asked.header(name) for name in names}
		wanted = acs3_signature(secrets[parts["Credential"]], "POST", self.path, self.query, lines, self.asked.body)
		assert hmac.compare_digest(parts["Signature"], wanted), parts
		return parts["Credential"]


class GuardServer:
	"""`checks`: all calls so far. `errors`: those that were no good ones (they get status 400). `rules`: words and their Data."""

	def __init__(self, secrets=None, answers=None):
		self.secrets, self.rules, self.checks, self.errors, self.nonces = secrets or {}, [], [], [], set()
		self.raw, self.delay, self.lock = None, 0, threading.Lock()
		self.gate = threading.Event()
		self.gate.set()
		self.side = SideService(self.answer)
		self.url, self.port = self.side.url, self.side.port

	def flag(self, word, advice=None, **data):
		"""A text with this word gets this Data."""
		if advice is not None:
			data["Advice"] = [{"Answer": advice, "HitLabel": "hit", "HitLibName": "lib"}]
		self.rules.append((word, data))
		return self

	def break_with(self, raw):
		"""From now on: these bytes, or a function of (check, connection) as SideService has it; None: as it should be."""
		self.raw = raw
		return self

	def hold(self):
		self.gate.clear()

	def release(self):
		self.gate.set()

	def data_for(self, check):
		for word, data in self.rules:
			if word in check.content:
				return data
		if check.action == "TextModerationPlus":
			return {"RiskLevel": "none", "Result": [{"Label": "nonLabel"}], "AttackLevel": "none", "SensitiveLevel": "S0"}
		return level_data("none")

	def answer(self, asked, connection):
		try:
			check = Check(asked, self.secrets)
			with self.lock:
				assert check.nonce not in self.nonces
				self.nonces.add(check.nonce)
				self.checks.append(check)
		except (AssertionError, KeyError, ValueError) as error:
			self.errors.append(repr(error))
			return plain(400)
		self.gate.wait(60)
		if self.delay:
			time.sleep(self.delay)
		if self.raw is not None:
			return self.raw(check, connection) if callable(self.raw) else self.raw
		return said(self.data_for(check), f"guard-{len(self.checks)}")

	@property
	def last(self):
		return self.checks[-1]

	@property
	def requests(self):
		return [check for check in self.checks if check.is_request]

	@property
	def responses(self):
		return [check for check in self.checks if not check.is_request]

	def clear(self):
		self.checks, self.rules, self.raw, self.delay = [], [], None, 0
		self.release()

	def __enter__(self):
		return self

	def __exit__(self, kind, *exits):
		self.release()
		self.side.__exit__(kind, *exits)
		if kind is None:
			assert not self.errors, self.errors


def said(data, request_id="guard-1", code=200, status=200):
	body = json.dumps({"Code": code, "Message": "OK", "RequestId": request_id, "Data": data}, ensure_ascii=False).encode()
	return plain(status, [("Content-Type", "application/json")], body)
