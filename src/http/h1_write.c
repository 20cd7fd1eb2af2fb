/*
 * h1_write.c -- a message back into bytes.
 *
 * Rows that lie next to each other in the received head, as "name: value" CRLF, are copied in one run: in the usual
 * case a head is three or four copies, however many fields it has.
 */
#include "http/h1.h"

#define FIXED_BYTES 192U                  /* start line without its texts, Host, framing, Connection, the empty line */

size_t h1_head_bound(const struct message *m)
{
	size_t size = FIXED_BYTES + m->method_name.n + m->path.n + m->query.n + m->authority.n + m->reason.n +
		m->upgrade.n;

	for (unsigned i = 0; i < m->n; i++)
		size += m->headers[i].name.n + m->headers[i].value.n + 4;
	return size;
}

#define NOT_SKIPPED 0xffffU

static inline bool is_written(const struct header *h, unsigned skip)
{
	return !h->dropped && h->id != skip;
}

/* Rows but those dropped and those of the id `skip`. */
static char *put_rows(char *out, const struct message *m, unsigned skip)
{
	const struct header *h = m->headers, *end = m->n ? h + m->n : h;

	while (h < end) {
		const char *start = h->name.p, *stop = h->value.p + h->value.n;

		if (!is_written(h, skip)) {
			h++;
			continue;
		}
		if (!h->is_line) {
			out = str_put(out, h->name);
			out = STR_PUT(out, ": ");
			out = str_put(out, h->value);
			out = STR_PUT(out, "\r\n");
			h++;
			continue;
		}
		for (h++; h < end && h->is_line && h->name.p == stop + 2 && is_written(h, skip); h++)
			stop = h->value.p + h->value.n;
		out = str_put(out, (struct str){ start, (size_t)(stop + 2 - start) });
	}
	return out;
}

static char *put_length(char *out, uint64_t length)
{
	out = STR_PUT(out, "Content-Length: ");
	out = str_put_u64(out, length);
	return STR_PUT(out, "\r\n");
}

static char *put_upgrade(char *out, struct str protocol)
{
	out = STR_PUT(out, "Connection: Upgrade\r\nUpgrade: ");
	out = str_put(out, protocol);
	return STR_PUT(out, "\r\n");
}

size_t h1_write_request(const struct message *m, char *out)
{
	char *at = str_put(out, m->method_name);

	*at++ = ' ';
	at = str_put(at, m->path);
	if (m->query.p) {
		*at++ = '?';
		at = str_put(at, m->query);
	}
	at = STR_PUT(at, " HTTP/1.1\r\nHost: ");
	at = str_put(at, m->authority);
	at = STR_PUT(at, "\r\n");
	at = put_rows(at, m, HEADER_HOST);
	if (m->framing == FRAMING_LENGTH)
		at = put_length(at, m->content_length);
	else if (m->framing == FRAMING_CHUNKED)
		at = STR_PUT(at, "Transfer-Encoding: chunked\r\n");
	if (m->upgrade.n)
		at = put_upgrade(at, m->upgrade);
	else if (!m->keep_alive)
		at = STR_PUT(at, "Connection: close\r\n");
	at = STR_PUT(at, "\r\n");
	return (size_t)(at - out);
}

static char *put_response_framing(char *out, const struct message *m)
{
	if (m->status < 200 || m->status == 204 || m->status == 304)
		return out;
	switch (m->framing) {
	case FRAMING_LENGTH: return put_length(out, m->content_length);
	case FRAMING_CHUNKED: return STR_PUT(out, "Transfer-Encoding: chunked\r\n");
	case FRAMING_NONE:
		if (m->length_known || m->method != METHOD_HEAD)
			return put_length(out, m->length_known ? m->content_length : 0);
		break;
	case FRAMING_CLOSE: break;
	}
	return out;
}

size_t h1_write_response(const struct message *m, char *out)
{
	char *at = STR_PUT(out, "HTTP/1.1 ");

	*at++ = (char)('0' + m->status / 100 % 10);
	*at++ = (char)('0' + m->status / 10 % 10);
	*at++ = (char)('0' + m->status % 10);
	*at++ = ' ';
	at = str_put(at, m->reason.n ? m->reason : str_of(h1_reason(m->status)));
	at = STR_PUT(at, "\r\n");
	at = put_rows(at, m, NOT_SKIPPED);
	at = put_response_framing(at, m);
	if (m->status >= 200) {
		if (!m->keep_alive)
			at = STR_PUT(at, "Connection: close\r\n");
		else if (m->minor == 0)
			at = STR_PUT(at, "Connection: keep-alive\r\n");
	} else if (m->upgrade.n) {
		at = put_upgrade(at, m->upgrade);
	}
	at = STR_PUT(at, "\r\n");
	return (size_t)(at - out);
}

size_t h1_write_chunk_size(char out[20], size_t n)
{
	unsigned digits = n ? (unsigned)(64 - __builtin_clzll(n) + 3) / 4 : 1;

	for (unsigned i = digits; i > 0; i--, n >>= 4)
		out[i - 1] = "0123456789abcdef"[n & 15];
	out[digits] = '\r';
	out[digits + 1] = '\n';
	return digits + 2;
}

int h1_frame(bool is_chunked, struct iovec *parts, char size_line[20], struct str data, bool end)
{
	int n = 0;

	if (data.n > 0 && is_chunked)
		parts[n++] = (struct iovec){ size_line, h1_write_chunk_size(size_line, data.n) };
	if (data.n > 0)
		parts[n++] = (struct iovec){ (void *)(uintptr_t)data.p, data.n };
	if (is_chunked && data.n > 0)
		parts[n++] = end ? (struct iovec){ "\r\n" H1_LAST_CHUNK, 2 + sizeof H1_LAST_CHUNK - 1 }
				 : (struct iovec){ "\r\n", 2 };
	else if (is_chunked && end)
		parts[n++] = (struct iovec){ H1_LAST_CHUNK, sizeof H1_LAST_CHUNK - 1 };
	return n;
}
