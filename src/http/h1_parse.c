/*
 * h1_parse.c -- a whole head into a message.
 *
 * Both parsers work on a copy of the head that is known to end in an empty line and is followed by a block of zeros:
 * every scan stops at a line end at the latest, and none asks where the head ends.
 *
 *	start line ─► fields, one row each; what decides framing is noted ─► h1_settle_* (h1_framing.c) judges the notes
 */
#include "http/h1_notes.h"
#include "http/header_table.h"
#include "http/scan.h"
#include "http/uri.h"

#define SHORTEST_HEAD 16                  /* "G / HTTP/1.1" and two line ends */
#define VERSION_BYTES 8

#define BIT(id) (UINT64_C(1) << (id))
/* Fields that need more than a row. */
#define NOTED_ALWAYS \
	(BIT(HEADER_CONTENT_LENGTH) | BIT(HEADER_TRANSFER_ENCODING) | BIT(HEADER_CONNECTION) | BIT(HEADER_UPGRADE) | \
	 BIT(HEADER_KEEP_ALIVE) | BIT(HEADER_PROXY_CONNECTION) | BIT(HEADER_TE) | BIT(HEADER_TRAILER))
#define NOTED_IN_REQUEST (NOTED_ALWAYS | BIT(HEADER_HOST) | BIT(HEADER_EXPECT) | BIT(HEADER_COOKIE))

/* What is wrong with the byte at p, which no field value may hold. */
static enum h1_fault judge_value_byte(const char *p)
{
	switch (*p) {
	case '\0': return H1_FAULT_NUL_BYTE;
	case '\n': return H1_FAULT_BARE_LF;
	case '\r': return H1_FAULT_BARE_CR;
	default: return H1_FAULT_HEADER_VALUE;
	}
}

/* What is wrong with the name that starts at p and meets the byte at q, which no name may hold. */
static enum h1_fault judge_name_byte(const char *p, const char *q)
{
	switch (*q) {
	case '\0': return H1_FAULT_NUL_BYTE;
	case '\n': return H1_FAULT_BARE_LF;
	case '\r': return q[1] == '\n' ? H1_FAULT_HEADER_NAME : H1_FAULT_BARE_CR;
	case ' ':
	case '\t':
		if (q == p)
			return H1_FAULT_FOLD;
		while (*q == ' ' || *q == '\t')
			q++;
		return *q == ':' ? H1_FAULT_SPACE_COLON : H1_FAULT_HEADER_NAME;
	default: return H1_FAULT_HEADER_NAME;
	}
}

/* A block may be read past the end. */
static unsigned count_crumbs(struct str cookie)
{
	unsigned crumbs = 1;

	for (size_t i = 0; i < cookie.n; i += SCAN_BLOCK) {
		unsigned ends = scan_mask_byte(cookie.p + i, ';');

		if (cookie.n - i < SCAN_BLOCK)
			ends &= (1U << (cookie.n - i)) - 1;
		for (; ends; ends &= ends - 1)
			crumbs++;
	}
	return crumbs;
}

/* Remembers where the last row is when it matters for framing, and drops it when it is for this hop only. */
static enum h1_fault note(struct h1_notes *notes, struct header *row, uint16_t at)
{
	uint16_t *place = NULL;

	row->dropped = true;
	switch (row->id) {
	case HEADER_HOST:
		row->dropped = false;
		if (notes->has_host)
			return H1_FAULT_HOST_TWICE;
		notes->has_host = true;
		place = &notes->host;
		break;
	case HEADER_CONTENT_LENGTH:
		if (notes->has_length)
			return H1_FAULT_LENGTH_TWICE;
		notes->has_length = true;
		place = &notes->length;
		break;
	case HEADER_TRANSFER_ENCODING:
		notes->codings++;
		place = &notes->coding;
		break;
	case HEADER_CONNECTION:
		notes->connections++;
		place = &notes->connection;
		break;
	case HEADER_UPGRADE: notes->has_upgrade = true; break;
	case HEADER_EXPECT:
		if (notes->has_expect)
			return H1_FAULT_EXPECT;
		notes->has_expect = true;
		place = &notes->expect;
		break;
	case HEADER_COOKIE:
		row->dropped = false;
		notes->fields += count_crumbs(row->value) - 1;
		break;
	default: break;
	}
	if (place)
		*place = at;
	return H1_FAULT_NONE;
}

/* The first byte that no value may hold: a line end at the latest. Nearly all values hold SP to '~' only. */
static inline const char *find_value_end(const char *p)
{
	for (;; p += SCAN_BLOCK) {
		unsigned stops = scan_mask_odd(p);

		if (LIKELY(stops)) {
			p += __builtin_ctz(stops);
			break;
		}
	}
	if (LIKELY(*p == '\r'))
		return p;
	for (;; p += SCAN_BLOCK) {
		unsigned stops = scan_mask_value(p);

		if (stops)
			return p + __builtin_ctz(stops);
	}
}

