/*
 * A ring holds whole lines. Positions only grow; offset = position % RING_SIZE, lap = position / RING_SIZE.
 *
 *      |lines of the next lap| free |lines not written yet| unused, too short for the line that came |
 *      0                    head   tail                   end                                        RING_SIZE
 *
 * `end` is where the lap before head's stops. The producer cannot begin a further lap before the writer has left
 * that one, so one `end` is enough. head is stored by the producer only, tail by the writer only.
 *
 * The rare line that is too long for a ring (what a model was asked and said) is memory of its own, handed over in a
 * list; all of those together are bounded.
 */
#include "core/log.h"
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>
#include "core/clock.h"
#include "core/json.h"
#include "core/mem.h"
#include "core/thread.h"

enum {
	RING_SIZE = 1 << 20,
	LINE_MAX = RING_SIZE / 4,
	LONG_LINE_MAX = 2 << 20,
	LONG_LINES_MAX = 16 << 20,                 /* bytes of all of them that are not written yet */
	TEXT_MAX = 4096,                           /* bytes kept of one field */
	FLUSH_MS = 50,
	STUCK_MS = 1000,                           /* how long log_stop waits for a reader that does not read */
	EVENTS = 512,                              /* more event names than there are; power of two */
	EVENTS_A_SECOND = 20,
};

struct ring {
	struct ring *next;                         /* all rings, never unlinked */
	atomic_bool is_owned;                      /* by a living thread */
	uint64_t reserved;                         /* position given out; producer only */
	_Alignas(64) _Atomic uint64_t head;
	_Atomic uint64_t end;
	_Atomic uint64_t dropped;
	_Alignas(64) _Atomic uint64_t tail;
	_Alignas(64) char bytes[RING_SIZE];
};

/* Longer than LINE_MAX. */
struct long_line {
	struct long_line *next;                    /* the one before it */
	size_t room, n;
	char bytes[];
};

/* How often an event came in a second: the second in the high half, the number in the low half. */
struct event_rate {
	_Atomic(const char *) name;
	_Atomic uint64_t second_count;
};

static _Atomic(struct ring *) rings;
static _Thread_local struct ring *own_ring;
static pthread_key_t own_ring_key;
static pthread_once_t own_ring_once = PTHREAD_ONCE_INIT;

static struct event_rate rates[EVENTS];

static _Atomic(struct long_line *) long_lines;     /* newest first */
static atomic_size_t long_bytes;
static _Thread_local struct long_line *own_long;   /* reserved and not committed */

static atomic_int least_level = LOG_INFO;
static atomic_int log_fd = STDERR_FILENO;
static atomic_bool is_running;                     /* the writer takes from the rings */
static atomic_bool is_stopping;
static atomic_bool is_woken;
static int wake_fd = -1;
static pthread_t writer;
static uint64_t dropped_before;

static const char *const level_names[] = { "debug", "info", "warn", "error" };

/* Waits until fd takes bytes again; false when it is broken, or stuck while we want to end. */
static bool await_room(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLOUT };
	int n = poll(&p, 1, STUCK_MS);

	if (n > 0)
		return !(p.revents & (POLLERR | POLLNVAL));
	return n < 0 ? errno == EINTR : !atomic_load(&is_stopping);
}

/* Bytes that cannot be written are lost: there is no other place to report it to. */
static void write_all(const char *p, size_t n)
{
	int fd = atomic_load(&log_fd);

	while (n) {
		ssize_t written = write(fd, p, n);

		if (written > 0) {
			p += written;
			n -= (size_t)written;
		} else if (written < 0 && errno != EINTR && !(errno == EAGAIN && await_room(fd))) {
			return;
		}
	}
}

static void wake_writer(void)
{
	static const uint64_t one = 1;

	if (atomic_exchange(&is_woken, true))
		return;
	ssize_t ignored = write(wake_fd, &one, sizeof(one));

	(void)ignored;
}

/* What its thread left in the ring is still written; the next new thread takes the ring over. */
static void disown_ring(void *ring)
{
	own_ring = NULL;
	atomic_store_explicit(&((struct ring *)ring)->is_owned, false, memory_order_release);
}

static void make_key(void)
{
	BUG_ON(pthread_key_create(&own_ring_key, disown_ring) != 0);
}

