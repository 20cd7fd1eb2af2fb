// A gRPC server. Says its port. Unary: the same back, with the metadata "x-asked" as trailer "x-answer". Many: as many messages as the
// request says. Sum: the length of all. Chat: each message back at once. Fail: status 9 with a message and a trailer.
"use strict";
const grpc = require("@grpc/grpc-js");
const service = require("./grpc_service.js");

const server = new grpc.Server({ "grpc.max_receive_message_length": -1 });
server.addService(service, {
	Unary(call, done) {
		const trailer = new grpc.Metadata();

		trailer.set("x-answer", String(call.metadata.get("x-asked")[0]));
		trailer.set("x-path-bin", Buffer.from([0, 255, 1]));
		done(null, call.request, trailer);
	},
	Many(call) {
		const n = Number(call.request.toString());

		for (let i = 0; i < n; i++)
			call.write(Buffer.from(String(i)));
		call.end();
	},
	Sum(call, done) {
		let sum = 0;

		call.on("data", data => sum += data.length);
		call.on("end", () => done(null, Buffer.from(String(sum))));
	},
	Chat(call) {
		call.on("data", data => call.write(data));
		call.on("end", () => call.end());
	},
	Fail(call, done) {
		const metadata = new grpc.Metadata();

		metadata.set("x-why", "because");
		done({ code: grpc.status.FAILED_PRECONDITION, details: "nö: 100%", metadata });
	},
});
server.bindAsync("127.0.0.1:0", grpc.ServerCredentials.createInsecure(), (error, port) => {
	if (error)
		throw error;
	console.log(port);
});
