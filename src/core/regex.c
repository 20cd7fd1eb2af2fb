/*
 * regex.c -- patterns are read once for what we do not allow, then compiled twice: to search, and to match
 * the whole subject (as options of a match the anchors would switch the JIT off).
 *
 * What a match writes to (match data, JIT stack) belongs to the thread; patterns are never written after
 * compilation.
 */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "core/regex.h"
#include <pcre2.h>
#include <pthread.h>
#include "core/mem.h"

#define MATCH_LIMIT 100000
#define HEAP_LIMIT_KIB 4096
#define JIT_STACK_MAX (512 * 1024)
#define RESULT_MAX (64 * 1024)           /* bytes that a replacement may make of a subject */
#define MAX_GROUPS 100                   /* kept per match: \0..\99 */

struct regex {
	struct arena_defer defer;
	pcre2_code *search, *whole;
	unsigned groups;
};

/* One per thread. */
struct matcher {
	pcre2_match_data *data;
	pcre2_jit_stack *stack;
	pcre2_match_context *limits;
};

static pthread_key_t matcher_key;
static pthread_once_t matcher_once = PTHREAD_ONCE_INIT;
static _Thread_local struct matcher *matcher;

/* ---- per thread ---- */

static void free_matcher(void *arg)
{
	struct matcher *m = arg;

	pcre2_match_data_free(m->data);
	pcre2_match_context_free(m->limits);
	pcre2_jit_stack_free(m->stack);
	mem_free(m);
	matcher = NULL;
}

static void make_key(void)
{
	BUG_ON(pthread_key_create(&matcher_key, free_matcher) != 0);
}

static struct matcher *own_matcher(void)
{
	if (matcher)
		return matcher;
	pthread_once(&matcher_once, make_key);
	matcher = MEM_NEW(struct matcher);
	matcher->data = pcre2_match_data_create(MAX_GROUPS, NULL);
	matcher->limits = pcre2_match_context_create(NULL);
	BUG_ON(!matcher->data || !matcher->limits);
	pcre2_set_match_limit(matcher->limits, MATCH_LIMIT);
	pcre2_set_heap_limit(matcher->limits, HEAP_LIMIT_KIB);
	matcher->stack = pcre2_jit_stack_create(32 * 1024, JIT_STACK_MAX, NULL);
	if (matcher->stack)                   /* without JIT there is none */
		pcre2_jit_stack_assign(matcher->limits, NULL, matcher->stack);
	BUG_ON(pthread_setspecific(matcher_key, matcher) != 0);
	return matcher;
}

/* ---- what we do not allow ---- */

struct scan {
	const char *p, *end;
	const char *refused;              /* why not */
};

static bool at(const struct scan *s, const char *word)
{
	return str_starts((struct str){ s->p, (size_t)(s->end - s->p) }, str_of(word));
}

/* s->p points behind "\Q". */
static void skip_literal(struct scan *s)
{
	while (s->p < s->end && !at(s, "\\E"))
		s->p++;
	s->p += s->p < s->end ? 2 : 0;
}

/* s->p points at the backslash. */
static void skip_escape(struct scan *s, bool in_class)
{
	char c;

	s->p++;
	if (s->p >= s->end)
		return;
	c = *s->p++;
	if (c == 'Q')
		skip_literal(s);
	else if (c == 'c')
		s->p += s->p < s->end ? 1 : 0;
	else if (!in_class && (c == 'k' || c == 'g'))
		s->refused = "back-references and recursion are not allowed";
	else if (!in_class && (c == 'C' || c == 'K'))
		s->refused = "\\C and \\K are not allowed";
}

/* "[:alpha:]" and its kin inside a class; s->p points at the inner bracket. Moves behind it when it is one. */
static void skip_posix(struct scan *s)
{
	char mark = s->p + 1 < s->end ? s->p[1] : '\0';
	const char *p = s->p + 2;

	s->p++;
	if (mark != ':' && mark != '.' && mark != '=')
		return;
	for (; s->end - p >= 2; p++) {
		if (*p == '\\' && (p[1] == ']' || p[1] == '\\')) {
			p++;
		} else if (*p == ']' || (*p == '[' && p[1] == mark)) {
			return;
		} else if (*p == mark && p[1] == ']') {
			s->p = p + 2;
			return;
		}
	}
}

