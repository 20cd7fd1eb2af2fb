/*
 * scan.h -- how far a run of permitted bytes goes. Private to this room.
 *
 * The scans look at 16 bytes at a time where the CPU has SSE2, and never read outside [p, end). They are inline: a head
 * runs through them some twenty times, and the calls would cost as much as the work.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#if defined(__SSE2__)
#include <emmintrin.h>
#endif

enum scan_class {
	SCAN_TOKEN = 1,                   /* tchar of RFC 9110 5.6.2 */
	SCAN_HOST = 2,                    /* letters, digits, '-', '.', '_': what a Host name may be made of */
	SCAN_UNRESERVED = 4,              /* RFC 3986 2.3 */
	SCAN_VALUE = 8,                   /* field value: HTAB, SP, visible, obs-text */
	SCAN_VISIBLE = 16,                /* 0x21 .. 0x7e */
	SCAN_PLAIN = 32,                  /* visible, and means itself in a path: not % ? # \ */
	SCAN_DIGIT = 64,
	SCAN_UNDERSCORE = 128,
};
extern const uint8_t scan_classes[256];
#define SCAN_IS(c, class_bits) (scan_classes[(uint8_t)(c)] & (class_bits))

const char *scan_class(const char *p, const char *end, unsigned class_bits);   /* first byte outside, or end */
const char *scan_query(const char *p, const char *end);      /* first byte outside 0x21 .. 0x7e, or '#', or end */
int scan_hex(char c);                                        /* 0 .. 15, or -1 */

#define SCAN_BLOCK 16
#if defined(__SSE2__)
/* In the masks, bit i is set where byte i stops the scan. */
static inline unsigned scan_mask_byte(const char *p, char c)
{
	__m128i v = _mm_loadu_si128((const void *)p);

	return (unsigned)_mm_movemask_epi8(_mm_cmpeq_epi8(v, _mm_set1_epi8(c)));
}

/* Whether an LF stands two bytes before another one, the first of them at p + 0 .. 31; p[0..34) is readable. */
static inline bool scan_has_near_lfs(const char *p)
{
	const __m128i lf = _mm_set1_epi8('\n');
	__m128i a = _mm_and_si128(_mm_cmpeq_epi8(_mm_loadu_si128((const void *)p), lf),
	                          _mm_cmpeq_epi8(_mm_loadu_si128((const void *)(p + 2)), lf));
	__m128i b = _mm_and_si128(_mm_cmpeq_epi8(_mm_loadu_si128((const void *)(p + 16)), lf),
	                          _mm_cmpeq_epi8(_mm_loadu_si128((const void *)(p + 18)), lf));

	return _mm_movemask_epi8(_mm_or_si128(a, b)) != 0;
}

/* Controls but HTAB, and DEL. */
static inline unsigned scan_mask_value(const char *p)
{
	__m128i v = _mm_loadu_si128((const void *)p);
	__m128i control = _mm_cmpeq_epi8(_mm_min_epu8(v, _mm_set1_epi8(0x1f)), v);
	__m128i tab = _mm_cmpeq_epi8(v, _mm_set1_epi8('\t'));
	__m128i del = _mm_cmpeq_epi8(v, _mm_set1_epi8(0x7f));

	return (unsigned)_mm_movemask_epi8(_mm_or_si128(_mm_andnot_si128(tab, control), del));
}

/* What is not SP to '~'. One more makes DEL and the bytes from 0x80 on negative, or zero. */
static inline unsigned scan_mask_odd(const char *p)
{
	__m128i v = _mm_add_epi8(_mm_loadu_si128((const void *)p), _mm_set1_epi8(1));

	return (unsigned)_mm_movemask_epi8(_mm_cmpgt_epi8(_mm_set1_epi8(0x21), v));
}

/* Controls and SP. */
static inline unsigned scan_mask_low(const char *p)
{
	__m128i v = _mm_loadu_si128((const void *)p);

	return (unsigned)_mm_movemask_epi8(_mm_cmpeq_epi8(_mm_min_epu8(v, _mm_set1_epi8(0x20)), v));
}

/* The same without SP. */
static inline unsigned scan_mask_visible(const char *p)
{
	__m128i v = _mm_add_epi8(_mm_loadu_si128((const void *)p), _mm_set1_epi8(1));

	return (unsigned)_mm_movemask_epi8(_mm_cmpgt_epi8(_mm_set1_epi8(0x22), v));
}

/* Other than letters, digits and '-': nearly all there is in field names. */
static inline unsigned scan_mask_name(const char *p)
{
	__m128i v = _mm_loadu_si128((const void *)p), lower = _mm_or_si128(v, _mm_set1_epi8(0x20));
	__m128i letter = _mm_and_si128(_mm_cmpgt_epi8(lower, _mm_set1_epi8('a' - 1)),
	                               _mm_cmplt_epi8(lower, _mm_set1_epi8('z' + 1)));
	__m128i digit = _mm_and_si128(_mm_cmpgt_epi8(v, _mm_set1_epi8('0' - 1)),
	                              _mm_cmplt_epi8(v, _mm_set1_epi8('9' + 1)));
	__m128i dash = _mm_cmpeq_epi8(v, _mm_set1_epi8('-'));

	return (unsigned)_mm_movemask_epi8(_mm_or_si128(_mm_or_si128(letter, digit), dash)) ^ 0xffffU;
}

