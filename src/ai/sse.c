/*
 * Pieces are looked at once, byte by byte in the sense of the standard, with memchr where lines are long; bytes in
 * `kept` were looked at before. Whether an event is over is decided at its blank line, so a CR that ends it does not
 * wait for the LF that may follow: that one then begins the next event and means nothing there.
 */
#include "ai/sse.h"
#include "core/budget.h"
#include "core/mem.h"

#define KEPT_MAX (64 * 1024)              /* room that is kept for the next event */

void sse_give(struct sse *s, struct str piece)
{
	if (s->is_long)
		s->n_kept = 0;
	s->piece = piece;
}

static char *resize(struct sse *s, char *p, size_t *room, size_t wanted)
{
	size_t more = wanted > *room * 2 ? wanted : *room * 2;

	more = more < 256 ? 256 : more;
	budget_add((int64_t)(more - *room));
	s->held += more - *room;
	*room = more;
	return mem_resize(p, more);
}

static void release(struct sse *s, char **p, size_t *room)
{
	budget_add(-(int64_t)*room);
	s->held -= *room;
	mem_free(*p);
	*p = NULL;
	*room = 0;
}

/* The first n bytes of the piece go behind what is kept. */
static void keep(struct sse *s, size_t n)
{
	if (n == 0)
		return;
	if (s->n_kept + n > s->kept_room)
		s->kept = resize(s, s->kept, &s->kept_room, s->n_kept + n);
	memcpy(s->kept + s->n_kept, s->piece.p, n);
	s->n_kept += n;
	s->piece.p += n;
	s->piece.n -= n;
}

static void forget_given(struct sse *s)
{
	s->is_given = false;
	s->n_kept = 0;
	if (s->kept_room > KEPT_MAX)
		release(s, &s->kept, &s->kept_room);
	if (s->joined_room > KEPT_MAX)
		release(s, &s->joined, &s->joined_room);
}

/* The next byte that is c, at `from` or behind; *at remembers it, so that a piece is searched once. */
static size_t find_next(struct str text, size_t from, char c, size_t *at)
{
	const char *found;

	if (*at >= from && *at != SIZE_MAX)
		return *at;
	found = memchr(text.p + from, c, text.n - from);
	*at = found ? (size_t)(found - text.p) : text.n;
	return *at;
}

/* How many bytes of the piece end the event; 0 = it goes on behind the piece. */
static size_t find_end(struct sse *s)
{
	struct str piece = s->piece;
	size_t next_lf = SIZE_MAX, next_cr = SIZE_MAX, at = 0;

	if (s->skip_lf && piece.n > 0) {
		at = piece.p[0] == '\n';
		s->skip_lf = false;
	}
	while (at < piece.n) {
		size_t lf = find_next(piece, at, '\n', &next_lf), cr = find_next(piece, at, '\r', &next_cr);
		size_t end = lf < cr ? lf : cr;
		bool is_blank = !s->line_began && end == at;

		if (end == piece.n) {
			s->line_began = true;
			return 0;
		}
		at = end + 1;
		if (end == cr && at < piece.n)
			at += piece.p[at] == '\n';
		else if (end == cr)
			s->skip_lf = true;
		s->line_began = false;
		if (is_blank)
			return at;
	}
	return 0;
}

/* Takes one line off *rest. */
static struct str take_line(struct str *rest)
{
	struct str line = { rest->p, 0 };

	while (line.n < rest->n && line.p[line.n] != '\n' && line.p[line.n] != '\r')
		line.n++;
	size_t used = line.n;

	if (used < rest->n)
		used += rest->p[used] == '\r' && used + 1 < rest->n && rest->p[used + 1] == '\n' ? 2 : 1;
	rest->p += used;
	rest->n -= used;
	return line;
}

/* Its value, without the one space that may stand before it; the line is cut to the name. */
static struct str split_field(struct str *line)
{
	size_t colon = str_find(*line, ':');
	struct str value = { line->p + line->n, 0 };

	if (colon < line->n) {
		value = (struct str){ line->p + colon + 1, line->n - colon - 1 };
		if (value.n > 0 && value.p[0] == ' ') {
			value.p++;
			value.n--;
		}
	}
	line->n = colon;
	return value;
}

static void add_data(struct sse *s, struct sse_event *e, struct str value)
{
	if (!e->has_data) {
		e->has_data = true;
		e->data = value;
		return;
	}
	size_t wanted = e->data.n + 1 + value.n;
	bool is_joined = e->data.p == s->joined;
	struct str before = e->data;

	if (wanted > s->joined_room)
		s->joined = resize(s, s->joined, &s->joined_room, wanted);
	if (!is_joined && before.n > 0)
		memcpy(s->joined, before.p, before.n);
	s->joined[before.n] = '\n';
	if (value.n > 0)
		memcpy(s->joined + before.n + 1, value.p, value.n);
	e->data = (struct str){ s->joined, wanted };
}

static void read_fields(struct sse *s, struct sse_event *e)
{
	struct str rest = e->raw;

	if (s->event_began_after_cr && rest.n > 0 && rest.p[0] == '\n') {
		rest.p++;
		rest.n--;
	}
	if (!s->has_begun && str_starts(rest, STR("\xef\xbb\xbf"))) {
		rest.p += 3;
		rest.n -= 3;
	}
	s->has_begun = true;
	while (rest.n > 0) {
		struct str name = take_line(&rest), value = split_field(&name);

		if (str_equal(name, STR("data")))
			add_data(s, e, value);
		else if (str_equal(name, STR("event")))
			e->type = value;
		else if (str_equal(name, STR("id")) && str_find(value, '\0') == value.n)
			e->id = value;
	}
}

static void give_event(struct sse *s, struct sse_event *e, struct str raw)
{
	*e = (struct sse_event){ .raw = raw };
	read_fields(s, e);
	s->event_began_after_cr = s->skip_lf;
	s->is_given = true;
}

static size_t limit_of(const struct sse *s)
{
	return s->limit ? s->limit : SSE_EVENT_MAX;
}

enum sse_result sse_next(struct sse *s, struct sse_event *e)
{
	if (s->is_given)
		forget_given(s);
	if (s->is_long)
		return SSE_LONG;
	size_t end = find_end(s), n = end ? end : s->piece.n;

	if (s->n_kept + n > limit_of(s)) {
		s->is_long = true;
		if (s->n_kept > 0)
			keep(s, s->piece.n);
		return SSE_LONG;
	}
	if (!end || s->n_kept > 0)
		keep(s, n);
	if (!end)
		return SSE_MORE;
	if (s->n_kept > 0) {
		give_event(s, e, (struct str){ s->kept, s->n_kept });
		return SSE_EVENT;
	}
	struct str raw = { s->piece.p, n };

	s->piece.p += n;
	s->piece.n -= n;
	give_event(s, e, raw);
	return SSE_EVENT;
}

bool sse_end(struct sse *s, struct sse_event *e)
{
	if (s->is_given)
		forget_given(s);
	if (s->is_long || s->n_kept == 0)
		return false;
	give_event(s, e, (struct str){ s->kept, s->n_kept });
	return true;
}

struct str sse_rest(const struct sse *s)
{
	if (s->is_given || s->n_kept == 0)
		return s->piece;
	return (struct str){ s->kept, s->n_kept };
}

void sse_free(struct sse *s)
{
	release(s, &s->kept, &s->kept_room);
	release(s, &s->joined, &s->joined_room);
	*s = (struct sse){ .limit = s->limit };
}
