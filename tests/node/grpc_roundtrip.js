// Calls every method of grpc_service.js at ADDRESS, `clients` at once over one channel. Prints "ok", or what went wrong and exits with 1.
// With a status as third argument: calls until one fails, which has to be with that status; prints its message.
"use strict";
const assert = require("assert");
const crypto = require("crypto");
const { once } = require("events");
const grpc = require("@grpc/grpc-js");
const service = require("./grpc_service.js");

const [address, clients, expected] = process.argv.slice(2);
const Client = grpc.makeGenericClientConstructor(service, "test.Echo");
const client = new Client(address, grpc.credentials.createInsecure(), { "grpc.max_receive_message_length": -1 });

function unary(method, request, metadata = new grpc.Metadata()) {
	return new Promise((resolve, reject) => {
		let trailers;
		const call = client[method](request, metadata, { deadline: Date.now() + 20000 },
			(error, answer) => error ? reject(error) : setImmediate(() => resolve({ answer, trailers })));

		call.on("status", status => trailers = status.metadata);
	});
}

async function converse(index) {
	const metadata = new grpc.Metadata();

	metadata.set("x-asked", `client-${index}`);
	for (const size of [0, 1, 70000, 1000000]) {
		const data = crypto.randomBytes(size), { answer, trailers } = await unary("Unary", data, metadata);

		assert(answer.equals(data), `unary of ${size}`);
		assert.deepStrictEqual(trailers.get("x-answer"), [`client-${index}`]);
		assert.deepStrictEqual(trailers.get("x-path-bin"), [Buffer.from([0, 255, 1])]);
	}
	let next = 0;
	for await (const data of client.Many(Buffer.from("500")))
		assert.strictEqual(data.toString(), String(next++));
	assert.strictEqual(next, 500);

	const sum = await new Promise((resolve, reject) => {
		const call = client.Sum((error, answer) => error ? reject(error) : resolve(answer));

		for (let i = 0; i < 100; i++)
			call.write(Buffer.alloc(10000, i));
		call.end();
	});
	assert.strictEqual(sum.toString(), "1000000");

	const chat = client.Chat();
	for (let i = 0; i < 50; i++) {
		const data = crypto.randomBytes(i * 100);

		chat.write(data);
		const [answer] = await once(chat, "data");
		assert(answer.equals(data), "chat: each message before the next one");
	}
	chat.end();
	const [status] = await once(chat, "status");
	assert.strictEqual(status.code, grpc.status.OK);

	await assert.rejects(unary("Fail", Buffer.from("x")), error => {
		assert.strictEqual(error.code, grpc.status.FAILED_PRECONDITION);
		assert.strictEqual(error.details, "nö: 100%");
		assert.deepStrictEqual(error.metadata.get("x-why"), ["because"]);
		return true;
	});
}

async function fail() {
	for (let i = 0; i < 10; i++)
		try {
			await unary("Unary", Buffer.from("x"));
		} catch (error) {
			assert.strictEqual(error.code, Number(expected), String(error));
			return error.details;
		}
	throw new Error("ten calls succeeded");
}

async function main() {
	if (expected)
		return fail();
	await Promise.all(Array.from({ length: Number(clients) }, (_, index) => converse(index)));
	return "ok";
}

main().then(text => {
	console.log(text);
	client.close();
}, error => {
	console.error(error);
	process.exit(1);
});
