/*
 * json_scan.c -- sixteen bytes at a time where the CPU can; the byte loop decides the rest and is the
 * reference.
 */
#include "core/json_scan.h"
#include <endian.h>
#include <string.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

static bool is_plain(unsigned char c)
{
	return c >= 0x20 && c < 0x7f && c != '"' && c != '\\';
}

const char *json_plain_end(const char *p, const char *end)
{
#ifdef __SSE2__
	const __m128i quote = _mm_set1_epi8('"'), slash = _mm_set1_epi8('\\');
	const __m128i low = _mm_set1_epi8(0x20), high = _mm_set1_epi8(0x7e);

	while (end - p >= 16) {
		__m128i v = _mm_loadu_si128((const __m128i *)(const void *)p);
		/* The comparison is signed, so bytes from 0x80 up count as below 0x20. */
		__m128i bad = _mm_or_si128(_mm_cmplt_epi8(v, low), _mm_cmpgt_epi8(v, high));

		bad = _mm_or_si128(bad, _mm_or_si128(_mm_cmpeq_epi8(v, quote), _mm_cmpeq_epi8(v, slash)));
		int mask = _mm_movemask_epi8(bad);
		if (mask)
			return p + __builtin_ctz((unsigned)mask);
		p += 16;
	}
#endif
	while (p < end && is_plain((unsigned char)*p))
		p++;
	return p;
}

static bool is_tail(char c)
{
	return ((unsigned char)c & 0xc0) == 0x80;
}

size_t json_utf8_length(const char *p, const char *end)
{
	unsigned char c = (unsigned char)p[0];
	size_t left = (size_t)(end - p), n;
	unsigned char second;

	if (c < 0x80)
		return 1;
	if (c < 0xc2 || c > 0xf4)
		return 0;
	n = c < 0xe0 ? 2 : c < 0xf0 ? 3 : 4;
	if (left < n || !is_tail(p[1]))
		return 0;
	second = (unsigned char)p[1];
	/* Overlong forms, surrogates and what lies above U+10FFFF show in the second byte. */
	if ((c == 0xe0 && second < 0xa0) || (c == 0xed && second > 0x9f) || (c == 0xf0 && second < 0x90) ||
	    (c == 0xf4 && second > 0x8f))
		return 0;
	for (size_t i = 2; i < n; i++)
		if (!is_tail(p[i]))
			return 0;
	return n;
}

const char *json_utf8_end(const char *p, const char *end)
{
	size_t n = json_utf8_length(p, end);

	p += n;
	if (n < 2)
		return p;
	for (;;) {
		uint32_t four;

		/* Most of the world's scripts: three bytes each, told by one comparison. */
		while (end - p >= 4) {
			memcpy(&four, p, sizeof four);
			if ((four & htole32(0x00c0c0f0)) != htole32(0x008080e0) || p[0] == '\xe0' || p[0] == '\xed')
				break;
			p += 3;
		}
		if (p == end || (unsigned char)*p < 0x80)
			return p;
		n = json_utf8_length(p, end);
		if (n == 0)
			return p;
		p += n;
	}
}