/* s->p points at the opening bracket. */
static void skip_class(struct scan *s)
{
	s->p++;
	if (s->p < s->end && *s->p == '^')
		s->p++;
	if (s->p < s->end && *s->p == ']')    /* first in a class it stands for itself */
		s->p++;
	while (s->p < s->end && *s->p != ']') {
		if (*s->p == '\\')
			skip_escape(s, true);
		else if (*s->p == '[')
			skip_posix(s);
		else
			s->p++;
	}
	if (s->p < s->end)
		s->p++;
}

/* "(?i-s:" and the like; s->p points behind "(?". A sign before a digit is a relative recursion. */
static void check_options(struct scan *s)
{
	for (; s->p < s->end && strchr("^-+imnsxUJ0123456789", *s->p) && *s->p; s->p++) {
		if ((*s->p >= '0' && *s->p <= '9') || *s->p == '+')
			s->refused = "recursion is not allowed";
		if (*s->p == 'x')
			s->refused = "the option x (extended syntax) is not allowed";
	}
}

/* s->p points at an opening parenthesis. */
static void check_group(struct scan *s)
{
	static const struct { const char *start, *refused; } forms[] = {
		{ "(*", "verbs (*...) are not allowed" },
		{ "(?=", "look-ahead is not allowed" },
		{ "(?!", "look-ahead is not allowed" },
		{ "(?*", "look-ahead is not allowed" },
		{ "(?<=", "look-behind is not allowed" },
		{ "(?<!", "look-behind is not allowed" },
		{ "(?<*", "look-behind is not allowed" },
		{ "(?R", "recursion is not allowed" },
		{ "(?&", "recursion is not allowed" },
		{ "(?P>", "recursion is not allowed" },
		{ "(?P=", "back-references are not allowed" },
		{ "(?(", "conditional groups are not allowed" },
		{ "(?C", "callouts are not allowed" },
	};

	for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++) {
		if (at(s, forms[i].start)) {
			s->refused = forms[i].refused;
			return;
		}
	}
	if (at(s, "(?#")) {
		while (s->p < s->end && *s->p != ')')
			s->p++;
		return;
	}
	s->p += at(s, "(?") ? 2 : 1;
	if (s->p[-1] == '?')
		check_options(s);
}

static const char *find_refused(struct str pattern)
{
	struct scan s = { pattern.p, pattern.p + pattern.n, NULL };

	while (s.p < s.end && !s.refused) {
		if (*s.p == '\\')
			skip_escape(&s, false);
		else if (*s.p == '[')
			skip_class(&s);
		else if (*s.p == '(')
			check_group(&s);
		else
			s.p++;
	}
	return s.refused;
}

/* ---- compiling ---- */

static void release(struct arena_defer *defer)
{
	struct regex *r = (struct regex *)(void *)defer;

	pcre2_code_free(r->search);
	pcre2_code_free(r->whole);
}

static pcre2_code *compile(struct str pattern, uint32_t options, struct problem *why)
{
	int error;
	PCRE2_SIZE offset;
	unsigned char message[160];
	pcre2_code *code;

	options |= PCRE2_NEVER_BACKSLASH_C | PCRE2_NEVER_UCP | PCRE2_NEVER_UTF | PCRE2_DOLLAR_ENDONLY;
	code = pcre2_compile((PCRE2_SPTR)(const void *)pattern.p, pattern.n, options, &error, &offset, NULL);
	if (!code) {
		pcre2_get_error_message(error, message, sizeof message);
		problem(why, "", "is not a valid regular expression: %s (at byte %zu)", (const char *)message,
			(size_t)offset + 1);
		return NULL;
	}
	pcre2_jit_compile(code, PCRE2_JIT_COMPLETE);   /* where it cannot, the interpreter works */
	return code;
}

struct regex *regex_compile(struct arena *a, struct str pattern, bool ignore_case, struct problem *why)
{
	uint32_t options = ignore_case ? PCRE2_CASELESS : 0, back_references = 0, groups = 0;
	const char *refused;
	struct regex *r;

	pattern = pattern.p ? pattern : STR("");
	refused = find_refused(pattern);
	if (refused) {
		problem(why, "", "is not an allowed regular expression: %s", refused);
		return NULL;
	}
	r = NEW(a, struct regex);
	r->search = compile(pattern, options, why);
	if (!r->search)
		return NULL;
	arena_defer(a, &r->defer, release);
	pcre2_pattern_info(r->search, PCRE2_INFO_BACKREFMAX, &back_references);
	pcre2_pattern_info(r->search, PCRE2_INFO_CAPTURECOUNT, &groups);
	if (back_references) {
		problem(why, "", "is not an allowed regular expression: back-references are not allowed");
		return NULL;
	}
	r->groups = groups;
	r->whole = compile(pattern, options | PCRE2_ANCHORED | PCRE2_ENDANCHORED, why);
	return r->whole ? r : NULL;
}

