/*
 * Cells of many series of one size share a chunk, in which every thread has a page of its own: series are dense, and
 * threads never write the same cache line. A page is made when its thread first adds to one of the chunk's series, so
 * what is not used costs no memory, however many threads there are; it goes with the last series of its chunk:
 *
 *      chunk ──► page of slot 0, page of slot 1, none yet, ..., page for threads without a slot and for metric_set
 *      series      ─ cells ──┐      same place ─┐
 */
#include "core/metric.h"
#include <pthread.h>
#include <stdatomic.h>
#include "core/fault.h"
#include "core/list.h"
#include "core/map.h"
#include "core/mem.h"

enum {
	PAGE_CELLS = 4096 / sizeof(int64_t),
	LABELS_MAX = 5,
};

struct family {
	const char *name;
	enum metric_kind kind;
	const char *labels;
	const char *help;
};

static const struct family families[] = {
#define METRIC(id, name, kind, labels, help) [METRIC_##id] = { (name), (kind), (labels), (help) },
#include "core/metrics.def"
#undef METRIC
};

static const struct {
	int64_t us;
	const char *le;
} bounds[] = {
	{ 500, "le=\"0.0005\"" }, { 1000, "le=\"0.001\"" }, { 2500, "le=\"0.0025\"" }, { 5000, "le=\"0.005\"" },
	{ 10000, "le=\"0.01\"" }, { 25000, "le=\"0.025\"" }, { 50000, "le=\"0.05\"" }, { 100000, "le=\"0.1\"" },
	{ 250000, "le=\"0.25\"" }, { 500000, "le=\"0.5\"" }, { 1000000, "le=\"1\"" }, { 2500000, "le=\"2.5\"" },
	{ 5000000, "le=\"5\"" }, { 10000000, "le=\"10\"" }, { 30000000, "le=\"30\"" }, { 60000000, "le=\"60\"" },
};

static const struct {
	int64_t n;
	const char *le;
} token_bounds[] = {
	{ 1, "le=\"1\"" }, { 4, "le=\"4\"" }, { 16, "le=\"16\"" }, { 64, "le=\"64\"" }, { 256, "le=\"256\"" },
	{ 1024, "le=\"1024\"" }, { 4096, "le=\"4096\"" }, { 16384, "le=\"16384\"" }, { 65536, "le=\"65536\"" },
	{ 262144, "le=\"262144\"" }, { 1048576, "le=\"1048576\"" }, { 4194304, "le=\"4194304\"" },
	{ 16777216, "le=\"16777216\"" }, { 67108864, "le=\"67108864\"" },
};

enum {
	CLASSES = 5,                               /* 1xx to 5xx */
	BOUNDS = sizeof(bounds) / sizeof(bounds[0]),
	CELL_SUM = BOUNDS + 1,                     /* after the buckets and the one past the last bound: microseconds */
	HISTOGRAM_CELLS = BOUNDS + 2,
	TOKEN_BOUNDS = sizeof(token_bounds) / sizeof(token_bounds[0]),
	TOKEN_SUM = TOKEN_BOUNDS + 1,
};
static const unsigned cells_of[] = {
	[METRIC_COUNTER] = 1,
	[METRIC_GAUGE] = 1,
	[METRIC_HISTOGRAM] = HISTOGRAM_CELLS,
	[METRIC_BY_CLASS] = CLASSES,
	[METRIC_SECONDS] = 1,
	[METRIC_TOKENS] = TOKEN_BOUNDS + 2,
};
enum { KINDS = sizeof(cells_of) / sizeof(cells_of[0]) };