/*
 * The colon that ends the name, perhaps one too late when there is none in the line: what is before it is no name
 * then.
 */
static inline const char *find_name_end(const char *p)
{
	unsigned colons = scan_mask_byte(p, ':');

	while (UNLIKELY(!colons)) {
		unsigned lows = scan_mask_low(p);

		if (lows)
			return p + __builtin_ctz(lows);
		p += SCAN_BLOCK;
		colons = scan_mask_byte(p, ':');
	}
	return p + __builtin_ctz(colons);
}

/* Takes the value that starts behind the colon; *next is the start of the next line. */
static inline enum h1_fault take_value(const char *colon, struct header *row, const char **next)
{
	const char *p = colon + 1, *stop;

	row->is_line = p[0] == ' ' && p[1] > ' ';
	if (LIKELY(row->is_line))
		p++;
	else
		while (*p == ' ' || *p == '\t')
			p++;
	stop = find_value_end(p);
	if (UNLIKELY(stop[0] != '\r' || stop[1] != '\n'))
		return judge_value_byte(stop);
	*next = stop + 2;
	/* Of the bytes up to SP, a value holds SP and HTAB only. */
	if (UNLIKELY((unsigned char)stop[-1] <= ' ')) {
		row->is_line = false;
		while (stop > p && (unsigned char)stop[-1] <= ' ')
			stop--;
	}
	row->value = (struct str){ p, (size_t)(stop - p) };
	return H1_FAULT_NONE;
}

/*
 * Whether a name with '_' is one of the two that decide framing, once somebody behind us writes '-' for '_', as
 * CGI-like interfaces do. Such a line is never sent by accident.
 */
__attribute__((noinline)) static bool is_disguised(struct str name)
{
	char plain[20];

	if (name.n > sizeof(plain))
		return false;
	for (size_t i = 0; i < name.n; i++)
		plain[i] = name.p[i] == '_' ? '-' : name.p[i];
	switch (header_lookup((struct str){ plain, name.n })) {
	case HEADER_CONTENT_LENGTH:
	case HEADER_TRANSFER_ENCODING: return true;
	default: return false;
	}
}

/* A name we do not know ends at its colon, if it is one; *is_kept tells whether the field is passed on. */
static inline enum h1_fault judge_name(const struct h1_notes *notes, struct str name, bool *is_kept)
{
	const char *stop = name.p;
	unsigned seen = 0;

	if (LIKELY(name.n <= SCAN_BLOCK && name.n > 0 && stop[name.n] == ':') &&
	    !(scan_mask_name(name.p) & ((1U << name.n) - 1)))
		return H1_FAULT_NONE;
	for (; SCAN_IS(*stop, SCAN_TOKEN); stop++)
		seen |= scan_classes[(uint8_t)*stop];
	if (*stop != ':' || name.n == 0)
		return judge_name_byte(name.p, stop);
	if (UNLIKELY(seen & SCAN_UNDERSCORE)) {
		if (is_disguised(name))
			return H1_FAULT_HEADER_NAME;
		*is_kept = notes->keep_underscores;
	}
	return H1_FAULT_NONE;
}

/* A row that is there already counts once, what notes->fields has counts besides. */
static bool has_too_many(const struct h1_notes *notes)
{
	return notes->fields + notes->m->n > notes->limit;
}

/* One field line at *at. */
static inline enum h1_fault take_field(struct h1_notes *notes, const char **at)
{
	struct message *m = notes->m;
	const char *colon = find_name_end(*at);
	struct str name = { *at, (size_t)(colon - *at) };
	enum header_id id = header_find_padded(name);
	bool is_kept = true;
	enum h1_fault fault;
	struct header *row;

	if ((id == HEADER_OTHER || UNLIKELY(*colon != ':')) && (fault = judge_name(notes, name, &is_kept)))
		return fault;
	if (UNLIKELY(m->n == m->cap)) {
		if (has_too_many(notes))
			return H1_FAULT_HEADER_COUNT;
		message_grow(m);
	}
	row = &m->headers[m->n];
	row->name = name;
	row->id = (uint16_t)id;
	row->dropped = false;
	fault = take_value(colon, row, at);
	if (fault)
		return fault;
	if (UNLIKELY(!is_kept)) {
		notes->fields++;
		return H1_FAULT_NONE;
	}
	m->n++;
	if (notes->noted & BIT(id)) {
		fault = note(notes, row, (uint16_t)(m->n - 1));
		if (fault || row->dropped)
			return fault;
	}
	m->present |= BIT(id);
	return H1_FAULT_NONE;
}

