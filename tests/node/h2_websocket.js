// WebSockets by extended CONNECT (RFC 8441) over one HTTP/2 connection: `n` at once; each sends frames of many sizes and a close.
// Prints "ok", or what went wrong and exits with 1. With a status as fourth argument: the request for `protocol` has to be answered so.
// node h2_websocket.js URL PATH N [STATUS [PROTOCOL]]
"use strict";
const assert = require("assert");
const crypto = require("crypto");
const http2 = require("http2");

const [url, path, n, expected, protocol] = process.argv.slice(2);
const session = http2.connect(url);

function frame(payload, opcode) {
	const long = payload.length > 65535, head = Buffer.alloc(payload.length < 126 ? 2 : long ? 10 : 4);
	const key = crypto.randomBytes(4);

	head[0] = 0x80 | opcode;
	head[1] = 0x80 | (payload.length < 126 ? payload.length : long ? 127 : 126);
	if (head.length === 4)
		head.writeUInt16BE(payload.length, 2);
	if (head.length === 10)
		head.writeBigUInt64BE(BigInt(payload.length), 2);
	return Buffer.concat([head, key, payload.map((byte, i) => byte ^ key[i % 4])]);
}

// A function that resolves to the next bytes of a stream.
function reader(stream) {
	const chunks = stream[Symbol.asyncIterator]();
	let have = Buffer.alloc(0);

	return async size => {
		while (have.length < size) {
			const { value, done } = await chunks.next();

			assert(!done, `${have.length} of ${size} bytes`);
			have = Buffer.concat([have, value]);
		}
		const taken = have.subarray(0, size);

		have = have.subarray(size);
		return taken;
	};
}

async function readFrame(take) {
	const head = await take(2);
	let size = head[1] & 0x7f;

	if (size === 126)
		size = (await take(2)).readUInt16BE();
	else if (size === 127)
		size = Number((await take(8)).readBigUInt64BE());
	return [head[0] & 15, await take(size)];
}

function open(asked = "websocket") {
	const stream = session.request({ ":method": "CONNECT", ":protocol": asked, ":path": path, "sec-websocket-version": "13",
		"sec-websocket-protocol": "echo" }, { endStream: false });

	return new Promise((resolve, reject) => {
		stream.on("error", reject);
		stream.on("response", headers => resolve([stream, headers]));
	});
}

async function converse() {
	const [stream, headers] = await open();
	const take = reader(stream);

	assert.strictEqual(headers[":status"], 200);
	for (const name of ["sec-websocket-accept", "upgrade", "connection", "content-length", "transfer-encoding"])
		assert.strictEqual(headers[name], undefined, name);
	for (const size of [0, 1, 125, 126, 65536, 300000]) {
		const data = crypto.randomBytes(size);

		stream.write(frame(data, 2));
		const [opcode, answer] = await readFrame(take);
		assert(opcode === 2 && answer.equals(data), `frame of ${size}`);
	}
	stream.write(frame(Buffer.from([0x0f, 0xa1]), 8));
	// The server may close both directions at once; node then drops what it has not handed out yet.
	try {
		const [opcode] = await readFrame(take);

		assert.strictEqual(opcode, 8);
	} catch (error) {
		if (error.code !== "ERR_STREAM_PREMATURE_CLOSE")
			throw error;
		return;
	}
	const closed = new Promise(resolve => stream.on("close", resolve));
	stream.end();
	stream.resume();
	await closed;
}

async function main() {
	await new Promise((resolve, reject) => {
		session.on("error", reject);
		session.on("remoteSettings", resolve);
	});
	assert.strictEqual(session.remoteSettings.enableConnectProtocol, true);
	if (!expected) {
		await Promise.all(Array.from({ length: Number(n) }, converse));
		return;
	}
	const [stream, headers] = await open(protocol);

	assert.strictEqual(headers[":status"], Number(expected));
	stream.resume();
	stream.end();
}

main().then(() => {
	console.log("ok");
	session.destroy();
}, error => {
	console.error(error);
	process.exit(1);
});
