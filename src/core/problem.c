#include "core/problem.h"
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* vsnprintf may have cut in the middle of a UTF-8 sequence; an incomplete one at the end is taken off. */
static void trim_cut_sequence(char *text)
{
	size_t n = strlen(text), back = 0;

	while (back < 3 && back < n && ((unsigned char)text[n - 1 - back] & 0xc0) == 0x80)
		back++;
	if (back >= n)
		return;
	unsigned char lead = (unsigned char)text[n - 1 - back];
	size_t follow = lead >= 0xf0 ? 3 : lead >= 0xe0 ? 2 : lead >= 0xc0 ? 1 : 0;

	if (follow > back)
		text[n - 1 - back] = '\0';
}

static void fill(struct problem *why, enum problem_kind kind, const char *field, const char *fmt, va_list args)
	__attribute__((format(printf, 4, 0)));

static void fill(struct problem *why, enum problem_kind kind, const char *field, const char *fmt, va_list args)
{
	char text[sizeof(why->text)];

	/* By way of a copy: the arguments may point into *why. */
	vsnprintf(text, sizeof(text), fmt, args);
	trim_cut_sequence(text);
	why->kind = kind;
	if (field != why->field)
		snprintf(why->field, sizeof(why->field), "%s", field ? field : "");
	trim_cut_sequence(why->field);
	memcpy(why->text, text, sizeof(text));
}

bool problem(struct problem *why, const char *field, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	fill(why, PROBLEM_INVALID, field, fmt, args);
	va_end(args);
	return false;
}

bool problem_of(struct problem *why, enum problem_kind kind, const char *field, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	fill(why, kind, field, fmt, args);
	va_end(args);
	return false;
}

void problem_prefix(struct problem *why, const char *outer)
{
	char inner[sizeof(why->field)];

	if (!outer[0])
		return;
	memcpy(inner, why->field, sizeof(inner));
	const char *joint = inner[0] && inner[0] != '[' ? "." : "";

	/* A path too long for the room keeps its beginning. */
	int n = snprintf(why->field, sizeof(why->field), "%s%s%s", outer, joint, inner);

	if ((size_t)n >= sizeof(why->field))
		trim_cut_sequence(why->field);
}
