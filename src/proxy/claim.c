/*
 * claim.c -- paths that policies answer themselves: how a request finds out that its path is one.
 *
 * A claim is of a gateway, a host and a path. Ports are no part of it: cookies do not tell ports apart either, and a
 * gateway behind a load balancer is reached by another port than it listens on.
 */
#include "proxy/claim.h"
#include "http/uri.h"
#include "proxy/exchange.h"

static char *put_lower(char *out, struct str s)
{
	for (size_t i = 0; i < s.n; i++)
		*out++ = str_lower(s.p[i]);
	return out;
}

struct str claim_key(char out[CLAIM_KEY_MAX], struct str gateway_id, struct str host, struct str path)
{
	char *end = out;

	if (gateway_id.n + host.n + path.n + 2 > CLAIM_KEY_MAX)
		return (struct str){ NULL, 0 };
	end = str_put(end, gateway_id);
	*end++ = '\n';
	end = put_lower(end, host);
	*end++ = '\n';
	end = str_put(end, path);
	return (struct str){ out, (size_t)(end - out) };
}

bool claim_find(struct exchange *x)
{
	const struct message *req = &x->stream.req;
	char key[CLAIM_KEY_MAX];
	struct str host, text;
	struct part *found = NULL;
	uint16_t port;

	if (!uri_split_authority(req->authority, &host, &port))
		return false;
	text = claim_key(key, x->site->gateway->id, host, req->path);
	if (text.p)
		found = pmap_get(x->view->snapshot->claims, text);
	x->claimed = found ? CONTAINER(found, struct claimed, part) : NULL;
	return x->claimed != NULL;
}

const struct step *exchange_claims(const struct exchange *x, unsigned *n)
{
	*n = x->claimed ? x->claimed->n : 0;
	return x->claimed ? x->claimed->steps : NULL;
}

unsigned exchange_key_generation(const struct exchange *x)
{
	return x->site->gateway->key_generation;
}
