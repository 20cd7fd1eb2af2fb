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
