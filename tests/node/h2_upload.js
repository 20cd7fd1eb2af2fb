// An HTTP/2 server that answers N bytes at once, without waiting for the end of the request, which it reads. Says its port.
// node h2_upload.js N
"use strict";
const http2 = require("http2");

const server = http2.createServer();
server.on("stream", stream => {
	stream.on("error", () => {});
	stream.resume();
	stream.respond({ ":status": 200, "content-type": "text/plain" });
	stream.end(Buffer.alloc(Number(process.argv[2]), "x"));
});
server.listen(0, "127.0.0.1", () => console.log(server.address().port));
