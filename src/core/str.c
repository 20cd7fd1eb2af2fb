#include "core/str.h"
#include <stdarg.h>
#include <stdio.h>
#include <sys/random.h>
#include "core/mem.h"

char str_lower(char c)
{
	return c >= 'A' && c <= 'Z' ? (char)(c | 0x20) : c;
}

bool str_equal_nocase(struct str a, struct str b)
{
	if (a.n != b.n)
		return false;
	for (size_t i = 0; i < a.n; i++)
		if (a.p[i] != b.p[i] && str_lower(a.p[i]) != str_lower(b.p[i]))
			return false;
	return true;
}

int str_compare(struct str a, struct str b)
{
	size_t common = a.n < b.n ? a.n : b.n;
	int order = common ? memcmp(a.p, b.p, common) : 0;

	return order ? order : (a.n > b.n) - (a.n < b.n);
}

bool str_starts(struct str s, struct str prefix)
{
	return prefix.n <= s.n && (prefix.n == 0 || memcmp(s.p, prefix.p, prefix.n) == 0);
}

bool str_ends(struct str s, struct str suffix)
{
	return suffix.n <= s.n && (suffix.n == 0 || memcmp(s.p + (s.n - suffix.n), suffix.p, suffix.n) == 0);
}

static bool is_blank(char c)
{
	return c == ' ' || c == '\t';
}

struct str str_trim(struct str s)
{
	while (s.n && is_blank(s.p[0])) {
		s.p++;
		s.n--;
	}
	while (s.n && is_blank(s.p[s.n - 1]))
		s.n--;
	return s;
}

bool str_split(struct str *rest, char sep, struct str *part)
{
	if (!rest->p)
		return false;
	size_t at = str_find(*rest, sep);

	*part = (struct str){ rest->p, at };
	if (at == rest->n)
		*rest = (struct str){ NULL, 0 };
	else
		*rest = (struct str){ rest->p + at + 1, rest->n - at - 1 };
	return true;
}

size_t str_find(struct str s, char c)
{
	const char *hit = s.n ? memchr(s.p, c, s.n) : NULL;

	return hit ? (size_t)(hit - s.p) : s.n;
}

bool str_to_u64(struct str s, uint64_t max, uint64_t *out)
{
	uint64_t v = 0;

	if (s.n == 0 || s.n > 20 || (s.p[0] == '0' && s.n > 1))
		return false;
	for (size_t i = 0; i < s.n; i++) {
		unsigned digit = (unsigned)(unsigned char)s.p[i] - '0';

		if (digit > 9 || __builtin_mul_overflow(v, 10u, &v) || __builtin_add_overflow(v, digit, &v))
			return false;
	}
	if (v > max)
		return false;
	*out = v;
	return true;
}

/* Length of the well-formed sequence at p (Unicode 15, table 3-7), or 0. `n` bytes are there, at least one. */
static size_t measure_sequence(const unsigned char *p, size_t n)
{
	unsigned char lead = p[0], least = 0x80, most = 0xbf;
	size_t length;

	if (lead < 0x80)
		return 1;
	if (lead >= 0xc2 && lead <= 0xdf) {
		length = 2;
	} else if (lead >= 0xe0 && lead <= 0xef) {
		length = 3;
		least = lead == 0xe0 ? 0xa0 : 0x80;       /* no overlong form */
		most = lead == 0xed ? 0x9f : 0xbf;        /* no surrogate */
	} else if (lead >= 0xf0 && lead <= 0xf4) {
		length = 4;
		least = lead == 0xf0 ? 0x90 : 0x80;
		most = lead == 0xf4 ? 0x8f : 0xbf;        /* nothing past U+10FFFF */
	} else {
		return 0;
	}
	if (length > n || p[1] < least || p[1] > most)
		return 0;
	for (size_t i = 2; i < length; i++)
		if ((p[i] & 0xc0) != 0x80)
			return 0;
	return length;
}

bool str_is_utf8(struct str s)
{
	const unsigned char *p = (const unsigned char *)s.p;
	size_t left = s.n;

	while (left) {
		uint64_t eight;

		if (left >= sizeof(eight)) {
			memcpy(&eight, p, sizeof(eight));
			if (!(eight & UINT64_C(0x8080808080808080))) {
				p += sizeof(eight);
				left -= sizeof(eight);
				continue;
			}
		}
		size_t length = measure_sequence(p, left);

		if (!length)
			return false;
		p += length;
		left -= length;
	}
	return true;
}

size_t str_code_points(struct str s)
{
	size_t n = 0;

	for (size_t i = 0; i < s.n; i++)
		n += ((unsigned char)s.p[i] & 0xc0) != 0x80;
	return n;
}

static uint64_t hash_key[2];

