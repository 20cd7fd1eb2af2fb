#include "policy/acs_signature.h"
#include <stdlib.h>
#include <time.h>
#include "core/crypto.h"

#define PARAMETERS_MAX 64

/* "2026-11-26T08:30:00Z" */
static struct str date(struct arena *a, int64_t now_ms)
{
	time_t seconds = (time_t)(now_ms / 1000);
	char text[32];
	struct tm t;

	gmtime_r(&seconds, &t);
	return arena_copy(a, (struct str){ text, strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &t) });
}

struct str acs_hex(struct arena *a, const uint8_t *bytes, size_t n)
{
	char *out = arena_take(a, 2 * n + 1);

	for (size_t i = 0; i < 2 * n; i++)
		out[i] = "0123456789abcdef"[bytes[i / 2] >> (i % 2 ? 0 : 4) & 15];
	return (struct str){ out, 2 * n };
}

static struct str digest(struct arena *a, struct str data)
{
	uint8_t bytes[32];

	crypto_sha256(data, bytes);
	return acs_hex(a, bytes, sizeof bytes);
}

struct str acs_nonce(struct arena *a)
{
	uint8_t bytes[16];
	struct str digits;

	crypto_random(bytes, sizeof bytes);
	bytes[6] = (uint8_t)((bytes[6] & 0x0f) | 0x40);
	bytes[8] = (uint8_t)((bytes[8] & 0x3f) | 0x80);
	digits = acs_hex(a, bytes, sizeof bytes);
	return arena_printf(a, "%.8s-%.4s-%.4s-%.4s-%.12s", digits.p, digits.p + 8, digits.p + 12, digits.p + 16,
			    digits.p + 20);
}

static int compare_parameters(const void *a, const void *b)
{
	return str_compare(*(const struct str *)a, *(const struct str *)b);
}

/* Parameters by their bytes, as they stand: they are percent-encoded already. One without '=' gets it. */
static struct str sort_query(struct arena *a, struct str query)
{
	struct str parts[PARAMETERS_MAX], part;
	struct sbuf out = { 0 };
	struct str sorted;
	size_t n = 0;

	while (n < PARAMETERS_MAX && str_split(&query, '&', &part))
		if (part.n > 0)
			parts[n++] = part;
	qsort(parts, n, sizeof *parts, compare_parameters);
	for (size_t i = 0; i < n; i++) {
		if (i > 0)
			sbuf_addc(&out, '&');
		sbuf_add(&out, parts[i]);
		if (str_find(parts[i], '=') == parts[i].n)
			sbuf_addc(&out, '=');
	}
	sorted = arena_copy(a, sbuf_str(&out));
	sbuf_free(&out);
	return sorted;
}

/* Host stands between Content-Type and the x-acs-* lines, which are in order. */
static struct str canonical_lines(struct arena *a, struct str host, const struct header *lines, unsigned n,
				  struct str *names)
{
	struct sbuf text = { 0 }, list = { 0 };
	struct str result;

	for (unsigned i = 0; i < n; i++) {
		if (i == 1) {
			sbuf_addf(&text, "host:%.*s\n", STR_FMT(host));
			SBUF_LIT(&list, ";host");
		}
		if (i > 0)
			sbuf_addc(&list, ';');
		for (size_t c = 0; c < lines[i].name.n; c++) {
			sbuf_addc(&text, str_lower(lines[i].name.p[c]));
			sbuf_addc(&list, str_lower(lines[i].name.p[c]));
		}
		sbuf_addf(&text, ":%.*s\n", STR_FMT(str_trim(lines[i].value)));
	}
	result = arena_copy(a, sbuf_str(&text));
	*names = arena_copy(a, sbuf_str(&list));
	sbuf_free(&text);
	sbuf_free(&list);
	return result;
}

static struct str authorize(const struct acs_key *key, const struct acs_request *r, struct arena *a,
			    const struct header *lines, unsigned n)
{
	struct str path = { r->target.p, str_find(r->target, '?') }, query = { NULL, 0 }, names, text;
	struct str hash = digest(a, r->body);
	uint8_t signature[32];

	if (path.n < r->target.n)
		query = (struct str){ path.p + path.n + 1, r->target.n - path.n - 1 };
	text = canonical_lines(a, r->host, lines, n, &names);
	text = arena_printf(a, "POST\n%.*s\n%.*s\n%.*s\n%.*s\n%.*s", STR_FMT(path), STR_FMT(sort_query(a, query)),
			    STR_FMT(text), STR_FMT(names), STR_FMT(hash));
	text = arena_printf(a, "ACS3-HMAC-SHA256\n%.*s", STR_FMT(digest(a, text)));
	crypto_hmac_sha256(key->secret, text, signature);
	return arena_printf(a, "ACS3-HMAC-SHA256 Credential=%.*s,SignedHeaders=%.*s,Signature=%.*s", STR_FMT(key->id),
			    STR_FMT(names), STR_FMT(acs_hex(a, signature, sizeof signature)));
}

unsigned acs_sign(const struct acs_key *key, const struct acs_request *r, struct arena *a,
		  struct header lines[ACS_LINES_MAX])
{
	unsigned n = 0;

	/* By name, which is how they are signed. */
	lines[n++] = (struct header){ .name = STR("Content-Type"), .value = r->content_type };
	lines[n++] = (struct header){ .name = STR("x-acs-action"), .value = r->action };
	lines[n++] = (struct header){ .name = STR("x-acs-content-sha256"), .value = digest(a, r->body) };
	lines[n++] = (struct header){ .name = STR("x-acs-date"), .value = date(a, r->now_ms) };
	if (key->token.n > 0)
		lines[n++] = (struct header){ .name = STR("x-acs-security-token"), .value = key->token };
	lines[n++] = (struct header){ .name = STR("x-acs-signature-nonce"), .value = r->nonce };
	lines[n++] = (struct header){ .name = STR("x-acs-version"), .value = r->version };
	if (key->id.n > 0 && key->secret.n > 0) {
		struct str proof = authorize(key, r, a, lines, n);

		lines[n++] = (struct header){ .name = STR("Authorization"), .value = proof };
	}
	return n;
}
