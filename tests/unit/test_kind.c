/* room: ai */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include "ai/kind.h"

static struct arena arena;

static int stop(void **state)
{
	(void)state;
	arena_free(&arena);
	return 0;
}

static const struct json *parse(const char *text)
{
	struct problem why = { 0 };
	const struct json *v = json_parse_spans(&arena, str_of(text), 10000, &why);

	if (!v)
		fail_msg("%s: %s", text, why.text);
	return v;
}

static void check(const char *path, const char *body, enum ai_kind kind)
{
	enum ai_kind found = ai_kind_detect(str_of(path), body ? parse(body) : NULL);

	if (found != kind)
		fail_msg("%s %s: %.*s", path, body, STR_FMT(ai_kind_name(found)));
}

#define CHAT "{\"messages\":[]}"

static void tells_kinds_by_path(void **state)
{
	static const struct { const char *path; enum ai_kind kind; } rows[] = {
		{ "/v1/chat/completions", AI_CHAT }, { "/chat/completions", AI_CHAT },
		{ "/openai/deployments/x/chat/completions", AI_CHAT }, { "/v1/chat/completions/", AI_CHAT },
		{ "/compatible-mode/v1/chat/completions", AI_CHAT }, { "/v1/completions", AI_COMPLETIONS },
		{ "/v1/embeddings", AI_EMBEDDINGS }, { "/v1/messages", AI_MESSAGES },
		{ "/apps/anthropic/v1/messages", AI_MESSAGES },
		{ "/api/v1/services/aigc/text-generation/generation", AI_GENERATION },
		{ "/api/v1/services/aigc/multimodal-generation/generation", AI_GENERATION },
		{ "/api/v1/apps/a1b2/completion", AI_APP }, { "/base/api/v1/apps/x/completion/", AI_APP },
		{ "/v1/chat-messages", AI_DIFY_CHAT }, { "/v1/completion-messages", AI_DIFY_COMPLETION },
		{ "/v1/workflows/run", AI_DIFY_WORKFLOW },
		{ "/api/v1/apps//completion", AI_NONE }, { "/api/v1/apps/completion", AI_NONE },
		{ "/api/v1/apps/a/b/completion", AI_NONE }, { "/completion", AI_NONE }, { "/v1/models", AI_NONE },
		{ "/", AI_NONE }, { "", AI_NONE }, { "/v1/images/generations", AI_NONE }, { "/xmessages", AI_NONE },
		{ "/v1/chat/completions/more", AI_NONE }, { "/V1/CHAT/COMPLETIONS", AI_NONE },
	};

	(void)state;
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		check(rows[i].path, "{}", rows[i].kind);
		check(rows[i].path, NULL, rows[i].kind);
		check(rows[i].path, "[1]", rows[i].kind);
		/* A path that says nothing leaves it to the body, and no other. */
		check(rows[i].path, CHAT, rows[i].kind == AI_NONE ? AI_CHAT : rows[i].kind);
	}
}

static void tells_kinds_by_body(void **state)
{
	(void)state;
	check("/v1/responses", "{\"input\":\"x\"}", AI_RESPONSES);
	check("/v1/responses", "{\"input\":null}", AI_RESPONSES);
	check("/v1/responses", NULL, AI_RESPONSES);
	check("/v1/responses", "{}", AI_NONE);
	check("/v1/responses", CHAT, AI_CHAT);
	check("/anything", "{\"messages\":{}}", AI_NONE);
	check("/anything", "{\"messages\":\"x\"}", AI_NONE);
	check("/anything", "\"messages\"", AI_NONE);
	check("/anything", "{\"x\":{\"messages\":[]}}", AI_NONE);
	check("/v1/messages/count_tokens", CHAT, AI_NONE);
	check("/v1/messages/batches", CHAT, AI_NONE);
}