/* Families that are counted together have one series: that of the first one, with the cells of all in this order. */
static const struct {
	enum metric_id id;
	uint16_t at;
} traffic[] = {
	{ METRIC_REQUESTS, 0 },
	{ METRIC_REQUEST_SECONDS, CLASSES },
	{ METRIC_REQUEST_BYTES, CLASSES + HISTOGRAM_CELLS },
	{ METRIC_RESPONSE_BYTES, CLASSES + HISTOGRAM_CELLS + 1 },
};
enum {
	TRAFFIC_SECONDS = CLASSES,
	TRAFFIC_IN = TRAFFIC_SECONDS + HISTOGRAM_CELLS,
	TRAFFIC_OUT,
	TRAFFIC_CELLS,
	CELLS_MAX = TRAFFIC_CELLS,
};
_Static_assert((size_t)CELLS_MAX <= (size_t)PAGE_CELLS, "the largest series fits a page");
_Static_assert((size_t)METRIC_COUNT <= UINT16_MAX && (size_t)PAGE_CELLS <= UINT16_MAX, "16 bits hold them");

typedef _Atomic int64_t cell;

struct chunk {
	struct list node;                          /* in with_room; alone while it is full */
	unsigned cells;                            /* of each of its series */
	unsigned n_free;
	uint16_t *free;                            /* places that are; behind `pages` */
	_Atomic(cell *) pages[];                   /* n_slots + 1 */
};

/* Where the cells of a series are: the same place in each page. */
struct place {
	struct chunk *chunk;
	uint16_t at;
};

struct series {
	struct list node;                          /* of its family, in order of birth */
	struct place place;
	uint16_t id;                               /* enum metric_id */
	unsigned holds;
	uint32_t labels_at;                        /* in the key: 'gateway="a",route="b"', escaped */
	struct str key;                            /* in series_by_key */
};

/* Of all below: who series are, not what they count. Held for one series at a time. */
static pthread_mutex_t registry = PTHREAD_MUTEX_INITIALIZER;
static unsigned n_slots;
static struct list with_room[CELLS_MAX + 1];       /* chunks, by the number of cells of a series */
static atomic_size_t n_pages;
static struct list series_of[METRIC_COUNT];
static struct map series_by_key;

static _Thread_local size_t own_page;              /* index + 1; 0 = this thread has no slot */

void metric_start(unsigned threads)
{
	BUG_ON(n_slots || threads == 0);
	n_slots = threads;
	for (unsigned id = 0; id < METRIC_COUNT; id++)
		list_init(&series_of[id]);
	for (unsigned cells = 0; cells <= CELLS_MAX; cells++)
		list_init(&with_room[cells]);
}

static void end_series(struct series *s);

void metric_stop(void)
{
	for (unsigned id = 0; n_slots && id < METRIC_COUNT; id++) {
		LIST_EACH(node, &series_of[id])
			end_series(CONTAINER(node, struct series, node));
	}
	map_free(&series_by_key);
	n_slots = 0;
	own_page = 0;
}

void metric_thread(unsigned slot)
{
	BUG_ON(slot >= n_slots);
	own_page = slot + 1;
}

size_t metric_bytes(void)
{
	return n_pages * PAGE_CELLS * sizeof(cell);
}

static enum metric_kind kind_of(const struct series *s)
{
	return families[s->id].kind;
}

/* NULL: nobody of that slot has added yet. */
static cell *find_cells(struct place place, size_t slot)
{
	cell *page = atomic_load_explicit(&place.chunk->pages[slot], memory_order_acquire);

	return page ? page + place.at : NULL;
}

__attribute__((noinline)) static cell *make_page(struct chunk *chunk, size_t slot)
{
	cell *page = mem_alloc_aligned(64, PAGE_CELLS * sizeof(*page)), *other = NULL;

	/* Threads without a slot may be two. */
	if (!atomic_compare_exchange_strong(&chunk->pages[slot], &other, page)) {
		mem_free(page);
		return other;
	}
	n_pages++;
	return page;
}

static inline cell *own_cells(const struct series *s, size_t slot)
{
	cell *page = atomic_load_explicit(&s->place.chunk->pages[slot], memory_order_acquire);

	if (UNLIKELY(!page))
		page = make_page(s->place.chunk, slot);
	return page + s->place.at;
}

