/* test_proxy_protocol.c -- PROXY headers of both versions: every prefix waits, every header ends where it should. */
/* room: net */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>
#include "net/proxy_protocol.h"

#define V2 "\r\n\r\n\0\r\nQUIT\n"
#define V4_ADDRESSES "\xcb\x00\x71\x07\xc6\x33\x64\x01\xdc\x04\x01\xbb"

/* Parses in a block of its own size, so that a read behind it is seen. */
static enum proxy_result parse(struct str text, struct proxy_header *out)
{
	char *copy = malloc(text.n ? text.n : 1);
	enum proxy_result result;

	memcpy(copy, text.p, text.n);
	result = proxy_protocol_parse(copy, text.n, out);
	free(copy);
	return result;
}

/* Each proper prefix waits; the whole, alone or with more behind it, gives size and source. */
static void accept_header(struct str header, const char *source)
{
	struct proxy_header out;
	char text[ADDR_TEXT], more[512];

	for (size_t n = 0; n < header.n; n++)
		assert_int_equal(parse((struct str){ header.p, n }, &out), PROXY_MORE);
	memcpy(more, header.p, header.n);
	memcpy(more + header.n, "GET /", 5);
	for (size_t extra = 0; extra <= 5; extra += 5) {
		assert_int_equal(parse((struct str){ more, header.n + extra }, &out), PROXY_DONE);
		assert_int_equal(out.size, header.n);
		assert_int_equal(out.has_source, source != NULL);
		if (source) {
			addr_print(&out.source, text);
			assert_string_equal(text, source);
		}
	}
}

static void refuse_header(struct str header)
{
	struct proxy_header out;

	assert_int_equal(parse(header, &out), PROXY_BAD);
}

static void test_lines(void **state)
{
	(void)state;
	accept_header(STR("PROXY TCP4 203.0.113.7 198.51.100.1 56324 443\r\n"), "203.0.113.7:56324");
	accept_header(STR("PROXY TCP6 2001:db8::7 2001:db8::1 0 65535\r\n"), "[2001:db8::7]:0");
	accept_header(STR("PROXY UNKNOWN\r\n"), NULL);
	accept_header(STR("PROXY UNKNOWN whatever is here\r\n"), NULL);
}

static void test_bad_lines(void **state)
{
	(void)state;
	refuse_header(STR("GET / HTTP/1.1\r\n"));
	refuse_header(STR("PROXX"));
	refuse_header(STR("PROXY TCP4 203.0.113.7 198.51.100.1 56324 443\n"));
	refuse_header(STR("PROXY TCP4 203.0.113.7 198.51.100.1 56324\r\n"));
	refuse_header(STR("PROXY TCP4 203.0.113.7 198.51.100.1 56324 443 \r\n"));
	refuse_header(STR("PROXY TCP4 203.0.113.7 198.51.100.1 56324 65536\r\n"));
	refuse_header(STR("PROXY TCP6 203.0.113.7 198.51.100.1 1 2\r\n"));
	refuse_header(STR("PROXY TCP4 ::1 ::1 1 2\r\n"));
	refuse_header(STR("PROXY \r\n"));
	/* Longer than any line may be: known before its end comes. */
	char endless[108] = "PROXY UNKNOWN ";
	memset(endless + 14, 'x', sizeof(endless) - 14);
	struct proxy_header out;
	assert_int_equal(parse((struct str){ endless, 106 }, &out), PROXY_MORE);
	refuse_header((struct str){ endless, 107 });
}

static void test_binary(void **state)
{
	(void)state;
	accept_header(STR(V2 "\x21\x11\x00\x0c" V4_ADDRESSES), "203.0.113.7:56324");
	accept_header(STR(V2 "\x21\x11\x00\x11" V4_ADDRESSES "\x04\x00\x02hi"), "203.0.113.7:56324");
	accept_header(STR(V2 "\x21\x21\x00\x24" "\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x07"
			  "\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01" "\x00\x50\x01\xbb"), "[2001:db8::7]:80");
	accept_header(STR(V2 "\x20\x00\x00\x00"), NULL);
	accept_header(STR(V2 "\x20\xff\x00\x03" "xyz"), NULL);
	accept_header(STR(V2 "\x21\x00\x00\x02" "xy"), NULL);
}

static void test_bad_binary(void **state)
{
	(void)state;
	refuse_header(STR("\r\n\r\n\0\r\nQUIX"));
	refuse_header(STR(V2 "\x11\x11\x00\x0c"));
	refuse_header(STR(V2 "\x22\x11\x00\x0c"));
	refuse_header(STR(V2 "\x21\x12\x00\x0c"));
	refuse_header(STR(V2 "\x21\x11\x00\x0b"));
	refuse_header(STR(V2 "\x21\x21\x00\x0c"));
	refuse_header(STR(V2 "\x21\x11\xff\xff"));
	refuse_header(STR(V2 "\x21\x11\x00\x0e" V4_ADDRESSES "\x04\x00"));
	refuse_header(STR(V2 "\x21\x11\x00\x10" V4_ADDRESSES "\x04\x00\x02x"));
	refuse_header(STR(V2 "\x21\x11\x00\x13" V4_ADDRESSES "\x03\x00\x04\0\0\0\0"));
	refuse_header(STR(V2 "\x21\x11\x00\x11" V4_ADDRESSES "\x03\x00\x02\0\0"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_lines),
		cmocka_unit_test(test_bad_lines),
		cmocka_unit_test(test_binary),
		cmocka_unit_test(test_bad_binary),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
