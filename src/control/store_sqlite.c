/*
 * store_sqlite.c -- one SQLite file: write-ahead log, synchronous=FULL, STRICT tables. The only file that knows
 * SQLite.
 *
 * A file lock beside the database (PATH.lock) keeps a second process out: two would not see each other's changes.
 * Every transaction counts meta.sequence up. After a failure the connection is opened anew, and only believed
 * when it shows the
 * sequence we wrote last: a database that was swapped under us is refused, not overwritten.
 */
#include <errno.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>
#include "control/store.h"
#include "core/arena.h"
#include "core/mem.h"

enum {
	APPLICATION_ID = 0x736c7563,
	BUSY_MS = 1000,
	CHECKED_WHOLE_BYTES = 16 << 20,    /* up to here the full integrity check costs nothing worth mentioning */
	PATH_BYTES = 4096,
};

/* Step i brings a database from user_version i to i + 1. */
static const char *const migrations[] = {
	"CREATE TABLE meta (key TEXT NOT NULL PRIMARY KEY, value TEXT NOT NULL CHECK (json_valid(value))) "
	"STRICT, WITHOUT ROWID;"
	"CREATE TABLE resource ("
	" kind TEXT NOT NULL, id TEXT NOT NULL,"
	" age INTEGER NOT NULL,"
	" version INTEGER NOT NULL,"
	" created_ms INTEGER NOT NULL,"
	" updated_ms INTEGER NOT NULL,"
	" doc TEXT NOT NULL CHECK (json_valid(doc)),"
	" PRIMARY KEY (kind, id)) STRICT, WITHOUT ROWID;",
};
enum { SCHEMA = sizeof migrations / sizeof migrations[0] };

enum statement { BEGIN, COMMIT, ROLLBACK, PUT, DELETE, PUT_META, DELETE_META, STATEMENTS };
static const char *const texts[STATEMENTS] = {
	[BEGIN] = "BEGIN IMMEDIATE",
	[COMMIT] = "COMMIT",
	[ROLLBACK] = "ROLLBACK",
	[PUT] = "INSERT INTO resource (kind, id, age, version, created_ms, updated_ms, doc) VALUES (?1, ?2, "
		"?3, ?4, ?5, ?6, ?7)"
		" ON CONFLICT (kind, id) DO UPDATE SET age = ?3, version = ?4, created_ms = ?5, updated_ms = "
		"?6, doc = ?7",
	[DELETE] = "DELETE FROM resource WHERE kind = ?1 AND id = ?2",
	[PUT_META] =
		"INSERT INTO meta (key, value) VALUES (?2, ?7) ON CONFLICT (key) DO UPDATE SET value = ?7",
	[DELETE_META] = "DELETE FROM meta WHERE key = ?2",
};

struct sqlite_store {
	struct store store;
	char path[PATH_BYTES];
	int lock_fd;                      /* -1: another process may have it (suspend) */
	sqlite3 *db;                      /* NULL: to be opened anew */
	sqlite3_stmt *statements[STATEMENTS];
	dev_t device;                     /* of the file we opened */
	ino_t inode;
	int64_t sequence;
};

static void disconnect(struct sqlite_store *s)
{
	for (unsigned i = 0; i < STATEMENTS; i++) {
		sqlite3_finalize(s->statements[i]);
		s->statements[i] = NULL;
	}
	sqlite3_close_v2(s->db);
	s->db = NULL;
}

static bool run(struct sqlite_store *s, const char *sql)
{
	return sqlite3_exec(s->db, sql, NULL, NULL, NULL) == SQLITE_OK;
}

/* First column of the first row; `otherwise` when there is none. */
static int64_t ask_int(struct sqlite_store *s, const char *sql, int64_t otherwise)
{
	sqlite3_stmt *q = NULL;
	int64_t answer = otherwise;

	if (sqlite3_prepare_v2(s->db, sql, -1, &q, NULL) == SQLITE_OK && sqlite3_step(q) == SQLITE_ROW)
		answer = sqlite3_column_int64(q, 0);
	sqlite3_finalize(q);
	return answer;
}

