#include "net/client_hello.h"

enum { RECORD_HANDSHAKE = 22, TYPE_CLIENT_HELLO = 1, EXTENSION_SERVER_NAME = 0, NAME_TYPE_HOST = 0 };

/*
 * The handshake bytes inside the records, one after the other. After the first that cannot be read, `result` says why
 * and every further one is 0.
 */
struct cursor {
	const char *p;
	size_t n, at;
	size_t record;                    /* bytes left of this record */
	enum hello_result result;         /* HELLO_DONE so far */
};

static bool stop(struct cursor *c, enum hello_result why)
{
	if (c->result == HELLO_DONE)
		c->result = why;
	return false;
}

/* A hello may go over several records; none of them is empty (RFC 8446 5.1). */
static bool open_record(struct cursor *c)
{
	const uint8_t *head = (const uint8_t *)c->p + c->at;
	size_t left = c->n - c->at;

	if ((left > 0 && head[0] != RECORD_HANDSHAKE) || (left > 1 && head[1] != 3))
		return stop(c, HELLO_BAD);
	if (left < 5)
		return stop(c, HELLO_MORE);
	c->record = (size_t)head[3] << 8 | head[4];
	c->at += 5;
	return (c->record > 0 && c->record <= CLIENT_HELLO_MAX) || stop(c, HELLO_BAD);
}

static unsigned read_u8(struct cursor *c)
{
	if (c->result != HELLO_DONE || (c->record == 0 && !open_record(c)))
		return 0;
	if (c->at == c->n) {
		stop(c, c->n >= CLIENT_HELLO_MAX ? HELLO_BAD : HELLO_MORE);
		return 0;
	}
	c->record--;
	return (uint8_t)c->p[c->at++];
}

static unsigned read_u16(struct cursor *c)
{
	unsigned high = read_u8(c);

	return high << 8 | read_u8(c);
}

static void skip(struct cursor *c, unsigned n)
{
	while (n > 0 && c->result == HELLO_DONE) {
		read_u8(c);
		n--;
	}
}

/* A part of `length` bytes out of *left; false when it does not fit. */
static bool take(struct cursor *c, unsigned *left, unsigned length)
{
	if (c->result != HELLO_DONE || length > *left)
		return stop(c, HELLO_BAD);
	*left -= length;
	return true;
}

static bool is_name_byte(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '.' || c == '_';
}

/* The extension's `length` bytes: a list of exactly one host name (no client sends more, RFC 6066 allows one). */
static void read_server_name(struct cursor *c, unsigned length, char name[SERVER_NAME_MAX])
{
	unsigned list = read_u16(c), type = read_u8(c), size = read_u16(c);

	if (c->result != HELLO_DONE)
		return;
	if (length < 5 || list != length - 2 || type != NAME_TYPE_HOST || size != list - 3 || size == 0 ||
	    size >= SERVER_NAME_MAX) {
		stop(c, HELLO_BAD);
		return;
	}
	for (unsigned i = 0; i < size; i++) {
		name[i] = str_lower((char)read_u8(c));
		if (c->result == HELLO_DONE && !is_name_byte(name[i]))
			stop(c, HELLO_BAD);
	}
	name[size] = '\0';
}

static void read_extensions(struct cursor *c, unsigned left, char name[SERVER_NAME_MAX])
{
	bool has_name = false;

	while (left > 0 && take(c, &left, 4)) {
		unsigned type = read_u16(c), length = read_u16(c);

		if (!take(c, &left, length))
			return;
		if (type != EXTENSION_SERVER_NAME) {
			skip(c, length);
			continue;
		}
		if (has_name)
			stop(c, HELLO_BAD);
		has_name = true;
		read_server_name(c, length, name);
	}
}

/* One field of the hello with its length before it, of `width` bytes. */
static bool skip_field(struct cursor *c, unsigned *left, unsigned width)
{
	unsigned length;

	if (!take(c, left, width))
		return false;
	length = width == 1 ? read_u8(c) : read_u16(c);
	if (!take(c, left, length))
		return false;
	skip(c, length);
	return c->result == HELLO_DONE;
}

enum hello_result client_hello_parse(const char *p, size_t n, char name[SERVER_NAME_MAX])
{
	struct cursor c = { .p = p, .n = n < CLIENT_HELLO_MAX ? n : CLIENT_HELLO_MAX, .result = HELLO_DONE };
	unsigned type = read_u8(&c), left;

	name[0] = '\0';
	if (c.result == HELLO_DONE && type != TYPE_CLIENT_HELLO)
		return HELLO_BAD;
	left = read_u8(&c) << 16;
	left |= read_u16(&c);
	if (c.result == HELLO_DONE && left > CLIENT_HELLO_MAX)
		return HELLO_BAD;
	/* version and random, session id, cipher suites, compression methods */
	if (!take(&c, &left, 34))
		return c.result;
	skip(&c, 34);
	if (!skip_field(&c, &left, 1) || !skip_field(&c, &left, 2) || !skip_field(&c, &left, 1))
		return c.result;
	if (left > 0 && take(&c, &left, 2)) {
		unsigned extensions = read_u16(&c);

		if (c.result == HELLO_DONE && extensions != left)
			return HELLO_BAD;
		read_extensions(&c, left, name);
	}
	if (c.result != HELLO_DONE)
		name[0] = '\0';
	return c.result;
}