/* The head ends in an empty line, so that this ends there at the latest. */
static enum h1_fault take_fields(struct h1_notes *notes, const char *p, const char *end)
{
	while (*p != '\r') {
		enum h1_fault fault = take_field(notes, &p);

		if (UNLIKELY(fault))
			return fault;
	}
	if (p[1] != '\n')
		return H1_FAULT_BARE_CR;
	/* An empty line inside a head cannot come from h1_find_head. */
	if (p + 2 != end)
		return H1_FAULT_HEADER_NAME;
	return has_too_many(notes) ? H1_FAULT_HEADER_COUNT : H1_FAULT_NONE;
}

/* Places of rows are kept in 16 bits. */
static unsigned count_limit(const struct h1_limits *limits)
{
	return limits->fields < UINT16_MAX ? limits->fields : UINT16_MAX;
}

static enum h1_fault check_end(struct str head, enum h1_fault start_line)
{
	if (head.n >= SHORTEST_HEAD && memcmp(head.p + head.n - 4, "\r\n\r\n", 4) == 0)
		return H1_FAULT_NONE;
	return head.n >= 4 && memcmp(head.p + head.n - 3, "\n\r\n", 3) == 0 && head.p[head.n - 4] != '\r'
	               ? H1_FAULT_BARE_LF : start_line;
}

static const char *copy_head(struct arena *a, struct str head)
{
	char *copy = arena_take(a, head.n + SCAN_BLOCK);

	memcpy(copy, head.p, head.n);
	memset(copy + head.n, 0, SCAN_BLOCK);
	return copy;
}

/* "HTTP/1.0" or "HTTP/1.1" at p; other digits are a version we do not speak, other text is `otherwise`. */
static enum h1_fault take_version(struct message *m, const char *p, enum h1_fault otherwise)
{
	if (LIKELY(memcmp(p, "HTTP/1.1", VERSION_BYTES) == 0)) {
		m->minor = 1;
		return H1_FAULT_NONE;
	}
	if (memcmp(p, "HTTP/1.0", VERSION_BYTES) == 0)
		return H1_FAULT_NONE;
	if (memcmp(p, "HTTP/", 5) != 0)
		return otherwise;
	if (SCAN_IS(p[5], SCAN_DIGIT) && p[6] == '.' && SCAN_IS(p[7], SCAN_DIGIT))
		return H1_FAULT_VERSION;
	return otherwise;
}

/* What is wrong with a start line that stops at the byte q. */
static enum h1_fault judge_line_byte(const char *q, enum h1_fault otherwise)
{
	if (*q == '\0')
		return H1_FAULT_NUL_BYTE;
	if (*q == '\n')
		return H1_FAULT_BARE_LF;
	if (*q == '\r' && q[1] != '\n')
		return H1_FAULT_BARE_CR;
	return otherwise;
}

static enum h1_fault take_method(struct message *m, const char **at)
{
	const char *p = *at, *stop;

	if (LIKELY(memcmp(p, "GET ", 4) == 0)) {
		m->method = METHOD_GET;
		m->method_name = (struct str){ p, 3 };
		*at = p + 4;
		return H1_FAULT_NONE;
	}
	for (stop = p; SCAN_IS(*stop, SCAN_TOKEN);)
		stop++;
	if (stop == p || *stop != ' ')
		return judge_line_byte(stop, stop == p ? H1_FAULT_METHOD : H1_FAULT_REQUEST_LINE);
	m->method_name = (struct str){ p, (size_t)(stop - p) };
	if (m->method_name.n > H1_METHOD_BYTES)
		return H1_FAULT_METHOD;
	m->method = method_lookup(m->method_name);
	*at = stop + 1;
	return H1_FAULT_NONE;
}

static enum h1_fault take_request_line(struct message *m, const char **at)
{
	const char *p, *stop;
	enum h1_fault fault = take_method(m, at);

	if (fault)
		return fault;
	for (stop = p = *at; !scan_mask_visible(stop);)
		stop += SCAN_BLOCK;
	stop += __builtin_ctz(scan_mask_visible(stop));
	if (stop == p || *stop != ' ')
		return judge_line_byte(stop, stop == p || *stop == '\r' ? H1_FAULT_REQUEST_LINE : H1_FAULT_TARGET);
	m->target = (struct str){ p, (size_t)(stop - p) };
	p = stop + 1;
	fault = take_version(m, p, H1_FAULT_REQUEST_LINE);
	if (fault)
		return fault;
	p += VERSION_BYTES;
	if (p[0] != '\r' || p[1] != '\n')
		return judge_line_byte(p, H1_FAULT_REQUEST_LINE);
	*at = p + 2;
	return H1_FAULT_NONE;
}

/* Splits "http://authority[/path][?query]"; the scheme is compared without regard to case. */
static enum h1_fault take_absolute_target(struct message *m)
{
	static const struct str schemes[] = { { "http://", 7 }, { "https://", 8 } };
	const char *p = m->target.p, *end = p + m->target.n, *stop;
	size_t skip = 0;