/* The same with '.'. */
static inline unsigned scan_mask_host(const char *p)
{
	return scan_mask_name(p) & ~scan_mask_byte(p, '.');
}
#else
static inline bool scan_has_near_lfs(const char *p)
{
	bool has = false;

	for (unsigned i = 0; i < 2 * SCAN_BLOCK; i++)
		has |= p[i] == '\n' && p[i + 2] == '\n';
	return has;
}

static inline unsigned scan_mask_name(const char *p)
{
	unsigned mask = 0;

	for (unsigned i = 0; i < SCAN_BLOCK; i++)
		mask |= (unsigned)(!SCAN_IS(p[i], SCAN_HOST) || p[i] == '.' || p[i] == '_') << i;
	return mask;
}

static inline unsigned scan_mask_host(const char *p)
{
	unsigned mask = 0;

	for (unsigned i = 0; i < SCAN_BLOCK; i++)
		mask |= (unsigned)!SCAN_IS(p[i], SCAN_HOST) << i;
	return mask;
}

static inline unsigned scan_mask_byte(const char *p, char c)
{
	unsigned mask = 0;

	for (unsigned i = 0; i < SCAN_BLOCK; i++)
		mask |= (unsigned)(p[i] == c) << i;
	return mask;
}

static inline unsigned scan_mask_value(const char *p)
{
	unsigned mask = 0;

	for (unsigned i = 0; i < SCAN_BLOCK; i++)
		mask |= (unsigned)!SCAN_IS(p[i], SCAN_VALUE) << i;
	return mask;
}

static inline unsigned scan_mask_odd(const char *p)
{
	unsigned mask = 0;

	for (unsigned i = 0; i < SCAN_BLOCK; i++)
		mask |= (unsigned)(p[i] < 0x20 || p[i] > 0x7e) << i;
	return mask;
}

static inline unsigned scan_mask_low(const char *p)
{
	unsigned mask = 0;

	for (unsigned i = 0; i < SCAN_BLOCK; i++)
		mask |= (unsigned)((uint8_t)p[i] <= 0x20) << i;
	return mask;
}

static inline unsigned scan_mask_visible(const char *p)
{
	unsigned mask = 0;

	for (unsigned i = 0; i < SCAN_BLOCK; i++)
		mask |= (unsigned)!SCAN_IS(p[i], SCAN_VISIBLE) << i;
	return mask;
}
#endif

/* First byte that no field value may hold, or end. */
static inline const char *scan_value(const char *p, const char *end)
{
	for (; end - p >= SCAN_BLOCK; p += SCAN_BLOCK) {
		unsigned stops = scan_mask_value(p);

		if (stops)
			return p + __builtin_ctz(stops);
	}
	return scan_class(p, end, SCAN_VALUE);
}

/* First byte outside 0x21 .. 0x7e, or end. */
static inline const char *scan_visible(const char *p, const char *end)
{
	for (; end - p >= SCAN_BLOCK; p += SCAN_BLOCK) {
		unsigned stops = scan_mask_visible(p);

		if (stops)
			return p + __builtin_ctz(stops);
	}
	return scan_class(p, end, SCAN_VISIBLE);
}

/* First c, or end. */
static inline const char *scan_byte(const char *p, const char *end, char c)
{
	for (; end - p >= SCAN_BLOCK; p += SCAN_BLOCK) {
		unsigned stops = scan_mask_byte(p, c);

		if (stops)
			return p + __builtin_ctz(stops);
	}
	while (p < end && *p != c)
		p++;
	return p;
}

static inline uint64_t scan_differ8(const char *p, const char *word)
{
	uint64_t x, w;

	memcpy(&x, p, 8);
	memcpy(&w, word, 8);
	return (x ^ w) & ~((w & 0x4040404040404040U) >> 1);
}

static inline uint32_t scan_differ4(const char *p, const char *word)
{
	uint32_t x, w;

	memcpy(&x, p, 4);
	memcpy(&w, word, 4);
	return (x ^ w) & ~((w & 0x40404040U) >> 1);
}

bool scan_is_word_long(const char *p, const char *word, size_t n);

/*
 * Whether p[0..n) is `word` in any case. The word holds lower-case letters and '-' only, so a byte of it has bit 0x40
 * exactly when it is a letter; that bit, moved to 0x20, says where a difference in case is allowed.
 */
static inline bool scan_is_word(const char *p, const char *word, size_t n)
{
	if (n >= 4 && n <= 8)
		return (scan_differ4(p, word) | scan_differ4(p + n - 4, word + n - 4)) == 0;
	if (n > 8 && n <= 16)
		return (scan_differ8(p, word) | scan_differ8(p + n - 8, word + n - 8)) == 0;
	return scan_is_word_long(p, word, n);
}
