/*
 * test_ring.c -- rings: the same for everybody, fair by weight, and still when hosts come and go. Nothing is random:
 * the names and keys are fixed, so the figures are.
 */
/* room: proxy */
#include "proxy/policy.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <cmocka.h>
#include "core/xxh64.h"
#include "proxy/ring.h"

#define HOSTS 12
#define KEYS 20000
#define POINTS 1024

const struct policy_class *const policy_classes[] = { NULL };

static char names[HOSTS][32];
static struct ring_host hosts[HOSTS];

static int name_hosts(void **state)
{
	(void)state;
	for (unsigned i = 0; i < HOSTS; i++) {
		snprintf(names[i], sizeof(names[i]), "10.0.0.%u:8080", i + 1);
		hosts[i] = (struct ring_host){ str_of(names[i]), 100 };
	}
	return 0;
}

static uint64_t key_hash(unsigned i)
{
	char key[32];

	return xxh64((struct str){ key, (size_t)snprintf(key, sizeof(key), "user-%u", i) }, 0);
}

static uint32_t owner(const struct ring *r, uint64_t hash)
{
	return ring_host_at(r, ring_find(r, hash));
}

/* Keys of each of n hosts. */
static void count_keys(const struct ring *r, unsigned *counts)
{
	for (unsigned i = 0; i < HOSTS; i++)
		counts[i] = 0;
	for (unsigned i = 0; i < KEYS; i++)
		counts[owner(r, key_hash(i))]++;
}

/* Keys whose host has another name in the other ring. */
static unsigned count_moved(const struct ring *a, const struct ring_host *of_a, const struct ring *b,
			    const struct ring_host *of_b, struct str unless)
{
	unsigned moved = 0;

	for (unsigned i = 0; i < KEYS; i++) {
		struct str before = of_a[owner(a, key_hash(i))].name, after = of_b[owner(b, key_hash(i))].name;

		moved += !str_equal(before, after) && !str_equal(before, unless) && !str_equal(after, unless);
	}
	return moved;
}

static void shares_follow_weights(void **state)
{
	unsigned counts[HOSTS];
	struct ring *r;

	(void)state;
	r = ring_new(hosts, 4, POINTS);
	/* POINTS for a weight of 64. */
	assert_true(ring_size(r) == 4 * POINTS * 100 / 64);
	count_keys(r, counts);
	for (unsigned i = 0; i < 4; i++)
		assert_in_range(counts[i], KEYS / 4 * 9 / 10, KEYS / 4 * 11 / 10);
	part_drop(ring_part(r));
	hosts[1].weight = 300;
	hosts[2].weight = 0;
	r = ring_new(hosts, 4, POINTS);
	assert_true(ring_size(r) >= POINTS);
	count_keys(r, counts);
	assert_in_range(counts[0], KEYS / 5 * 8 / 10, KEYS / 5 * 12 / 10);
	assert_in_range(counts[1], KEYS * 3 / 5 * 9 / 10, KEYS * 3 / 5 * 11 / 10);
	assert_int_equal(counts[2], 0);
	part_drop(ring_part(r));
}

/* Each worker and node makes its own: the bytes are the same, in whatever order the hosts are told. */
static void order_does_not_matter(void **state)
{
	struct ring_host turned[HOSTS];
	struct ring *a, *b;

	(void)state;
	hosts[3].weight = 250;
	for (unsigned i = 0; i < HOSTS; i++)
		turned[i] = hosts[(i * 5 + 3) % HOSTS];
	a = ring_new(hosts, HOSTS, POINTS);
	b = ring_new(turned, HOSTS, POINTS);
	assert_true(ring_size(a) == ring_size(b));
	assert_int_equal(count_moved(a, hosts, b, turned, STR("")), 0);
	part_drop(ring_part(a));
	part_drop(ring_part(b));
}

/*
 * Some keys and their hosts, as any other node finds them and as another program computed them: a change of the ring is
 * a change of the contract.
 */
