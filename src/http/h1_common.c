/* h1_common.c -- faults, default limits, and the search for the end of a head. */
#include "http/h1.h"
#include "http/scan.h"

const struct h1_limits h1_default_limits = {
	.head_bytes = 32768,
	.fields = 100,
	.target_bytes = 16384,
	.keep_underscores = false,
};

static const struct {
	int status;
	const char *tag;
} faults[] = {
#define H1_FAULT_ROW(id, status, tag) [H1_FAULT_##id] = { (status), (tag) },
	H1_FAULTS(H1_FAULT_ROW)
#undef H1_FAULT_ROW
};

int h1_fault_status(enum h1_fault f)
{
	BUG_ON((size_t)f >= sizeof(faults) / sizeof(faults[0]));
	return faults[f].status;
}

const char *h1_fault_tag(enum h1_fault f)
{
	BUG_ON((size_t)f >= sizeof(faults) / sizeof(faults[0]));
	return faults[f].tag;
}

size_t h1_skip_empty(const char *p, size_t n)
{
	return n >= 2 && p[0] == '\r' && p[1] == '\n' ? 2 : 0;
}

static enum h1_result refuse(struct h1_scan *s, enum h1_fault fault)
{
	s->fault = fault;
	return H1_BAD;
}

/* The first of the LFs at p + 0 .. 15 that an empty line follows; p[0..18) is readable. SCAN_BLOCK: there is none. */
static inline size_t find_in_block(const char *p)
{
	unsigned ends = scan_mask_byte(p, '\n') & scan_mask_byte(p + 2, '\n');

	for (; UNLIKELY(ends); ends &= ends - 1)
		if (p[__builtin_ctz(ends) + 1] == '\r')
			return (size_t)__builtin_ctz(ends);
	return SCAN_BLOCK;
}

/* The LF before the first empty line in p[0..n), at `from` or later; n when there is none. */
static size_t find_empty_line(const char *p, size_t n, size_t from)
{
	size_t at;

	while (n - from >= 2 * SCAN_BLOCK + 2 && !scan_has_near_lfs(p + from))
		from += 2 * SCAN_BLOCK;
	for (; n - from >= SCAN_BLOCK + 2; from += SCAN_BLOCK) {
		at = find_in_block(p + from);
		if (at < SCAN_BLOCK)
			return from + at;
	}
	/* The rest once more as a block that ends with it. */
	if (n >= SCAN_BLOCK + 2) {
		from = n - SCAN_BLOCK - 2;
		at = find_in_block(p + from);
		return at < SCAN_BLOCK ? from + at : n;
	}
	for (; from + 2 < n; from++)
		if (p[from] == '\n' && p[from + 1] == '\r' && p[from + 2] == '\n')
			return from;
	return n;
}

/* Whether p[from..n) shows an LF without its CR; p[0] is none. */
static bool has_bare_lf(const char *p, size_t n, size_t from)
{
	const char *at = p + from, *end = p + n;

	for (; (at = scan_byte(at, end, '\n')) < end; at++)
		if (at[-1] != '\r')
			return true;
	return false;
}

enum h1_result h1_find_head(struct h1_scan *s, const char *p, size_t n, size_t *head_size)
{
	size_t seen = s->seen, at;

	if (n == 0 || (n == 1 && p[0] == '\r'))
		return H1_MORE;
	if (seen == 0 && !SCAN_IS(p[0], SCAN_TOKEN))
		return refuse(s, H1_FAULT_LEADING);
	at = find_empty_line(p, n, seen > 2 ? seen - 2 : 0);
	if (at < n) {
		*head_size = at + 3;
		return H1_DONE;
	}
	s->seen = n;
	if (has_bare_lf(p, n, seen))
		return refuse(s, H1_FAULT_BARE_LF);
	if (seen <= H1_METHOD_BYTES && n > H1_METHOD_BYTES &&
	    scan_byte(p, p + H1_METHOD_BYTES + 1, ' ') > p + H1_METHOD_BYTES)
		return refuse(s, H1_FAULT_METHOD);
	return H1_MORE;
}
