/* test_log.c -- lines arrive whole and in order, what does not fit is counted, bursts are limited.
 * Run with -DSLUICE_SANITIZE=thread too: the rings are shared with the writer. room: core */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "core/clock.h"
#include "core/log.h"
#include "core/thread.h"

enum { WALL_S = 1795680000 };              /* 2026-11-26T08:00:00Z */

static int fds[2];

static int open_pipe(void **state)
{
	(void)state;
	clock_set(INT64_C(1000000000), INT64_C(1000) * WALL_S + 7);
	return pipe(fds);
}

static int close_pipe(void **state)
{
	(void)state;
	clock_set_real();
	close(fds[0]);
	return 0;
}

/* Stops the log and returns all that was written, which fits a pipe. */
static const char *stop_and_read(void)
{
	static char text[65536];
	size_t n = 0;
	ssize_t got;

	log_stop();
	close(fds[1]);
	while ((got = read(fds[0], text + n, sizeof(text) - 1 - n)) > 0)
		n += (size_t)got;
	text[n] = '\0';
	return text;
}

static unsigned count_lines(const char *text, const char *with)
{
	unsigned n = 0;

	for (const char *hit = text; (hit = strstr(hit, with)); hit++)
		n++;
	return n;
}

static void test_writes_a_record(void **state)
{
	(void)state;
	log_start(fds[1], LOG_INFO);
	log_debug("test.hidden");
	log_warn("test.shown", F_TEXT("name", "a \"b\"\n"), F_INT("n", -5), F_STR("none", ((struct str){ NULL, 0 })));
	log_error("test.bare");
	assert_string_equal(stop_and_read(),
			    "{\"time\":\"2026-11-26T08:00:00.007Z\",\"level\":\"warn\",\"event\":\"test.shown\","
			    "\"name\":\"a \\\"b\\\"\\n\",\"n\":-5,\"none\":\"\"}\n"
			    "{\"time\":\"2026-11-26T08:00:00.007Z\",\"level\":\"error\",\"event\":\"test.bare\"}\n");
}

static void test_writes_directly_when_stopped(void **state)
{
	char text[256] = "";

	(void)state;
	log_start(fds[1], LOG_INFO);
	log_stop();
	log_info("test.late");
	assert_true(read(fds[0], text, sizeof(text) - 1) > 0);
	assert_non_null(strstr(text, "\"event\":\"test.late\"}\n"));
	stop_and_read();
}

static void test_limits_a_burst(void **state)
{
	(void)state;
	log_start(fds[1], LOG_INFO);
	for (unsigned i = 0; i < 25; i++) {
		log_info("test.burst");
		log_info("test.other", F_INT("i", i));
	}
	clock_set(INT64_C(1001000000), 0);
	log_info("test.burst", F_INT("second", 1));
	log_info("test.burst", F_INT("second", 2));
	const char *text = stop_and_read();

	assert_int_equal(count_lines(text, "\"event\":\"test.burst\"}"), 20);
	assert_int_equal(count_lines(text, "\"event\":\"test.other\""), 20);
	assert_int_equal(count_lines(text, "\"event\":\"test.burst\",\"second\":1,\"suppressed\":5}\n"), 1);
	assert_int_equal(count_lines(text, "\"event\":\"test.burst\",\"second\":2}\n"), 1);
}

static void test_cuts_long_text_between_characters(void **state)
{
	static char euros[9001];

	(void)state;
	for (unsigned i = 0; i < 3000; i++)
		memcpy(euros + 3 * (size_t)i, "\xe2\x82\xac", 3);
	log_start(fds[1], LOG_INFO);
	log_info("test.long", F_TEXT("text", euros));
	const char *text = stop_and_read();

	assert_int_equal(count_lines(text, "\xe2\x82\xac"), 4096 / 3);
	assert_null(strstr(text, "\xef\xbf\xbd"));
	assert_true(str_is_utf8(str_of(text)));
}

static void test_reserves_space_for_lines(void **state)
{
	(void)state;
	log_start(fds[1], LOG_INFO);
	char *space = log_reserve(100);

	assert_non_null(space);
	memcpy(space, "one\n", 4);
	log_commit(4);
	assert_non_null(log_reserve(100));
	log_commit(0);
	space = log_reserve(100);
	memcpy(space, "two\n", 4);
	log_commit(4);
	assert_int_equal(log_dropped(), 0);
	assert_null(log_reserve(3 << 20));
	assert_int_equal(log_dropped(), 1);
	assert_string_equal(stop_and_read(), "one\ntwo\n");
}

/* What is too long for a ring comes as well, in its order, as long as it is not too much in all. */
static void test_lines_longer_than_a_ring(void **state)
{
	enum { LONG = 1 << 20, SHORT = 20000 };
	struct sbuf expected = { 0 };
	const char *text;

	(void)state;
	log_start(fds[1], LOG_INFO);
	for (unsigned i = 0; i < 3; i++) {
		char *space = log_reserve(LONG);

		assert_non_null(space);
		memset(space, 'a' + (int)i, SHORT);
		space[SHORT - 1] = '\n';
		sbuf_add(&expected, (struct str){ space, SHORT });
		log_commit(SHORT);
	}
	assert_non_null(log_reserve(LONG));
	log_commit(0);
	text = stop_and_read();
	assert_string_equal(text, expected.p);
	sbuf_free(&expected);
}