static struct ring *adopt_ring(void)
{
	for (struct ring *r = atomic_load_explicit(&rings, memory_order_acquire); r; r = r->next) {
		bool is_owned = false;

		if (atomic_compare_exchange_strong_explicit(&r->is_owned, &is_owned, true, memory_order_acquire,
							    memory_order_relaxed))
			return r;
	}
	struct ring *ring = mem_alloc_aligned(_Alignof(struct ring), sizeof(*ring));

	atomic_store_explicit(&ring->is_owned, true, memory_order_relaxed);
	ring->next = atomic_load_explicit(&rings, memory_order_relaxed);
	while (!atomic_compare_exchange_weak_explicit(&rings, &ring->next, ring, memory_order_release,
						      memory_order_relaxed))
		;
	return ring;
}

static struct ring *find_ring(void)
{
	if (UNLIKELY(!own_ring)) {
		pthread_once(&own_ring_once, make_key);
		own_ring = adopt_ring();
		pthread_setspecific(own_ring_key, own_ring);
	}
	return own_ring;
}

static size_t offset_of(uint64_t position)
{
	return (size_t)(position % RING_SIZE);
}

static void free_long(struct long_line *line)
{
	atomic_fetch_sub_explicit(&long_bytes, line->room, memory_order_relaxed);
	mem_free(line);
}

static char *reserve_long(struct ring *r, size_t max)
{
	size_t before = atomic_fetch_add_explicit(&long_bytes, max, memory_order_relaxed);

	if (max > LONG_LINE_MAX || before > LONG_LINES_MAX - LONG_LINE_MAX) {
		atomic_fetch_sub_explicit(&long_bytes, max, memory_order_relaxed);
		atomic_fetch_add_explicit(&r->dropped, 1, memory_order_relaxed);
		return NULL;
	}
	own_long = mem_alloc(sizeof(*own_long) + max);
	own_long->room = max;
	return own_long->bytes;
}

char *log_reserve(size_t max)
{
	struct ring *r = find_ring();

	if (UNLIKELY(max > LINE_MAX))
		return reserve_long(r, max);
	uint64_t head = atomic_load_explicit(&r->head, memory_order_relaxed), start = head;
	uint64_t tail = atomic_load_explicit(&r->tail, memory_order_acquire);

	/* Never exactly to the end of a lap: head's lap tells whether `end` counts. */
	if (offset_of(head) + max >= RING_SIZE)
		start = (head / RING_SIZE + 1) * RING_SIZE;
	if (start + max > tail + RING_SIZE) {
		atomic_fetch_add_explicit(&r->dropped, 1, memory_order_relaxed);
		return NULL;
	}
	r->reserved = start;
	return r->bytes + offset_of(start);
}

static bool commit(size_t n)
{
	struct ring *r = own_ring;
	uint64_t head = atomic_load_explicit(&r->head, memory_order_relaxed);

	if (n == 0)
		return false;
	if (!atomic_load_explicit(&is_running, memory_order_acquire)) {
		write_all(r->bytes + offset_of(r->reserved), n);
		return false;
	}
	if (r->reserved != head)
		atomic_store_explicit(&r->end, offset_of(head), memory_order_relaxed);
	atomic_store_explicit(&r->head, r->reserved + n, memory_order_release);
	return true;
}

static void commit_long(size_t n)
{
	struct long_line *line = own_long;

	own_long = NULL;
	line->n = n;
	if (n == 0 || !atomic_load_explicit(&is_running, memory_order_acquire)) {
		write_all(line->bytes, n);
		free_long(line);
		return;
	}
	line->next = atomic_load_explicit(&long_lines, memory_order_relaxed);
	while (!atomic_compare_exchange_weak_explicit(&long_lines, &line->next, line, memory_order_release,
						      memory_order_relaxed))
		;
	wake_writer();
}

void log_commit(size_t n)
{
	if (UNLIKELY(own_long != NULL)) {
		commit_long(n);
		return;
	}
	if (!commit(n))
		return;
	uint64_t used = own_ring->reserved + n - atomic_load_explicit(&own_ring->tail, memory_order_relaxed);

	if (used > RING_SIZE / 2 && !atomic_load_explicit(&is_woken, memory_order_relaxed))
		wake_writer();
}

