// node's fetch (undici): many at once, an upload as a stream, a large answer, one that is broken off, events. Prints "ok", or says what went
// wrong and exits with 1. The upstream is the tests' recording one. node fetch.js URL
"use strict";
const assert = require("assert");

const url = process.argv[2];

async function main() {
	const many = await Promise.all(Array.from({ length: 60 }, async (_, i) => (await (await fetch(`${url}/size/${1000 * i}`)).arrayBuffer()).byteLength));
	assert.deepStrictEqual(many, Array.from({ length: 60 }, (_, i) => 1000 * i));

	const pieces = new ReadableStream({
		start(controller) {
			for (let i = 0; i < 50; i++)
				controller.enqueue(new Uint8Array(20000).fill(i));
			controller.close();
		},
	});
	const echoed = await (await fetch(`${url}/echo`, { method: "POST", body: pieces, duplex: "half", headers: { "x-asked": "yes" } })).json();
	assert.strictEqual(echoed.bodyBytes, 1000000);
	assert.strictEqual((await (await fetch(`${url}/size/5000000`)).arrayBuffer()).byteLength, 5000000);

	const breaker = new AbortController(), endless = await fetch(`${url}/endless`, { signal: breaker.signal });
	await endless.body.getReader().read();
	breaker.abort();

	const slow = (await fetch(`${url}/slow/5/50`)).body.getReader();
	let got = 0, reads = 0;
	for (let part = await slow.read(); !part.done; part = await slow.read(), reads++)
		got += part.value.length;
	assert(got === 5 && reads >= 2, `${got} bytes in ${reads} reads`);
	assert.strictEqual((await fetch(`${url}/status/404`)).status, 404);
	assert.strictEqual((await fetch(`${url}/size/10`, { method: "HEAD" })).headers.get("content-length"), "10");
}

main().then(() => {
	console.log("ok");
	process.exit(0);
}, error => {
	console.error(error);
	process.exit(1);
});
