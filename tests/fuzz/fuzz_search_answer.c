/*
 * fuzz_search_answer.c -- whatever a search service answers, the texts that come of it are plain, on one line, within
 * their bounds, and none of them looks like the frame around it.
 *
 * The first byte chooses the service; the rest is the answer.
 */
/* room: policy */
#include <stddef.h>
#include <stdint.h>
#include "policy/search_engine.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_text(struct str text, unsigned most)
{
	static const struct str mark = STR("[webpage");

	BUG_ON(text.n == 0 || !str_is_utf8(text) || str_code_points(text) > most);
	for (size_t i = 0; i < text.n; i++) {
		BUG_ON((unsigned char)text.p[i] < 0x20 || text.p[i] == 0x7f);
		BUG_ON(text.n - i >= mark.n && str_equal_nocase((struct str){ text.p + i, mark.n }, mark));
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct arena a = { 0 };
	struct search_results r;
	unsigned total = 0;

	if (size == 0)
		return 0;
	search_results_init(&r, &a, data[0] >> 2);
	if (search_read(&r, (enum search_provider)(data[0] & 3), (struct str){ (const char *)data + 1, size - 1 })) {
		BUG_ON(r.n > r.most);
		for (unsigned i = 0; i < r.n; i++) {
			check_text(r.of[i].title, SEARCH_TITLE_MAX);
			check_text(r.of[i].link, SEARCH_LINK_BYTES);
			check_text(r.of[i].content, SEARCH_CONTENT_MAX);
			BUG_ON(str_find(r.of[i].link, ' ') < r.of[i].link.n);
			total += (unsigned)str_code_points(r.of[i].content);
		}
		BUG_ON(total > SEARCH_CONTENTS_MAX || total + r.room != SEARCH_CONTENTS_MAX);
	} else {
		BUG_ON(r.n > 0);
	}
	arena_free(&a);
	return 0;
}