/* Writer (or whoever ends it) only. */
static void drain_ring(struct ring *r)
{
	uint64_t head = atomic_load_explicit(&r->head, memory_order_acquire);
	uint64_t tail = atomic_load_explicit(&r->tail, memory_order_relaxed);

	if (head / RING_SIZE != tail / RING_SIZE) {
		size_t end = (size_t)atomic_load_explicit(&r->end, memory_order_relaxed);

		write_all(r->bytes + offset_of(tail), end - offset_of(tail));
		tail = (tail / RING_SIZE + 1) * RING_SIZE;
		atomic_store_explicit(&r->tail, tail, memory_order_release);
	}
	if (head != tail) {
		write_all(r->bytes + offset_of(tail), (size_t)(head - tail));
		atomic_store_explicit(&r->tail, head, memory_order_release);
	}
}

/* In the order they came. */
static void drain_long(void)
{
	struct long_line *line = atomic_exchange_explicit(&long_lines, NULL, memory_order_acquire), *first = NULL;

	while (line) {
		struct long_line *next = line->next;

		line->next = first;
		first = line;
		line = next;
	}
	while (first) {
		line = first;
		first = line->next;
		write_all(line->bytes, line->n);
		free_long(line);
	}
}

static void drain_all(void)
{
	drain_long();
	for (struct ring *r = atomic_load_explicit(&rings, memory_order_acquire); r; r = r->next)
		drain_ring(r);
}

static void *run_writer(void *arg)
{
	struct pollfd p = { .fd = wake_fd, .events = POLLIN };
	uint64_t count;

	(void)arg;
	while (!atomic_load(&is_stopping)) {
		if (poll(&p, 1, FLUSH_MS) > 0) {
			ssize_t ignored = read(wake_fd, &count, sizeof(count));

			(void)ignored;
			/* Before the rings are looked at: who comes later wakes us, who came before is seen. */
			atomic_exchange(&is_woken, false);
		}
		drain_all();
	}
	return NULL;
}

static uint64_t sum_dropped(void)
{
	uint64_t sum = 0;

	for (struct ring *r = atomic_load_explicit(&rings, memory_order_acquire); r; r = r->next)
		sum += atomic_load_explicit(&r->dropped, memory_order_relaxed);
	return sum;
}

void log_start(int fd, enum log_level least)
{
	BUG_ON(atomic_load(&is_running));
	signal(SIGPIPE, SIG_IGN);
	wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	BUG_ON(wake_fd < 0);
	dropped_before = sum_dropped();
	atomic_store(&log_fd, fd);
	atomic_store(&least_level, (int)least);
	atomic_store(&is_stopping, false);
	atomic_store(&is_woken, false);
	writer = thread_start("log", run_writer, NULL);
	atomic_store(&is_running, true);
}

void log_stop(void)
{
	if (!atomic_exchange(&is_running, false))
		return;
	atomic_store(&is_stopping, true);
	atomic_store(&is_woken, false);
	wake_writer();
	pthread_join(writer, NULL);
	drain_all();
	close(wake_fd);
	wake_fd = -1;
}

uint64_t log_dropped(void)
{
	return sum_dropped() - dropped_before;
}

bool log_level_parse(struct str text, enum log_level *out)
{
	for (unsigned i = 0; i < sizeof(level_names) / sizeof(level_names[0]); i++) {
		if (str_equal(text, str_of(level_names[i]))) {
			*out = (enum log_level)i;
			return true;
		}
	}
	return false;
}

static void put_digits(char *out, unsigned value, unsigned digits)
{
	while (digits--) {
		out[digits] = (char)('0' + value % 10);
		value /= 10;
	}
}

void log_time(char *out)
{
	static _Thread_local int64_t second = -1;
	static _Thread_local char text[LOG_TIME_SIZE];
	int64_t wall_ms = clock_wall_ms();

	if (wall_ms / 1000 != second) {
		time_t t = (time_t)(wall_ms / 1000);
		struct tm tm;

		gmtime_r(&t, &tm);
		memcpy(text, "0000-00-00T00:00:00.000Z", LOG_TIME_SIZE);
		put_digits(text, (unsigned)tm.tm_year + 1900, 4);
		put_digits(text + 5, (unsigned)tm.tm_mon + 1, 2);
		put_digits(text + 8, (unsigned)tm.tm_mday, 2);
		put_digits(text + 11, (unsigned)tm.tm_hour, 2);
		put_digits(text + 14, (unsigned)tm.tm_min, 2);
		put_digits(text + 17, (unsigned)tm.tm_sec, 2);
		second = wall_ms / 1000;
	}
	memcpy(out, text, LOG_TIME_SIZE);
	put_digits(out + 20, (unsigned)(wall_ms - second * 1000), 3);
}

