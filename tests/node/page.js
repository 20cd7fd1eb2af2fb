// A page and what it asks for: data, uploads, events, a WebSocket, a large answer. Says its port. The page posts what it saw to /result, and
// that is printed as a line of JSON. node page.js
"use strict";
const http = require("http");
const { WebSocketServer } = require("ws");

async function run() {
	const seen = { errors: [] };
	const step = async (name, work) => {
		try {
			seen[name] = await work();
		} catch (error) {
			seen.errors.push(`${name}: ${error}`);
		}
	};

	await step("data", async () => {
		const answers = await Promise.all(Array.from({ length: 40 }, (_, i) => fetch(`/data?n=${i}`).then(answer => answer.json())));

		return answers.map(answer => answer.n);
	});
	await step("upload", async () => {
		const body = new Uint8Array(1000000).fill(7);

		return (await fetch("/upload", { method: "POST", body })).text();
	});
	await step("large", async () => (await (await fetch("/large")).arrayBuffer()).byteLength);
	await step("events", () => new Promise((resolve, reject) => {
		const got = [], source = new EventSource("/events");

		source.onmessage = event => {
			got.push(event.data);
			if (got.length === 5) {
				source.close();
				resolve(got);
			}
		};
		source.onerror = () => reject(new Error("the stream of events broke"));
	}));
	await step("socket", () => new Promise((resolve, reject) => {
		const got = [], socket = new WebSocket(`wss://${location.host}/socket`, ["echo"]);

		socket.onopen = () => [1, 70000].forEach(size => socket.send("x".repeat(size)));
		socket.onmessage = event => {
			got.push(event.data.length);
			if (got.length === 2)
				socket.close(1000, "done");
		};
		socket.onclose = event => resolve([...got, event.code, socket.protocol]);
		socket.onerror = () => reject(new Error("the WebSocket broke"));
	}));
	await step("abort", async () => {
		const controller = new AbortController();
		const answer = await fetch("/endless", { signal: controller.signal });

		await answer.body.getReader().read();
		controller.abort();
		return answer.status;
	});
	await step("after", async () => (await fetch("/data?n=99")).status);
	seen.protocols = [...new Set(performance.getEntriesByType("resource").filter(entry => entry.name.includes("/data"))
		.map(entry => entry.nextHopProtocol))];
	await fetch("/result", { method: "POST", body: JSON.stringify(seen) });
}

const page = `<!doctype html><title>page</title><script>(${run})();</script>`;

function read(request, done) {
	const parts = [];

	request.on("data", part => parts.push(part));
	request.on("end", () => done(Buffer.concat(parts)));
}

const paths = {
	"/": (_, response) => response.writeHead(200, { "content-type": "text/html" }).end(page),
	"/data": (request, response) => response.writeHead(200, { "content-type": "application/json" })
		.end(JSON.stringify({ n: Number(new URL(request.url, "http://a").searchParams.get("n")) })),
	"/upload": (request, response) => read(request, body => response.end(String(body.length))),
	"/large": (_, response) => response.end(Buffer.alloc(5000000, "x")),
	"/endless": (request, response) => {
		const timer = setInterval(() => response.write("x".repeat(1000)), 5);

		response.writeHead(200, { "content-type": "text/plain" });
		request.socket.on("close", () => clearInterval(timer));
	},
	"/events": (_, response) => {
		let n = 0;
		const timer = setInterval(() => {
			response.write(`data: ${n}\n\n`);
			if (++n === 6)
				clearInterval(timer);
		}, 20);

		response.writeHead(200, { "content-type": "text/event-stream", "cache-control": "no-store" });
	},
	"/result": (request, response) => read(request, body => {
		response.end();
		console.log(body.toString());
	}),
};

const server = http.createServer((request, response) => {
	const answer = paths[request.url.split("?")[0]];

	if (answer)
		answer(request, response);
	else
		response.writeHead(404).end();
});
const sockets = new WebSocketServer({ server, path: "/socket", handleProtocols: protocols => protocols.has("echo") ? "echo" : false });
sockets.on("connection", socket => socket.on("message", (data, isBinary) => socket.send(data, { binary: isBinary })));
server.listen(0, "127.0.0.1", () => console.log(server.address().port));