/* Before main(), so that no use has to ask whether it is there. */
__attribute__((constructor)) static void draw_hash_key(void)
{
	BUG_ON(getrandom(hash_key, sizeof(hash_key), 0) != (ssize_t)sizeof(hash_key));
}

struct sip {
	uint64_t a, b, c, d;
};

static inline uint64_t rotate(uint64_t v, int by)
{
	return v << by | v >> (64 - by);
}

static inline void mix_sip(struct sip *s)
{
	s->a += s->b;
	s->c += s->d;
	s->b = rotate(s->b, 13) ^ s->a;
	s->d = rotate(s->d, 16) ^ s->c;
	s->a = rotate(s->a, 32);
	s->c += s->b;
	s->a += s->d;
	s->b = rotate(s->b, 17) ^ s->c;
	s->d = rotate(s->d, 21) ^ s->a;
	s->c = rotate(s->c, 32);
}

/* SipHash-1-3: one round for each eight bytes, three at the end. */
uint64_t str_hash(struct str text)
{
	struct sip s = {
		hash_key[0] ^ UINT64_C(0x736f6d6570736575), hash_key[1] ^ UINT64_C(0x646f72616e646f6d),
		hash_key[0] ^ UINT64_C(0x6c7967656e657261), hash_key[1] ^ UINT64_C(0x7465646279746573),
	};
	const char *p = text.p;
	size_t left = text.n;
	uint64_t word;

	for (; left >= 8; left -= 8, p += 8) {
		memcpy(&word, p, 8);
		s.d ^= word;
		mix_sip(&s);
		s.a ^= word;
	}
	word = 0;
	if (left)
		memcpy(&word, p, left);
	word |= (uint64_t)text.n << 56;
	s.d ^= word;
	mix_sip(&s);
	s.a ^= word;
	s.c ^= 0xff;
	mix_sip(&s);
	mix_sip(&s);
	mix_sip(&s);
	return s.a ^ s.b ^ s.c ^ s.d;
}

bool str_equal_secret(struct str a, struct str b)
{
	unsigned char differs = 0;

	if (a.n != b.n)
		return false;
	for (size_t i = 0; i < a.n; i++) {
		differs |= (unsigned char)(a.p[i] ^ b.p[i]);
		/* Keeps the compiler from leaving the loop once the answer is known. */
		__asm__ volatile("" : "+r"(differs));
	}
	return differs == 0;
}

void sbuf_reserve(struct sbuf *b, size_t more)
{
	size_t needed;

	BUG_ON(__builtin_add_overflow(b->n, more, &needed) || __builtin_add_overflow(needed, 1, &needed));
	if (needed <= b->cap)
		return;
	size_t cap = b->cap ? b->cap : 64;

	while (cap < needed)
		cap = cap > SIZE_MAX / 2 ? needed : cap * 2;
	b->p = mem_resize(b->p, cap);
	b->cap = cap;
}

void sbuf_add(struct sbuf *b, struct str s)
{
	sbuf_reserve(b, s.n);
	if (s.n)
		memcpy(b->p + b->n, s.p, s.n);
	b->n += s.n;
	b->p[b->n] = '\0';
}

void sbuf_addc(struct sbuf *b, char c)
{
	sbuf_reserve(b, 1);
	b->p[b->n++] = c;
	b->p[b->n] = '\0';
}

void sbuf_addf(struct sbuf *b, const char *fmt, ...)
{
	va_list args, again;

	sbuf_reserve(b, 63);
	va_start(args, fmt);
	va_copy(again, args);
	int n = vsnprintf(b->p + b->n, b->cap - b->n, fmt, args);

	BUG_ON(n < 0);
	if ((size_t)n >= b->cap - b->n) {
		sbuf_reserve(b, (size_t)n);
		n = vsnprintf(b->p + b->n, b->cap - b->n, fmt, again);
	}
	b->n += (size_t)n;
	va_end(again);
	va_end(args);
}

void sbuf_free(struct sbuf *b)
{
	mem_free(b->p);
	*b = (struct sbuf){ 0 };
}

static unsigned count_digits(uint64_t v)
{
	unsigned n = 1;

	for (; v >= 10000; v /= 10000)
		n += 4;
	return n + (v >= 10) + (v >= 100) + (v >= 1000);
}

char *str_put_large(char *out, uint64_t v)
{
	static const char pairs[] = "00010203040506070809101112131415161718192021222324252627282930313233343536373839"
				    "40414243444546474849505152535455565758596061626364656667686970717273747576777879"
				    "8081828384858687888990919293949596979899";
	char *end = out + count_digits(v), *at = end;

	for (; v >= 100; v /= 100) {
		at -= 2;
		memcpy(at, pairs + v % 100 * 2, 2);
	}
	if (v >= 10)
		memcpy(out, pairs + v * 2, 2);
	else
		*out = (char)('0' + v);
	return end;
}
