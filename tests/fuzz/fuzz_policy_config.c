/*
 * fuzz_policy_config.c -- any text as the config of any policy type: the first byte picks the type.
 *
 * Whatever is refused says why; whatever is accepted can be prepared.
 */
/* room: policy */
#include <stddef.h>
#include <stdint.h>
#include "proxy/policy.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool accept(const struct policy_class *class, const struct json *config, struct arena *a)
{
	struct problem why = { 0 };
	void *conf = arena_alloc(a, class->conf_size);

	if (!fields_decode(class->fields, config, conf, a, &why) ||
	    (class->check && !class->check(conf, &why))) {
		BUG_ON(!why.text[0]);
		return false;
	}
	BUG_ON(class->prepare && !class->prepare(conf, a, &why));
	return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct arena a = { 0 };
	struct problem why;
	const struct policy_class *class;
	const struct json *config;

	if (size == 0)
		return 0;
	class = policy_classes[data[0] % policy_class_count];
	config = json_parse(&a, (struct str){ (const char *)data + 1, size - 1 }, &why);
	if (config)
		(void)accept(class, config, &a);
	arena_free(&a);
	return 0;
}