/* Nobody reads: what waits is bounded, and counted when there is no room. */
static void test_long_lines_are_bounded(void **state)
{
	enum { LONG = 1 << 20, ROUNDS = 40 };
	unsigned taken = 0;

	(void)state;
	log_start(fds[1], LOG_INFO);
	for (unsigned i = 0; i < ROUNDS; i++) {
		char *space = log_reserve(LONG);

		if (!space)
			continue;
		memset(space, 'x', LONG);
		log_commit(LONG);
		taken++;
	}
	assert_true(taken >= 12 && taken <= 20);
	assert_int_equal(log_dropped(), ROUNDS - taken);
	close(fds[0]);
	log_stop();
	close(fds[1]);
	fds[0] = dup(STDIN_FILENO);
}

static void test_survives_a_closed_reader(void **state)
{
	int reader = fds[0];

	(void)state;
	close(reader);
	log_start(fds[1], LOG_INFO);
	log_error("test.unheard");
	log_stop();
	log_error("test.unheard");
	close(fds[1]);
	fds[0] = dup(STDIN_FILENO);
}

static void test_level_names(void **state)
{
	enum log_level level = LOG_DEBUG;

	(void)state;
	assert_true(log_level_parse(STR("warn"), &level));
	assert_int_equal(level, LOG_WARN);
	assert_false(log_level_parse(STR("WARN"), &level));
	assert_false(log_level_parse(STR(""), &level));
	stop_and_read();
}

enum { WRITERS = 3, LINES = 20000 };

struct collected {
	unsigned next[WRITERS], lines;
	bool is_broken;
};

/* A line is "<writer> <number> <dots>\n" with number % 150 dots. */
static void check_line(struct collected *c, const char *line)
{
	char *rest;
	unsigned long w = strtoul(line, &rest, 10), number = strtoul(rest, &rest, 10);

	if (w >= WRITERS || number < c->next[w] || *rest != ' ' || strspn(rest + 1, ".") != number % 150 ||
	    rest[1 + number % 150] != '\n')
		c->is_broken = true;
	else
		c->next[w] = (unsigned)number + 1;
	c->lines++;
}

static void *collect(void *arg)
{
	FILE *file = fdopen(dup(fds[0]), "r");
	char line[512];

	while (fgets(line, sizeof(line), file))
		check_line(arg, line);
	fclose(file);
	return NULL;
}

struct writer {
	unsigned number;
	bool is_patient;                  /* waits for space, so that no line is dropped */
};

static void *write_lines(void *arg)
{
	const struct writer *w = arg;

	for (unsigned i = 0; i < LINES; i++) {
		char *space = log_reserve(256);

		while (!space && w->is_patient) {
			sched_yield();
			space = log_reserve(256);
		}
		if (!space)
			continue;
		size_t n = (size_t)snprintf(space, 256, "%u %u ", w->number, i);

		memset(space + n, '.', i % 150);
		n += i % 150;
		space[n++] = '\n';
		log_commit(n);
	}
	return NULL;
}

/* Each writer goes round its ring more than once: the rings hold less than all lines. */
static void test_many_writers(void **state)
{
	struct collected c = { 0 };
	struct writer writer[WRITERS];
	pthread_t writers[WRITERS];

	(void)state;
	log_start(fds[1], LOG_INFO);
	pthread_t reader = thread_start("reader", collect, &c);

	for (unsigned i = 0; i < WRITERS; i++) {
		writer[i] = (struct writer){ .number = i, .is_patient = true };
		writers[i] = thread_start("writer", write_lines, &writer[i]);
	}
	for (unsigned i = 0; i < WRITERS; i++)
		pthread_join(writers[i], NULL);
	log_stop();
	close(fds[1]);
	pthread_join(reader, NULL);
	assert_false(c.is_broken);
	assert_int_equal(c.lines, WRITERS * LINES);
}

/* Nobody reads: the ring fills, further lines are counted, those taken still come, though their thread has ended. */
static void test_full_ring_drops_and_counts(void **state)
{
	struct collected c = { 0 };
	struct writer writer = { 0 };

	(void)state;
	log_start(fds[1], LOG_INFO);
	pthread_join(thread_start("writer", write_lines, &writer), NULL);
	assert_true(log_dropped() > 0);
	pthread_t reader = thread_start("reader", collect, &c);

	log_stop();
	close(fds[1]);
	pthread_join(reader, NULL);
	assert_false(c.is_broken);
	assert_int_equal(c.lines + log_dropped(), LINES);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_writes_a_record, open_pipe, close_pipe),
		cmocka_unit_test_setup_teardown(test_writes_directly_when_stopped, open_pipe, close_pipe),
		cmocka_unit_test_setup_teardown(test_limits_a_burst, open_pipe, close_pipe),
		cmocka_unit_test_setup_teardown(test_cuts_long_text_between_characters, open_pipe, close_pipe),
		cmocka_unit_test_setup_teardown(test_reserves_space_for_lines, open_pipe, close_pipe),
		cmocka_unit_test_setup_teardown(test_lines_longer_than_a_ring, open_pipe, close_pipe),
		cmocka_unit_test_setup_teardown(test_long_lines_are_bounded, open_pipe, close_pipe),
		cmocka_unit_test_setup_teardown(test_survives_a_closed_reader, open_pipe, close_pipe),
		cmocka_unit_test_setup_teardown(test_level_names, open_pipe, close_pipe),
		cmocka_unit_test_setup_teardown(test_many_writers, open_pipe, close_pipe),
		cmocka_unit_test_setup_teardown(test_full_ring_drops_and_counts, open_pipe, close_pipe),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
