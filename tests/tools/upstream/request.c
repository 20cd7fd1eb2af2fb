/* request.c -- reads requests, strictly, and remembers them. */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include "upstream.h"

struct record *records;
size_t n_records;

/* The value of a field of the head, or NULL. *count: lines with that name. */
static const char *find_field(const struct bytes *head, const char *name, size_t *n, unsigned *count)
{
	const char *p = head->p, *end = head->p + head->n, *found = NULL;
	size_t length = strlen(name);

	*count = 0;
	while ((p = memchr(p, '\n', (size_t)(end - p))) && ++p < end) {
		if ((size_t)(end - p) <= length || strncasecmp(p, name, length) != 0 || p[length] != ':')
			continue;
		(*count)++;
		if (found)
			continue;
		found = p + length + 1;
		while (*found == ' ' || *found == '\t')
			found++;
		const char *stop = found;
		while (*stop != '\r' && *stop != '\n')
			stop++;
		*n = (size_t)(stop - found);
	}
	return found;
}

bool field_is(const struct bytes *head, const char *name, const char *value)
{
	size_t n;
	unsigned count;
	const char *p = find_field(head, name, &n, &count);

	return p && n == strlen(value) && strncasecmp(p, value, n) == 0;
}

static bool is_token(const char *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (!isalnum((unsigned char)p[i]) && !strchr("!#$%&'*+-.^_`|~", p[i]))
			return false;
	return n > 0 && !memchr(p, 0, n);
}

/* A line of the head without its CRLF: the request line, or a field. */
static bool is_good_line(const char *p, size_t n, bool is_first)
{
	for (size_t i = 0; i < n; i++)
		if (((unsigned char)p[i] < 0x20 && p[i] != '\t') || p[i] == 0x7f)
			return false;
	if (!is_first) {
		const char *colon = memchr(p, ':', n);
		return colon && is_token(p, (size_t)(colon - p));
	}
	const char *space = memchr(p, ' ', n);
	if (!space || !is_token(p, (size_t)(space - p)))
		return false;
	const char *second = memchr(space + 1, ' ', n - (size_t)(space + 1 - p));
	return second && second > space + 1 && n - (size_t)(second + 1 - p) == 8
		&& memcmp(second + 1, "HTTP/1.", 7) == 0;
}

bool is_good_head(const struct bytes *head)
{
	const char *p = head->p, *end = head->p + head->n - 2;
	bool is_first = true;

	while (p < end) {
		const char *line_end = memchr(p, '\n', (size_t)(end - p));

		if (!line_end || line_end == p || line_end[-1] != '\r'
			|| !is_good_line(p, (size_t)(line_end - 1 - p), is_first))
			return false;
		is_first = false;
		p = line_end + 1;
	}
	return true;
}

/* How the body is delimited; false = the head is not acceptable. */
bool find_framing(struct connection *c)
{
	unsigned lengths, codings, hosts;
	size_t n, m, h;
	const char *length = find_field(&c->head, "content-length", &n, &lengths);
	const char *coding = find_field(&c->head, "transfer-encoding", &m, &codings);

	find_field(&c->head, "host", &h, &hosts);
	c->framing = NO_BODY;
	c->left = 0;
	if (lengths > 1 || codings > 1 || (length && coding) || hosts != 1)
		return false;
	if (coding) {
		c->framing = CHUNKED;
		c->part = CHUNK_SIZE;
		return m == 7 && strncasecmp(coding, "chunked", 7) == 0;
	}
	if (length) {
		char *end;

		c->framing = BY_LENGTH;
		c->left = strtoull(length, &end, 10);
		return n > 0 && n < 20 && isdigit((unsigned char)*length) && end == length + n;
	}
	return true;
}

static struct record *record_of(struct connection *c)
{
	return c->record > 0 && c->record <= n_records ? &records[c->record - 1] : NULL;
}

static void remember(struct connection *c, const char *p, size_t n)
{
	struct record *r = record_of(c);

	if (r && r->wire.n < RECORD_BYTES)
		add(&r->wire, p, r->wire.n + n < RECORD_BYTES ? n : RECORD_BYTES - r->wire.n);
}

void open_record(struct connection *c)
{
	c->record = 0;
	if (n_records == RECORDS_MAX)
		return;
	if (n_records % 256 == 0 && !(records = realloc(records, (n_records + 256) * sizeof *records)))
		abort();
	records[n_records] = (struct record){ .port = c->port, .connection = c->number, .turn = c->turn };
	records[n_records].head_bytes = c->head.n;
	records[n_records].address = c->address;
	c->record = ++n_records;
	remember(c, c->head.p, c->head.n);
}

static void take_body(struct connection *c, const char *p, size_t n)
{
	EVP_DigestUpdate(c->hash, p, n);
	c->body_bytes += n;
}

void finish_body(struct connection *c)
{
	struct record *r = record_of(c);

	EVP_DigestFinal_ex(c->hash, c->digest, NULL);
	if (r) {
		r->complete = true;
		r->body_bytes = c->body_bytes;
		memcpy(r->digest, c->digest, sizeof r->digest);
	}
}

/* A line of the chunked coding that ends at `n`: -1 = malformed, 1 = the body is complete. */
static int take_chunk_line(struct connection *c, const char *p, size_t n)
{
	char *end;

	if (n < 2 || p[n - 2] != '\r')
		return -1;
	switch (c->part) {
	case CHUNK_SIZE:
		c->left = strtoull(p, &end, 16);
		if (!isxdigit((unsigned char)*p) || end - p > 15 || end != p + n - 2)
			return -1;
		c->part = c->left > 0 ? CHUNK_DATA : CHUNK_TRAILER;
		return 0;
	case CHUNK_END:
		c->part = CHUNK_SIZE;
		return n == 2 ? 0 : -1;
	default:
		if (n == 2)
			return 1;
		add(&c->trailer, p, n);
		return is_good_line(p, n - 2, false) ? 0 : -1;
	}
}

/* 1 = the body is complete, 0 = more is needed, -1 = malformed. */
int read_body(struct connection *c)
{
	int outcome = c->framing == NO_BODY || (c->framing == BY_LENGTH && c->left == 0);

	while (!outcome && c->in.n > 0) {
		size_t n = c->in.n;

		if (c->framing == BY_LENGTH || c->part == CHUNK_DATA) {
			n = n < c->left ? n : (size_t)c->left;
			take_body(c, c->in.p, n);
			c->left -= n;
			outcome = c->framing == BY_LENGTH && c->left == 0;
			if (c->framing == CHUNKED && c->left == 0)
				c->part = CHUNK_END;
		} else {
			char *end = memchr(c->in.p, '\n', n);

			if (!end)
				return n > 8192 ? -1 : 0;
			n = (size_t)(end + 1 - c->in.p);
			outcome = take_chunk_line(c, c->in.p, n);
		}
		remember(c, c->in.p, n);
		drop_front(&c->in, n);
	}
	return outcome;
}

void mark_malformed(struct connection *c)
{
	struct record *r = record_of(c);

	if (r)
		r->malformed = true;
}
