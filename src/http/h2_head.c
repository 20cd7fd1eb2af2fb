/*
 * h2_head.c -- header blocks to messages and back (RFC 9113 8.2, 8.3).
 *
 * nghttp2 has checked names, values, the order and number of pseudo fields, the fields of one connection, te and
 * content-length, and resets the stream otherwise; what decides about request boundaries is checked here once more, as
 * the next hop may speak HTTP/1.1. The text of a head is laid out as HTTP/1.1 would have it ("name: value" CRLF): rows
 * that follow each other there are written in one copy.
 */
#include <nghttp2/nghttp2.h>
#include "http/h2.h"
#include "http/h2_session.h"
#include "http/scan.h"
#include "http/trailers.h"
#include "http/uri.h"

#define TEXT_BYTES 768                    /* taken at once for the text of fields */
#define BIT(id) (UINT64_C(1) << (id))
/* Fields that HTTP/2 does not have, or that are made from the members of the message. */
#define OWN_FIELDS \
	(BIT(HEADER_HOST) | BIT(HEADER_CONNECTION) | BIT(HEADER_CONTENT_LENGTH) | BIT(HEADER_TRANSFER_ENCODING) | \
	 BIT(HEADER_KEEP_ALIVE) | BIT(HEADER_PROXY_CONNECTION) | BIT(HEADER_UPGRADE) | BIT(HEADER_TE) | \
	 BIT(HEADER_TRAILER) | BIT(HEADER_EXPECT))
/* Worth nothing in the peer's table: they differ each time, or are secrets that no size may betray. */
#define UNINDEXED_FIELDS \
	(BIT(HEADER_X_REQUEST_ID) | BIT(HEADER_AUTHORIZATION) | BIT(HEADER_PROXY_AUTHORIZATION) | BIT(HEADER_COOKIE) | \
	 BIT(HEADER_SET_COOKIE) | BIT(HEADER_X_AUTH_TOKEN) | BIT(HEADER_TRACEPARENT))

void h2_head_begin(struct h2_head *head, struct message *m, bool is_trailer)
{
	*head = (struct h2_head){ .m = m, .is_trailer = is_trailer };
}

static void refuse(struct h2_head *head, enum h1_fault fault)
{
	if (head->fault == H1_FAULT_NONE)
		head->fault = fault;
}

static char *take_room(struct h2_head *head, size_t n)
{
	char *p;

	if ((size_t)(head->end - head->next) < n) {
		size_t room = n > TEXT_BYTES ? n : TEXT_BYTES;

		head->next = arena_take(head->m->arena, room);
		head->end = head->next + room;
	}
	p = head->next;
	head->next += n;
	return p;
}

static struct str keep(struct h2_head *head, struct str s)
{
	char *p = take_room(head, s.n);

	if (s.n)
		memcpy(p, s.p, s.n);
	return (struct str){ p, s.n };
}

static struct header *add_row(struct h2_head *head, struct str name, struct str value, enum header_id id)
{
	struct message *m = head->m;
	char *p = take_room(head, name.n + value.n + 4);
	struct header *row;

	memcpy(p, name.p, name.n);
	memcpy(p + name.n, ": ", 2);
	if (value.n)
		memcpy(p + name.n + 2, value.p, value.n);
	memcpy(p + name.n + 2 + value.n, "\r\n", 2);
	if (m->n == m->cap)
		message_grow(m);
	row = &m->headers[m->n++];
	*row = (struct header){ .name = { p, name.n }, .value = { p + name.n + 2, value.n }, .id = (uint16_t)id };
	m->present |= BIT(id);
	return row;
}

/* ---------- reading ---------- */

static void add_pseudo(struct h2_head *head, struct str name, struct str value)
{
	struct message *m = head->m;

	if (str_equal(name, STR(":method"))) {
		m->method_name = keep(head, value);
		m->method = method_lookup(m->method_name);
	} else if (str_equal(name, STR(":scheme"))) {
		head->scheme = keep(head, value);
	} else if (str_equal(name, STR(":path"))) {
		m->target = keep(head, value);
	} else if (str_equal(name, STR(":authority"))) {
		m->authority = keep(head, value);
		head->has_authority = true;
	} else if (str_equal(name, STR(":protocol"))) {
		m->upgrade = keep(head, value);
	} else if (str_equal(name, STR(":status"))) {
		m->status = value.n == 3 ? (value.p[0] - '0') * 100 + (value.p[1] - '0') * 10 + value.p[2] - '0' : 0;
	} else {
		refuse(head, H1_FAULT_HEADER_NAME);
	}
}

