// A WebSocket server that sends back what it gets. Says its port. Speaks the subprotocol "echo" when asked, compresses when it may.
"use strict";
const { WebSocketServer } = require("ws");

const server = new WebSocketServer({ host: "127.0.0.1", port: 0, perMessageDeflate: { threshold: 0 },
	handleProtocols: protocols => protocols.has("echo") ? "echo" : false });
server.on("connection", socket => socket.on("message", (data, isBinary) => socket.send(data, { binary: isBinary })));
server.on("listening", () => console.log(server.address().port));
