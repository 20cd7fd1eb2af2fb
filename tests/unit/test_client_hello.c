/* test_client_hello.c -- the server name of a hello: in any split over records, with every prefix waiting. */
/* room: net */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>
#include "net/client_hello.h"

struct bytes {
	char p[32768];
	size_t n;
};

static void add(struct bytes *b, const void *p, size_t n)
{
	assert_true(b->n + n <= sizeof(b->p));
	memcpy(b->p + b->n, p, n);
	b->n += n;
}

static void add_u16(struct bytes *b, size_t v)
{
	add(b, (char[]){ (char)(v >> 8), (char)v }, 2);
}

/* server_name with one entry. */
static void add_name(struct bytes *b, const char *name)
{
	size_t n = strlen(name);

	add_u16(b, 0);
	add_u16(b, n + 5);
	add_u16(b, n + 3);
	add(b, "\0", 1);
	add_u16(b, n);
	add(b, name, n);
}

/* The handshake message around extensions (NULL: none at all). */
static struct bytes hello(const struct bytes *extensions)
{
	static const char random[32];
	static struct bytes b, out;

	b.n = out.n = 0;
	add(&b, "\3\3", 2);
	add(&b, random, sizeof random);
	add(&b, "\4sess", 5);
	add_u16(&b, 4);
	add(&b, "\x13\x01\x13\x02", 4);
	add(&b, "\1\0", 2);
	if (extensions) {
		add_u16(&b, extensions->n);
		add(&b, extensions->p, extensions->n);
	}
	add(&out, "\1\0", 2);
	add_u16(&out, b.n);
	add(&out, b.p, b.n);
	return out;
}

/* Records of at most `most` bytes. */
static struct bytes records(const struct bytes *message, size_t most)
{
	static struct bytes out;

	out.n = 0;
	for (size_t at = 0; at < message->n; at += most) {
		size_t n = message->n - at < most ? message->n - at : most;

		add(&out, "\x16\3\1", 3);
		add_u16(&out, n);
		add(&out, message->p + at, n);
	}
	return out;
}

static enum hello_result parse(const char *p, size_t n, char name[SERVER_NAME_MAX])
{
	char *copy = malloc(n ? n : 1);
	enum hello_result result;

	memcpy(copy, p, n);
	result = client_hello_parse(copy, n, name);
	free(copy);
	return result;
}

static void check(const struct bytes *extensions, enum hello_result expected, const char *expected_name)
{
	struct bytes message = hello(extensions);
	char name[SERVER_NAME_MAX];

	for (size_t most = 1; most <= message.n; most += most < 8 ? 1 : 61) {
		struct bytes wire = records(&message, most);

		assert_int_equal(parse(wire.p, wire.n, name), expected);
		if (expected != HELLO_DONE)
			continue;
		assert_string_equal(name, expected_name);
		for (size_t n = 0; n < wire.n; n++)
			assert_int_equal(parse(wire.p, n, name), HELLO_MORE);
	}
}

static void test_names(void **state)
{
	struct bytes e = { .n = 0 };

	(void)state;
	check(NULL, HELLO_DONE, "");
	check(&e, HELLO_DONE, "");
	add_name(&e, "a.Example.COM");
	check(&e, HELLO_DONE, "a.example.com");
	e.n = 0;
	add(&e, "\0\x2b\0\3\2\3\4", 7);
	add_name(&e, "b_1-x.test");
	add(&e, "\0\x10\0\0", 4);
	check(&e, HELLO_DONE, "b_1-x.test");
}

static void test_bad_names(void **state)
{
	struct bytes e = { .n = 0 };
	char longest[SERVER_NAME_MAX + 1];

	(void)state;
	memset(longest, 'a', sizeof longest);
	longest[SERVER_NAME_MAX - 1] = '\0';
	add_name(&e, longest);
	check(&e, HELLO_DONE, longest);
	longest[SERVER_NAME_MAX - 1] = 'a';
	longest[SERVER_NAME_MAX] = '\0';
	e.n = 0;
	add_name(&e, longest);
	check(&e, HELLO_BAD, NULL);
	e.n = 0;
	add_name(&e, "");
	check(&e, HELLO_BAD, NULL);
	e.n = 0;
	add_name(&e, "a b");
	check(&e, HELLO_BAD, NULL);
	e.n = 0;
	add_name(&e, "a.test");
	add_name(&e, "b.test");
	check(&e, HELLO_BAD, NULL);
	/* Lengths that contradict each other. */
	e.n = 0;
	add(&e, "\0\0\0\6\0\4\0\0\2a", 10);
	check(&e, HELLO_BAD, NULL);
	e.n = 0;
	add(&e, "\0\0\0\xff" "a", 5);
	check(&e, HELLO_BAD, NULL);
	e.n = 0;
	add(&e, "\0\0\0", 3);
	check(&e, HELLO_BAD, NULL);
}

static void refuse(const void *p, size_t n)
{
	char name[SERVER_NAME_MAX];

	assert_int_equal(parse(p, n, name), HELLO_BAD);
	assert_string_equal(name, "");
}

static void test_no_hello(void **state)
{
	static char huge[CLIENT_HELLO_MAX + 100] = "\x16\3\1\x3f\xff\1\0\x3f\xf0";

	(void)state;
	refuse("GET / HTTP/1.1", 14);
	refuse("\x16\2", 2);
	refuse("\x16\3\1\0\0", 5);
	refuse("\x16\3\1\x40\1", 5);
	refuse("\x16\3\1\0\4\2\0\0\0", 9);
	refuse("\x16\3\1\0\4\1\1\0\0", 9);
	refuse("\x16\3\1\0\4\1\0\0\x05", 9);
	/* Never complete within the limit. */
	refuse(huge, sizeof huge);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_bad_names),
		cmocka_unit_test(test_no_hello),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