static unsigned count_cells(unsigned id)
{
	return id == traffic[0].id ? TRAFFIC_CELLS : cells_of[families[id].kind];
}

static unsigned count_places(const struct chunk *chunk)
{
	return PAGE_CELLS / chunk->cells;
}

static struct chunk *make_chunk(unsigned cells)
{
	size_t head = sizeof(struct chunk) + (n_slots + 1) * sizeof(((struct chunk *)NULL)->pages[0]);
	struct chunk *chunk = mem_alloc(head + PAGE_CELLS / cells * sizeof(chunk->free[0]));

	chunk->cells = cells;
	chunk->free = (uint16_t *)((char *)chunk + head);
	for (unsigned i = count_places(chunk); i > 0; i--)
		chunk->free[chunk->n_free++] = (uint16_t)((i - 1) * cells);
	list_append(&with_room[cells], &chunk->node);
	return chunk;
}

static void free_chunk(struct chunk *chunk)
{
	for (size_t slot = 0; slot <= n_slots; slot++) {
		cell *page = atomic_load_explicit(&chunk->pages[slot], memory_order_acquire);

		if (page)
			n_pages--;
		mem_free(page);
	}
	list_remove(&chunk->node);
	mem_free(chunk);
}

static struct place take_place(unsigned cells)
{
	struct list *room = &with_room[cells];
	struct chunk *chunk = list_is_empty(room) ? make_chunk(cells) : CONTAINER(room->next, struct chunk, node);
	struct place place = { chunk, chunk->free[--chunk->n_free] };

	if (chunk->n_free == 0)
		list_remove(&chunk->node);
	/* Another series may have been there before. */
	for (size_t slot = 0; slot <= n_slots; slot++) {
		cell *at = find_cells(place, slot);

		for (unsigned i = 0; at && i < cells; i++)
			atomic_store_explicit(at + i, 0, memory_order_relaxed);
	}
	return place;
}

static void give_place(struct place place)
{
	struct chunk *chunk = place.chunk;

	if (chunk->n_free == 0)
		list_append(&with_room[chunk->cells], &chunk->node);
	chunk->free[chunk->n_free++] = place.at;
	if (chunk->n_free == count_places(chunk))
		free_chunk(chunk);
}

static void end_series(struct series *s)
{
	list_remove(&s->node);
	give_place(s->place);
	mem_free(s);
}

static void add_escaped(struct sbuf *out, struct str value)
{
	bool is_utf8 = str_is_utf8(value);

	for (size_t i = 0; i < value.n; i++) {
		char c = value.p[i];

		if (c == '\\' || c == '"') {
			sbuf_addc(out, '\\');
			sbuf_addc(out, c);
		} else if (c == '\n') {
			SBUF_LIT(out, "\\n");
		} else {
			sbuf_addc(out, !is_utf8 && (unsigned char)c >= 0x80 ? '?' : c);
		}
	}
}

static unsigned print_labels(struct sbuf *out, const struct family *f, const struct str *values)
{
	struct str rest = str_of(f->labels), name;
	unsigned n = 0;

	if (!f->labels[0])
		return 0;
	while (str_split(&rest, ',', &name)) {
		if (!rest.p && f->kind == METRIC_BY_CLASS)
			break;
		if (n)
			sbuf_addc(out, ',');
		sbuf_add(out, name);
		SBUF_LIT(out, "=\"");
		add_escaped(out, values[n++]);
		sbuf_addc(out, '"');
	}
	return n;
}

/* One piece of memory: the series, then its key ("<id> <labels>"), of which the labels are the tail. */
static struct series *make_series(enum metric_id id, struct str key, size_t labels_at)
{
	struct series *s = mem_alloc(sizeof(*s) + key.n);
	char *bytes = (char *)(s + 1);

	memcpy(bytes, key.p, key.n);
	s->id = (uint16_t)id;
	s->key = (struct str){ bytes, key.n };
	s->labels_at = (uint32_t)labels_at;
	s->place = take_place(count_cells(id));
	list_append(&series_of[id], &s->node);
	map_put(&series_by_key, s->key, s);
	return s;
}

