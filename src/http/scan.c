/* scan.c -- the byte classes of HTTP and the vector scans over them. */
#include "http/scan.h"

#define VISIBLE (SCAN_VALUE | SCAN_VISIBLE | SCAN_PLAIN)
#define TCHAR (VISIBLE | SCAN_TOKEN)
#define ALPHA (TCHAR | SCAN_HOST | SCAN_UNRESERVED)

const uint8_t scan_classes[256] = {
	['\t'] = SCAN_VALUE,
	[' '] = SCAN_VALUE,
	['!'] = TCHAR,
	['"'] = VISIBLE,
	['#'] = SCAN_VALUE | SCAN_VISIBLE | SCAN_TOKEN,
	['$'] = TCHAR,
	['%'] = SCAN_VALUE | SCAN_VISIBLE | SCAN_TOKEN,
	['&'] = TCHAR,
	['\''] = TCHAR,
	['('] = VISIBLE,
	[')'] = VISIBLE,
	['*'] = TCHAR,
	['+'] = TCHAR,
	[','] = VISIBLE,
	['-'] = ALPHA,
	['.'] = ALPHA,
	['/'] = VISIBLE,
	['0' ... '9'] = ALPHA | SCAN_DIGIT,
	[':'] = VISIBLE,
	[';'] = VISIBLE,
	['<'] = VISIBLE,
	['='] = VISIBLE,
	['>'] = VISIBLE,
	['?'] = SCAN_VALUE | SCAN_VISIBLE,
	['@'] = VISIBLE,
	['A' ... 'Z'] = ALPHA,
	['['] = VISIBLE,
	['\\'] = SCAN_VALUE | SCAN_VISIBLE,
	[']'] = VISIBLE,
	['^'] = TCHAR,
	['_'] = ALPHA | SCAN_UNDERSCORE,
	['`'] = TCHAR,
	['a' ... 'z'] = ALPHA,
	['{'] = VISIBLE,
	['|'] = TCHAR,
	['}'] = VISIBLE,
	['~'] = TCHAR | SCAN_UNRESERVED,
	[0x80 ... 0xff] = SCAN_VALUE,
};

const char *scan_class(const char *p, const char *end, unsigned class_bits)
{
	while (p < end && SCAN_IS(*p, class_bits))
		p++;
	return p;
}

/* The tail of 16 bytes and more is looked at once more as a block that ends with it. */
const char *scan_query(const char *p, const char *end)
{
	const char *start = p;

	for (;;) {
		unsigned stops;

		if (end - p < SCAN_BLOCK && end - start >= SCAN_BLOCK && p < end)
			p = end - SCAN_BLOCK;
		if (end - p < SCAN_BLOCK)
			break;
		stops = scan_mask_visible(p) | scan_mask_byte(p, '#');
		if (stops)
			return p + __builtin_ctz(stops);
		p += SCAN_BLOCK;
	}
	while (p < end && SCAN_IS(*p, SCAN_VISIBLE) && *p != '#')
		p++;
	return p;
}

bool scan_is_word_long(const char *p, const char *word, size_t n)
{
	uint64_t differs = 0;

	if (n >= 8) {
		for (size_t i = 0; i + 8 < n; i += 8)
			differs |= scan_differ8(p + i, word + i);
		return (differs | scan_differ8(p + n - 8, word + n - 8)) == 0;
	}
	for (size_t i = 0; i < n; i++)
		if ((p[i] ^ word[i]) & ~((word[i] & 0x40) >> 1))
			return false;
	return true;
}

int scan_hex(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c = (char)(c | 0x20);
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}
