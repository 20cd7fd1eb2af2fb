"""What a model says, written in the API that it is asked in: whole answers and events. All of it follows from the arguments alone."""
import base64
import dataclasses
import json
import struct

CREATED = 1700000000
KINDS = ("openai.chat", "openai.completions", "openai.responses", "openai.embeddings", "anthropic.messages", "dashscope.generation",
	"dashscope.app", "dify.chat", "dify.completion", "dify.workflow")


@dataclasses.dataclass
class Usage:
	input: int = 11
	output: int = 22
	cached: int = None
	reasoning: int = None
	creation: int = None     # Anthropic: put into its cache
	total: int = None        # what the model says; None: input + output

	@property
	def all(self):
		return self.input + self.output if self.total is None else self.total


@dataclasses.dataclass
class Said:
	"""`pieces`: the text as the events bring it (default: its words). `tools`: dicts of id, name, arguments (text)."""
	text: str = "Hello from the model."
	reasoning: str = ""
	tools: tuple = ()
	usage: Usage = dataclasses.field(default_factory=Usage)
	finish: str = None
	pieces: tuple = None
	id: str = "answer-1"

	def parts(self):
		if self.pieces is not None:
			return list(self.pieces)
		words = self.text.split(" ")
		return [word if i == 0 else " " + word for i, word in enumerate(words)] if self.text else []


@dataclasses.dataclass
class Event:
	"""`data`: text, or what is written as JSON; None: a comment alone."""
	data: object = None
	name: str = None
	id: str = None
	comment: str = None

	def encode(self, eol="\n", blank=True):
		lines = []
		if self.id is not None:
			lines.append(f"id:{self.id}")
		if self.name is not None:
			lines.append(f"event: {self.name}")
		if self.comment is not None:
			lines.append(f":{self.comment}")
		if self.data is not None:
			text = self.data if isinstance(self.data, str) else json.dumps(self.data, ensure_ascii=False, separators=(",", ":"))
			lines += [f"data: {line}" for line in text.split("\n")]
		return "".join(line + eol for line in lines).encode() + (eol.encode() if blank else b"")


def kind_of(path, body=None):
	"""As the product tells kinds apart, and a few that it only passes on: "models", "images", "audio", "rerank", "other"."""
	path = path.split("?")[0]
	for end, kind in (("/text-generation/generation", "dashscope.generation"), ("/multimodal-generation/generation", "dashscope.generation"),
			("/chat-messages", "dify.chat"), ("/completion-messages", "dify.completion"), ("/workflows/run", "dify.workflow"),
			("/messages", "anthropic.messages"), ("/responses", "openai.responses"), ("/chat/completions", "openai.chat"),
			("/embeddings", "openai.embeddings"), ("/models", "models"), ("/images/generations", "images"), ("/audio/speech", "audio"),
			("/rerank", "rerank")):
		if path.endswith(end):
			return kind
	if "/api/v1/apps/" in path and path.endswith("/completion"):
		return "dashscope.app"
	if path.endswith("/completions"):
		return "openai.completions"
	return "openai.chat" if isinstance(body, dict) and isinstance(body.get("messages"), list) else "other"


def family(kind):
	return {"anthropic": "anthropic", "dashscope": "dashscope", "dify": "dify"}.get(kind.split(".")[0], "openai")


def wants_stream(kind, body, header=lambda name: None):
	if not isinstance(body, dict) or kind == "openai.embeddings":
		return False
	if kind.startswith("dashscope"):
		return header("X-DashScope-SSE") == "enable" or "text/event-stream" in (header("Accept") or "")
	if kind.startswith("dify"):
		return body.get("response_mode") == "streaming"
	return body.get("stream") is True


def error(kind, status, message="the model says no", code=None, type=None):
	"""The body of an error answer."""
	if family(kind) == "openai":
		return {"error": {"message": message, "type": type or "server_error", "param": None, "code": code}}
	if family(kind) == "anthropic":
		return {"type": "error", "error": {"type": type or "api_error", "message": message}}
	if family(kind) == "dify":
		return {"code": code or "error", "message": message, "status": status}
	return {"code": code or "InternalError", "message": message, "request_id": "req-1"}


