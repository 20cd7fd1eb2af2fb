#!/usr/bin/env python3
"""A stand-in for a model, to try things without a key: python3 docs/stand-ins/model.py PORT [NAME]

Speaks OpenAI's chat API, whole and as a stream. It says what it was asked, and counts words as tokens.
"""
import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

NAME = sys.argv[2] if len(sys.argv) > 2 else "stand-in"


class Model(BaseHTTPRequestHandler):
	protocol_version = "HTTP/1.1"

	def do_POST(self):
		asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
		text = f"{NAME} heard: {asked['messages'][-1]['content']}"
		prompt = sum(len(message["content"].split()) for message in asked["messages"])
		usage = {"prompt_tokens": prompt, "completion_tokens": len(text.split()), "total_tokens": prompt + len(text.split())}
		if asked.get("stream"):
			self.say("text/event-stream", self.events(text, asked, usage))
		else:
			choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
			self.say("application/json", json.dumps({"id": "chat-1", "object": "chat.completion", "created": 0,
				"model": asked["model"], "choices": [choice], "usage": usage}))

	def events(self, text, asked, usage):
		base = {"id": "chat-1", "object": "chat.completion.chunk", "created": 0, "model": asked["model"]}
		chunks = [{**base, "choices": [{"index": 0, "delta": {"content": word + " "}, "finish_reason": None}]} for word in text.split()]
		chunks.append({**base, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
		if (asked.get("stream_options") or {}).get("include_usage"):
			chunks.append({**base, "choices": [], "usage": usage})
		return "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"

	def say(self, kind, text):
		self.send_response(200)
		self.send_header("Content-Type", kind)
		self.send_header("Content-Length", str(len(text.encode())))
		self.end_headers()
		self.wfile.write(text.encode())

	def log_message(self, *arguments):
		pass


ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Model).serve_forever()
