/*
 * h1_framing.c -- where a message ends, whether the connection goes on, and which fields end at this hop.
 *
 * The one place that decides about Content-Length, Transfer-Encoding, Connection, Host and Expect (RFC 9112 3.2, 6, 9;
 * RFC 9110 7.6.1, 10.1.1). Two statements about the same thing are a fault, even when they agree: the next hop
 * might believe the other one.
 */
#include "http/h1_notes.h"
#include "http/scan.h"
#include "http/uri.h"

/* More options than this in one head serve nobody, and each costs a walk over the rows. */
#define CONNECTION_OPTIONS 32U

struct options {
	unsigned n;
	bool close, keep_alive, upgrade;
};

/* Drops the fields with that name: they were meant for us only. */
static enum h1_fault drop_nominated(struct message *m, struct str name)
{
	enum header_id id = header_lookup(name);

	switch (id) {
	case HEADER_HOST:
	case HEADER_CONTENT_LENGTH:
	case HEADER_TRANSFER_ENCODING: return H1_FAULT_CONNECTION;
	case HEADER_OTHER: break;
	default:
		message_remove_id(m, id);
		return H1_FAULT_NONE;
	}
	if (!header_is_token(name))
		return H1_FAULT_CONNECTION;
	message_remove(m, name);
	return H1_FAULT_NONE;
}

static enum h1_fault take_option(struct message *m, struct options *options, struct str option)
{
	if (option.n == 0)
		return H1_FAULT_NONE;
	if (++options->n > CONNECTION_OPTIONS)
		return H1_FAULT_CONNECTION;
	if (str_equal_nocase(option, STR("close")))
		options->close = true;
	else if (str_equal_nocase(option, STR("keep-alive")))
		options->keep_alive = true;
	else if (str_equal_nocase(option, STR("upgrade")))
		options->upgrade = true;
	else
		return drop_nominated(m, option);
	return H1_FAULT_NONE;
}

static enum h1_fault take_options(struct message *m, struct options *options)
{
	for (unsigned i = 0; i < m->n; i++) {
		struct str rest = m->headers[i].value, option;

		if (m->headers[i].id != HEADER_CONNECTION)
			continue;
		while (str_split(&rest, ',', &option)) {
			enum h1_fault fault = take_option(m, options, str_trim(option));

			if (fault)
				return fault;
		}
	}
	return H1_FAULT_NONE;
}

/* What nearly every Connection field says. */
static bool is_keep_alive(struct str value)
{
	return value.n == 10 && scan_is_word(value.p, "keep-alive", 10);
}

static enum h1_fault settle_connection(struct h1_notes *notes)
{
	struct message *m = notes->m;
	struct options options = { .n = 0 };
	enum h1_fault fault = H1_FAULT_NONE;

	if (notes->connections == 1)
		options.keep_alive = is_keep_alive(m->headers[notes->connection].value);
	if (notes->connections && !options.keep_alive)
		fault = take_options(m, &options);
	m->keep_alive = !options.close && (m->minor == 1 || options.keep_alive);
	m->has_upgrade = options.upgrade && notes->has_upgrade && m->minor == 1;
	return fault;
}

/* Only "chunked", once, is spoken here. Tells a coding we lack (501) from a list that cannot be (400). */
static enum h1_fault judge_coding(struct str value)
{
	struct str rest = value, part;
	unsigned chunked = 0;
	bool is_last_chunked = false;

	if (value.n == 7 && scan_is_word(value.p, "chunked", 7))
		return H1_FAULT_NONE;
	while (str_split(&rest, ',', &part)) {
		part = str_trim(part);
		if (!header_is_token(part))
			return H1_FAULT_CODING_ORDER;
		is_last_chunked = str_equal_nocase(part, STR("chunked"));
		chunked += is_last_chunked;
	}
	if (chunked > 1 || (chunked == 1 && !is_last_chunked) || value.n == 0)
		return H1_FAULT_CODING_ORDER;
	return H1_FAULT_CODING;
}

/* Sets framing to LENGTH, CHUNKED or NONE from the fields alone. */
static enum h1_fault settle_length(struct h1_notes *notes)
{
	struct message *m = notes->m;

	if (notes->codings) {
		if (notes->has_length)
			return H1_FAULT_LENGTH_AND_CODING;
		if (m->minor == 0)
			return H1_FAULT_CODING_VERSION;
		if (notes->codings > 1)
			return H1_FAULT_CODING_ORDER;
		m->framing = FRAMING_CHUNKED;
		return judge_coding(m->headers[notes->coding].value);
	}
	if (notes->has_length) {
		if (!str_to_u64(m->headers[notes->length].value, INT64_MAX, &m->content_length))
			return H1_FAULT_LENGTH_BAD;
		m->framing = FRAMING_LENGTH;
		m->length_known = true;
	}
	return H1_FAULT_NONE;
}

/* What nearly every Host is: letters, digits, '-' and '.', at most 16 of them. A block may reach past the value. */
static bool is_plain_host(struct str host)
{
	return host.n > 0 && host.n <= SCAN_BLOCK && !(scan_mask_host(host.p) & ((1U << host.n) - 1));
}

static enum h1_fault settle_host(struct h1_notes *notes)
{
	struct message *m = notes->m;
	struct header *row;
	struct str host;
	uint16_t port;

	if (!notes->has_host)
		return m->minor == 0 ? H1_FAULT_NONE : H1_FAULT_HOST_MISSING;
	row = &m->headers[notes->host];
	if (!is_plain_host(row->value) && !uri_split_authority(row->value, &host, &port))
		return H1_FAULT_HOST_BAD;
	if (m->authority.p) {
		row->value = m->authority;
		row->is_line = false;
	} else {
		m->authority = row->value;
	}
	return H1_FAULT_NONE;
}

/* 100-continue of an HTTP/1.0 client is to be ignored (RFC 9110 10.1.1). */
static enum h1_fault settle_expect(struct h1_notes *notes)
{
	struct message *m = notes->m;

	if (!notes->has_expect || m->minor == 0)
		return H1_FAULT_NONE;
	if (!str_equal_nocase(m->headers[notes->expect].value, STR("100-continue")))
		return H1_FAULT_EXPECT;
	m->expect_continue = true;
	return H1_FAULT_NONE;
}

enum h1_fault h1_settle_request(struct h1_notes *notes)
{
	enum h1_fault fault;

	if ((fault = settle_host(notes)) || (fault = settle_length(notes)) || (fault = settle_connection(notes)))
		return fault;
	return settle_expect(notes);
}

static bool has_no_body(const struct message *m)
{
	return m->method == METHOD_HEAD || m->status < 200 || m->status == 204 || m->status == 304;
}

enum h1_fault h1_settle_response(struct h1_notes *notes)
{
	struct message *m = notes->m;
	enum h1_fault fault;

	if ((fault = settle_length(notes)) || (fault = settle_connection(notes)))
		return fault;
	if (has_no_body(m)) {
		m->framing = FRAMING_NONE;
	} else if (m->framing == FRAMING_NONE) {
		m->framing = FRAMING_CLOSE;
		m->keep_alive = false;
	}
	return H1_FAULT_NONE;
}