def error_event(kind, message="the model says no", code="server_error"):
	"""An error in a stream, as the API has it."""
	if kind == "anthropic.messages":
		return Event({"type": "error", "error": {"type": "overloaded_error", "message": message}}, name="error")
	if kind == "openai.responses":
		return Event({"type": "error", "code": code, "message": message, "param": None, "sequence_number": 0}, name="error")
	if family(kind) == "dashscope":
		return Event({"code": code, "message": message, "request_id": "req-1"}, name="error", id="1", comment="HTTP_STATUS/500")
	if family(kind) == "dify":
		return Event({"event": "error", "status": 500, "code": code, "message": message})
	return Event({"error": {"message": message, "type": "server_error", "param": None, "code": code}})


# ---- usage ----

def usage(kind, u):
	if kind == "anthropic.messages":
		made = {"input_tokens": u.input, "output_tokens": u.output}
		if u.creation is not None:
			made["cache_creation_input_tokens"] = u.creation
		if u.cached is not None:
			made["cache_read_input_tokens"] = u.cached
		return made
	if kind == "openai.responses":
		return {"input_tokens": u.input, "input_tokens_details": {"cached_tokens": u.cached or 0}, "output_tokens": u.output,
			"output_tokens_details": {"reasoning_tokens": u.reasoning or 0}, "total_tokens": u.all}
	if kind == "dashscope.app":
		return {"models": [{"model_id": "qwen-app", "input_tokens": u.input, "output_tokens": u.output}]}
	if kind == "dashscope.generation":
		return {"input_tokens": u.input, "output_tokens": u.output, "total_tokens": u.all}
	if kind == "openai.embeddings":
		return {"prompt_tokens": u.input, "total_tokens": u.input}
	made = {"prompt_tokens": u.input, "completion_tokens": u.output, "total_tokens": u.all}
	if u.cached is not None:
		made["prompt_tokens_details"] = {"cached_tokens": u.cached}
	if u.reasoning is not None:
		made["completion_tokens_details"] = {"reasoning_tokens": u.reasoning}
	return made


# ---- whole answers ----

def embedding(text, size=8):
	"""A unit vector that follows from the text."""
	seed = sum((i + 1) * byte for i, byte in enumerate(text.encode())) or 1
	values = [((seed * (i * 7919 + 104729)) % 2003) / 1001.5 - 1 for i in range(size)]
	length = sum(value * value for value in values) ** 0.5 or 1
	return [value / length for value in values]


def whole(kind, said, model, body=None):
	"""The answer's body as what is written as JSON. `body`: the request's."""
	made = {"openai.chat": whole_chat, "openai.completions": whole_completions, "openai.responses": whole_responses,
		"openai.embeddings": whole_embeddings, "anthropic.messages": whole_messages, "dashscope.generation": whole_generation,
		"dashscope.app": whole_app, "dify.chat": whole_dify, "dify.completion": whole_dify,
		"dify.workflow": whole_workflow}.get(kind, whole_other)(said, model, body or {}, kind)
	return made


def with_usage(made, said, kind):
	if said.usage:
		made["usage"] = usage(kind, said.usage)
	return made


def openai_tools(tools):
	return [{"id": one["id"], "type": "function", "function": {"name": one["name"], "arguments": one["arguments"]}} for one in tools]


def openai_message(said):
	message = {"role": "assistant", "content": said.text if said.text or not said.tools else None}
	if said.reasoning:
		message["reasoning_content"] = said.reasoning
	if said.tools:
		message["tool_calls"] = openai_tools(said.tools)
	return message


def finish(said):
	return said.finish or ("tool_calls" if said.tools else "stop")


def whole_chat(said, model, body, kind):
	return with_usage({"id": said.id, "object": "chat.completion", "created": CREATED, "model": model, "choices": [
		{"index": 0, "message": openai_message(said), "logprobs": None, "finish_reason": finish(said)}]}, said, kind)