/* Lower case, a token, and perhaps to be left out: *is_kept. */
static bool judge_name(struct str name, const struct h1_limits *limits, bool *is_kept)
{
	unsigned seen = 0;

	for (size_t i = 0; i < name.n; i++) {
		if (!SCAN_IS(name.p[i], SCAN_TOKEN) || (name.p[i] >= 'A' && name.p[i] <= 'Z'))
			return false;
		seen |= scan_classes[(uint8_t)name.p[i]];
	}
	*is_kept = !(seen & SCAN_UNDERSCORE) || limits->keep_underscores;
	/* What a CGI-like program behind us would take for the field that decides about framing. */
	return name.n > 0 && !str_equal(name, STR("transfer_encoding")) && !str_equal(name, STR("content_length"));
}

static unsigned count_crumbs(struct str cookie)
{
	unsigned n = 0;

	for (size_t i = 0; i < cookie.n; i++)
		n += cookie.p[i] == ';';
	return n;
}

static void add_length(struct h2_head *head, struct str value)
{
	struct message *m = head->m;

	if (head->has_length)
		refuse(head, H1_FAULT_LENGTH_TWICE);
	else if (!str_to_u64(value, INT64_MAX, &m->content_length))
		refuse(head, H1_FAULT_LENGTH_BAD);
	head->has_length = true;
}

/* Fields with a meaning for this hop. False: it is no row. */
static bool take_note(struct h2_head *head, enum header_id id, struct str value)
{
	switch (id) {
	case HEADER_CONTENT_LENGTH:
		add_length(head, value);
		return false;
	case HEADER_CONNECTION:
	case HEADER_TRANSFER_ENCODING:
	case HEADER_KEEP_ALIVE:
	case HEADER_PROXY_CONNECTION:
	case HEADER_UPGRADE:
		refuse(head, H1_FAULT_CONNECTION);
		return false;
	case HEADER_TE:
		head->m->wants_trailers = str_equal_nocase(value, STR("trailers"));
		return false;
	case HEADER_TRAILER:
		return false;
	case HEADER_EXPECT:
		if (head->m->status == 0 && (head->has_expect || !str_equal_nocase(value, STR("100-continue"))))
			refuse(head, H1_FAULT_EXPECT);
		head->has_expect = true;
		return head->m->status != 0;
	case HEADER_COOKIE:
		head->cookies++;
		head->fields += count_crumbs(value);
		return true;
	case HEADER_HOST:
		if (head->has_host)
			refuse(head, H1_FAULT_HOST_TWICE);
		head->has_host = true;
		return true;
	default:
		return true;
	}
}

void h2_head_add(struct h2_head *head, struct str name, struct str value, const struct h1_limits *limits)
{
	bool is_kept = true;
	enum header_id id;

	head->bytes += name.n + value.n + 4;
	head->fields++;
	if (head->bytes > limits->head_bytes)
		refuse(head, H1_FAULT_HEAD_LARGE);
	if (head->fault)
		return;
	if (name.n > 0 && name.p[0] == ':') {
		head->fields--;
		if (name.n == 5 && value.n > limits->target_bytes && str_equal(name, STR(":path")))
			refuse(head, H1_FAULT_TARGET_LONG);
		else
			add_pseudo(head, name, value);
		return;
	}
	if (!judge_name(name, limits, &is_kept))
		refuse(head, H1_FAULT_HEADER_NAME);
	else if (!header_is_value(value))
		refuse(head, H1_FAULT_HEADER_VALUE);
	if (head->fault)
		return;
	id = header_lookup(name);
	if (head->is_trailer) {
		if (head->fields > TRAILERS_MAX || trailer_is_refused(name))
			refuse(head, H1_FAULT_TRAILER);
		else if (is_kept)
			add_row(head, name, value, id);
		return;
	}
	if (take_note(head, id, value) && is_kept && !head->fault)
		add_row(head, name, value, id);
	if (head->fields > limits->fields)
		refuse(head, H1_FAULT_HEADER_COUNT);
}

/* Crumbs become one line again (RFC 9113 8.2.3). */
static void join_cookies(struct message *m)
{
	struct header *first = NULL;
	size_t size = 0;
	char *out, *at;

	for (unsigned i = 0; i < m->n; i++)
		if (m->headers[i].id == HEADER_COOKIE)
			size += m->headers[i].value.n + 2;
	out = at = arena_take(m->arena, size);
	for (unsigned i = 0; i < m->n; i++) {
		struct header *row = &m->headers[i];

		if (row->id != HEADER_COOKIE)
			continue;
		if (first) {
			memcpy(at, "; ", 2);
			at += 2;
			row->dropped = true;
		} else {
			first = row;
		}
		if (row->value.n)
			memcpy(at, row->value.p, row->value.n);
		at += row->value.n;
	}
	first->value = (struct str){ out, (size_t)(at - out) };
}

static enum h1_fault settle_host(struct h2_head *head)
{
	struct message *m = head->m;
	struct header *row = message_find(m, HEADER_HOST);
	struct str host;
	uint16_t port;