/* Whose series the family is counted in, and from which of their cells on. */
static enum metric_id find_lead(enum metric_id id, unsigned *at)
{
	*at = 0;
	for (unsigned i = 0; i < sizeof(traffic) / sizeof(traffic[0]); i++)
		if (traffic[i].id == id) {
			*at = traffic[i].at;
			return traffic[0].id;
		}
	return id;
}

struct series *metric_series(enum metric_id id, const struct str *values)
{
	struct sbuf key = { 0 };
	unsigned at;

	BUG_ON(n_slots == 0 || id >= METRIC_COUNT || find_lead(id, &at) != id);
	sbuf_addf(&key, "%u ", (unsigned)id);
	size_t labels_at = key.n;

	BUG_ON(print_labels(&key, &families[id], values) > LABELS_MAX);
	pthread_mutex_lock(&registry);
	struct series *s = map_get(&series_by_key, sbuf_str(&key));

	if (!s)
		s = make_series(id, sbuf_str(&key), labels_at);
	s->holds++;
	pthread_mutex_unlock(&registry);
	sbuf_free(&key);
	return s;
}

void metric_series_drop(struct series *s)
{
	pthread_mutex_lock(&registry);
	BUG_ON(s->holds == 0);
	if (--s->holds == 0) {
		map_remove(&series_by_key, s->key);
		end_series(s);
	}
	pthread_mutex_unlock(&registry);
}

/* Nobody else writes to a page of one's own, so it need not be one instruction. */
static inline void add_own(cell *at, int64_t n)
{
	int64_t v = atomic_load_explicit(at, memory_order_relaxed);

	atomic_store_explicit(at, v + n, memory_order_relaxed);
}

static inline void add(const struct series *s, unsigned i, int64_t n)
{
	if (LIKELY(own_page)) {
		add_own(own_cells(s, own_page - 1) + i, n);
	} else {
		atomic_fetch_add_explicit(own_cells(s, n_slots) + i, n, memory_order_relaxed);
	}
}

void metric_add(struct series *s, int64_t n)
{
	add(s, 0, n);
}

void metric_count_status(struct series *s, int status)
{
	if (status >= 100 && status <= 599)
		add(s, (unsigned)status / 100 - 1, 1);
}

void metric_set(struct series *s, int64_t v)
{
	BUG_ON(kind_of(s) != METRIC_GAUGE && kind_of(s) != METRIC_SECONDS);
	atomic_store_explicit(own_cells(s, n_slots), v, memory_order_relaxed);
}

static inline unsigned find_bucket(int64_t us)
{
	/* By the number of its bits: the bucket of the least number that has as many. */
	static const uint8_t first[] = {
		0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 11, 12, 13, 14, 15,
	};
	unsigned bits = us > 0 ? 64 - (unsigned)__builtin_clzll((uint64_t)us) : 0;
	unsigned bucket = bits < sizeof(first) ? first[bits] : BOUNDS;

	while (bucket < BOUNDS && us > bounds[bucket].us)
		bucket++;
	return bucket;
}

void metric_observe_us(struct series *s, int64_t us)
{
	unsigned bucket = find_bucket(us);

	if (LIKELY(own_page)) {
		cell *cells = own_cells(s, own_page - 1);

		add_own(cells + bucket, 1);
		add_own(cells + CELL_SUM, us);
	} else {
		add(s, bucket, 1);
		add(s, CELL_SUM, us);
	}
}

void metric_count_traffic(struct series *s, const struct metric_traffic *t)
{
	BUG_ON(own_page == 0);
	cell *cells = own_cells(s, own_page - 1);

	if (t->status >= 100 && t->status <= 599)
		add_own(cells + (unsigned)t->status / 100 - 1, 1);
	if (t->us >= 0) {
		add_own(cells + TRAFFIC_SECONDS + find_bucket(t->us), 1);
		add_own(cells + TRAFFIC_SECONDS + CELL_SUM, t->us);
	}
	if (t->in)
		add_own(cells + TRAFFIC_IN, t->in);
	add_own(cells + TRAFFIC_OUT, t->out);
}

