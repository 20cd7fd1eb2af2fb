#include "control/store.h"

static const struct store_class *const classes[] = { &store_sqlite };

struct store *store_open(const char *url, struct problem *why)
{
	struct str text = str_of(url);
	size_t colon = str_find(text, ':');
	struct str scheme = { text.p, colon };

	for (size_t i = 0; i < sizeof classes / sizeof classes[0]; i++)
		if (colon < text.n && str_equal(scheme, str_of(classes[i]->scheme)))
			return classes[i]->open((struct str){ text.p + colon + 1, text.n - colon - 1 }, why);
	problem(why, "store", "must be sqlite:PATH, not \"%s\"", url);
	return NULL;
}

bool store_load(struct store *s, bool (*each)(void *arg, const struct store_row *row, struct problem *why),
	void *arg, struct problem *why)
{
	return s->class->load(s, each, arg, why);
}

bool store_write(struct store *s, const struct store_row *rows, size_t n, struct problem *why)
{
	return s->class->write(s, rows, n, why);
}

void store_close(struct store *s)
{
	if (s)
		s->class->close(s);
}

void store_suspend(struct store *s)
{
	s->class->suspend(s);
}

bool store_resume(struct store *s, struct problem *why)
{
	return s->class->resume(s, why);
}
