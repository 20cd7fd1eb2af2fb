/*
 * fuzz_prompt.c -- whatever JSON a body is, each kind finds texts that are in it, or none.
 */
/* room: ai */
#include <stddef.h>
#include <stdint.h>
#include "ai/prompt.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_prompt(struct arena *a, enum ai_kind kind, const struct json *body)
{
	struct prompt p;
	struct str all, question;
	size_t n = 0;

	prompt_read(&p, a, kind, body);
	for (unsigned i = 0; i < p.n; i++) {
		const struct prompt_text *t = &p.texts[i];

		BUG_ON(t->text->type != JSON_STRING || t->text->at < body->at);
		BUG_ON(t->text->at + t->text->length > body->at + body->length);
		BUG_ON(t->message != PROMPT_OUTSIDE && t->message >= p.n_messages);
		BUG_ON(t->role == PROMPT_SYSTEM && !t->is_last_turn);
		n += t->text->string.n + (i > 0);
	}
	BUG_ON(p.n_user_messages > p.n_messages || prompt_estimate(&p) < 0);
	all = prompt_join(&p, a, -1);
	BUG_ON(all.n != n || (all.p == NULL) != (p.n == 0) || (all.p && !str_is_utf8(all)));
	question = prompt_last_question(&p, a);
	BUG_ON(question.n > n);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct str text = { (const char *)data, size };
	struct arena a = { 0 };
	struct problem why = { 0 };
	const struct json *body = json_parse_spans(&a, text, 4000, &why);

	for (int kind = 0; body && kind < AI_KIND_COUNT; kind++) {
		check_prompt(&a, (enum ai_kind)kind, body);
		ai_kind_streams((enum ai_kind)kind, body, false, false);
		ai_kind_detect(STR("/v1/responses"), body);
	}
	/* Any bytes may stand for a path. */
	ai_kind_detect(text, body);
	ai_path_family(text);
	arena_free(&a);
	return 0;
}
