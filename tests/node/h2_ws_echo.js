// A WebSocket server over HTTP/2 (RFC 8441): sends back what it gets. Says its port. With "off" it does not offer extended CONNECT.
// Paths that end in /no are answered 403; a plain GET 200. node h2_ws_echo.js [off]
"use strict";
const http2 = require("http2");
const WebSocket = require("ws");

const server = http2.createServer({ settings: { enableConnectProtocol: process.argv[2] !== "off" } });

function refuse(stream, status, text) {
	stream.respond({ ":status": status, "content-type": "text/plain" });
	stream.end(text);
}

server.on("stream", (stream, headers) => {
	stream.on("error", () => {});
	if (headers[":method"] !== "CONNECT") {
		refuse(stream, 200, "plain");
		return;
	}
	const unwanted = ["sec-websocket-key", "connection", "upgrade", "content-length", "host"].filter(name => name in headers);

	if (headers[":path"].split("?")[0].endsWith("/no") || headers[":protocol"] !== "websocket" || unwanted.length) {
		refuse(stream, 403, `no: ${unwanted}`);
		return;
	}
	const protocol = headers["sec-websocket-protocol"] ? { "sec-websocket-protocol": "echo" } : {};

	stream.respond({ ":status": 200, "x-path": headers[":path"], ...protocol });
	const socket = new WebSocket(null, undefined, { autoPong: true });

	socket._isServer = true;
	socket.setSocket(stream, Buffer.alloc(0), { allowSynchronousEvents: true, maxPayload: 1 << 24, skipUTF8Validation: false });
	socket.on("error", () => {});
	socket.on("message", (data, isBinary) => socket.send(data, { binary: isBinary }));
});
server.listen(0, "127.0.0.1", () => console.log(server.address().port));
