/* room: proxy -- the message of a gRPC health check and what its answer says. */
#include "proxy/grpc.h"
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

static struct arena arena;

static void assert_bytes(struct str got, const char *p, size_t n)
{
	assert_int_equal(got.n, n);
	assert_memory_equal(got.p, p, n);
}

static void asks_for_the_server_or_a_service(void **state)
{
	char name[300], expected[310] = "\0\0\0\1\57\12\254\2";

	(void)state;
	assert_bytes(grpc_health_request(&arena, STR("")), "\0\0\0\0\0", 5);
	assert_bytes(grpc_health_request(&arena, STR("a.B")), "\0\0\0\0\5\12\3a.B", 10);
	memset(name, 'x', sizeof name);
	memcpy(expected + 8, name, sizeof name);
	assert_bytes(grpc_health_request(&arena, (struct str){ name, sizeof name }), expected, 308);
	arena_free(&arena);
}

static bool serves(const char *p, size_t n)
{
	return grpc_health_is_serving((struct str){ p, n });
}

#define SERVES(text) serves(text, sizeof text - 1)

static void only_serving_is_good(void **state)
{
	(void)state;
	assert_true(SERVES("\0\0\0\0\2\10\1"));
	assert_false(SERVES("\0\0\0\0\2\10\0"));
	assert_false(SERVES("\0\0\0\0\2\10\2"));
	assert_false(SERVES("\0\0\0\0\2\10\3"));
	assert_false(SERVES("\0\0\0\0\0"));          /* the default of an enum is 0, UNKNOWN */
	assert_true(SERVES("\0\0\0\0\4\10\2\10\1"));  /* the last one counts */
	assert_false(SERVES("\0\0\0\0\4\10\1\10\2"));
	assert_true(SERVES("\0\0\0\0\3\10\201\0"));   /* a number may be longer than it needs to be */
}

static void other_fields_are_passed_over(void **state)
{
	(void)state;
	assert_true(SERVES("\0\0\0\0\7\22\3abc\10\1"));
	assert_true(SERVES("\0\0\0\0\13\21" "12345678" "\10\1"));
	assert_true(SERVES("\0\0\0\0\7\25" "1234" "\10\1"));
	assert_true(SERVES("\0\0\0\0\4\20\5\10\1"));
}

static void what_is_no_message_is_bad(void **state)
{
	(void)state;
	assert_false(SERVES(""));
	assert_false(SERVES("\0\0\0\0"));
	assert_false(SERVES("\1\0\0\0\2\10\1"));      /* compressed */
	assert_false(SERVES("\0\0\0\0\3\10\1"));      /* length */
	assert_false(SERVES("\0\0\0\0\1\10\1"));
	assert_false(SERVES("\0\1\0\0\2\10\1"));
	assert_false(SERVES("\0\0\0\0\1\10"));        /* cut off */
	assert_false(SERVES("\0\0\0\0\4\10\1\22\5"));
	assert_false(SERVES("\0\0\0\0\3\10\1\23"));   /* groups are gone since long */
	assert_false(SERVES("\0\0\0\0\15\10\1\10\377\377\377\377\377\377\377\377\377\377"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(asks_for_the_server_or_a_service),
		cmocka_unit_test(only_serving_is_good),
		cmocka_unit_test(other_fields_are_passed_over),
		cmocka_unit_test(what_is_no_message_is_bad),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