void metric_observe(struct series *s, int64_t n)
{
	unsigned bucket = 0;

	while (bucket < TOKEN_BOUNDS && n > token_bounds[bucket].n)
		bucket++;
	add(s, bucket, 1);
	add(s, TOKEN_SUM, n);
}

static int64_t sum_cell(const struct series *s, unsigned i)
{
	int64_t sum = 0;

	for (size_t slot = 0; slot <= n_slots; slot++) {
		const cell *cells = find_cells(s->place, slot);

		if (cells)
			sum += atomic_load_explicit(cells + i, memory_order_relaxed);
	}
	return sum;
}

int64_t metric_value(const struct series *s)
{
	int64_t sum = 0;
	bool is_histogram = kind_of(s) == METRIC_HISTOGRAM || kind_of(s) == METRIC_TOKENS;
	unsigned cells = cells_of[kind_of(s)] - (is_histogram ? 1 : 0);

	for (unsigned i = 0; i < cells; i++)
		sum += sum_cell(s, i);
	return sum;
}

/* What is printed: a family of a series. */
struct shown {
	const struct series *series;
	unsigned id;                               /* enum metric_id */
	unsigned at;                               /* its first cell */
};

static int64_t sum_shown(const struct shown *s, unsigned i)
{
	return sum_cell(s->series, s->at + i);
}

#define SAMPLE_BYTES 128                   /* of a sample besides its name and the labels of the series */

/* name, suffix, and the labels with `last` (absent: none) behind them; returns where the number goes. */
static char *open_sample(struct sbuf *out, const struct shown *s, struct str suffix, struct str last)
{
	const struct str name = str_of(families[s->id].name);
	const struct str key = s->series->key;
	const struct str labels = { key.p + s->series->labels_at, key.n - s->series->labels_at };
	char *p;

	sbuf_reserve(out, name.n + labels.n + SAMPLE_BYTES);
	p = str_put(str_put(out->p + out->n, name), suffix);
	if (labels.n || last.n) {
		*p++ = '{';
		p = str_put(p, labels);
		if (labels.n && last.n)
			*p++ = ',';
		p = str_put(p, last);
		*p++ = '}';
	}
	*p++ = ' ';
	return p;
}

static void close_sample(struct sbuf *out, char *p)
{
	*p++ = '\n';
	*p = '\0';
	out->n = (size_t)(p - out->p);
}

static void print_number(struct sbuf *out, char *p, int64_t v)
{
	if (v < 0)
		*p++ = '-';
	close_sample(out, str_put_u64(p, v < 0 ? 0 - (uint64_t)v : (uint64_t)v));
}

/* Six digits behind the point. */
static void print_time(struct sbuf *out, char *p, int64_t us)
{
	uint64_t part = (uint64_t)us % 1000000;

	p = str_put_u64(p, (uint64_t)us / 1000000);
	*p++ = '.';
	for (uint64_t digit = 100000; digit > 0; digit /= 10)
		*p++ = (char)('0' + part / digit % 10);
	close_sample(out, p);
}

static const struct str nothing;

static void print_classes(struct sbuf *out, const struct shown *s)
{
	static const char *const classes[CLASSES] = {
		"code_class=\"1xx\"", "code_class=\"2xx\"", "code_class=\"3xx\"", "code_class=\"4xx\"",
		"code_class=\"5xx\"",
	};

	for (unsigned i = 0; i < CLASSES; i++)
		print_number(out, open_sample(out, s, nothing, str_of(classes[i])), sum_shown(s, i));
}

static void print_value(struct sbuf *out, const struct shown *s)
{
	print_number(out, open_sample(out, s, nothing, nothing), sum_shown(s, 0));
}

