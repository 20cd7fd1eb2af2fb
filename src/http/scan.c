/* scan.c -- the byte classes of HTTP and the vector scans over them. */
#include "http/scan.h"
#include <stddef.h>
#if defined(__SSE2__)
#include <emmintrin.h>
#endif

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

#if defined(__SSE2__)
static __m128i load(const char *p)
{
	return _mm_loadu_si128((const void *)p);
}

/* Bit i is set where byte i may not stand in a field value. */
static unsigned value_stops(const char *p)
{
	__m128i v = load(p);
	__m128i printable = _mm_cmpeq_epi8(_mm_max_epu8(v, _mm_set1_epi8(0x20)), v);
	__m128i tab = _mm_cmpeq_epi8(v, _mm_set1_epi8('\t'));
	__m128i del = _mm_cmpeq_epi8(v, _mm_set1_epi8(0x7f));

	return (unsigned)_mm_movemask_epi8(_mm_andnot_si128(del, _mm_or_si128(printable, tab))) ^ 0xffffU;
}

/* Bytes from 0x80 are negative in a signed comparison, so two comparisons bound the range. */
static unsigned visible_stops(const char *p)
{
	__m128i v = load(p);
	__m128i inside = _mm_and_si128(_mm_cmpgt_epi8(v, _mm_set1_epi8(0x20)),
	                               _mm_cmplt_epi8(v, _mm_set1_epi8(0x7f)));

	return (unsigned)_mm_movemask_epi8(inside) ^ 0xffffU;
}

static unsigned byte_stops(const char *p, char c)
{
	return (unsigned)_mm_movemask_epi8(_mm_cmpeq_epi8(load(p), _mm_set1_epi8(c)));
}
#endif

const char *scan_class(const char *p, const char *end, unsigned class_bits)
{
	while (p < end && SCAN_IS(*p, class_bits))
		p++;
	return p;
}

const char *scan_value(const char *p, const char *end)
{
#if defined(__SSE2__)
	for (; end - p >= 16; p += 16) {
		unsigned stops = value_stops(p);

		if (stops)
			return p + __builtin_ctz(stops);
	}
#endif
	return scan_class(p, end, SCAN_VALUE);
}

const char *scan_visible(const char *p, const char *end)
{
#if defined(__SSE2__)
	for (; end - p >= 16; p += 16) {
		unsigned stops = visible_stops(p);

		if (stops)
			return p + __builtin_ctz(stops);
	}
#endif
	return scan_class(p, end, SCAN_VISIBLE);
}

const char *scan_byte(const char *p, const char *end, char c)
{
#if defined(__SSE2__)
	for (; end - p >= 16; p += 16) {
		unsigned stops = byte_stops(p, c);

		if (stops)
			return p + __builtin_ctz(stops);
	}
#endif
	while (p < end && *p != c)
		p++;
	return p;
}

int scan_hex(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c = (char)(c | 0x20);
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}