static void names_kinds_and_families(void **state)
{
	(void)state;
	for (int kind = 0; kind < AI_KIND_COUNT; kind++)
		assert_true(ai_kind_name((enum ai_kind)kind).n > 0);
	assert_true(str_equal(ai_kind_name(AI_CHAT), STR("openai.chat")));
	assert_true(str_equal(ai_kind_name(AI_MESSAGES), STR("anthropic.messages")));
	assert_true(str_equal(ai_kind_name(AI_NONE), STR("none")));
	assert_int_equal(ai_kind_family(AI_EMBEDDINGS), AI_FAMILY_OPENAI);
	assert_int_equal(ai_kind_family(AI_MESSAGES), AI_FAMILY_ANTHROPIC);
	assert_int_equal(ai_kind_family(AI_APP), AI_FAMILY_DASHSCOPE);
	assert_int_equal(ai_kind_family(AI_DIFY_WORKFLOW), AI_FAMILY_DIFY);
	assert_int_equal(ai_path_family(STR("/v1/models")), AI_FAMILY_OPENAI);
	assert_int_equal(ai_path_family(STR("/v1/messages/")), AI_FAMILY_ANTHROPIC);
	assert_int_equal(ai_path_family(STR("/v1/messages/count_tokens")), AI_FAMILY_ANTHROPIC);
	assert_int_equal(ai_path_family(STR("/api/v1/services/embeddings/x")), AI_FAMILY_DASHSCOPE);
	assert_int_equal(ai_path_family(STR("/api/v1/apps/nobody/knows")), AI_FAMILY_DASHSCOPE);
	assert_int_equal(ai_path_family(STR("/v1/chat-messages")), AI_FAMILY_DIFY);
	assert_int_equal(ai_path_family(STR("")), AI_FAMILY_OPENAI);
}

static void tells_who_wants_a_stream(void **state)
{
	const struct json *on = parse("{\"stream\":true}"), *off = parse("{\"stream\":false}");
	const struct json *word = parse("{\"stream\":\"true\"}"), *dify = parse("{\"response_mode\":\"streaming\"}");
	static const enum ai_kind by_member[] = { AI_CHAT, AI_COMPLETIONS, AI_RESPONSES, AI_MESSAGES };
	static const enum ai_kind by_header[] = { AI_GENERATION, AI_APP };
	static const enum ai_kind by_mode[] = { AI_DIFY_CHAT, AI_DIFY_COMPLETION, AI_DIFY_WORKFLOW };

	(void)state;
	for (size_t i = 0; i < sizeof by_member / sizeof by_member[0]; i++) {
		assert_true(ai_kind_streams(by_member[i], on, false, false));
		assert_false(ai_kind_streams(by_member[i], off, true, true));
		assert_false(ai_kind_streams(by_member[i], word, true, true));
		assert_false(ai_kind_streams(by_member[i], NULL, true, true));
	}
	for (size_t i = 0; i < sizeof by_header / sizeof by_header[0]; i++) {
		assert_true(ai_kind_streams(by_header[i], off, true, false));
		assert_true(ai_kind_streams(by_header[i], NULL, false, true));
		assert_false(ai_kind_streams(by_header[i], on, false, false));
	}
	for (size_t i = 0; i < sizeof by_mode / sizeof by_mode[0]; i++) {
		assert_true(ai_kind_streams(by_mode[i], dify, false, false));
		assert_false(ai_kind_streams(by_mode[i], parse("{\"response_mode\":\"blocking\"}"), true, true));
		assert_false(ai_kind_streams(by_mode[i], on, false, false));
	}
	assert_false(ai_kind_streams(AI_EMBEDDINGS, on, true, true));
	assert_false(ai_kind_streams(AI_NONE, on, true, true));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(tells_kinds_by_path, stop),
		cmocka_unit_test_teardown(tells_kinds_by_body, stop),
		cmocka_unit_test_teardown(names_kinds_and_families, stop),
		cmocka_unit_test_teardown(tells_who_wants_a_stream, stop),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