def whole_completions(said, model, body, kind):
	return with_usage({"id": said.id, "object": "text_completion", "created": CREATED, "model": model, "choices": [
		{"index": 0, "text": said.text, "logprobs": None, "finish_reason": finish(said)}]}, said, kind)


def response_items(said):
	items = []
	if said.reasoning:
		items.append({"id": "rs_1", "type": "reasoning", "summary": [{"type": "summary_text", "text": said.reasoning}]})
	if said.text:
		items.append({"id": "msg_1", "type": "message", "status": "completed", "role": "assistant",
			"content": [{"type": "output_text", "text": said.text, "annotations": []}]})
	for i, one in enumerate(said.tools):
		items.append({"id": f"fc_{i}", "type": "function_call", "status": "completed", "call_id": one["id"], "name": one["name"],
			"arguments": one["arguments"]})
	return items


def response_object(said, model, status, items):
	return {"id": said.id, "object": "response", "created_at": CREATED, "status": status, "error": None, "incomplete_details": None,
		"instructions": None, "metadata": {}, "model": model, "output": items, "parallel_tool_calls": True, "temperature": 1.0,
		"tool_choice": "auto", "tools": [], "top_p": 1.0,
		"usage": usage("openai.responses", said.usage) if said.usage and status == "completed" else None}


def whole_responses(said, model, body, kind):
	return response_object(said, model, "completed", response_items(said))


def whole_embeddings(said, model, body, kind):
	texts = body.get("input")
	texts = texts if isinstance(texts, list) and not all(isinstance(one, int) for one in texts) else [texts]
	values = [embedding(str(text)) for text in texts]
	if body.get("encoding_format") == "base64":
		values = [base64.b64encode(struct.pack(f"<{len(one)}f", *one)).decode() for one in values]
	return with_usage({"object": "list", "model": model, "data": [
		{"object": "embedding", "index": i, "embedding": one} for i, one in enumerate(values)]}, said, kind)


def anthropic_stop(said):
	return {"stop": "end_turn", "tool_calls": "tool_use", "length": "max_tokens"}.get(finish(said), finish(said))


def whole_messages(said, model, body, kind):
	content = [{"type": "thinking", "thinking": said.reasoning, "signature": "sig-1"}] if said.reasoning else []
	content += [{"type": "text", "text": said.text}] if said.text else []
	content += [{"type": "tool_use", "id": one["id"], "name": one["name"], "input": json.loads(one["arguments"])} for one in said.tools]
	return with_usage({"id": said.id, "type": "message", "role": "assistant", "model": model, "content": content,
		"stop_reason": anthropic_stop(said), "stop_sequence": None}, said, kind)


def whole_generation(said, model, body, kind):
	return with_usage({"output": {"choices": [{"finish_reason": finish(said), "message": openai_message(said)}]}, "request_id": said.id}, said, kind)


def whole_app(said, model, body, kind):
	return with_usage({"output": {"text": said.text, "finish_reason": finish(said), "session_id": "session-1"}, "request_id": said.id}, said, kind)


def whole_dify(said, model, body, kind):
	return {"event": "message", "task_id": "task-1", "id": said.id, "message_id": said.id, "conversation_id": "conversation-1",
		"mode": "chat", "answer": said.text, "created_at": CREATED,
		"metadata": {"usage": usage(kind, said.usage)} if said.usage else {}}


def workflow_end(said):
	return {"id": said.id, "workflow_id": "workflow-1", "status": "succeeded", "outputs": {"text": said.text}, "error": None,
		"elapsed_time": 0.5, "total_tokens": said.usage.all if said.usage else 0, "total_steps": 1, "created_at": CREATED,
		"finished_at": CREATED + 1}


def whole_workflow(said, model, body, kind):
	return {"workflow_run_id": said.id, "task_id": "task-1", "data": workflow_end(said)}


def whole_other(said, model, body, kind):
	if kind == "models":
		return {"object": "list", "data": [{"id": one, "object": "model", "created": CREATED, "owned_by": "tests"} for one in ("m-1", "m-2")]}
	if kind == "images":
		return {"created": CREATED, "data": [{"url": "https://images.test/1.png"}]}
	return {"object": kind, "text": said.text}


