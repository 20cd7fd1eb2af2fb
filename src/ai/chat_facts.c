#include "ai/chat_facts.h"
#include "ai/chat_conf.h"
#include "proxy/exchange.h"

struct chat_facts chat_facts(const struct exchange *x)
{
	struct chat_facts f = { .waited_us = x->waited_us };
	const struct chat_service *ai = x->service ? x->service->ai : NULL;

	if (x->route)
		f.route = x->route->name;
	if (x->service)
		f.service = x->service->name;
	if (ai)
		f.provider = ai->provider_name;
	if (x->stream.head_sent) {
		f.status = x->res.status;
		f.is_events = str_starts(message_value(&x->res, HEADER_CONTENT_TYPE), STR("text/event-stream"));
	}
	return f;
}