static struct event_rate *find_rate(const char *event)
{
	uint32_t hash = 2166136261u;

	for (const char *p = event; *p; p++)
		hash = (hash ^ (unsigned char)*p) * 16777619u;
	for (unsigned i = 0; i < EVENTS; i++) {
		struct event_rate *rate = &rates[(hash + i) % EVENTS];
		const char *name = atomic_load_explicit(&rate->name, memory_order_acquire);

		if (!name && atomic_compare_exchange_strong(&rate->name, &name, event))
			return rate;
		if (strcmp(name, event) == 0)
			return rate;
	}
	return NULL;
}

/* Whether one more record of the event may be written; then *suppressed is how many could not since the last one. */
static bool admit(const char *event, uint32_t *suppressed)
{
	struct event_rate *rate = find_rate(event);
	uint64_t second = (uint64_t)(clock_ms() / 1000) & UINT32_MAX;

	*suppressed = 0;
	if (!rate)
		return true;
	uint64_t before = atomic_load_explicit(&rate->second_count, memory_order_relaxed), after;

	do {
		uint32_t count = (uint32_t)before;

		if (before >> 32 == second) {
			after = count < UINT32_MAX ? before + 1 : before;
			*suppressed = 0;
		} else {
			after = second << 32 | 1;
			*suppressed = count > EVENTS_A_SECOND ? count - EVENTS_A_SECOND : 0;
		}
	} while (!atomic_compare_exchange_weak_explicit(&rate->second_count, &before, after, memory_order_relaxed,
							memory_order_relaxed));
	return (uint32_t)after <= EVENTS_A_SECOND;
}

static struct str cut_text(struct str s)
{
	if (s.n <= TEXT_MAX)
		return s;
	s.n = TEXT_MAX;
	while (s.n > TEXT_MAX - 4 && ((unsigned char)s.p[s.n] & 0xc0) == 0x80)
		s.n--;
	return s;
}

static void add_field(struct sbuf *line, const struct log_field *f)
{
	sbuf_addc(line, ',');
	json_quote(line, str_of(f->name));
	sbuf_addc(line, ':');
	if (f->type == LOG_NUMBER)
		sbuf_addf(line, "%lld", (long long)f->number);
	else
		json_quote(line, cut_text(f->text));
}

static void write_line(struct str line, bool is_urgent)
{
	char *space = log_reserve(line.n);

	if (!space)
		return;
	memcpy(space, line.p, line.n);
	log_commit(line.n);
	if (is_urgent && atomic_load_explicit(&is_running, memory_order_acquire))
		wake_writer();
}

static bool is_wanted(enum log_level level)
{
	return (int)level >= atomic_load_explicit(&least_level, memory_order_relaxed);
}

static void write_event(enum log_level level, const char *event, const struct log_field *fields, uint32_t suppressed)
{
	struct sbuf line = { 0 };

	SBUF_LIT(&line, "{\"time\":\"");
	sbuf_reserve(&line, LOG_TIME_SIZE);
	log_time(line.p + line.n);
	line.n += LOG_TIME_SIZE;
	sbuf_addf(&line, "\",\"level\":\"%s\",\"event\":", level_names[level]);
	json_quote(&line, str_of(event));
	for (const struct log_field *f = fields; f->type != LOG_END; f++)
		add_field(&line, f);
	if (suppressed)
		sbuf_addf(&line, ",\"suppressed\":%u", suppressed);
	SBUF_LIT(&line, "}\n");
	write_line(sbuf_str(&line), level == LOG_ERROR);
	sbuf_free(&line);
}

void log_event(enum log_level level, const char *event, const struct log_field *fields)
{
	uint32_t suppressed;

	if (is_wanted(level) && admit(event, &suppressed))
		write_event(level, event, fields, suppressed);
}

void log_every(enum log_level level, const char *event, const struct log_field *fields)
{
	if (is_wanted(level))
		write_event(level, event, fields, 0);
}
