/*
 * log.h -- structured records, one JSON object a line, written by a thread of their own.
 *
 * Every thread writes into its own ring and never blocks: when the ring is full the record is dropped and counted.
 * Event names are constants ("upstream.connect_failed"); data are fields. The same event is limited to 20 a second,
 * what was left out is counted in the next record's "suppressed". Access records (log_reserve) are not limited.
 * Before log_start() and after log_stop() records go to the descriptor directly.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include "core/str.h"

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR };

struct log_field {
	const char *name;
	enum { LOG_TEXT, LOG_NUMBER, LOG_END } type;
	struct str text;
	int64_t number;
};
#define F_STR(name, s) ((struct log_field){ (name), LOG_TEXT, (s), 0 })
#define F_TEXT(name, z) ((struct log_field){ (name), LOG_TEXT, str_of(z), 0 })
#define F_INT(name, i) ((struct log_field){ (name), LOG_NUMBER, { 0, 0 }, (i) })

#define LOG_FIELDS(...) (struct log_field[]){ __VA_ARGS__ __VA_OPT__(, ) { .type = LOG_END } }
#define log_debug(event, ...) log_event(LOG_DEBUG, event, LOG_FIELDS(__VA_ARGS__))
#define log_info(event, ...) log_event(LOG_INFO, event, LOG_FIELDS(__VA_ARGS__))
#define log_warn(event, ...) log_event(LOG_WARN, event, LOG_FIELDS(__VA_ARGS__))
#define log_error(event, ...) log_event(LOG_ERROR, event, LOG_FIELDS(__VA_ARGS__))

/* Starts the writer thread, and ignores SIGPIPE for the process: a reader of the log that goes away must not end us. */
void log_start(int fd, enum log_level least);
void log_stop(void);                               /* flushes and joins it; the other threads have stopped writing */
void log_event(enum log_level level, const char *event, const struct log_field *fields);
/* The same without the limit: for what is to be told of each request that it happens to. */
void log_every(enum log_level level, const char *event, const struct log_field *fields);
/*
 * Space for one whole line (with its '\n') of at most `max` bytes (up to 2 MiB), or NULL when there is none (counted).
 * The caller writes the line there and commits its real length: access records cost no copy.
 */
char *log_reserve(size_t max);
void log_commit(size_t n);                         /* once for each reserve that gave space; 0 = nothing after all */
#define LOG_TIME_SIZE 24
void log_time(char *out);                          /* "2026-11-26T09:30:00.125Z", LOG_TIME_SIZE bytes without a NUL */
uint64_t log_dropped(void);                        /* records lost to full rings since start */
bool log_level_parse(struct str text, enum log_level *out);
