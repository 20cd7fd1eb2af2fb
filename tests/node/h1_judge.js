// What node's HTTP/1 parser makes of bytes. Reads a JSON array of base64 payloads from FILE; sends each over a connection of its own to a
// server of node's and prints {methods, verdicts}: the methods it knows, and a list of {requests: [{method, url, bytes, sha256}], error}: the requests that were complete, and the
// code of the error that ended the connection, if one did. node h1_judge.js FILE
"use strict";
const crypto = require("crypto");
const fs = require("fs");
const http = require("http");
const net = require("net");

const payloads = JSON.parse(fs.readFileSync(process.argv[2], "utf8")).map(text => Buffer.from(text, "base64"));
const verdicts = payloads.map(() => ({ requests: [], error: null }));
const byPort = new Map();

const server = http.createServer({ maxHeaderSize: 65536, keepAlive: true }, (request, response) => {
	const verdict = byPort.get(request.socket.remotePort), digest = crypto.createHash("sha256");
	let bytes = 0;

	request.on("data", data => {
		bytes += data.length;
		digest.update(data);
	});
	request.on("end", () => {
		verdict.requests.push({ method: request.method, url: request.url, bytes, sha256: digest.digest("hex") });
		response.end("ok");
	});
	request.on("error", () => {});
});
server.maxHeadersCount = 0;
server.maxRequestsPerSocket = 0;
server.on("clientError", (error, socket) => {
	byPort.get(socket.remotePort).error = error.code || "error";
	socket.destroy();
});
for (const event of ["connect", "upgrade"])
	server.on(event, (request, socket) => {
		byPort.get(socket.remotePort).error = event;
		socket.destroy();
	});

function judge(index) {
	return new Promise(resolve => {
		const socket = net.connect(server.address().port, "127.0.0.1", () => {
			byPort.set(socket.localPort, verdicts[index]);
			socket.write(payloads[index]);
			// What is incomplete now stays so.
			setTimeout(() => socket.end(), 300).unref();
		});

		socket.on("error", () => {});
		socket.on("data", () => {});
		socket.on("close", resolve);
	});
}

async function worker(next) {
	for (let index = next(); index < payloads.length; index = next())
		await judge(index);
}

server.listen(0, "127.0.0.1", async () => {
	let at = 0;

	await Promise.all(Array.from({ length: 32 }, () => worker(() => at++)));
	process.stdout.write(JSON.stringify({ methods: http.METHODS, verdicts }), () => process.exit(0));
});
