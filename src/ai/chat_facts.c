#include "ai/chat_facts.h"
#include "ai/chat_conf.h"
#include "proxy/exchange.h"

static void note_purpose(struct chat_facts *f, const struct exchange *x)
{
	const struct chat_api *api = x->route ? x->route->ai : NULL;
	bool is_known = ai_kind_detect(x->path, NULL) != AI_NONE;

	if (x->stream.req.method == METHOD_OPTIONS)
		return;
	f->is_ai = api || is_known;
	f->names_model = is_known || (api && !api->is_agent);
}

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
	note_purpose(&f, x);
	return f;
}