	if (!head->has_authority && !row)
		return H1_FAULT_HOST_MISSING;
	if (head->has_authority && row && !str_equal_nocase(row->value, m->authority))
		return H1_FAULT_HOST_TWICE;
	if (!head->has_authority)
		m->authority = row->value;
	if (!uri_split_authority(m->authority, &host, &port))
		return H1_FAULT_HOST_BAD;
	if (!row)
		add_row(head, STR("host"), m->authority, HEADER_HOST);
	else
		row->value = m->authority;
	return H1_FAULT_NONE;
}

/* An extended CONNECT is what an upgrade is in HTTP/1. Of all protocols only WebSocket. */
static bool take_upgrade(struct message *m)
{
	if (!str_equal_nocase(m->upgrade, STR("websocket")))
		return false;
	m->method = METHOD_GET;
	m->method_name = STR("GET");
	m->has_upgrade = true;
	return true;
}

static enum h1_fault settle_target(struct h2_head *head)
{
	struct message *m = head->m;

	if (m->method_name.n > H1_METHOD_BYTES || !header_is_token(m->method_name))
		return H1_FAULT_METHOD;
	if (m->method == METHOD_CONNECT && !take_upgrade(m))
		return H1_FAULT_CONNECT;
	if (!str_equal_nocase(head->scheme, STR("http")) && !str_equal_nocase(head->scheme, STR("https")))
		return H1_FAULT_TARGET;
	if (m->target.n == 1 && m->target.p[0] == '*') {
		m->path = m->target;
		return m->method == METHOD_OPTIONS ? H1_FAULT_NONE : H1_FAULT_TARGET;
	}
	if (m->target.n == 0 || m->target.p[0] != '/')
		return H1_FAULT_TARGET;
	return uri_normalise(m->arena, m->target, &m->path, &m->query) ? H1_FAULT_TARGET : H1_FAULT_NONE;
}

static bool may_lack_length(enum method method)
{
	return method != METHOD_POST && method != METHOD_PUT && method != METHOD_PATCH;
}

enum h1_fault h2_head_end_request(struct h2_head *head, bool has_body)
{
	struct message *m = head->m;
	enum h1_fault fault = head->fault;

	if (fault || (fault = settle_target(head)) || (fault = settle_host(head)))
		return fault;
	if (head->cookies > 1 && message_find(m, HEADER_COOKIE))
		join_cookies(m);
	m->minor = 1;
	m->keep_alive = true;
	m->length_known = head->has_length;
	/* What follows the head is no body: it belongs to the protocol that was asked for. */
	if (m->has_upgrade)
		return has_body && !head->has_length ? H1_FAULT_NONE : H1_FAULT_CONNECT;
	m->expect_continue = head->has_expect && has_body;
	if (!has_body && head->has_length && m->content_length > 0)
		return H1_FAULT_LENGTH_BAD;
	if (head->has_length)
		m->framing = FRAMING_LENGTH;
	else if (has_body)
		m->framing = FRAMING_CHUNKED;
	else
		m->framing = may_lack_length(m->method) ? FRAMING_NONE : FRAMING_LENGTH;
	return H1_FAULT_NONE;
}

enum h1_fault h2_head_end_response(struct h2_head *head, enum method method, bool has_body)
{
	struct message *m = head->m;

	m->method = method;
	m->minor = 1;
	m->keep_alive = true;
	m->length_known = head->has_length;
	if (head->fault)
		return head->fault;
	if (m->status < 100 || m->status > 599 || m->status == 101)
		return H1_FAULT_STATUS_LINE;
	if (method == METHOD_HEAD || m->status < 200 || m->status == 204 || m->status == 304) {
		m->framing = FRAMING_NONE;
		return H1_FAULT_NONE;
	}
	if (!has_body && head->has_length && m->content_length > 0)
		return H1_FAULT_LENGTH_BAD;
	if (head->has_length)
		m->framing = FRAMING_LENGTH;
	else if (has_body)
		m->framing = FRAMING_CHUNKED;
	else
		m->framing = FRAMING_LENGTH;
	return H1_FAULT_NONE;
}

/* ---------- writing ---------- */

struct rows {
	nghttp2_nv *nv;
	size_t n;
};

static void put(struct rows *rows, struct str name, struct str value, uint8_t flags)
{
	rows->nv[rows->n++] = (nghttp2_nv){
		.name = (uint8_t *)(uintptr_t)name.p, .namelen = name.n,
		.value = (uint8_t *)(uintptr_t)value.p, .valuelen = value.n,
		.flags = (uint8_t)(flags | NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_COPY_VALUE),
	};
}

static struct str make_lower(struct arena *a, struct str name)
{
	size_t i = 0;
	char *copy;

