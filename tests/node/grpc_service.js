// The service that grpc_server.js serves and grpc_roundtrip.js calls; messages are bytes as they are, so no .proto is needed.
"use strict";
const pass = value => value;
const method = (name, requestStream, responseStream) => ({ path: `/test.Echo/${name}`, requestStream, responseStream,
	requestSerialize: pass, requestDeserialize: pass, responseSerialize: pass, responseDeserialize: pass });

module.exports = {
	Unary: method("Unary", false, false),
	Many: method("Many", false, true),
	Sum: method("Sum", true, false),
	Chat: method("Chat", true, true),
	Fail: method("Fail", false, false),
};
