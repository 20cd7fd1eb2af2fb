/* text.c -- growing byte strings, and what they are made of. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "upstream.h"

void add(struct bytes *b, const void *p, size_t n)
{
	if (b->n + n > b->room) {
		b->room = (b->n + n) * 2;
		b->p = realloc(b->p, b->room);
		if (!b->p)
			abort();
	}
	if (n > 0)
		memcpy(b->p + b->n, p, n);
	b->n += n;
}

__attribute__((format(printf, 2, 3))) void add_text(struct bytes *b, const char *format, ...)
{
	char text[1024];
	va_list list;

	va_start(list, format);
	int n = vsnprintf(text, sizeof text, format, list);
	va_end(list);
	add(b, text, (size_t)n < sizeof text ? (size_t)n : sizeof text - 1);
}

void drop_front(struct bytes *b, size_t n)
{
	if (n < b->n)
		memmove(b->p, b->p + n, b->n - n);
	b->n -= n;
}

void release(struct bytes *b)
{
	free(b->p);
	*b = (struct bytes){ 0 };
}

void add_json(struct bytes *b, const char *p, size_t n)
{
	add(b, "\"", 1);
	for (size_t i = 0; i < n; i++) {
		unsigned char byte = (unsigned char)p[i];

		if (byte < 0x20 || byte > 0x7e || byte == '"' || byte == '\\')
			add_text(b, "\\u%04x", byte);
		else
			add(b, p + i, 1);
	}
	add(b, "\"", 1);
}

void add_hex(struct bytes *b, const unsigned char *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		add_text(b, "%02x", p[i]);
}

char pattern(uint64_t at)
{
	return (char)('!' + at % 89);
}

int64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}