# ---- events ----

def events(kind, said, model, body=None, role_first=True, usage_in="final"):
	"""The answer as events, the terminal one included. usage_in: "final", "absent", "null" (on each event, never a number),
	"every" (a growing one on each event). OpenAI's final chunk comes only if the request asks for it."""
	body = body or {}
	maker = {"openai.chat": chunks_chat, "openai.completions": chunks_completions, "openai.responses": events_responses,
		"anthropic.messages": events_messages, "dashscope.generation": events_generation, "dashscope.app": events_app,
		"dify.chat": events_dify, "dify.completion": events_dify, "dify.workflow": events_workflow}[kind]
	return maker(said, model, body, role_first, usage_in)


def openai_usage(chunks, said, kind, body, usage_in, last):
	"""Puts usage where it is wanted. `last`: the chunk without choices."""
	if usage_in == "null":
		for chunk in chunks:
			chunk["usage"] = None
	elif usage_in == "every" and said.usage:
		for i, chunk in enumerate(chunks):
			out = said.usage.output * (i + 1) // len(chunks)
			chunk["usage"] = {"prompt_tokens": said.usage.input, "completion_tokens": out, "total_tokens": said.usage.input + out}
	elif usage_in == "final" and said.usage and (body.get("stream_options") or {}).get("include_usage"):
		for chunk in chunks:
			chunk["usage"] = None
		chunks.append({**last, "choices": [], "usage": usage(kind, said.usage)})
	return [Event(chunk) for chunk in chunks] + [Event("[DONE]")]


def chunks_chat(said, model, body, role_first, usage_in):
	base = {"id": said.id, "object": "chat.completion.chunk", "created": CREATED, "model": model}

	def chunk(delta, end=None):
		return {**base, "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": end}]}

	made = [chunk({"role": "assistant", "content": ""})] if role_first else []
	made += [chunk({"reasoning_content": part}) for part in Said(said.reasoning).parts()] if said.reasoning else []
	made += [chunk({"content": part}) for part in said.parts()]
	for i, one in enumerate(said.tools):
		half = len(one["arguments"]) // 2
		made.append(chunk({"tool_calls": [{"index": i, "id": one["id"], "type": "function", "function": {"name": one["name"], "arguments": ""}}]}))
		made += [chunk({"tool_calls": [{"index": i, "function": {"arguments": part}}]}) for part in (one["arguments"][:half], one["arguments"][half:])]
	made.append(chunk({}, finish(said)))
	return openai_usage(made, said, "openai.chat", body, usage_in, base)


def chunks_completions(said, model, body, role_first, usage_in):
	base = {"id": said.id, "object": "text_completion", "created": CREATED, "model": model}
	made = [{**base, "choices": [{"index": 0, "text": part, "logprobs": None, "finish_reason": None}]} for part in said.parts()]
	made.append({**base, "choices": [{"index": 0, "text": "", "logprobs": None, "finish_reason": finish(said)}]})
	return openai_usage(made, said, "openai.completions", body, usage_in, base)


def response_item_events(said):
	"""(type, members) of the events of all items."""
	made = []
	for at, item in enumerate(response_items(said)):
		place = {"output_index": at, "item_id": item["id"]}
		made.append(("output_item.added", {"output_index": at, "item": {**item, **({"content": []} if "content" in item else {}),
			**({"arguments": ""} if "arguments" in item else {})}}))
		if item["type"] == "message":
			part = {**place, "content_index": 0}
			made.append(("content_part.added", {**part, "part": {"type": "output_text", "text": "", "annotations": []}}))
			made += [("output_text.delta", {**part, "delta": piece, "logprobs": []}) for piece in said.parts()]
			made.append(("output_text.done", {**part, "text": said.text, "logprobs": []}))
			made.append(("content_part.done", {**part, "part": item["content"][0]}))
		elif item["type"] == "function_call":
			half = len(item["arguments"]) // 2
			made += [("function_call_arguments.delta", {**place, "delta": piece}) for piece in (item["arguments"][:half], item["arguments"][half:])]
			made.append(("function_call_arguments.done", {**place, "name": item["name"], "arguments": item["arguments"]}))
		else:
			made += [("reasoning_summary_text.delta", {**place, "summary_index": 0, "delta": piece}) for piece in Said(said.reasoning).parts()]
		made.append(("output_item.done", {"output_index": at, "item": item}))
	return made


