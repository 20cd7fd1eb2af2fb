// A gRPC server with grpc.health.v1.Health/Check. Says its port. The health of the server ("") is the digit in FILE: 1 = SERVING,
// 2 = NOT_SERVING; of "up" and "down" as they say; other services are not found. node grpc_health.js FILE
"use strict";
const fs = require("fs");
const grpc = require("@grpc/grpc-js");

const checked = new grpc.Server();
const health = { Check: { path: "/grpc.health.v1.Health/Check", requestStream: false, responseStream: false,
	requestSerialize: value => value, requestDeserialize: bytes => bytes, responseSerialize: value => value,
	responseDeserialize: bytes => bytes } };

checked.addService(health, {
	Check(call, done) {
		const asked = call.request;
		const name = asked.length ? asked.subarray(2).toString() : "";

		if (asked.length && (asked[0] !== 0x0a || asked[1] !== asked.length - 2))
			done({ code: grpc.status.INVALID_ARGUMENT });
		else if (name === "" || name === "up" || name === "down")
			done(null, Buffer.from([0x08, name === "up" ? 1 : name === "down" ? 2 : Number(fs.readFileSync(process.argv[2], "utf8"))]));
		else
			done({ code: grpc.status.NOT_FOUND });
	},
});
checked.bindAsync("127.0.0.1:0", grpc.ServerCredentials.createInsecure(), (error, port) => {
	if (error)
		throw error;
	console.log(port);
});
