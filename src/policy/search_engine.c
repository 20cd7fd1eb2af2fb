/* search_engine.c -- requests to search services and their JSON answers; search_atom.c has the one that is XML. */
#include "policy/search_engine.h"
#include "core/json.h"

#define NODES_MAX 20000                   /* values of an answer */

struct str search_endpoint(enum search_provider provider)
{
	static const struct str endpoints[] = {
		[SEARCH_BING] = STR("https://api.bing.microsoft.com/v7.0/search"),
		[SEARCH_GOOGLE] = STR("https://customsearch.googleapis.com/customsearch/v1"),
		[SEARCH_QUARK] = STR("https://cloud-iqs.aliyuncs.com/search/genericSearch"),
		[SEARCH_ARXIV] = STR("https://export.arxiv.org/api/query"),
	};

	return endpoints[provider];
}

bool search_split_key(struct str api_key, struct str *cx, struct str *key)
{
	size_t at = api_key.n;

	while (at > 0 && api_key.p[at - 1] != ':')
		at--;
	if (at < 2 || at == api_key.n)
		return false;
	*cx = (struct str){ api_key.p, at - 1 };
	*key = (struct str){ api_key.p + at, api_key.n - at };
	return true;
}

/* ---------- asking ---------- */

/* All but unreserved characters (RFC 3986 2.3) as %XX. */
static void put_encoded(struct sbuf *out, struct str text)
{
	static const char digits[] = "0123456789ABCDEF";

	for (size_t i = 0; i < text.n; i++) {
		unsigned char c = (unsigned char)text.p[i];

		if ((c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z') || c == '-' || c == '.' ||
		    c == '_' || c == '~') {
			sbuf_addc(out, (char)c);
			continue;
		}
		sbuf_addc(out, '%');
		sbuf_addc(out, digits[c >> 4]);
		sbuf_addc(out, digits[c & 15]);
	}
}

static void put_key(struct sbuf *out, struct str api_key)
{
	struct str cx, key;

	if (!search_split_key(api_key, &cx, &key))
		return;
	SBUF_LIT(out, "cx=");
	put_encoded(out, cx);
	SBUF_LIT(out, "&key=");
	put_encoded(out, key);
	sbuf_addc(out, '&');
}

struct str search_target(struct arena *a, const struct search_request *r)
{
	static const struct str names[] = {
		[SEARCH_BING] = STR("q="), [SEARCH_GOOGLE] = STR("q="), [SEARCH_QUARK] = STR("query="),
		[SEARCH_ARXIV] = STR("search_query=all:"),
	};
	struct sbuf out = { 0 };
	struct str target;

	sbuf_add(&out, r->path);
	sbuf_addc(&out, str_find(r->path, '?') < r->path.n ? '&' : '?');
	if (r->provider == SEARCH_GOOGLE)
		put_key(&out, r->api_key);
	sbuf_add(&out, names[r->provider]);
	put_encoded(&out, r->query);
	if (r->provider == SEARCH_BING)
		sbuf_addf(&out, "&count=%u&offset=0", r->most);
	else if (r->provider == SEARCH_GOOGLE)
		sbuf_addf(&out, "&num=%u&start=1", r->most);
	else if (r->provider == SEARCH_ARXIV)
		sbuf_addf(&out, "&max_results=%u&start=0", r->most);
	target = arena_copy(a, sbuf_str(&out));
	sbuf_free(&out);
	return target;
}

/* ---------- results ---------- */

void search_results_init(struct search_results *r, struct arena *a, unsigned most)
{
	*r = (struct search_results){ .arena = a, .room = SEARCH_CONTENTS_MAX };
	r->most = most < SEARCH_RESULTS_MAX ? most : SEARCH_RESULTS_MAX;
}

bool search_results_are_full(const struct search_results *r)
{
	return r->n >= r->most || r->room == 0;
}

/* A link is shown to the model on a line of its own: it has no blanks and nothing that hides. */
static struct str clean_link(struct search_results *r, struct str link)
{
	struct sbuf out = { 0 };
	struct str cleaned = { NULL, 0 };

	link = str_trim(link);
	if (link.n > 0 && link.n <= SEARCH_LINK_BYTES)
		search_clean(&out, link, SEARCH_LINK_BYTES, false);
	if (out.n > 0 && str_find(sbuf_str(&out), ' ') == out.n)
		cleaned = arena_copy(r->arena, sbuf_str(&out));
	sbuf_free(&out);
	return cleaned;
}

static struct str clean_text(struct search_results *r, struct str text, unsigned most, unsigned *n)
{
	struct sbuf out = { 0 };
	struct str cleaned;

	*n = search_clean(&out, text, most, true);
	cleaned = arena_copy(r->arena, sbuf_str(&out));
	sbuf_free(&out);
	return cleaned;
}

void search_results_add(struct search_results *r, struct str title, struct str link, struct str content)
{
	struct search_result one;
	unsigned n, most = r->room < SEARCH_CONTENT_MAX ? r->room : SEARCH_CONTENT_MAX;

	if (search_results_are_full(r))
		return;
	one.link = clean_link(r, link);
	if (one.link.n == 0)
		return;
	for (unsigned i = 0; i < r->n; i++)
		if (str_equal(r->of[i].link, one.link))
			return;
	one.title = clean_text(r, title, SEARCH_TITLE_MAX, &n);
	one.content = clean_text(r, content, most, &n);
	if (one.title.n == 0 || one.content.n == 0)
		return;
	r->room -= n;
	r->of[r->n++] = one;
}

/* ---------- answers ---------- */

/* Names of what makes a result. */
struct members {
	const char *title, *link, *content;
};

static void add_one(struct search_results *r, const struct json *item, const struct members *names)
{
	search_results_add(r, json_text(item, names->title), json_text(item, names->link),
			   json_text(item, names->content));
}

static const struct json *items_of(const struct json *box, const char *name)
{
	const struct json *list = json_get(box, name);

	return list && list->type == JSON_ARRAY ? list->child : NULL;
}

static void read_bing(struct search_results *r, const struct json *doc)
{
	static const struct members page = { "name", "url", "snippet" }, news = { "name", "url", "description" };
	const struct json *item;

	for (item = items_of(json_get(doc, "webPages"), "value"); item; item = item->next) {
		add_one(r, item, &page);
		for (const struct json *deep = items_of(item, "deepLinks"); deep; deep = deep->next)
			add_one(r, deep, &page);
	}
	for (item = items_of(json_get(doc, "news"), "value"); item; item = item->next)
		add_one(r, item, &news);
}

static void read_google(struct search_results *r, const struct json *doc)
{
	static const struct members names = { "title", "link", "snippet" };

	for (const struct json *item = items_of(doc, "items"); item; item = item->next)
		add_one(r, item, &names);
}

/* The snippet, which is about the question, then as much of the page as there is room for. */
static void add_page(struct search_results *r, const struct json *item)
{
	struct str snippet = json_text(item, "snippet"), main = json_text(item, "markdownText");
	struct sbuf both = { 0 };

	if (main.n == 0)
		main = json_text(item, "mainText");
	sbuf_add(&both, snippet);
	if (!str_equal(main, snippet)) {
		sbuf_addc(&both, '\n');
		sbuf_add(&both, main);
	}
	search_results_add(r, json_text(item, "title"), json_text(item, "link"), sbuf_str(&both));
	sbuf_free(&both);
}

static void read_quark(struct search_results *r, const struct json *doc)
{
	const struct json *item = items_of(doc, "pageItems");

	for (; item && !search_results_are_full(r); item = item->next)
		add_page(r, item);
}

bool search_read(struct search_results *r, enum search_provider provider, struct str answer)
{
	struct arena arena = { 0 };           /* a tree is far larger than what is kept */
	struct problem why;
	const struct json *doc;
	bool is_object;

	if (provider == SEARCH_ARXIV)
		return search_read_atom(r, answer);
	doc = json_parse_spans(&arena, answer, NODES_MAX, &why);
	is_object = doc && doc->type == JSON_OBJECT;
	if (is_object && provider == SEARCH_BING)
		read_bing(r, doc);
	else if (is_object && provider == SEARCH_GOOGLE)
		read_google(r, doc);
	else if (is_object)
		read_quark(r, doc);
	arena_free(&arena);
	return is_object;
}