def events_responses(said, model, body, role_first, usage_in):
	final = dataclasses.replace(said, usage=said.usage if usage_in in ("final", "every") else None)
	made = [("created", {"response": response_object(final, model, "in_progress", [])}),
		("in_progress", {"response": response_object(final, model, "in_progress", [])})]
	made += response_item_events(said)
	made.append(("completed", {"response": response_object(final, model, "completed", response_items(said))}))
	return [Event({"type": f"response.{what}", "sequence_number": i, **members}, name=f"response.{what}") for i, (what, members) in enumerate(made)]


def anthropic_blocks(said):
	"""(content_block of its start, deltas) of each block."""
	blocks = []
	if said.reasoning:
		blocks.append(({"type": "thinking", "thinking": "", "signature": ""}, [{"type": "thinking_delta", "thinking": part}
			for part in Said(said.reasoning).parts()] + [{"type": "signature_delta", "signature": "sig-1"}]))
	if said.text or not said.tools:
		blocks.append(({"type": "text", "text": ""}, [{"type": "text_delta", "text": part} for part in said.parts()]))
	for one in said.tools:
		half = len(one["arguments"]) // 2
		blocks.append(({"type": "tool_use", "id": one["id"], "name": one["name"], "input": {}}, [
			{"type": "input_json_delta", "partial_json": part} for part in ("", one["arguments"][:half], one["arguments"][half:])]))
	return blocks


def events_messages(said, model, body, role_first, usage_in):
	start = {"id": said.id, "type": "message", "role": "assistant", "model": model, "content": [], "stop_reason": None, "stop_sequence": None}
	end = {"type": "message_delta", "delta": {"stop_reason": anthropic_stop(said), "stop_sequence": None}}
	if usage_in == "null":
		start["usage"] = end["usage"] = None
	elif usage_in != "absent" and said.usage:
		start["usage"] = {**usage("anthropic.messages", said.usage), "output_tokens": 1}
		end["usage"] = {"output_tokens": said.usage.output}
	made = [{"type": "message_start", "message": start}]
	for at, (block, deltas) in enumerate(anthropic_blocks(said)):
		made.append({"type": "content_block_start", "index": at, "content_block": block})
		if at == 0:
			made.append({"type": "ping"})
		made += [{"type": "content_block_delta", "index": at, "delta": delta} for delta in deltas]
		made.append({"type": "content_block_stop", "index": at})
	made += [end, {"type": "message_stop"}]
	return [Event(one, name=one["type"]) for one in made]


def growing(said, body):
	"""What each event of DashScope's says: the next piece, or all so far."""
	parts = said.parts() or [""]
	if (body.get("parameters") or {}).get("incremental_output"):
		return parts
	return ["".join(parts[:i + 1]) for i in range(len(parts))]


def dashscope_events(outputs, said, kind, usage_in):
	made = []
	for i, output in enumerate(outputs):
		data = {"output": output, "request_id": said.id}
		if said.usage and usage_in in ("final", "every"):
			part = dataclasses.replace(said.usage, output=said.usage.output * (i + 1) // len(outputs), total=None)
			data["usage"] = usage(kind, said.usage if i + 1 == len(outputs) else part)
		elif usage_in == "null":
			data["usage"] = None
		made.append(Event(data, name="result", id=str(i + 1), comment="HTTP_STATUS/200"))
	return made


def events_generation(said, model, body, role_first, usage_in):
	texts = growing(said, body)
	outputs = [{"choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": "null"}]} for text in texts]
	last = outputs[-1]["choices"][0]
	last["finish_reason"] = finish(said)
	if said.tools:
		last["message"]["tool_calls"] = openai_tools(said.tools)
	if said.reasoning:
		outputs[0]["choices"][0]["message"]["reasoning_content"] = said.reasoning
	return dashscope_events(outputs, said, "dashscope.generation", usage_in)


