// An OpenID provider (npm oidc-provider). Says its port. One client "app", whose callback is argument 1; everybody is alice at once, without
// a form. Argument 2: seconds that access and ID tokens live.
"use strict";
const http = require("node:http");

const [callback, lifetime = "3600"] = process.argv.slice(2);

function finishLogin(provider) {
	return async (ctx, next) => {
		if (!ctx.path.startsWith("/interaction/"))
			return next();
		await provider.interactionDetails(ctx.req, ctx.res);
		ctx.respond = false;
		await provider.interactionFinished(ctx.req, ctx.res, { login: { accountId: "alice" } }, { mergeWithLastSubmission: false });
	};
}

async function grantAll(ctx) {
	const grant = new ctx.oidc.provider.Grant({ clientId: ctx.oidc.client.clientId, accountId: ctx.oidc.session.accountId });

	grant.addOIDCScope("openid email profile offline_access");
	await grant.save();
	return grant;
}

const server = http.createServer();

server.listen(0, "127.0.0.1", async () => {
	const { default: Provider } = await import("oidc-provider");
	const { port } = server.address();
	const origin = new URL(callback).origin;
	const provider = new Provider(`http://127.0.0.1:${port}`, {
		clients: [{ client_id: "app", client_secret: "client-SECRET-of-thirty-two-bytes", redirect_uris: [callback],
			post_logout_redirect_uris: [`${origin}/`], grant_types: ["authorization_code", "refresh_token"], response_types: ["code"] }],
		claims: { openid: ["sub"], email: ["email", "email_verified"], profile: ["name"] },
		conformIdTokenClaims: false,
		cookies: { keys: ["a key of the tests"] },
		features: { devInteractions: { enabled: false } },
		findAccount: (ctx, id) => ({ accountId: id, claims: () => ({ sub: id, email: `${id}@example.com`, email_verified: true, name: "Alice" }) }),
		interactions: { url: (ctx, interaction) => `/interaction/${interaction.uid}` },
		issueRefreshToken: async () => true,
		loadExistingGrant: grantAll,
		pkce: { required: () => true },
		rotateRefreshToken: true,
		ttl: { AccessToken: Number(lifetime), IdToken: Number(lifetime), AuthorizationCode: 60, Grant: 3600, Interaction: 600,
			RefreshToken: 3600, Session: 3600 },
	});

	provider.use(finishLogin(provider));
	provider.on("server_error", (ctx, error) => console.error(error));
	server.on("request", provider.callback());
	console.log(port);
});