	while (i < name.n && (name.p[i] < 'A' || name.p[i] > 'Z'))
		i++;
	if (i == name.n)
		return name;
	copy = arena_take(a, name.n);
	for (i = 0; i < name.n; i++)
		copy[i] = str_lower(name.p[i]);
	return (struct str){ copy, name.n };
}

static void put_rows(struct rows *rows, const struct message *m, uint64_t skip)
{
	for (unsigned i = 0; i < m->n; i++) {
		const struct header *h = &m->headers[i];
		struct str name;

		if (h->dropped || (BIT(h->id) & skip))
			continue;
		if (UNLIKELY(m->upgrade.n > 0) && str_equal_nocase(h->name, STR("sec-websocket-key")))
			continue;          /* RFC 8441 5: an extended CONNECT has none */
		name = h->id == HEADER_OTHER ? make_lower(m->arena, h->name) : header_name((enum header_id)h->id);
		put(rows, name, str_trim(h->value),
		    BIT(h->id) & UNINDEXED_FIELDS ? NGHTTP2_NV_FLAG_NO_INDEX : 0);
	}
}

static struct str print_number(struct arena *a, uint64_t v)
{
	char *end = (char *)arena_take(a, 20) + 20, *p = end;

	do
		*--p = (char)('0' + v % 10);
	while (v /= 10);
	return (struct str){ p, (size_t)(end - p) };
}

static struct rows start(const struct message *m)
{
	return (struct rows){ arena_take(m->arena, sizeof(nghttp2_nv) * (m->n + 7)), 0 };
}

static nghttp2_data_provider provider(struct h2_stream *s)
{
	return (nghttp2_data_provider){ .source.ptr = s, .read_callback = h2_give_data };
}

int h2_submit_response(struct h2_connection *h, struct h2_stream *s, const struct message *m, bool has_body)
{
	struct rows rows = start(m);
	nghttp2_data_provider data = provider(s);
	bool has_length = m->status >= 200 && m->status != 204 && (m->framing == FRAMING_LENGTH || m->length_known);

	put(&rows, STR(":status"), print_number(m->arena, (uint64_t)m->status), 0);
	put_rows(&rows, m, OWN_FIELDS);
	if (has_length && (m->status != 304 || m->length_known))
		put(&rows, STR("content-length"), print_number(m->arena, m->content_length), 0);
	return nghttp2_submit_response(h->ng, s->id, rows.nv, rows.n, has_body ? &data : NULL);
}

int h2_submit_interim(struct h2_connection *h, struct h2_stream *s, const struct message *m)
{
	struct rows rows = start(m);

	put(&rows, STR(":status"), print_number(m->arena, (uint64_t)m->status), 0);
	put_rows(&rows, m, OWN_FIELDS);
	return nghttp2_submit_headers(h->ng, NGHTTP2_FLAG_NONE, s->id, NULL, rows.nv, rows.n, NULL);
}

int h2_submit_request(struct h2_connection *h, struct h2_stream *s, const struct message *m, bool has_body,
		      bool is_tls)
{
	struct rows rows = start(m);
	nghttp2_data_provider data = provider(s);
	struct str target = m->path;
	int32_t id;

	if (m->query.p) {
		char *p = arena_take(m->arena, m->path.n + 1 + m->query.n);

		memcpy(p, m->path.p, m->path.n);
		p[m->path.n] = '?';
		if (m->query.n)
			memcpy(p + m->path.n + 1, m->query.p, m->query.n);
		target = (struct str){ p, m->path.n + 1 + m->query.n };
	}
	put(&rows, STR(":method"), m->upgrade.n ? STR("CONNECT") : m->method_name, 0);
	if (m->upgrade.n)
		put(&rows, STR(":protocol"), m->upgrade, 0);
	put(&rows, STR(":scheme"), is_tls ? STR("https") : STR("http"), 0);
	if (m->authority.n > 0)
		put(&rows, STR(":authority"), m->authority, 0);
	put(&rows, STR(":path"), target, 0);
	put_rows(&rows, m, OWN_FIELDS);
	if (m->framing == FRAMING_LENGTH)
		put(&rows, STR("content-length"), print_number(m->arena, m->content_length), 0);
	if (m->wants_trailers)
		put(&rows, STR("te"), STR("trailers"), 0);
	id = nghttp2_submit_request(h->ng, NULL, rows.nv, rows.n, has_body ? &data : NULL, s);
	if (id > 0)
		s->id = id;
	return id > 0 ? 0 : id;
}

int h2_submit_trailers(struct h2_connection *h, struct h2_stream *s)
{
	const struct message *m = s->trailers;
	struct rows rows = start(m);

	put_rows(&rows, m, OWN_FIELDS);
	s->trailers = NULL;
	if (rows.n == 0)
		return -1;
	return nghttp2_submit_trailer(h->ng, s->id, rows.nv, rows.n);
}
