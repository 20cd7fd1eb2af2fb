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

enum h1_result h1_find_head(struct h1_scan *s, const char *p, size_t n, size_t *head_size)
{
	const char *at = p + s->seen, *end = p + n;

	if (n == 0 || (n == 1 && p[0] == '\r'))
		return H1_MORE;
	if (s->seen == 0 && !SCAN_IS(p[0], SCAN_TOKEN))
		return refuse(s, H1_FAULT_LEADING);
	while ((at = scan_byte(at, end, '\n')) < end) {
		size_t line_bytes = (size_t)(at - p) - s->line;

		/* The byte before the first one of a line is an LF, so an empty line without CR is seen here too. */
		if (line_bytes == 0 || at[-1] != '\r')
			return refuse(s, H1_FAULT_BARE_LF);
		at++;
		if (line_bytes == 1) {
			*head_size = (size_t)(at - p);
			return H1_DONE;
		}
		s->line = (size_t)(at - p);
	}
	s->seen = n;
	return H1_MORE;
}