/* What is wrong with the file and what to do, by SQLite's word for it. */
static bool refuse(struct sqlite_store *s, struct problem *why)
{
	int code = s->db ? sqlite3_errcode(s->db) & 0xff : SQLITE_CANTOPEN;
	const char *text = s->db ? sqlite3_errmsg(s->db) : strerror(errno);

	switch (code) {
	case SQLITE_NOTADB:
		return problem_of(why, PROBLEM_STORE, "",
			"%s is no SQLite database; move it away or name another store "
			"with --store sqlite:PATH",
			s->path);
	case SQLITE_CORRUPT:
		return problem_of(why, PROBLEM_STORE, "", "%s is damaged (%s); restore it from a backup",
			s->path, text);
	case SQLITE_BUSY: case SQLITE_LOCKED:
		return problem_of(why, PROBLEM_STORE, "", "%s is locked by another program (%s)", s->path, text);
	default:
		return problem_of(why, PROBLEM_STORE, "", "%s cannot be used: %s", s->path, text);
	}
}

static bool check_integrity(struct sqlite_store *s, bool whole, struct problem *why)
{
	sqlite3_stmt *q = NULL;
	bool ok = false;

	if (sqlite3_prepare_v2(s->db, whole ? "PRAGMA integrity_check(1)" : "PRAGMA quick_check(1)", -1, &q,
		    NULL) == SQLITE_OK &&
		sqlite3_step(q) == SQLITE_ROW) {
		const char *text = (const char *)sqlite3_column_text(q, 0);

		ok = text && strcmp(text, "ok") == 0;
		if (!ok)
			problem_of(why, PROBLEM_STORE, "", "%s is damaged (%s); restore it from a backup", s->path,
			           text ? text : "no answer");
		for (char *p = why->text; !ok && *p; p++)
			if (*p == '\n')
				*p = ' ';
	} else {
		refuse(s, why);
	}
	sqlite3_finalize(q);
	return ok;
}

static bool migrate(struct sqlite_store *s, int64_t from, struct problem *why)
{
	char pragmas[96];

	for (int64_t i = from; i < SCHEMA; i++) {
		snprintf(pragmas, sizeof pragmas, "PRAGMA user_version = %d; PRAGMA application_id = %d",
			(int)i + 1, APPLICATION_ID);
		if (!run(s, "BEGIN IMMEDIATE") || !run(s, migrations[i]) || !run(s, pragmas) || !run(s, "COMMIT"))
			return refuse(s, why);
	}
	return true;
}

static bool check_schema(struct sqlite_store *s, struct problem *why)
{
	int64_t version = ask_int(s, "PRAGMA user_version", -1);
	int64_t application = ask_int(s, "PRAGMA application_id", -1);
	int64_t tables = ask_int(s, "SELECT count(*) FROM sqlite_schema", -1);

	if (version < 0 || application < 0 || tables < 0)
		return refuse(s, why);
	if (version > SCHEMA)
		return problem_of(why, PROBLEM_STORE, "",
			"%s was written by a newer version (schema %lld, this program knows %d); "
			"use that version, or restore a backup from before",
			s->path, (long long)version, SCHEMA);
	if (application == APPLICATION_ID ? version == 0 : tables > 0 || version > 0)
		return problem_of(why, PROBLEM_STORE, "",
			"%s is a database of another program, or of another schema (version %lld); "
			"name another store with --store sqlite:PATH",
			s->path, (long long)version);
	s->store.is_new = version == 0;
	return migrate(s, version, why);
}

/* A log left behind tells that the process did not end in order. */
static bool was_unclean(const struct sqlite_store *s)
{
	char wal[PATH_BYTES + 8];
	struct stat st;

	snprintf(wal, sizeof wal, "%s-wal", s->path);
	return stat(wal, &st) == 0 && st.st_size > 0;
}

static bool connect_file(struct sqlite_store *s, int flags, struct problem *why)
{
	if (sqlite3_open_v2(s->path, &s->db,
		    SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE | flags, NULL))
		return refuse(s, why);
	sqlite3_busy_timeout(s->db, BUSY_MS);
	/* Documents are kept in memory: a cache of 256 KiB is enough for the inner pages of the index. */
	if (!run(s, "PRAGMA cache_size = -256") || !run(s, "PRAGMA journal_mode = WAL") ||
	    !run(s, "PRAGMA synchronous = FULL"))
		return refuse(s, why);
	return true;
}

static bool prepare(struct sqlite_store *s, struct problem *why)
{
	for (unsigned i = 0; i < STATEMENTS; i++)
		if (sqlite3_prepare_v3(s->db, texts[i], -1, SQLITE_PREPARE_PERSISTENT, &s->statements[i],
			    NULL) != SQLITE_OK)
			return refuse(s, why);
	return true;
}

static int64_t read_sequence(struct sqlite_store *s)
{
	return ask_int(s, "SELECT CAST(value AS INTEGER) FROM meta WHERE key = 'sequence'", 0);
}

