#!/usr/bin/env python3
"""A stand-in for a moderation service, to try AiSecurityGuard: python3 docs/stand-ins/guard.py PORT

Speaks the protocol of Alibaba Cloud's content moderation. A text with the word "forbidden" in it is a high risk.
"""
import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs


class Guard(BaseHTTPRequestHandler):
	protocol_version = "HTTP/1.1"

	def do_POST(self):
		form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
		text = json.loads(form["ServiceParameters"][0])["content"]
		answer = json.dumps({"Code": 200, "Message": "OK", "RequestId": "guard-1",
			"Data": {"RiskLevel": "high" if "forbidden" in text else "none"}}).encode()
		self.send_response(200)
		self.send_header("Content-Type", "application/json")
		self.send_header("Content-Length", str(len(answer)))
		self.end_headers()
		self.wfile.write(answer)

	def log_message(self, *arguments):
		pass


ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Guard).serve_forever()
