/*
 * vector_postgres.c -- rows in a table of a PostgreSQL database, which is made when it is not there:
 *
 *      LOOK ──► is there a table, is there a type `vector`? ──► CREATE ──► INDEX ──► LOOK
 *        └──► RUN (nearest row, or upsert) ──► PURGE, once a minute, after an upsert
 *
 * What a table's column `embedding` is decides how it is asked: vector (pgvector) by its operator, real[] by plain
 * SQL. Rows of other partitions are not looked at: partition comes first in the primary key. A comparison in plain
 * SQL takes most of a millisecond, so of a table of real[] only the 500 newest rows of the partition are compared. A
 * worker has one pool of connections for each server, database and user.
 */
#include <stdlib.h>
#include "core/clock.h"
#include "core/map.h"
#include "core/mem.h"
#include "net/postgres.h"
#include "policy/vector_store.h"
#include "proxy/side_address.h"
#include "proxy/worker.h"

#define LINKS_MAX 64                      /* of a worker; those that nobody uses go first */
#define TABLES_MAX 64                     /* that a link remembers */
#define CONNECT_MS 5000
#define IDLE_MS 60000
#define PURGE_MS 60000
#define LOOKS_MAX 2
#define NAME "the vector store does not answer as it should"

enum column { COLUMN_UNKNOWN, COLUMN_VECTOR, COLUMN_REAL };

struct table {
	struct str name;                  /* quoted; behind the struct */
	struct table *next;
	enum column column;
	int64_t purged_ms;
};

struct link {
	struct postgres *db;
	struct table *tables;
	unsigned n_tables, uses;
	struct str key;                   /* behind the struct */
};

static _Thread_local struct {
	struct worker *worker;            /* NULL: there are no links yet */
	struct map by_key;
	struct worker_end end;
} links;

/* ---------- links ---------- */

static void forget_tables(struct link *l)
{
	for (struct table *t = l->tables, *next; t; t = next) {
		next = t->next;
		mem_free(t);
	}
	l->tables = NULL;
	l->n_tables = 0;
}

static void link_free(struct link *l)
{
	postgres_free(l->db);
	forget_tables(l);
	mem_wipe((char *)(l + 1), l->key.n);
	mem_free(l);
}

static void free_links(struct worker_end *e)
{
	struct map_entry *entry;

	(void)e;
	for (size_t i = 0; (entry = map_next(&links.by_key, &i));)
		link_free(entry->value);
	map_free(&links.by_key);
	links.worker = NULL;
}

void postgres_links_open(struct worker *w)
{
	if (links.worker)
		return;
	links.worker = w;
	worker_at_end(w, &links.end, free_links);
}

static void drop_unused(void)
{
	struct link *unused[LINKS_MAX];
	struct map_entry *entry;
	unsigned n = 0;

	for (size_t i = 0; (entry = map_next(&links.by_key, &i)) && n < LINKS_MAX;) {
		struct link *l = entry->value;

		if (l->uses == 0)
			unused[n++] = l;
	}
	while (n > 0) {
		map_remove(&links.by_key, unused[--n]->key);
		link_free(unused[n]);
	}
}

static struct link *link_new(struct worker *w, const struct semantic *m, struct str key)
{
	struct link *l = mem_alloc(sizeof *l + key.n);
	const struct postgres_options options = {
		.host = m->host, .port = m->port, .database = m->database, .user = m->user, .password = m->password,
		.connect_timeout_ms = CONNECT_MS, .idle_ms = IDLE_MS, .may_call = side_address_may_call,
	};

	memcpy((char *)(l + 1), key.p, key.n);
	l->key = (struct str){ (const char *)(l + 1), key.n };
	l->db = postgres_new(worker_loop(w), worker_resolver(w), &options);
	map_put(&links.by_key, l->key, l);
	return l;
}

static struct link *link_get(struct worker *w, const struct semantic *m)
{
	struct sbuf key = { 0 };
	struct link *l;

