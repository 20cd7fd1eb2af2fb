#include "policy/refusal.h"
#include "policy/formats.h"
#include "proxy/grpc.h"

#define BEHAVIOR_REDIRECT 1
#define ENCODING_JSON 1

const struct choice refusal_behaviors[] = {
	{ 0, NULL, "answer with status and body", NULL },
	{ BEHAVIOR_REDIRECT, NULL, "redirect to responseRedirectUrl", NULL },
	{ 0, NULL, NULL, NULL }
};

const struct choice refusal_encodings[] = {
	{ 0, NULL, "text/plain; charset=utf-8", NULL },
	{ ENCODING_JSON, NULL, "application/json; charset=utf-8", NULL },
	{ 0, NULL, NULL, NULL }
};

#define BEHAVIOR_ROW \
	CHOICE(struct refusal, behaviorType, refusal_behaviors, REQUIRED, EXAMPLE("0"), \
	       DOC("What a refused request gets."))
#define ENCODING_ROW \
	CHOICE(struct refusal, bodyEncoding, refusal_encodings, REQUIRED, EXAMPLE("1"), \
	       DOC("Content-Type of the body."))
#define STATUS_ROW \
	INT(struct refusal, responseStatusCode, REQUIRED, RANGE(200, 599), EXAMPLE("429"), \
	    DOC("Status of the answer. A redirect uses it when it is 301, 302, 303, 307 or 308, else 302."))
#define BODY_ROW \
	TEXT(struct refusal, responseContentBody, RANGE(0, 8192), \
	     EXAMPLE("\"{\\\"error\\\":\\\"Too Many Requests\\\"}\""), \
	     DOC("Body of the answer, sent as it is. With bodyEncoding 1 it has to be JSON."))
#define REDIRECT_ROW \
	TEXT(struct refusal, responseRedirectUrl, ONLY_WHEN("behaviorType", BEHAVIOR_REDIRECT), RANGE(0, 2048), \
	     FORMAT(format_line), EXAMPLE("\"https://example.com/busy\""), \
	     DOC("Location of the redirect, used when behaviorType is 1: an http:// or https:// URL, or a path " \
	         "that begins with one /."))

const struct field refusal_fields[] = {
	BEHAVIOR_ROW, ENCODING_ROW, STATUS_ROW, BODY_ROW, REDIRECT_ROW,
	FIELDS_END
};

const struct field refusal_breaker_fields[] = {
	STATUS_ROW, ENCODING_ROW, BODY_ROW, REDIRECT_ROW, BEHAVIOR_ROW,
	FIELDS_END
};

static bool is_bodiless(int64_t status)
{
	return status < 200 || status == 204 || status == 205 || status == 304;
}

static bool is_redirect(int64_t status)
{
	return status == 301 || status == 302 || status == 303 || status == 307 || status == 308;
}

/* What stands behind the # of a Location. */
static bool is_fragment(struct str s)
{
	for (size_t i = 0; i < s.n; i++)
		if (s.p[i] <= 0x20 || s.p[i] >= 0x7f || s.p[i] == '#' || s.p[i] == '\\')
			return false;
	return true;
}

/* A Location we may send: an absolute URL, or a path of this host ("//host" would name another one). */
static bool is_location(struct str s)
{
	size_t end = str_find(s, '#');
	struct str base = { s.p, end };
	struct problem unused;

	if (end < s.n && !is_fragment((struct str){ s.p + end + 1, s.n - end - 1 }))
		return false;
	if (base.n > 0 && base.p[0] == '/')
		return !str_starts(base, STR("//")) && path_check(base, true, &unused);
	return format_url(base, &unused);
}

static bool is_json(struct str s)
{
	struct arena scratch = { 0 };
	struct problem unused;
	bool yes = json_parse(&scratch, s, &unused) != NULL;

	arena_free(&scratch);
	return yes;
}

bool refusal_check(const struct refusal *r, struct problem *why)
{
	if (r->behaviorType == BEHAVIOR_REDIRECT) {
		if (!is_location(r->responseRedirectUrl))
			return problem(why, "responseRedirectUrl",
				"must be an http:// or https:// URL, or a path that begins with one /");
		return true;
	}
	if (r->responseContentBody.n == 0)
		return true;
	if (is_bodiless(r->responseStatusCode))
		return problem(why, "responseContentBody", "must be empty, a %d response has no body",
			(int)r->responseStatusCode);
	if (r->bodyEncoding == ENCODING_JSON && !is_json(r->responseContentBody))
		return problem(why, "responseContentBody", "is not valid JSON; correct it or set bodyEncoding "
			"to 0");
	return true;
}

static enum verdict redirect(struct exchange *x, const struct refusal *r)
{
	int64_t status = is_redirect(r->responseStatusCode) ? r->responseStatusCode : 302;
	enum verdict verdict = reply(x, (int)status, (struct str){ NULL, 0 }, (struct str){ NULL, 0 });

	message_add_id(exchange_response(x), HEADER_LOCATION, r->responseRedirectUrl);
	return verdict;
}

/* Without a body of its own, clients of models and agents get one that their libraries can read. */
static struct str shaped_body(struct exchange *x, const struct refusal *r)
{
	if (r->responseContentBody.n > 0 || r->responseStatusCode < 400)
		return (struct str){ NULL, 0 };
	return exchange_shaped_error(x, (int)r->responseStatusCode, "ErrRateLimited",
		STR("The gateway does not take this request now; try again later"));
}

enum verdict refuse(struct exchange *x, const struct refusal *r, int64_t retry_after_s, int grpc_status)
{
	struct str type = r->bodyEncoding == ENCODING_JSON ? STR("application/json; charset=utf-8")
							   : STR("text/plain; charset=utf-8");
	struct str body = r->responseContentBody, shaped;
	enum verdict verdict;

	if (grpc_is_request(exchange_request(x)))
		return grpc_reply(x, grpc_status, r->responseContentBody);
	if (r->behaviorType == BEHAVIOR_REDIRECT)
		return redirect(x, r);
	if (is_bodiless(r->responseStatusCode))
		type = (struct str){ NULL, 0 };
	shaped = shaped_body(x, r);
	if (shaped.p) {
		type = STR("application/json");
		body = shaped;
	}
	verdict = reply(x, (int)r->responseStatusCode, type, body);
	if (r->responseStatusCode == 429 || r->responseStatusCode == 503)
		message_add_id(exchange_response(x), HEADER_RETRY_AFTER,
			arena_printf(exchange_arena(x), "%lld", (long long)retry_after_s));
	return verdict;
}
