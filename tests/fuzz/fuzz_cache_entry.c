/* fuzz_cache_entry.c -- what lies in Redis under a key of AiCache, whoever wrote it; and answers made of it. */
/* room: policy */
#include "ai/render.h"
#include "policy/cache_entry.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct arena a = { 0 };
	struct cache_entry e, again;
	struct problem why;
	enum ai_kind kind;
	struct str text;

	if (n == 0)
		return 0;
	kind = (enum ai_kind)(1 + data[0] % (AI_KIND_COUNT - 1));
	if (cache_entry_read(&e, &a, kind, (struct str){ (const char *)data + 1, n - 1 })) {
		/* What is an entry is one still when it is written anew. */
		text = cache_entry_write(&e, &a);
		BUG_ON(text.p && !cache_entry_read(&again, &a, kind, text));
		if (render_can(kind)) {
			struct rendered r = { .kind = kind, .model = e.model, .text = e.text, .reasoning = e.reasoning,
				.finish = STR("stop") };

			BUG_ON(!json_parse(&a, render_body(&r, &a), &why));
			render_stream(&r, &a);
		}
	}
	arena_free(&a);
	return 0;
}
