#include "proxy/grpc.h"

#define MESSAGE_MAX 1024

bool grpc_is_request(const struct message *req)
{
	struct str type = message_value(req, HEADER_CONTENT_TYPE), prefix = STR("application/grpc");

	return type.n >= prefix.n && str_equal_nocase((struct str){ type.p, prefix.n }, prefix) &&
	       (type.n == prefix.n || type.p[prefix.n] == '+' || type.p[prefix.n] == ';');
}

int grpc_status_of(int status)
{
	switch (status) {
	case 401: return 16;
	case 403: return 7;
	case 404: return 12;
	case 429: return 8;
	case 502:
	case 503:
	case 504: return 14;
	default: return 2;
	}
}

/* Percent-encoded as the gRPC protocol wants it: printable ASCII but '%' stands for itself. */
static struct str encode(struct arena *a, struct str text)
{
	static const char hex[] = "0123456789ABCDEF";
	char *out;
	size_t n = 0;

	if (text.n == 0)
		text = STR("refused by the gateway");
	if (text.n > MESSAGE_MAX)
		text.n = MESSAGE_MAX;
	out = arena_take(a, text.n * 3);
	for (size_t i = 0; i < text.n; i++) {
		unsigned char c = (unsigned char)text.p[i];

		if (c >= 0x20 && c < 0x7f && c != '%') {
			out[n++] = (char)c;
			continue;
		}
		out[n++] = '%';
		out[n++] = hex[c >> 4];
		out[n++] = hex[c & 15];
	}
	return str_trim((struct str){ out, n });
}

enum verdict grpc_reply(struct exchange *x, int grpc_status, struct str message)
{
	enum verdict verdict = reply(x, 200, STR("application/grpc"), (struct str){ NULL, 0 });
	struct message *res = exchange_response(x);

	message_add_id(res, HEADER_GRPC_STATUS, arena_printf(exchange_arena(x), "%d", grpc_status));
	message_add(res, STR("grpc-message"), encode(exchange_arena(x), message));
	return verdict;
}

/* ---------- health (protocol buffers, as little of them as it takes) ---------- */

struct str grpc_health_request(struct arena *a, struct str service)
{
	unsigned char *out = arena_take(a, 5 + 1 + 2 + service.n);
	size_t n = 5;

	BUG_ON(service.n >= 1 << 14);
	if (service.n > 0) {
		out[n++] = 1 << 3 | 2;     /* string service = 1 */
		if (service.n >= 0x80)
			out[n++] = (unsigned char)(service.n & 0x7f) | 0x80;
		out[n++] = (unsigned char)(service.n >= 0x80 ? service.n >> 7 : service.n);
		memcpy(out + n, service.p, service.n);
		n += service.n;
	}
	out[0] = 0;                        /* not compressed; then the length, big-endian */
	out[1] = out[2] = 0;
	out[3] = (unsigned char)((n - 5) >> 8);
	out[4] = (unsigned char)((n - 5) & 0xff);
	return (struct str){ (const char *)out, n };
}

/* Takes a number off the front. False: there is none. */
static bool take_number(struct str *s, uint64_t *out)
{
	*out = 0;
	for (unsigned shift = 0; s->n > 0 && shift < 64; shift += 7) {
		unsigned char byte = (unsigned char)*s->p++;

		s->n--;
		*out |= (uint64_t)(byte & 0x7f) << shift;
		if (!(byte & 0x80))
			return true;
	}
	return false;
}

/* Takes a field's value off the front; numbers go to *number. False: it is cut off, or of a kind nobody uses. */
static bool take_value(struct str *s, unsigned kind, uint64_t *number)
{
	uint64_t n = 0;

	switch (kind) {
	case 0: return take_number(s, number);
	case 1: n = 8; break;
	case 2:
		if (!take_number(s, &n))
			return false;
		break;
	case 5: n = 4; break;
	default: return false;
	}
	if (n > s->n)
		return false;
	s->p += n;
	s->n -= n;
	return true;
}

bool grpc_health_is_serving(struct str answer)
{
	uint64_t status = 0, key, number;
	const unsigned char *p = (const unsigned char *)answer.p;

	if (answer.n < 5 || p[0] != 0 || p[1] != 0 || p[2] != 0 || answer.n - 5 != (size_t)(p[3] << 8 | p[4]))
		return false;
	answer.p += 5;
	answer.n -= 5;
	while (answer.n > 0) {
		number = 0;
		if (!take_number(&answer, &key) || !take_value(&answer, key & 7, &number))
			return false;
		if (key == (1 << 3 | 0))   /* enum status = 1; the last one counts */
			status = number;
	}
	return status == 1;
}
