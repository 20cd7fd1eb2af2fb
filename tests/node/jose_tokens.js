// Tokens that the npm package jose makes, and its public keys. Prints {"keys": [...], "good": {name: token}, "bad": {name: token}}.
// node jose_tokens.js ISSUER
"use strict";
const jose = require("jose");

const issuer = process.argv[2];
const algorithms = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"];

function claims(more) {
	return new jose.SignJWT({ role: "user", ...more }).setIssuer(issuer).setSubject("jose").setIssuedAt().setExpirationTime("10m");
}

async function main() {
	const out = { keys: [], good: {}, bad: {} };
	const secret = new TextEncoder().encode("a secret of the issuer, 64 bytes long so that all HS may use it.");
	let last;

	for (const alg of algorithms) {
		const { publicKey, privateKey } = await jose.generateKeyPair(alg, { modulusLength: 2048, extractable: true });
		const sign = (token, header) => token.setProtectedHeader({ alg, kid: alg, typ: "JWT", ...header }).sign(privateKey);

		out.keys.push({ ...(await jose.exportJWK(publicKey)), kid: alg, alg, use: "sig" });
		out.good[alg] = await sign(claims());
		out.good[`${alg} at+jwt`] = await sign(claims({ scope: "a b", aud: ["x", "y"], nested: { a: [1, 2.5, null] } }), { typ: "at+jwt", cty: "JWT" });
		out.bad[`${alg} expired`] = await sign(claims().setExpirationTime("-2m"));
		out.bad[`${alg} another issuer`] = await sign(claims().setIssuer("https://other.test"));
		out.bad[`${alg} not yet`] = await sign(claims().setNotBefore("5m"));
		out.bad[`${alg} of a stranger`] = await claims().setProtectedHeader({ alg, kid: alg })
			.sign((await jose.generateKeyPair(alg, { modulusLength: 2048 })).privateKey);
		out.bad[`${alg} with its key`] = await claims().setProtectedHeader({ alg, jwk: await jose.exportJWK(publicKey) })
			.sign((await jose.generateKeyPair(alg, { modulusLength: 2048 })).privateKey);
		last = { publicKey, privateKey };
	}
	for (const alg of ["HS256", "HS384", "HS512"])
		out.bad[`${alg} with a secret`] = await claims().setProtectedHeader({ alg }).sign(secret);
	out.bad.HS256 = await claims().setProtectedHeader({ alg: "HS256", kid: "RS256" })
		.sign(new TextEncoder().encode(JSON.stringify(out.keys[0])));
	out.bad.unsecured = new jose.UnsecuredJWT({}).setIssuer(issuer).setExpirationTime("10m").encode();
	out.bad.encrypted = await new jose.EncryptJWT({}).setProtectedHeader({ alg: "dir", enc: "A256GCM" }).setIssuer(issuer)
		.setExpirationTime("10m").encrypt(secret.slice(0, 32));
	const crit = await new jose.FlattenedSign(new TextEncoder().encode(JSON.stringify({ iss: issuer })))
		.setProtectedHeader({ alg: "EdDSA", kid: "EdDSA", b64: false, crit: ["b64"] }).sign(last.privateKey);
	out.bad["crit b64"] = `${crit.protected}.${Buffer.from(JSON.stringify({ iss: issuer })).toString("base64url")}.${crit.signature}`;
	out.symmetric = { kty: "oct", k: jose.base64url.encode(secret), kid: "s" };
	out.hmac = {};
	for (const alg of ["HS256", "HS384", "HS512"])
		out.hmac[alg] = await claims().setProtectedHeader({ alg, kid: "s" }).sign(secret);
	console.log(JSON.stringify(out));
}

main().catch((error) => {
	console.error(error);
	process.exit(1);
});
