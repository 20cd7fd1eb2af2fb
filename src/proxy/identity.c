/*
 * identity.c -- who the client is, as an authentication policy found out. Kept beside the request: what a header says
 * may have been changed by anybody.
 */
#include "proxy/exchange.h"

void exchange_set_consumer(struct exchange *x, struct str name)
{
	x->consumer = name;
	message_set_id(&x->stream.req, HEADER_X_MSE_CONSUMER, name);
}

struct str exchange_consumer(const struct exchange *x)
{
	return x->consumer;
}

void exchange_keep_broken(struct exchange *x, const char *what)
{
	x->broken = what;
}
