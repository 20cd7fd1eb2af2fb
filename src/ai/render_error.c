/* render_error.c -- errors in the shape of each family. */
#include "ai/render.h"

const char *render_error_type(int status)
{
	switch (status) {
	case 401:
		return "authentication_error";
	case 403:
		return "permission_error";
	case 404:
		return "not_found_error";
	case 413:
		return "request_too_large";
	case 429:
		return "rate_limit_error";
	}
	return status >= 500 ? "api_error" : "invalid_request_error";
}

static void add_member(struct sbuf *out, struct str name, struct str value)
{
	sbuf_add(out, name);
	json_quote(out, value);
}

static void write_openai_error(struct sbuf *out, struct str type, struct str code, struct str message)
{
	add_member(out, STR("{\"error\":{\"message\":"), message);
	add_member(out, STR(",\"type\":"), type);
	SBUF_LIT(out, ",\"param\":null,\"code\":");
	if (code.n)
		json_quote(out, code);
	else
		SBUF_LIT(out, "null");
	SBUF_LIT(out, "}}");
}

struct str render_error(struct arena *a, const struct render_fault *f)
{
	struct str type = str_of(render_error_type(f->status)), made;
	struct sbuf out = { 0 };

	if (f->family == AI_FAMILY_OPENAI) {
		write_openai_error(&out, type, f->code, f->message);
	} else if (f->family == AI_FAMILY_ANTHROPIC) {
		add_member(&out, STR("{\"type\":\"error\",\"error\":{\"type\":"), type);
		add_member(&out, STR(",\"message\":"), f->message);
		SBUF_LIT(&out, "}}");
	} else {
		add_member(&out, STR("{\"code\":"), f->code.n ? f->code : type);
		add_member(&out, STR(",\"message\":"), f->message);
		add_member(&out, STR(",\"request_id\":"), f->request_id);
		sbuf_addc(&out, '}');
	}
	made = arena_copy(a, sbuf_str(&out));
	sbuf_free(&out);
	return made;
}
