/* test_snapshot.c -- workers adopt, pin and give back while control publishes; made to run under
 * ThreadSanitizer as well. */
/* room: proxy */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#undef fail
#include <pthread.h>
#include "core/mem.h"
#include "proxy/snapshot.h"

enum { WORKERS = 3, PUBLISHES = 5000, PINS = 8 };

struct thing {
	struct part part;
	uint64_t version;
};

static unsigned living;                                    /* parts: control thread only */
static struct mailbox boxes[WORKERS];
static struct inbox returned;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static atomic_bool stop;

static void destroy(struct part *p)
{
	living--;
	mem_free(CONTAINER(p, struct thing, part));
}

static void signal_change(void *arg)
{
	(void)arg;
	pthread_mutex_lock(&lock);
	pthread_cond_broadcast(&changed);
	pthread_mutex_unlock(&lock);
}

static int setup(void **state)
{
	(void)state;
	memset(boxes, 0, sizeof(boxes));
	for (unsigned i = 0; i < WORKERS; i++) {
		boxes[i].reaper = &returned;
		boxes[i].wake_control = signal_change;
	}
	atomic_store(&stop, false);
	return 0;
}

/* One thing under the key "service", which says the version; everything else is shared with `before`. */
static struct snapshot *make(struct pmap **services, uint64_t version)
{
	struct snapshot *s = MEM_NEW(struct snapshot);
	struct thing *t = MEM_NEW(struct thing);

	t->part = (struct part){ 1, destroy };
	t->version = version;
	living++;
	*services = pmap_set(*services, STR("service"), &t->part);
	part_drop(&t->part);
	s->version = version;
	s->services = pmap_hold(*services);
	s->paths = pmap_new();
	s->bindings = pmap_new();
	return s;
}

static uint64_t read_version(const struct view *v)
{
	struct part *p = pmap_get(v->snapshot->services, STR("service"));

	assert_non_null(p);
	return CONTAINER(p, struct thing, part)->version;
}

static unsigned adoptions;

static void count_adoption(void *arg, const struct snapshot *s)
{
	uint64_t *last = arg;

	assert_true(s->version == *last + 1);              /* in order, none left out */
	*last = s->version;
	adoptions++;
}

static void test_old_view_lives_until_its_exchange_ends(void **state)
{
	struct pmap *services = pmap_new();
	struct view *first, *second;
	uint64_t last = 0;

	(void)state;
	setup(NULL);
	assert_null(snapshot_adopt(NULL, &boxes[0], count_adoption, &last));
	snapshot_publish(make(&services, 1), boxes, 1);
	first = snapshot_adopt(NULL, &boxes[0], count_adoption, &last);
	assert_int_equal(atomic_load(&boxes[0].adopted), 1);
	assert_ptr_equal(snapshot_adopt(first, &boxes[0], count_adoption, &last), first);
	first->exchanges = 2;
	snapshot_publish(make(&services, 2), boxes, 1);
	snapshot_publish(make(&services, 3), boxes, 1);
	second = snapshot_adopt(first, &boxes[0], count_adoption, &last);
	assert_int_equal(adoptions, 3);
	assert_int_equal(read_version(second), 3);
	snapshot_reap(&returned);
	assert_int_equal(living, 2);                       /* 2 was never used and went at once */
	assert_int_equal(read_version(first), 1);
	first->exchanges--;
	snapshot_unpin(first, second, &boxes[0]);
	snapshot_reap(&returned);
	assert_int_equal(living, 2);
	first->exchanges--;
	snapshot_unpin(first, second, &boxes[0]);
	snapshot_reap(&returned);
	assert_int_equal(living, 1);
	snapshot_unpin(second, second, &boxes[0]);         /* idle, and still the current one */
	snapshot_reap(&returned);
	assert_int_equal(read_version(second), 3);
	snapshot_unpin(second, NULL, &boxes[0]);
	snapshot_reap(&returned);
	pmap_drop(services);
	assert_int_equal(living, 0);
}