static bool open_checked(struct sqlite_store *s, bool unclean, struct problem *why)
{
	struct stat st;

	if (!connect_file(s, SQLITE_OPEN_CREATE, why) || !check_schema(s, why))
		return false;
	if (stat(s->path, &st) != 0)
		return refuse(s, why);
	s->device = st.st_dev;
	s->inode = st.st_ino;
	if (!s->store.is_new && !check_integrity(s, unclean || st.st_size <= CHECKED_WHOLE_BYTES, why))
		return false;
	if (!prepare(s, why))
		return false;
	s->sequence = read_sequence(s);
	return true;
}

static bool lock_file(struct sqlite_store *s, struct problem *why)
{
	char lock[PATH_BYTES + 8];

	snprintf(lock, sizeof lock, "%s.lock", s->path);
	s->lock_fd = open(lock, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (s->lock_fd < 0)
		return problem_of(why, PROBLEM_STORE, "", "%s cannot be made: %s", lock, strerror(errno));
	if (flock(s->lock_fd, LOCK_EX | LOCK_NB) != 0)
		return problem_of(why, PROBLEM_STORE, "",
			"%s is in use by another process; stop it, or name another store "
			"with --store sqlite:PATH",
			s->path);
	return true;
}

static void close_store(struct store *store)
{
	struct sqlite_store *s = (struct sqlite_store *)store;

	disconnect(s);
	if (s->lock_fd >= 0)
		close(s->lock_fd);
	mem_free(s);
}

static struct store *open_store(struct str location, struct problem *why)
{
	struct sqlite_store *s = MEM_NEW(struct sqlite_store);

	s->store.class = &store_sqlite;
	s->lock_fd = -1;
	if (location.n == 0 || location.n >= PATH_BYTES - 8) {
		problem(why, "store", "must be sqlite:PATH with a path of at most %d bytes", PATH_BYTES - 9);
		close_store(&s->store);
		return NULL;
	}
	memcpy(s->path, location.p, location.n);
	/* Made by us first, so that nobody else may read it; SQLite gives its other files the same mode. */
	int fd = open(s->path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

	if (fd < 0) {
		problem_of(why, PROBLEM_STORE, "", "%s cannot be opened: %s", s->path, strerror(errno));
		close_store(&s->store);
		return NULL;
	}
	close(fd);
	bool unclean = was_unclean(s);

	if (!lock_file(s, why) || !open_checked(s, unclean, why)) {
		close_store(&s->store);
		return NULL;
	}
	return &s->store;
}

static struct str column_text(sqlite3_stmt *q, int i)
{
	const char *p = (const char *)sqlite3_column_text(q, i);

	return (struct str){ p, (size_t)sqlite3_column_bytes(q, i) };
}

static bool load_rows(struct sqlite_store *s, const char *sql,
                      bool (*each)(void *arg, const struct store_row *row, struct problem *why), void *arg,
                      struct problem *why)
{
	sqlite3_stmt *q = NULL;
	bool ok = true;
	int step = SQLITE_ERROR;

	if (sqlite3_prepare_v2(s->db, sql, -1, &q, NULL) != SQLITE_OK)
		return refuse(s, why);
	while (ok && (step = sqlite3_step(q)) == SQLITE_ROW) {
		struct store_row row = {
			.kind = column_text(q, 0),
			.id = column_text(q, 1),
			.age = (uint64_t)sqlite3_column_int64(q, 2),
			.version = (uint64_t)sqlite3_column_int64(q, 3),
			.created_ms = sqlite3_column_int64(q, 4),
			.updated_ms = sqlite3_column_int64(q, 5),
			.doc = column_text(q, 6),
		};

		ok = each(arg, &row, why);
	}
	if (ok && step != SQLITE_DONE)
		ok = refuse(s, why);
	sqlite3_finalize(q);
	return ok;
}

static void bind_text(sqlite3_stmt *q, int i, struct str text)
{
	sqlite3_bind_text(q, i, text.p ? text.p : "", (int)text.n, SQLITE_STATIC);
}

static bool step(struct sqlite_store *s, enum statement which)
{
	sqlite3_stmt *q = s->statements[which];
	int result = sqlite3_step(q);

	sqlite3_reset(q);
	return result == SQLITE_DONE;
}

static bool write_row(struct sqlite_store *s, const struct store_row *row)
{
	bool is_meta = str_equal(row->kind, STR("meta"));
	enum statement which = row->doc.p ? (is_meta ? PUT_META : PUT) : (is_meta ? DELETE_META : DELETE);
	sqlite3_stmt *q = s->statements[which];

	if (!is_meta)
		bind_text(q, 1, row->kind);
	bind_text(q, 2, row->id);
	if (which == PUT) {
		sqlite3_bind_int64(q, 3, (sqlite3_int64)row->age);
		sqlite3_bind_int64(q, 4, (sqlite3_int64)row->version);
		sqlite3_bind_int64(q, 5, row->created_ms);
		sqlite3_bind_int64(q, 6, row->updated_ms);
	}
	if (row->doc.p)
		bind_text(q, 7, row->doc);
	bool ok = step(s, which);

	sqlite3_clear_bindings(q);
	return ok;
}

static bool write_rows(struct sqlite_store *s, const struct store_row *rows, size_t n)
{
	char sequence[24];
	struct store_row last = { .kind = STR("meta"), .id = STR("sequence") };

	for (size_t i = 0; i < n; i++)
		if (!write_row(s, &rows[i]))
			return false;
	last.doc = (struct str){
		sequence, (size_t)snprintf(sequence, sizeof sequence, "%lld", (long long)s->sequence + 1) };
	return write_row(s, &last) && step(s, COMMIT);
}

/* Whether the path still leads to the file we have open: what is written to a deleted file is lost. */
static bool check_place(const struct sqlite_store *s, struct problem *why)
{
	struct stat st;

	if (stat(s->path, &st) == 0 && st.st_dev == s->device && st.st_ino == s->inode)
		return true;
	return problem_of(why, PROBLEM_STORE, "",
		"%s was moved, deleted or replaced while it was in use; put it back", s->path);
}

static bool reconnect(struct sqlite_store *s, struct problem *why)
{
	if (s->lock_fd < 0)
		return problem_of(why, PROBLEM_STORE, "",
			"the configuration is being handed over to another process; try again");
	if (s->db)
		return true;
	if (!check_place(s, why))
		return false;
	bool ok = connect_file(s, 0, why) && prepare(s, why);

	if (ok && read_sequence(s) != s->sequence)
		ok = problem_of(why, PROBLEM_STORE, "",
			"%s changed while it could not be used; restart to load what it holds", s->path);
	if (!ok)
		disconnect(s);
	return ok;
}

static bool load(struct store *store,
	bool (*each)(void *arg, const struct store_row *row, struct problem *why), void *arg,
	struct problem *why)
{
	struct sqlite_store *s = (struct sqlite_store *)store;

	return reconnect(s, why) &&
	       load_rows(s, "SELECT 'meta', key, 0, 0, 0, 0, value FROM meta", each, arg, why) &&
	       load_rows(s,
		       "SELECT kind, id, age, version, created_ms, updated_ms, doc FROM resource ORDER BY "
		       "age",
		       each, arg, why);
}

static bool write_store(struct store *store, const struct store_row *rows, size_t n, struct problem *why)
{
	struct sqlite_store *s = (struct sqlite_store *)store;

	if (!check_place(s, why) || !reconnect(s, why))
		return false;
	if (step(s, BEGIN) && write_rows(s, rows, n)) {
		s->sequence++;
		return true;
	}
	int code = sqlite3_errcode(s->db) & 0xff;

	refuse(s, why);
	if (!sqlite3_get_autocommit(s->db) && !step(s, ROLLBACK))
		code = SQLITE_ERROR;
	/* Busy and full pass by themselves; after anything else a new connection is the way back. */
	if (code != SQLITE_BUSY && code != SQLITE_FULL)
		disconnect(s);
	return false;
}

/* The lock goes last: whoever gets it finds everything in the file. */
static void suspend(struct store *store)
{
	struct sqlite_store *s = (struct sqlite_store *)store;

	disconnect(s);
	if (s->lock_fd >= 0)
		close(s->lock_fd);
	s->lock_fd = -1;
}

/* The sequence tells whether the other process wrote: what it wrote we do not know. */
static bool resume(struct store *store, struct problem *why)
{
	struct sqlite_store *s = (struct sqlite_store *)store;

	if (s->lock_fd >= 0)
		return true;
	if (lock_file(s, why) && reconnect(s, why))
		return true;
	suspend(store);
	return false;
}

const struct store_class store_sqlite = {
	.scheme = "sqlite",
	.open = open_store,
	.load = load,
	.write = write_store,
	.suspend = suspend,
	.resume = resume,
	.close = close_store,
};