static void the_ring_is_what_it_was(void **state)
{
	static const unsigned expected[] = { 6, 7, 7, 0, 5, 1, 8, 9, 0, 9, 2, 8, 8, 9, 9, 4 };
	struct ring *r = ring_new(hosts, 10, POINTS);

	(void)state;
	for (unsigned i = 0; i < sizeof(expected) / sizeof(expected[0]); i++)
		assert_int_equal(owner(r, key_hash(i)), expected[i]);
	part_drop(ring_part(r));
}

/* One host more or less: its own share moves, and nothing between the others. */
static void only_the_share_of_the_changed_host_moves(void **state)
{
	static const unsigned sizes[] = { 1, 2, 3, 4, 8, 9, 10, 11 };

	(void)state;
	for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		unsigned n = sizes[i], moved;
		struct ring *less = ring_new(hosts, n, POINTS), *more = ring_new(hosts, n + 1, POINTS);

		assert_int_equal(count_moved(less, hosts, more, hosts, hosts[n].name), 0);
		moved = count_moved(less, hosts, more, hosts, STR(""));
		assert_in_range(moved, KEYS / (n + 1) * 8 / 10, KEYS / (n + 1) * 12 / 10);
		if (n >= 9)
			assert_true(moved <= KEYS * 15 / 100);
		part_drop(ring_part(less));
		part_drop(ring_part(more));
	}
}

static void every_host_has_a_point(void **state)
{
	unsigned points[HOSTS] = { 0 };
	struct ring *r;

	(void)state;
	hosts[0].weight = 10000;
	hosts[1].weight = 1;
	r = ring_new(hosts, 2, 1);
	for (uint32_t i = 0; i < ring_size(r); i++)
		points[ring_host_at(r, i)]++;
	assert_int_equal(points[0], 2);
	assert_int_equal(points[1], 1);
	part_drop(ring_part(r));
}

/* The largest ring there may be is not exceeded, whatever is asked for. */
static void size_is_bounded(void **state)
{
	struct ring *r;

	(void)state;
	hosts[5].weight = 1;
	r = ring_new(hosts, HOSTS, RING_POINTS_MAX);
	assert_in_range(ring_size(r), RING_POINTS_MAX - 1000, RING_POINTS_MAX);
	part_drop(ring_part(r));
}

static void no_weight_no_ring(void **state)
{
	struct ring *r;

	(void)state;
	hosts[0].weight = 0;
	r = ring_new(hosts, 1, POINTS);
	assert_true(ring_size(r) == 0);
	part_drop(ring_part(r));
	r = ring_new(hosts, 0, POINTS);
	assert_true(ring_size(r) == 0);
	part_drop(ring_part(r));
}

/* What lets snapshots share one. */
static void knows_what_it_was_made_of(void **state)
{
	struct ring *r = ring_new(hosts, 3, POINTS);

	(void)state;
	assert_true(ring_is_of(r, hosts, 3, POINTS));
	assert_false(ring_is_of(r, hosts, 2, POINTS));
	assert_false(ring_is_of(r, hosts, 3, POINTS + 1));
	hosts[2].weight++;
	assert_false(ring_is_of(r, hosts, 3, POINTS));
	hosts[2].weight--;
	hosts[2].name = STR("10.0.0.9:1");
	assert_false(ring_is_of(r, hosts, 3, POINTS));
	part_drop(ring_part(r));
}

#define CASE(f) cmocka_unit_test_setup(f, name_hosts)

int main(void)
{
	static const struct CMUnitTest tests[] = {
		CASE(shares_follow_weights),
		CASE(order_does_not_matter),
		CASE(the_ring_is_what_it_was),
		CASE(only_the_share_of_the_changed_host_moves),
		CASE(every_host_has_a_point),
		CASE(size_is_bounded),
		CASE(no_weight_no_ring),
		CASE(knows_what_it_was_made_of),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