static void print_seconds(struct sbuf *out, const struct shown *s)
{
	print_time(out, open_sample(out, s, nothing, nothing), sum_shown(s, 0));
}

static void print_histogram(struct sbuf *out, const struct shown *s)
{
	int64_t count = 0;

	for (unsigned i = 0; i <= BOUNDS; i++) {
		count += sum_shown(s, i);
		print_number(out, open_sample(out, s, STR("_bucket"), i < BOUNDS ? str_of(bounds[i].le)
					      : STR("le=\"+Inf\"")), count);
	}
	print_time(out, open_sample(out, s, STR("_sum"), nothing), sum_shown(s, CELL_SUM));
	print_number(out, open_sample(out, s, STR("_count"), nothing), count);
}

static void print_tokens(struct sbuf *out, const struct shown *s)
{
	int64_t count = 0;

	for (unsigned i = 0; i <= TOKEN_BOUNDS; i++) {
		count += sum_shown(s, i);
		print_number(out, open_sample(out, s, STR("_bucket"), i < TOKEN_BOUNDS ? str_of(token_bounds[i].le)
					      : STR("le=\"+Inf\"")), count);
	}
	print_number(out, open_sample(out, s, STR("_sum"), nothing), sum_shown(s, TOKEN_SUM));
	print_number(out, open_sample(out, s, STR("_count"), nothing), count);
}

static const char *const kinds[] = {
	[METRIC_COUNTER] = "counter", [METRIC_GAUGE] = "gauge", [METRIC_HISTOGRAM] = "histogram",
	[METRIC_BY_CLASS] = "counter", [METRIC_SECONDS] = "counter", [METRIC_TOKENS] = "histogram",
};

void metric_manual(struct sbuf *out)
{
	for (unsigned id = 0; id < METRIC_COUNT; id++) {
		const struct family *f = &families[id];
		struct str rest = str_of(f->labels), label;
		const char *between = "";

		sbuf_addf(out, "| `%s` | %s | ", f->name, kinds[f->kind]);
		while (f->labels[0] && str_split(&rest, ',', &label)) {
			sbuf_addf(out, "%s`%.*s`", between, STR_FMT(label));
			between = ", ";
		}
		sbuf_addf(out, " | %s |\n", f->help);
	}
}

static void print_head(struct sbuf *out, const struct family *f)
{
	sbuf_addf(out, "# HELP %s ", f->name);
	for (const char *p = f->help; *p; p++) {
		if (*p == '\\' || *p == '\n')
			sbuf_add(out, *p == '\n' ? STR("\\n") : STR("\\\\"));
		else
			sbuf_addc(out, *p);
	}
	sbuf_addf(out, "\n# TYPE %s %s\n", f->name, kinds[f->kind]);
}

/* The next one of a family, or NULL; none goes away meanwhile, because this thread ends them, but others may come. */
static const struct series *next_series(unsigned id, const struct series *s)
{
	struct list *node;

	pthread_mutex_lock(&registry);
	node = s ? s->node.next : series_of[id].next;
	pthread_mutex_unlock(&registry);
	return node == &series_of[id] ? NULL : CONTAINER(node, struct series, node);
}

void metric_write(struct sbuf *out)
{
	static void (*const print[KINDS])(struct sbuf *out, const struct shown *s) = {
		[METRIC_COUNTER] = print_value,
		[METRIC_GAUGE] = print_value,
		[METRIC_HISTOGRAM] = print_histogram,
		[METRIC_BY_CLASS] = print_classes,
		[METRIC_SECONDS] = print_seconds,
		[METRIC_TOKENS] = print_tokens,
	};

	for (unsigned id = 0; id < METRIC_COUNT; id++) {
		struct shown shown = { .id = id };
		enum metric_id lead = find_lead(id, &shown.at);

		shown.series = next_series(lead, NULL);
		if (shown.series)
			print_head(out, &families[id]);
		for (; shown.series; shown.series = next_series(lead, shown.series))
			print[families[id].kind](out, &shown);
	}
}