static void test_last_worker_returns_it(void **state)
{
	struct pmap *services = pmap_new();
	struct view *views[WORKERS];

	(void)state;
	setup(NULL);
	snapshot_publish(make(&services, 1), boxes, WORKERS);
	pmap_drop(services);
	for (unsigned i = 0; i < WORKERS; i++)
		views[i] = snapshot_adopt(NULL, &boxes[i], NULL, NULL);
	for (unsigned i = 0; i < WORKERS; i++) {
		snapshot_reap(&returned);
		assert_int_equal(living, 1);
		snapshot_unpin(views[i], NULL, &boxes[i]);
	}
	snapshot_reap(&returned);
	assert_int_equal(living, 0);
}

/* Exchanges of a worker that are under way, each pinned to the view it was born under. */
static void *run_worker(void *arg)
{
	struct mailbox *box = arg;
	struct view *current = NULL, *pins[PINS] = { NULL };
	uint64_t last = 0, born[PINS] = { 0 };

	for (unsigned turn = 0; !atomic_load(&stop) || turn % PINS; turn++) {
		struct view *v = pins[turn % PINS];

		current = snapshot_adopt(current, box, NULL, NULL);
		if (!current)
			continue;
		BUG_ON(read_version(current) < last);
		last = read_version(current);
		if (v) {
			BUG_ON(read_version(v) != born[turn % PINS]);
			v->exchanges--;
			snapshot_unpin(v, current, box);
		}
		pins[turn % PINS] = current;
		born[turn % PINS] = last;
		current->exchanges++;
	}
	current = snapshot_adopt(current, box, NULL, NULL);
	for (unsigned i = 0; i < PINS; i++)
		if (pins[i]) {
			pins[i]->exchanges--;
			snapshot_unpin(pins[i], current, box);
		}
	snapshot_unpin(current, NULL, box);
	return NULL;
}

static bool all_adopted(uint64_t version)
{
	for (unsigned i = 0; i < WORKERS; i++)
		if (atomic_load(&boxes[i].adopted) < version)
			return false;
	return true;
}

static void test_three_workers_thousands_of_versions(void **state)
{
	struct pmap *services = pmap_new();
	pthread_t threads[WORKERS];

	(void)state;
	setup(NULL);
	for (unsigned i = 0; i < WORKERS; i++)
		threads[i] = thread_start("worker", run_worker, &boxes[i]);
	for (uint64_t version = 1; version <= PUBLISHES; version++) {
		snapshot_publish(make(&services, version), boxes, WORKERS);
		if (version % 64 == 0) {
			pthread_mutex_lock(&lock);
			while (!all_adopted(version))
				pthread_cond_wait(&changed, &lock);
			pthread_mutex_unlock(&lock);
		}
		snapshot_reap(&returned);
	}
	atomic_store(&stop, true);
	for (unsigned i = 0; i < WORKERS; i++)
		pthread_join(threads[i], NULL);
	pmap_drop(services);
	snapshot_reap(&returned);
	assert_true(all_adopted(PUBLISHES));
	assert_int_equal(living, 0);
}

static void test_endpoint_is_up(void **state)
{
	struct endpoint_cell cell = { 0 };
	const struct endpoint e = { .cell = &cell };

	(void)state;
	assert_true(endpoint_is_up(&e, 0));
	atomic_store(&cell.ejected_until_ms, 1000);
	assert_false(endpoint_is_up(&e, 999));
	assert_true(endpoint_is_up(&e, 1000));
	atomic_store(&cell.unhealthy, true);
	assert_false(endpoint_is_up(&e, 1000));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_old_view_lives_until_its_exchange_ends),
		cmocka_unit_test(test_last_worker_returns_it),
		cmocka_unit_test(test_three_workers_thousands_of_versions),
		cmocka_unit_test(test_endpoint_is_up),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
