// Clients of models as applications use them, one request each: node model_clients.js CLIENT BASE_URL OPTIONS
//   CLIENT: openai, anthropic, ai (with @ai-sdk/openai), ai-anthropic
//   OPTIONS: JSON. call: chat, completions, responses, embeddings, messages, text, object, models; stream; body: members of the request;
//   key; headers; retries (0); timeout (ms); abortAfter: events after which the client leaves.
// Prints one JSON object: text, reasoning, tools, finish, usage, model, events, headers; or error {class, status, message, code, type}.
"use strict";

const [client, base, given] = process.argv.slice(2);
const options = JSON.parse(given || "{}");
const body = options.body || {};
const stream = Boolean(options.stream);

function fail(error) {
	const status = error.status || error.statusCode;
	return { error: { class: error.constructor.name, name: error.name, status, message: error.message, code: error.code, type: error.type,
		body: error.error || error.responseBody, requestId: error.requestID } };
}

function headersOf(response) {
	return Object.fromEntries(response.headers.entries());
}

// ---- openai ----

function toolsOf(calls) {
	return (calls || []).map((call) => ({ id: call.id, name: call.function.name, arguments: call.function.arguments }));
}

function takeDelta(found, delta) {
	found.text += delta.content || "";
	found.reasoning += delta.reasoning_content || "";
	for (const part of delta.tool_calls || []) {
		const tool = found.tools[part.index] = found.tools[part.index] || { id: "", name: "", arguments: "" };
		tool.id += part.id || "";
		tool.name += (part.function && part.function.name) || "";
		tool.arguments += (part.function && part.function.arguments) || "";
	}
}

async function readChunks(events, found) {
	for await (const chunk of events) {
		found.events += 1;
		found.model = chunk.model;
		found.emptyChoices += chunk.choices && chunk.choices.length === 0 ? 1 : 0;
		if (chunk.usage) found.usage = chunk.usage;
		const choice = (chunk.choices || [])[0];
		if (choice) {
			takeDelta(found, choice.delta || { content: choice.text });
			found.finish = choice.finish_reason || found.finish;
		}
		if (options.abortAfter === found.events) {
			events.controller.abort();
			found.aborted = true;
			break;
		}
	}
}

async function readResponse(events, found) {
	for await (const event of events) {
		found.events += 1;
		if (event.type === "response.output_text.delta") found.text += event.delta;
		if (event.type === "response.completed") {
			found.usage = event.response.usage;
			found.model = event.response.model;
			found.finish = event.response.status;
		}
	}
}

function takeWhole(found, answer) {
	found.model = answer.model;
	found.usage = answer.usage;
	if (answer.object === "response") {
		found.text = answer.output_text;
		found.finish = answer.status;
	} else if (answer.object === "list") {
		found.data = answer.data;
	} else {
		const choice = answer.choices[0];
		const message = choice.message || { content: choice.text };
		Object.assign(found, { text: message.content || "", reasoning: message.reasoning_content || "", tools: toolsOf(message.tool_calls),
			finish: choice.finish_reason });
	}
}

async function askOpenai(found) {
	const OpenAI = require("openai").default;
	const api = new OpenAI({ baseURL: base, apiKey: options.key || "sk-client", maxRetries: options.retries || 0,
		timeout: options.timeout || 20000, defaultHeaders: options.headers });
	const calls = { chat: api.chat.completions, completions: api.completions, responses: api.responses, embeddings: api.embeddings };
	if (options.call === "models") {
		const page = await api.models.list();
		found.data = page.data;
		return;
	}
	if (options.call === "helper") {
		// The client's own assembly of a stream, strict about the order of its chunks.
		const run = api.chat.completions.stream(body);
		takeWhole(found, await run.finalChatCompletion());
		return;
	}
	const { data, response } = await calls[options.call].create({ ...body, ...(stream ? { stream: true } : {}) }).withResponse();
	found.headers = headersOf(response);
	if (!stream) takeWhole(found, data);
	else if (options.call === "responses") await readResponse(data, found);
	else await readChunks(data, found);
}

// ---- @anthropic-ai/sdk ----

function takeMessage(found, message) {
	found.model = message.model;
	found.usage = message.usage;
	found.finish = message.stop_reason;
	for (const block of message.content) {
		if (block.type === "text") found.text += block.text;
		if (block.type === "thinking") found.reasoning += block.thinking;
		if (block.type === "tool_use") found.tools.push({ id: block.id, name: block.name, arguments: JSON.stringify(block.input) });
	}
}

async function askAnthropic(found) {
	const Anthropic = require("@anthropic-ai/sdk").default;
	const api = new Anthropic({ baseURL: base, apiKey: options.key || "sk-client", authToken: null, maxRetries: options.retries || 0,
		timeout: options.timeout || 20000, defaultHeaders: options.headers });
	if (!stream) {
		const { data, response } = await api.messages.create({ max_tokens: 100, ...body }).withResponse();
		found.headers = headersOf(response);
		takeMessage(found, data);
		return;
	}
	const events = api.messages.stream({ max_tokens: 100, ...body });
	events.on("streamEvent", () => { found.events += 1; });
	if (options.abortAfter) {
		events.on("streamEvent", () => { if (found.events === options.abortAfter) events.abort(); });
	}
	takeMessage(found, await events.finalMessage());
}

// ---- ai ----

async function modelOf() {
	if (client === "ai-anthropic") {
		const { createAnthropic } = await import("@ai-sdk/anthropic");
		return createAnthropic({ baseURL: base, apiKey: options.key || "sk-client", headers: options.headers })(body.model);
	}
	const { createOpenAI } = await import("@ai-sdk/openai");
	const provider = createOpenAI({ baseURL: base, apiKey: options.key || "sk-client", headers: options.headers });
	return options.call === "responses" ? provider.responses(body.model) : provider.chat(body.model);
}

function toolsFor(ai) {
	const made = {};
	for (const one of body.tools || []) {
		made[one.function.name] = ai.tool({ description: one.function.description, inputSchema: ai.jsonSchema(one.function.parameters) });
	}
	return made;
}

async function askAi(found) {
	const ai = await import("ai");
	const asked = { model: await modelOf(), messages: body.messages, tools: toolsFor(ai), maxRetries: options.retries || 0,
		abortSignal: AbortSignal.timeout(options.timeout || 20000) };
	let result;
	if (stream) {
		let error;
		result = ai.streamText({ ...asked, onError: (event) => { error = event.error; } });
		for await (const part of result.textStream) {
			found.events += 1;
			found.streamed = (found.streamed || "") + part;
		}
		if (error) throw error;
	} else {
		result = await ai.generateText(asked);
	}
	found.text = await result.text;
	found.reasoning = await result.reasoningText;
	found.finish = await result.finishReason;
	found.usage = await result.usage;
	found.tools = (await result.toolCalls).map((call) => ({ id: call.toolCallId, name: call.toolName, arguments: JSON.stringify(call.input) }));
	const response = await result.response;
	found.model = response.modelId;
	found.headers = response.headers;
}

const found = { text: "", reasoning: "", tools: [], events: 0, emptyChoices: 0 };
const ask = { openai: askOpenai, anthropic: askAnthropic, ai: askAi, "ai-anthropic": askAi }[client];
ask(found).catch((error) => Object.assign(found, fail(error))).then(() => {
	process.stdout.write(JSON.stringify(found) + "\n", () => process.exit(0));
});
