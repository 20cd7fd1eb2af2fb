/*
 * test_store_sqlite.c -- what was written is there again; what is no store of ours is refused in plain words; a
 * store that
 * fails loses nothing and takes writes again by itself.
 */
/* room: control */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <fcntl.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include "control/store.h"
#include "core/arena.h"
#include <cmocka.h>                       /* last: it has a macro of the name fail */

static char dir[64], path[96], url[128];
static struct problem why;

static int setup(void **state)
{
	(void)state;
	snprintf(dir, sizeof dir, "/tmp/sluice-store-XXXXXX");
	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof path, "%s/sluice.db", dir);
	snprintf(url, sizeof url, "sqlite:%s", path);
	return 0;
}

static int teardown(void **state)
{
	char command[96];

	(void)state;
	snprintf(command, sizeof command, "rm -rf %s", dir);
	return system(command);
}

static struct store_row row(const char *id, const char *doc)
{
	return (struct store_row){ STR("route"), str_of(id), 7, 3, 1000, 2000, str_of(doc) };
}

struct loaded {
	struct arena arena;
	unsigned n;
	struct store_row rows[16];
};

static bool keep(void *arg, const struct store_row *r, struct problem *w)
{
	struct loaded *l = arg;

	(void)w;
	if (str_equal(r->kind, STR("meta")))
		return true;
	l->rows[l->n] = *r;
	l->rows[l->n].id = arena_copy(&l->arena, r->id);
	l->rows[l->n++].doc = arena_copy(&l->arena, r->doc);
	return true;
}

static void load(struct store *s, struct loaded *l)
{
	*l = (struct loaded){ 0 };
	assert_true(store_load(s, keep, l, &why));
}

static struct store *open_it(void)
{
	struct store *s = store_open(url, &why);

	if (!s)
		print_error("%s\n", why.text);
	assert_non_null(s);
	return s;
}

static void test_keeps_what_was_written(void **state)
{
	struct store *s = open_it();
	struct store_row rows[] = { row("a", "{\"x\":1}"), row("b", "{}"), row("a", "{\"x\":2}") };
	struct loaded l;

	(void)state;
	assert_true(s->is_new);
	assert_true(store_write(s, rows, 3, &why));
	rows[0] = row("b", NULL);
	assert_true(store_write(s, rows, 1, &why));
	store_close(s);
	s = open_it();
	assert_false(s->is_new);
	load(s, &l);
	assert_int_equal(l.n, 1);
	assert_string_equal(l.rows[0].doc.p, "{\"x\":2}");
	assert_int_equal(l.rows[0].age, 7);
	assert_int_equal(l.rows[0].version, 3);
	assert_int_equal(l.rows[0].created_ms, 1000);
	assert_int_equal(l.rows[0].updated_ms, 2000);
	arena_free(&l.arena);
	store_close(s);
}

static void test_nobody_else_may_read_it(void **state)
{
	struct stat st;

	(void)state;
	store_close(open_it());
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
}

static void test_one_bad_row_undoes_all(void **state)
{
	struct store *s = open_it();
	struct store_row rows[] = { row("a", "{}"), row("b", "no JSON") };
	struct loaded l;

	(void)state;
	assert_false(store_write(s, rows, 2, &why));
	assert_int_equal(why.kind, PROBLEM_STORE);
	load(s, &l);
	assert_int_equal(l.n, 0);
	arena_free(&l.arena);
	store_close(s);
}

