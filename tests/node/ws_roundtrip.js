// Opens `clients` WebSockets to a URL; each sends texts and binaries of many sizes, a ping and a close. Prints "ok", or says what went
// wrong and exits with 1. node ws_roundtrip.js URL CLIENTS deflate|plain
"use strict";
const assert = require("assert");
const crypto = require("crypto");
const { once } = require("events");
const WebSocket = require("ws");

const [url, clients, compression] = process.argv.slice(2);
const sizes = [0, 1, 125, 126, 65535, 65536, 300000];

async function converse(index) {
	const socket = new WebSocket(url, ["echo"], { perMessageDeflate: compression === "deflate" && { threshold: 0 } });

	await once(socket, "open");
	assert.strictEqual(socket.protocol, "echo");
	assert.strictEqual(socket.extensions.includes("permessage-deflate"), compression === "deflate");
	for (const size of sizes) {
		const data = crypto.randomBytes(size), text = `${index}: ` + "\u20ac".repeat(size / 3);

		socket.send(data);
		const [binary, isBinary] = await once(socket, "message");
		assert(isBinary && data.equals(binary), `binary of ${size}`);
		socket.send(text);
		const [answer] = await once(socket, "message");
		assert.strictEqual(answer.toString(), text);
	}
	socket.ping("alive");
	const [pong] = await once(socket, "pong");
	assert.strictEqual(pong.toString(), "alive");
	socket.close(4001, "done");
	const [code, reason] = await once(socket, "close");
	assert.deepStrictEqual([code, reason.toString()], [4001, "done"]);
}

Promise.all(Array.from({ length: Number(clients) }, (_, index) => converse(index))).then(
	() => console.log("ok"),
	error => {
		console.error(error);
		process.exit(1);
	});