	postgres_links_open(w);
	sbuf_addf(&key, "%.*s:%u/%.*s", STR_FMT(m->host), m->port, STR_FMT(m->database));
	sbuf_addc(&key, '\0');
	sbuf_add(&key, m->user);
	sbuf_addc(&key, '\0');
	sbuf_add(&key, m->password);
	l = map_get(&links.by_key, sbuf_str(&key));
	if (!l) {
		if (links.by_key.n >= LINKS_MAX)
			drop_unused();
		l = link_new(w, m, sbuf_str(&key));
	}
	mem_wipe(key.p, key.n);
	sbuf_free(&key);
	return l;
}

/* While the link is used by others its tables stay. */
static struct table *table_get(struct link *l, struct str name)
{
	struct table *t = l->tables;

	while (t && !str_equal(t->name, name))
		t = t->next;
	if (t)
		return t;
	if (l->n_tables >= TABLES_MAX && l->uses == 0)
		forget_tables(l);
	t = mem_alloc(sizeof *t + name.n);
	memcpy((char *)(t + 1), name.p, name.n);
	t->name = (struct str){ (const char *)(t + 1), name.n };
	t->purged_ms = -PURGE_MS;                 /* the first upsert purges */
	t->next = l->tables;
	l->tables = t;
	l->n_tables++;
	return t;
}

/* ---------- statements ---------- */

enum rung { LOOK, CREATE, INDEX, RUN, PURGE };

/* Of one query or upsert; in the job's arena. */
struct work {
	struct vector_job *job;
	struct link *link;
	struct table *table;
	struct postgres_query query;
	int64_t until_ms;
	enum rung rung;
	unsigned looks;
	bool is_upsert, has_vector_type;
	struct str params[6];             /* of RUN; the vector without brackets */
	struct str vector;
};

static const char look_sql[] =
	"SELECT to_regtype('vector') IS NOT NULL, to_regclass($1) IS NOT NULL, (SELECT format_type(atttypid, NULL) "
	"FROM pg_attribute WHERE attrelid = to_regclass($1) AND attname = 'embedding' AND NOT attisdropped)";

static void submit(struct work *w, struct str sql, unsigned n, const struct str *params)
{
	int64_t left = w->until_ms - clock_ms();

	postgres_send(w->link->db, &w->query, &(struct postgres_statement){ sql, n, params }, left > 0 ? left : 1);
}

static struct str index_name(struct arena *a, struct str table)
{
	size_t dot = str_find(table, '.');
	struct str last = dot < table.n ? (struct str){ table.p + dot + 1, table.n - dot - 1 } : table;

	last = (struct str){ last.p + 1, last.n - 2 };    /* without quotes */
	return arena_printf(a, "\"%.*s_expires\"", (int)(last.n < 50 ? last.n : 50), last.p);
}

/* %.*s: the table. */
#define UPSERT_SQL(type) \
	"INSERT INTO %.*s (partition, id, question, answer, embedding, expires_at) " \
	"VALUES ($1, $2, $3, $4, $5::" type ", now() + make_interval(secs => $6::double precision)) " \
	"ON CONFLICT (partition, id) DO UPDATE SET question = excluded.question, answer = excluded.answer, " \
	"embedding = excluded.embedding, expires_at = excluded.expires_at, created_at = now()"
#define LEFT_SQL "ceil(extract(epoch FROM expires_at - now()))::bigint"
#define VECTOR_SQL \
	"SELECT answer, 1 - (embedding <=> $2::vector), " LEFT_SQL " FROM %.*s " \
	"WHERE partition = $1 AND expires_at > now() ORDER BY embedding <=> $2::vector LIMIT 1"
#define REAL_SQL \
	"SELECT answer, similarity, " LEFT_SQL " FROM (SELECT answer, expires_at, " \
	"(SELECT sum(x::float8 * y) / nullif(sqrt(sum(x::float8 * x)) * sqrt(sum(y::float8 * y)), 0) " \
	"FROM unnest(embedding, $2::real[]) AS u(x, y)) AS similarity " \
	"FROM (SELECT answer, expires_at, embedding FROM %.*s WHERE partition = $1 AND expires_at > now() " \
	"ORDER BY created_at DESC LIMIT 500) AS newest) AS rows " \
	"WHERE similarity IS NOT NULL ORDER BY similarity DESC LIMIT 1"

