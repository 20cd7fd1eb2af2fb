"""`sluice status`: what of the gateway does not do what it was told to, against servers that are really away."""
import json
import os
import socket
import subprocess

from consumer_kit import consumer, keys
from gw import PROGRAM, Gateway, free_port, numbers
from policy_kit import rate
from tokens import bearer, jwt_auth, key
from wire import wait_until


def status(gw, *arguments):
	flags = ["--server", f"http://{gw.admin}", "--token-file", os.path.join(gw.data, "admin.token")]
	return subprocess.run([PROGRAM, "status", *flags, *arguments], capture_output=True, text=True, timeout=60,
		stdin=subprocess.DEVNULL, check=False)


def told(gw, *arguments):
	done = status(gw, "-o", "json", *arguments)
	assert done.stderr == ""
	return done.returncode, json.loads(done.stdout)


def test_all_is_well():
	with Gateway() as gw:
		route = gw.route(f"/status-{next(numbers)}", gw.service(free_port()))
		gw.attach("RateLimit", rate(1000), to=route)
		done = status(gw)
		assert done.returncode == 0 and "ready" in done.stdout and "All is well." in done.stdout, done
		code, answer = told(gw)
		assert code == 0 and answer["status"] == "ready" and answer["items"] == []
		assert {one["kind"]: one["total"] for one in answer["counts"]} == {"Gateway": 1, "Consumer": 0, "Attachment": 1}
		code, answer = told(gw, "--all")
		name = gw.ask("GET", "/api/v1/gateways")["items"][0]["gateway"]
		assert code == 0 and {(one["kind"], one["name"]) for one in answer["items"]} == {("Gateway", name), ("Attachment", "RateLimit")}
		assert all(one["status"]["phase"] in ("Running", "Active") for one in answer["items"])
		assert status(gw, "--quiet").stdout == ""


def test_a_dependency_that_is_away_is_named(backend):
	with Gateway() as gw:
		path = f"/status-{next(numbers)}"
		route = gw.route(path, backend)
		gw.attach("JWTAuth", jwt_auth(f"http://127.0.0.1:{free_port()}/jwks"), to=route)
		assert gw.get(path, bearer(key().sign())).status == 503

		def is_named():
			code, answer = told(gw)
			return code == 1 and answer["items"] and answer["items"][0]
		item = wait_until(is_named, 20, "the attachment to be named")
		assert item["kind"] == "Attachment" and item["name"] == "JWTAuth" and item["status"]["phase"] == "Degraded"
		assert item["status"]["reason"] and item["status"]["lastError"]
		done = status(gw)
		assert done.returncode == 1 and "All is well" not in done.stdout
		for text in ("JWTAuth", "Degraded", item["status"]["reason"]):
			assert text in done.stdout


def test_more_items_than_a_page_has():
	with Gateway() as gw:
		for i in range(101):
			consumer(gw, f"consumer-{i:03}", apiKey=keys(f"key-of-consumer-{i:03}"))
		code, answer = told(gw, "--all")
		names = [one["name"] for one in answer["items"] if one["kind"] == "Consumer"]
		assert code == 0 and len(names) == len(set(names)) == 101


def test_who_does_not_answer_and_who_is_none(gw):
	with socket.create_server(("127.0.0.1", 0)) as closed:
		port = closed.getsockname()[1]
	token = ["--token-file", os.path.join(gw.data, "admin.token")]
	done = subprocess.run([PROGRAM, "status", "--server", f"http://127.0.0.1:{port}", *token], capture_output=True, text=True, check=False)
	assert done.returncode == 3 and str(port) in done.stderr and done.stdout == ""
	done = status(gw, "--all", "nonsense")
	assert done.returncode == 2 and "nonsense" in done.stderr