/* ---- matching ---- */

static enum regex_result run(const pcre2_code *code, struct str subject, size_t from)
{
	struct matcher *m = own_matcher();
	PCRE2_SPTR p = (PCRE2_SPTR)(const void *)(subject.p ? subject.p : "");
	int rc = pcre2_match(code, p, subject.n, from, 0, m->data, m->limits);

	if (rc >= 0)
		return REGEX_YES;
	return rc == PCRE2_ERROR_NOMATCH ? REGEX_NO : REGEX_LIMIT;
}

enum regex_result regex_match(const struct regex *r, struct str subject)
{
	return run(r->search, subject, 0);
}

enum regex_result regex_match_whole(const struct regex *r, struct str subject)
{
	return run(r->whole, subject, 0);
}

unsigned regex_groups(const struct regex *r)
{
	return r->groups;
}

/* ---- replacing ---- */

/* "\N", "$N" or "${N}" at p: its length and the group; 0 when it is none of them. */
static size_t read_reference(const char *p, const char *end, int *group)
{
	bool braced = *p == '$' && end - p >= 2 && p[1] == '{';
	const char *digits = p + (braced ? 2 : 1), *at = digits;
	int n = 0;

	while (at < end && at - digits < (braced ? 2 : 1) && *at >= '0' && *at <= '9')
		n = n * 10 + (*at++ - '0');
	if (at == digits || (braced && (at == end || *at != '}')))
		return 0;
	*group = n;
	return (size_t)(at - p) + (braced ? 1 : 0);
}

/* Takes one piece off a template: literal text, or a group (then *group >= 0). false at the end. */
static bool take_piece(struct str *rest, struct str *literal, int *group)
{
	const char *p = rest->p, *end = p + rest->n;
	size_t n;

	*group = -1;
	if (rest->n == 0)
		return false;
	while (p < end && *p != '\\' && *p != '$')
		p++;
	*literal = (struct str){ rest->p, (size_t)(p - rest->p) };
	if (literal->n == 0) {
		n = read_reference(p, end, group);
		/* Doubled it is one; before anything else it stands for itself. */
		if (n == 0)
			n = end - p >= 2 && p[1] == p[0] ? 2 : 1;
		literal->n = 1;
		p += n;
	}
	*rest = (struct str){ p, (size_t)(end - p) };
	return true;
}

unsigned regex_template_groups(struct str template)
{
	struct str literal;
	int group, highest = 0;

	while (take_piece(&template, &literal, &group))
		highest = group > highest ? group : highest;
	return (unsigned)highest;
}

static void expand(struct sbuf *out, const struct regex *r, struct str subject, struct str template)
{
	const PCRE2_SIZE *pairs = pcre2_get_ovector_pointer(matcher->data);
	struct str literal;
	int group;

	while (out->n <= RESULT_MAX && take_piece(&template, &literal, &group)) {
		if (group < 0) {
			sbuf_add(out, literal);
			continue;
		}
		if ((unsigned)group > r->groups || pairs[2 * group] == PCRE2_UNSET)
			continue;
		sbuf_add(out, (struct str){ subject.p + pairs[2 * group], pairs[2 * group + 1] - pairs[2 * group] });
	}
}

struct str regex_replace(const struct regex *r, struct arena *a, struct str subject, struct str template)
{
	size_t from = 0, copied = 0;
	bool any = false;
	enum regex_result found;
	struct sbuf out = { 0 };
	struct str result = subject.p ? subject : STR("");

	while (from <= subject.n && (found = run(r->search, subject, from)) != REGEX_NO) {
		const PCRE2_SIZE *pairs;

		if (found == REGEX_LIMIT || out.n > RESULT_MAX) {
			sbuf_free(&out);
			return (struct str){ NULL, 0 };
		}
		pairs = pcre2_get_ovector_pointer(matcher->data);
		if (any && pairs[0] == pairs[1] && pairs[0] == copied) {
			from = copied + 1;    /* empty, right behind the match before */
			continue;
		}
		sbuf_add(&out, (struct str){ subject.p + copied, pairs[0] - copied });
		copied = pairs[1];
		from = pairs[1] + (pairs[0] == pairs[1] ? 1 : 0);
		expand(&out, r, subject, template);
		any = true;
	}
	if (any) {
		sbuf_add(&out, (struct str){ subject.p + copied, subject.n - copied });
		result = arena_copy(a, sbuf_str(&out));
	}
	sbuf_free(&out);
	return result;
}