def events_app(said, model, body, role_first, usage_in):
	outputs = [{"session_id": "session-1", "finish_reason": "null", "text": text} for text in growing(said, body)]
	outputs[-1]["finish_reason"] = finish(said)
	return dashscope_events(outputs, said, "dashscope.app", usage_in)


def events_dify(said, model, body, role_first, usage_in):
	base = {"task_id": "task-1", "message_id": said.id, "conversation_id": "conversation-1"}
	made = [Event({"event": "message", **base, "answer": part, "created_at": CREATED}) for part in said.parts()]
	metadata = {"usage": usage("dify.chat", said.usage)} if said.usage and usage_in in ("final", "every") else {}
	return made + [Event({"event": "message_end", **base, "metadata": metadata})]


def events_workflow(said, model, body, role_first, usage_in):
	base = {"task_id": "task-1", "workflow_run_id": said.id}
	made = [Event({"event": "workflow_started", **base, "data": {"id": said.id, "workflow_id": "workflow-1", "created_at": CREATED}})]
	made += [Event({"event": "text_chunk", **base, "data": {"text": part, "from_variable_selector": ["llm", "text"]}}) for part in said.parts()]
	return made + [Event({"event": "workflow_finished", **base, "data": workflow_end(said)})]


# ---- what no server should send ----

def deep(levels=2000):
	return (b'{"a":' * levels) + b"1" + b"}" * levels


BAD_BODIES = {
	"empty": b"", "no json": b"<html>no</html>", "cut": b'{"choices":[{"message":{"content":"he', "number": b"7", "null": b"null", "array": b"[]",
	"deep": deep(), "duplicate members": b'{"usage":{"prompt_tokens":1,"prompt_tokens":2},"usage":null,"choices":[],"choices":[{}]}',
	"invalid utf-8": b'{"choices":[{"message":{"content":"\xff\xfe\xc3"}}]}', "lone surrogate": b'{"choices":[{"message":{"content":"\\ud800"}}]}',
	"wrong types": b'{"choices":{"0":1},"usage":[1,2],"model":{}}', "strange usage": b'{"choices":[],"usage":{"prompt_tokens":-1,'
	b'"completion_tokens":1e400,"total_tokens":"9"}}', "nul": b'{"choices":[]}\x00', "two": b'{"choices":[]}{"choices":[]}',
}
BAD_EVENTS = {
	"no colon": b"data\n\ndata\n\n", "no json": b"data: {no\n\ndata: [DONE]\n\n", "cut": b'data: {"choices":[{"delta":{"content":"a"}}]}\n\ndata: {"cho',
	"invalid utf-8": b'data: {"choices":[{"delta":{"content":"\xff\xc3"}}]}\n\ndata: [DONE]\n\n', "deep": b"data: " + deep() + b"\n\ndata: [DONE]\n\n",
	"nul": b"da\x00ta: 1\n\ndata: [DONE]\n\n", "fields unknown": b"foo: bar\nretry: x\nid: \x00\n\ndata: [DONE]\n\n", "blank lines": b"\n\n\n\n\r\n\r\n",
	"wrong types": b'data: {"choices":[1,null,{"delta":[]}],"usage":"x"}\n\ndata: 7\n\ndata: null\n\ndata: [DONE]\n\n',
	"duplicate members": b'data: {"choices":[],"choices":[{"delta":{"content":"b"}}],"usage":{"total_tokens":1},"usage":null}\n\ndata: [DONE]\n\n',
	"byte order mark": b"\xef\xbb\xbfdata: [DONE]\n\n", "long event": b"data: " + b"x" * (2 << 20) + b"\n\ndata: [DONE]\n\n",
	"done twice": b"data: [DONE]\n\ndata: [DONE]\n\n", "after the end": b'data: [DONE]\n\ndata: {"choices":[{"delta":{"content":"late"}}]}\n\n',
	"only comments": b": a\n\n: b\n\n", "binary": bytes(range(256)) * 4,
}