static struct str run_sql(const struct work *w)
{
	struct arena *a = w->job->arena;
	const struct str table = w->table->name;
	bool is_vector = w->table->column == COLUMN_VECTOR;

	if (w->is_upsert)
		return is_vector ? arena_printf(a, UPSERT_SQL("vector"), STR_FMT(table)) :
		       arena_printf(a, UPSERT_SQL("real[]"), STR_FMT(table));
	return is_vector ? arena_printf(a, VECTOR_SQL, STR_FMT(table)) : arena_printf(a, REAL_SQL, STR_FMT(table));
}

static void run(struct work *w)
{
	const bool is_vector = w->table->column == COLUMN_VECTOR;
	unsigned at = w->is_upsert ? 4 : 1;

	w->rung = RUN;
	w->params[at] = arena_printf(w->job->arena, "%c%.*s%c", is_vector ? '[' : '{', STR_FMT(w->vector),
				     is_vector ? ']' : '}');
	submit(w, run_sql(w), w->is_upsert ? 6 : 2, w->params);
}

static void look(struct work *w)
{
	w->rung = LOOK;
	w->looks++;
	submit(w, STR(look_sql), 1, &w->table->name);
}

static void create(struct work *w)
{
	w->rung = CREATE;
	submit(w, arena_printf(w->job->arena, "CREATE TABLE IF NOT EXISTS %.*s (partition text NOT NULL, "
			       "id text NOT NULL, question text NOT NULL, answer text NOT NULL, embedding %s NOT NULL, "
			       "expires_at timestamptz NOT NULL, created_at timestamptz NOT NULL DEFAULT now(), "
			       "PRIMARY KEY (partition, id))",
			       STR_FMT(w->table->name), w->has_vector_type ? "vector" : "real[]"), 0, NULL);
}

static void create_index(struct work *w)
{
	w->rung = INDEX;
	submit(w, arena_printf(w->job->arena, "CREATE INDEX IF NOT EXISTS %.*s ON %.*s (expires_at)",
			     STR_FMT(index_name(w->job->arena, w->table->name)), STR_FMT(w->table->name)), 0, NULL);
}

static void purge(struct work *w)
{
	w->rung = PURGE;
	w->table->purged_ms = clock_ms();
	submit(w, arena_printf(w->job->arena, "DELETE FROM %.*s WHERE (partition, id) IN (SELECT partition, id "
			       "FROM %.*s WHERE expires_at <= now() LIMIT 1000) AND expires_at <= now()",
			       STR_FMT(w->table->name), STR_FMT(w->table->name)), 0, NULL);
}

/* ---------- what comes ---------- */

static void over(struct work *w)
{
	postgres_cancel(&w->query);               /* the job's memory may go with its owner */
	w->link->uses--;
	vector_job_over(w->job);
}

static void refuse(struct work *w, const char *error)
{
	vector_job_fail(w->job, NAME, str_of(error));
	over(w);
}

static void looked(struct work *w)
{
	struct str type = postgres_value(&w->query, 0, 2);

	w->has_vector_type = str_equal(postgres_value(&w->query, 0, 0), STR("t"));
	if (!str_equal(postgres_value(&w->query, 0, 1), STR("t"))) {
		if (w->looks < LOOKS_MAX)
			create(w);
		else
			refuse(w, "the table was made, and is not there");
		return;
	}
	if (str_ends(type, STR("vector")))
		w->table->column = COLUMN_VECTOR;
	else if (str_equal(type, STR("real[]")))
		w->table->column = COLUMN_REAL;
	else {
		refuse(w, "the table has no column \"embedding\" of type vector or real[]");
		return;
	}
	run(w);
}

static double read_double(struct str s)
{
	char text[40], *end;
	double v;

	if (s.n == 0 || s.n >= sizeof text)
		return -2;
	memcpy(text, s.p, s.n);
	text[s.n] = '\0';
	v = strtod(text, &end);
	return *end == '\0' && v >= -1.001 && v <= 1.001 ? v : -2;
}