static void run(const char *sql)
{
	sqlite3 *db;

	assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
	assert_int_equal(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
	sqlite3_close(db);
}

static void test_locked_store_refuses_and_recovers(void **state)
{
	struct store *s = open_it();
	struct store_row rows[] = { row("a", "{}") };
	sqlite3 *db;

	(void)state;
	assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
	assert_int_equal(sqlite3_exec(db, "BEGIN IMMEDIATE", NULL, NULL, NULL), SQLITE_OK);
	assert_false(store_write(s, rows, 1, &why));
	assert_non_null(strstr(why.text, "locked"));
	assert_int_equal(sqlite3_exec(db, "ROLLBACK", NULL, NULL, NULL), SQLITE_OK);
	sqlite3_close(db);
	assert_true(store_write(s, rows, 1, &why));
	store_close(s);
}

static void test_moved_file_is_noticed(void **state)
{
	struct store *s = open_it();
	struct store_row rows[] = { row("a", "{}") };
	char away[128];

	(void)state;
	snprintf(away, sizeof away, "%s.away", path);
	assert_int_equal(rename(path, away), 0);
	assert_false(store_write(s, rows, 1, &why));
	assert_non_null(strstr(why.text, "moved"));
	assert_int_equal(rename(away, path), 0);
	assert_true(store_write(s, rows, 1, &why));
	store_close(s);
}

static void refuse(const char *word)
{
	assert_null(store_open(url, &why));
	if (!strstr(why.text, word) || !strstr(why.text, path))
		print_error("\"%s\" lacks \"%s\" or \"%s\"\n", why.text, word, path);
	assert_non_null(strstr(why.text, word));
	assert_non_null(strstr(why.text, path));
}

static void test_refuses_what_is_no_database(void **state)
{
	int fd = open(path, O_CREAT | O_WRONLY, 0600);

	(void)state;
	for (unsigned i = 0; i < 512; i++)
		assert_int_equal(write(fd, "this is no database\n", 20), 20);
	close(fd);
	refuse("no SQLite database");
}

static void test_refuses_another_schema(void **state)
{
	(void)state;
	store_close(open_it());
	run("PRAGMA user_version = 999");
	refuse("newer version");
	run("PRAGMA user_version = 0");
	refuse("another program");
}

static void test_refuses_the_database_of_another_program(void **state)
{
	(void)state;
	run("CREATE TABLE t (x)");
	refuse("another program");
}

static void test_refuses_a_damaged_file(void **state)
{
	struct store *s = open_it();
	struct store_row rows[] = { row("a", "{}") };
	char id[16], noise[4096];
	struct stat st;

	(void)state;
	for (unsigned i = 0; i < 500; i++) {
		snprintf(id, sizeof id, "id-%u", i);
		rows[0] = row(
			id, "{\"text\":"
			    "\"0123456789012345678901234567890123456789012345678901234567890123456789\"}");
		assert_true(store_write(s, rows, 1, &why));
	}
	store_close(s);
	assert_int_equal(stat(path, &st), 0);
	memset(noise, 0x5a, sizeof noise);
	int fd = open(path, O_WRONLY);

	for (off_t at = 8192; at + 4096 <= st.st_size; at += 8192)
		assert_int_equal(pwrite(fd, noise, sizeof noise, at), sizeof noise);
	close(fd);
	refuse("damaged");
}

static void test_refuses_a_second_process(void **state)
{
	struct store *s = open_it();

	(void)state;
	refuse("in use");
	store_close(s);
	store_close(open_it());
}

static void test_refuses_other_urls(void **state)
{
	(void)state;
	assert_null(store_open("mysql:x", &why));
	assert_string_equal(why.field, "store");
	assert_null(store_open("sqlite", &why));
	assert_null(store_open("sqlite:", &why));
}

/* A process that is killed while it writes: every write it told us about is there. */
static void test_survives_a_kill(void **state)
{
	int told[2];
	unsigned acknowledged = 0;

	(void)state;
	store_close(open_it());
	assert_int_equal(pipe(told), 0);
	pid_t child = fork();

	if (child == 0) {
		struct store *s = store_open(url, &why);
		struct store_row rows[] = { { STR("meta"), STR("count"), 0, 0, 0, 0, STR("") } };
		char doc[16];

		for (unsigned i = 1; s; i++) {
			rows[0].doc = (struct str){ doc, (size_t)snprintf(doc, sizeof doc, "%u", i) };
			if (!store_write(s, rows, 1, &why) || write(told[1], &i, sizeof i) != sizeof i)
				break;
		}
		_exit(1);
	}
	close(told[1]);
	while (acknowledged < 50)
		assert_int_equal(read(told[0], &acknowledged, sizeof acknowledged), sizeof acknowledged);
	kill(child, SIGKILL);
	while (read(told[0], &acknowledged, sizeof acknowledged) == sizeof acknowledged)
		continue;
	close(told[0]);
	waitpid(child, NULL, 0);
	sqlite3 *db;
	sqlite3_stmt *q;

	store_close(open_it());
	assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
	assert_int_equal(sqlite3_prepare_v2(db, "SELECT CAST(value AS INTEGER) FROM meta WHERE key = 'count'",
				 -1, &q, NULL),
		SQLITE_OK);
	assert_int_equal(sqlite3_step(q), SQLITE_ROW);
	assert_true((unsigned)sqlite3_column_int(q, 0) >= acknowledged);
	sqlite3_finalize(q);
	sqlite3_close(db);
}

/* Lent to another process: no write, nobody is kept out; back only when nobody has it and nobody wrote. */
static void test_lends_the_store(void **state)
{
	struct store *s = open_it(), *other;
	struct store_row r = row("a", "{\"v\":1}");

	(void)state;
	assert_true(store_write(s, &r, 1, &why));
	store_suspend(s);
	assert_false(store_write(s, &r, 1, &why));
	assert_non_null(strstr(why.text, "handed over"));
	other = open_it();
	assert_false(store_resume(s, &why));
	assert_non_null(strstr(why.text, "in use by another process"));
	store_close(other);
	assert_true(store_resume(s, &why));
	assert_true(store_resume(s, &why));
	assert_true(store_write(s, &r, 1, &why));
	assert_null(store_open(url, &why));
	store_suspend(s);
	other = open_it();
	assert_true(store_write(other, &r, 1, &why));
	store_close(other);
	assert_false(store_resume(s, &why));
	assert_non_null(strstr(why.text, "changed"));
	assert_false(store_write(s, &r, 1, &why));
	/* A refusal keeps nobody out. */
	other = open_it();
	store_close(other);
	store_close(s);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_keeps_what_was_written),
		TEST(test_nobody_else_may_read_it),
		TEST(test_one_bad_row_undoes_all),
		TEST(test_locked_store_refuses_and_recovers),
		TEST(test_moved_file_is_noticed),
		TEST(test_refuses_what_is_no_database),
		TEST(test_refuses_another_schema),
		TEST(test_refuses_the_database_of_another_program),
		TEST(test_refuses_a_damaged_file),
		TEST(test_refuses_a_second_process),
		TEST(test_refuses_other_urls),
		TEST(test_lends_the_store),
		TEST(test_survives_a_kill),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
