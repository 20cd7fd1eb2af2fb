/*
 * search_engine.h -- what search services are asked, and what their answers say: of AiNetworkSearch.
 *
 * Answers come from the internet, by way of a service that may be anybody's. Whatever they hold, what is read is
 * bounded in time and memory, and the texts that come out are plain: without markup, control bytes and characters that
 * no reader sees, on one line, and with no mark in them that could pass for one of ours ("[webpage 1 end]").
 */
#pragma once
#include "core/arena.h"
#include "core/str.h"

enum search_provider { SEARCH_BING, SEARCH_GOOGLE, SEARCH_QUARK, SEARCH_ARXIV };

#define SEARCH_RESULTS_MAX 50
#define SEARCH_QUERY_MAX 400              /* code points */
#define SEARCH_TITLE_MAX 300
#define SEARCH_CONTENT_MAX 1000           /* of one result */
#define SEARCH_CONTENTS_MAX 16000         /* of all */
#define SEARCH_LINK_BYTES 2048
#define SEARCH_ANSWER_BYTES (1024 * 1024)

struct search_result {
	struct str title, link, content;  /* none is empty */
};
struct search_results {
	struct search_result of[SEARCH_RESULTS_MAX];
	unsigned n, most;                 /* most: how many are wanted */
	unsigned room;                    /* code points of content that are left */
	struct arena *arena;              /* of the texts */
};

/* The service that is asked where the configuration names none. */
struct str search_endpoint(enum search_provider provider);
struct search_request {
	enum search_provider provider;
	struct str path;                  /* of the endpoint, with its own query if it has one */
	struct str api_key;               /* as configured */
	struct str query;
	unsigned most;                    /* results that are wanted */
};
/* Path and query of the request. Google's key is in it: a secret. */
struct str search_target(struct arena *a, const struct search_request *r);
/* Whether an apiKey is "<cx>:<key>". The id of a search engine may have a colon in it, a key has none. */
MUST_USE bool search_split_key(struct str api_key, struct str *cx, struct str *key);

void search_results_init(struct search_results *r, struct arena *a, unsigned most);
/* False: the answer is not what the service is known to say. */
bool search_read(struct search_results *r, enum search_provider provider, struct str answer);
/* Whether there is room for more; one more, unless a text is missing or its link is there already. */
bool search_results_are_full(const struct search_results *r);
void search_results_add(struct search_results *r, struct str title, struct str link, struct str content);
/* Atom (RFC 4287), as much of it as entries need; strictly well-formed, without DTD. */
bool search_read_atom(struct search_results *r, struct str answer);

/*
 * Text of a page (valid UTF-8) made plain, at most `most` code points of it, appended to `out`; returns how many.
 * has_markup: tags go, and what is between those of scripts and styles; entities become characters.
 */
unsigned search_clean(struct sbuf *out, struct str text, unsigned most, bool has_markup);
/* Decodes the entity that begins at *p ("&amp;",
	"&#8211;") and moves behind it; 0 where there is none that is known. */
unsigned search_entity(const char **p, const char *end);
void search_put_char(struct sbuf *out, unsigned code_point);
