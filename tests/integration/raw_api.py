"""The admin API byte for byte: what is sent is exactly what the test says; the answer comes back unjudged."""
import contextlib
import http.client
import json

from gw import Gateway


class Answer:
	def __init__(self, status, headers, raw):
		self.status = status
		self.headers = headers
		self.raw = raw

	@property
	def json(self):
		return json.loads(self.raw)

	def __repr__(self):
		return f"{self.status} {self.raw[:300]!r}"


class RawApi:
	"""One kept connection to "host:port". A header given as None is left out."""

	def __init__(self, address, token):
		self.address = address
		self.token = token
		self.connection = http.client.HTTPConnection(address, timeout=30)

	def send(self, method, path, body=None, headers=None):
		"""`body`: bytes go as they are, text as UTF-8, anything else as JSON."""
		if body is not None and not isinstance(body, (bytes, str)):
			body = json.dumps(body)
		if isinstance(body, str):
			body = body.encode()
		wanted = {"X-Auth-Token": self.token}
		if body is not None:
			wanted["Content-Type"] = "application/json"
		wanted.update(headers or {})
		wanted = {name: value for name, value in wanted.items() if value is not None}
		try:
			self.connection.request(method, path, body, wanted)
			answer = self.connection.getresponse()
		except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError):
			# The server closed the idle connection: once more on a new one.
			self.connection.close()
			self.connection.request(method, path, body, wanted)
			answer = self.connection.getresponse()
		return Answer(answer.status, answer.headers, answer.read())

	def close(self):
		self.connection.close()


@contextlib.contextmanager
def running_api():
	"""The admin API of a program of its own, which ends with the block."""
	with Gateway() as gateway:
		api = RawApi(gateway.admin, gateway.token)
		yield api
		api.close()