	for (size_t i = 0; i < 2; i++)
		if (m->target.n > schemes[i].n && str_equal_nocase((struct str){ p, schemes[i].n }, schemes[i]))
			skip = schemes[i].n;
	if (skip == 0)
		return H1_FAULT_TARGET;
	p += skip;
	for (stop = p; stop < end && *stop != '/' && *stop != '?' && *stop != '#';)
		stop++;
	m->authority = (struct str){ p, (size_t)(stop - p) };
	if (!uri_split_authority(m->authority, &(struct str){ NULL, 0 }, &(uint16_t){ 0 }))
		return H1_FAULT_TARGET;
	if (stop < end && *stop == '/')
		return uri_normalise(m->arena, (struct str){ stop, (size_t)(end - stop) }, &m->path, &m->query)
		               ? H1_FAULT_TARGET : H1_FAULT_NONE;
	m->path = STR("/");
	if (stop == end)
		return H1_FAULT_NONE;
	m->query = (struct str){ stop + 1, (size_t)(end - stop - 1) };
	return *stop == '?' && uri_is_clean(m->query) ? H1_FAULT_NONE : H1_FAULT_TARGET;
}

static enum h1_fault take_target(struct message *m, const struct h1_limits *limits)
{
	if (m->target.n > limits->target_bytes)
		return H1_FAULT_TARGET_LONG;
	if (UNLIKELY(m->method == METHOD_CONNECT))
		return H1_FAULT_CONNECT;
	if (LIKELY(m->target.p[0] == '/'))
		return uri_normalise_spaced(m->arena, m->target, &m->path, &m->query) ? H1_FAULT_TARGET : H1_FAULT_NONE;
	if (m->target.n == 1 && m->target.p[0] == '*') {
		m->path = m->target;
		return m->method == METHOD_OPTIONS ? H1_FAULT_NONE : H1_FAULT_TARGET;
	}
	return take_absolute_target(m);
}

enum h1_fault h1_parse_request(struct message *m, struct str head, const struct h1_limits *limits)
{
	struct h1_notes notes = { .m = m, .noted = NOTED_IN_REQUEST, .limit = count_limit(limits),
	                          .keep_underscores = limits->keep_underscores };
	enum h1_fault fault = check_end(head, H1_FAULT_REQUEST_LINE);
	const char *p;

	if (fault)
		return fault;
	p = copy_head(m->arena, head);
	notes.end = p + head.n;
	if ((fault = take_request_line(m, &p)) || (fault = take_target(m, limits)))
		return fault;
	if (head.n > limits->head_bytes)
		return H1_FAULT_HEAD_LARGE;
	fault = take_fields(&notes, p, notes.end);
	if (fault)
		return fault;
	return h1_settle_request(&notes);
}

static enum h1_fault take_status_line(struct message *m, const char **at)
{
	const char *p = *at, *stop;
	enum h1_fault fault = take_version(m, p, H1_FAULT_STATUS_LINE);

	if (fault)
		return fault;
	p += VERSION_BYTES;
	if (p[0] != ' ' || p[1] < '1' || p[1] > '5' || !SCAN_IS(p[2], SCAN_DIGIT) || !SCAN_IS(p[3], SCAN_DIGIT))
		return H1_FAULT_STATUS_LINE;
	m->status = (p[1] - '0') * 100 + (p[2] - '0') * 10 + (p[3] - '0');
	p += 4;
	/* Servers that have no reason often leave the space before it out as well. */
	if (*p != ' ' && *p != '\r')
		return judge_line_byte(p, H1_FAULT_STATUS_LINE);
	if (*p == ' ')
		p++;
	stop = find_value_end(p);
	if (stop[0] != '\r' || stop[1] != '\n')
		return judge_line_byte(stop, H1_FAULT_STATUS_LINE);
	m->reason = (struct str){ p, (size_t)(stop - p) };
	*at = stop + 2;
	return H1_FAULT_NONE;
}

enum h1_fault h1_parse_response(struct message *m, struct str head, const struct h1_limits *limits,
                                enum method method)
{
	struct h1_notes notes = { .m = m, .limit = count_limit(limits), .noted = NOTED_ALWAYS,
	                          .keep_underscores = true };
	enum h1_fault fault = check_end(head, H1_FAULT_STATUS_LINE);
	const char *p;

	m->method = method;
	if (head.n > limits->head_bytes)
		return H1_FAULT_HEAD_LARGE;
	if (fault)
		return fault;
	p = copy_head(m->arena, head);
	notes.end = p + head.n;
	if ((fault = take_status_line(m, &p)) || (fault = take_fields(&notes, p, notes.end)))
		return fault;
	return h1_settle_response(&notes);
}