static void ran(struct work *w)
{
	struct vector_job *j = w->job;
	uint64_t left = 0;

	if (w->is_upsert) {
		if (clock_ms() - w->table->purged_ms >= PURGE_MS)
			purge(w);
		else
			over(w);
		return;
	}
	if (postgres_rows(&w->query) > 0) {
		j->match.is_found = true;
		j->match.similarity = read_double(postgres_value(&w->query, 0, 1));
		j->match.value = arena_copy(j->arena, postgres_value(&w->query, 0, 0));
		j->match.left_s = 1;
		if (str_to_u64(postgres_value(&w->query, 0, 2), INT32_MAX, &left) && left > 0)
			j->match.left_s = (int64_t)left;
	}
	over(w);
}

static bool is_any(const char *state, const char *const *states, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (strcmp(state, states[i]) == 0)
			return true;
	return false;
}

/* Another node made it at the same moment. */
static bool was_made(const char *state)
{
	static const char *const states[] = { "42P07", "42710", "23505" };

	return is_any(state, states, sizeof states / sizeof *states);
}

/* The table is not what it was: gone, or another one. */
static bool has_changed(const char *state)
{
	static const char *const states[] = { "42P01", "42703", "42704", "42883", "42804", "42846", "42P10" };

	return is_any(state, states, sizeof states / sizeof *states);
}

static void failed(struct work *w)
{
	struct postgres_query *q = &w->query;
	struct vector_job *j = w->job;

	if (q->failure == POSTGRES_REFUSED && (w->rung == CREATE || w->rung == INDEX) && was_made(q->sqlstate)) {
		look(w);
		return;
	}
	if (q->failure == POSTGRES_REFUSED && w->rung == RUN && has_changed(q->sqlstate) && w->looks == 0) {
		w->table->column = COLUMN_UNKNOWN;
		look(w);
		return;
	}
	w->table->column = COLUMN_UNKNOWN;
	vector_job_fail(j, NAME, q->error);
	if (!q->error.n)
		vector_job_fail(j, NAME, str_of(postgres_failure_text(q->failure)));
	/* A value that it does not take is the value's. */
	j->is_ours = q->failure == POSTGRES_BUSY ||
		     (q->failure == POSTGRES_REFUSED && strncmp(q->sqlstate, "22", 2) == 0);
	over(w);
}

static void answered(struct postgres_query *q)
{
	struct work *w = q->arg;

	if (w->rung == PURGE) {
		over(w);
	} else if (q->failure != POSTGRES_DONE) {
		failed(w);
	} else if (w->rung == LOOK) {
		looked(w);
	} else if (w->rung == CREATE) {
		create_index(w);
	} else if (w->rung == INDEX) {
		look(w);
	} else {
		ran(w);
	}
}

static void end(struct vector_job *j)
{
	struct work *w = j->at;

	postgres_cancel(&w->query);
	w->link->uses--;
}

static struct work *work_new(struct vector_job *j, struct vector v)
{
	struct work *w = NEW(j->arena, struct work);
	struct sbuf text = { 0 };

	w->job = j;
	w->link = link_get(j->worker, j->m);
	w->table = table_get(w->link, j->m->table);
	w->link->uses++;
	w->query.done = answered;
	w->query.arg = w;
	w->until_ms = clock_ms() + j->m->vector_timeout_ms;
	vector_print(&text, v);
	w->vector = arena_copy(j->arena, sbuf_str(&text));
	sbuf_free(&text);
	j->at = w;
	j->end = end;
	return w;
}

static void start(struct work *w)
{
	if (w->table->column == COLUMN_UNKNOWN)
		look(w);
	else
		run(w);
}

void postgres_query_nearest(struct vector_job *j, struct str partition, struct vector v)
{
	struct work *w = work_new(j, v);

	w->params[0] = arena_copy(j->arena, partition);
	start(w);
}

void postgres_upsert_row(struct vector_job *j, const struct vector_row *row)
{
	struct work *w = work_new(j, row->vector);

	w->is_upsert = true;
	w->params[0] = row->partition;
	w->params[1] = row->id;
	w->params[2] = row->text;
	w->params[3] = row->value;
	w->params[5] = arena_printf(j->arena, "%lld", (long long)row->ttl_s);
	start(w);
}
