/*
 * test_rotation.c -- candidates and the ways to choose one, with an injected clock and a fixed source of random
 * numbers: every figure here is the same in every run.
 */
/* room: proxy */
#include "proxy/policy.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>
#include "core/mem.h"
#include "core/xxh64.h"
#include "proxy/ring.h"
#include "proxy/rotation.h"

#define MOST 8
#define NOW INT64_C(10000000)

const struct policy_class *const policy_classes[] = { NULL };

static struct endpoint endpoints[MOST];
static struct service service;
static struct str tags[MOST];
static const struct group_key all = { .kind = GROUP_ALL };
static const struct lane_names *lanes;
static unsigned served[MOST];
static uint64_t seed;

static uint64_t next_random(void)
{
	seed += UINT64_C(0x9e3779b97f4a7c15);
	uint64_t v = seed;
	v = (v ^ v >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	v = (v ^ v >> 27) * UINT64_C(0x94d049bb133111eb);
	return v ^ v >> 31;
}

static int start(void **state)
{
	static char texts[MOST][32];

	(void)state;
	seed = 1;
	lanes = NULL;
	memset(endpoints, 0, sizeof(endpoints));
	memset(tags, 0, sizeof(tags));
	service = (struct service){ .endpoints = endpoints, .n_endpoints = 3, .tags = tags };
	service.rotation = rotation_new();
	for (unsigned i = 0; i < MOST; i++) {
		snprintf(texts[i], sizeof(texts[i]), "10.0.0.%u:80", i + 1);
		endpoints[i].text = str_of(texts[i]);
		endpoints[i].port = 80;
		endpoints[i].weight = 100;
		endpoints[i].cell = MEM_NEW(struct endpoint_cell);
	}
	return 0;
}

static int stop(void **state)
{
	(void)state;
	part_drop(rotation_part(service.rotation));
	for (unsigned i = 0; i < MOST; i++)
		mem_free(endpoints[i].cell);
	return 0;
}

/* The endpoints, or their weights, have changed: so has the version of the service. */
static void renew(void)
{
	part_drop(rotation_part(service.rotation));
	service.rotation = rotation_new();
}

static struct group *group(unsigned worker, const struct group_key *key)
{
	return rotation_group(&service, worker, key, lanes, next_random());
}

static struct pick pick_of(const struct balance *b, unsigned worker, int64_t now_ms)
{
	return (struct pick){
		.service = &service, .balance = b, .group = group(worker, &all),
		.now_ms = now_ms, .random = next_random()
	};
}

static unsigned pick(const struct balance *b, unsigned worker, int64_t now_ms)
{
	struct pick p = pick_of(b, worker, now_ms);
	const struct endpoint *e = rotation_pick(&p);

	assert_non_null(e);
	served[e - endpoints]++;
	return (unsigned)(e - endpoints);
}

static void serve(const struct balance *b, unsigned n, int64_t now_ms)
{
	memset(served, 0, sizeof(served));
	for (unsigned i = 0; i < n; i++)
		pick(b, 0, now_ms);
}

static void set_down(unsigned i, bool is_down)
{
	atomic_store(&endpoints[i].cell->unhealthy, is_down);
}

/* ---------- in turn ---------- */

static void equal_weights_go_round(void **state)
{
	unsigned first = pick(NULL, 0, NOW);

	(void)state;
	for (unsigned i = 1; i < 300; i++)
		assert_int_equal(pick(NULL, 0, NOW), (first + i) % 3);
}

/* Else all workers of all nodes would send the first requests after a change to the same endpoint. */
static void workers_begin_apart(void **state)
{
	unsigned firsts[3] = { 0 };

	(void)state;
	for (unsigned worker = 0; worker < WORKERS_MAX; worker++)
		firsts[pick(NULL, worker, NOW)]++;
	for (unsigned i = 0; i < 3; i++)
		assert_in_range(firsts[i], 10, 40);
	endpoints[0].weight = 500;
	renew();
	memset(firsts, 0, sizeof(firsts));
	for (unsigned worker = 0; worker < WORKERS_MAX; worker++)
		firsts[pick(NULL, worker, NOW)]++;
	assert_true(firsts[1] > 0 && firsts[2] > 0);
}

/* 5, 1, 1: in any seven picks in a row five, one and one, and never more than four times the same one in a row. */
static void unequal_weights_are_smooth(void **state)
{
	unsigned row[70], run = 0, longest = 0;

	(void)state;
	endpoints[0].weight = 500;
	for (unsigned i = 0; i < 70; i++) {
		row[i] = pick(NULL, 0, NOW);
		run = i > 0 && row[i] == row[i - 1] ? run + 1 : 1;
		longest = run > longest ? run : longest;
	}
	assert_true(longest <= 4);
	for (unsigned from = 0; from + 7 <= 70; from++) {
		unsigned counts[3] = { 0 };

		for (unsigned i = from; i < from + 7; i++)
			counts[row[i]]++;
		assert_int_equal(counts[0], 5);
		assert_int_equal(counts[1], 1);
		assert_int_equal(counts[2], 1);
	}
}

/* The sequence of the textbook: a a b a c a a, from wherever this worker began. */
static void smooth_sequence_is_the_known_one(void **state)
{
	const char *known = "aabacaaaabacaaaabacaa";
	char row[15] = { 0 };

	(void)state;
	endpoints[0].weight = 500;
	for (unsigned i = 0; i < 14; i++)
		row[i] = (char)('a' + pick(NULL, 0, NOW));
	/* b and c weigh the same: which of them is first depends on the start. */
	if (!strstr(known, row))
		for (unsigned i = 0; i < 14; i++)
			row[i] = row[i] == 'b' ? 'c' : row[i] == 'c' ? 'b' : row[i];
	assert_non_null(strstr(known, row));
}

static void those_that_are_down_are_left_out(void **state)
{
	(void)state;
	set_down(1, true);
	serve(NULL, 100, NOW);
	assert_int_equal(served[0], 50);
	assert_int_equal(served[1], 0);
	set_down(1, false);
	atomic_store(&endpoints[2].cell->ejected_until_ms, NOW + 1);
	serve(NULL, 100, NOW);
	assert_int_equal(served[2], 0);
	serve(NULL, 99, NOW + 1);
	assert_int_equal(served[2], 33);
	endpoints[1].weight = 0;
	renew();
	serve(NULL, 100, NOW + 1);
	assert_int_equal(served[1], 0);
	for (unsigned i = 0; i < 3; i++)
		set_down(i, true);
	struct pick p = pick_of(NULL, 0, NOW);
	assert_null(rotation_pick(&p));
	assert_false(rotation_has(&p));
}

static void one_that_was_tried_is_not_preferred(void **state)
{
	const struct endpoint *tried[] = { &endpoints[0], &endpoints[2] };
	static const enum balance_method methods[] = { BALANCE_IN_TURN, BALANCE_LEAST_BUSY, BALANCE_AT_RANDOM };

	(void)state;
	for (unsigned m = 0; m < 3; m++)
		for (unsigned i = 0; i < 50; i++) {
			struct balance b = { .method = methods[m] };
			struct pick p = pick_of(&b, 0, NOW);

			p.tried = tried;
			p.n_tried = 2;
			p.is_fresh = true;
			assert_ptr_equal(rotation_pick(&p), &endpoints[1]);
		}
}

/* ---------- least busy, random ---------- */

static void the_less_busy_of_two_is_chosen(void **state)
{
	struct balance b = { .method = BALANCE_LEAST_BUSY };

	(void)state;
	for (unsigned i = 0; i < 3; i++)
		atomic_store(&endpoints[i].cell->active, i == 1 ? 7 : 3);
	serve(&b, 3000, NOW);
	/* It would have to be drawn twice, and two draws are of different endpoints. */
	assert_int_equal(served[1], 0);
	assert_in_range(served[0], 1300, 1700);
	/* As many everywhere: the first one drawn, so all alike. */
	atomic_store(&endpoints[1].cell->active, 3);
	serve(&b, 3000, NOW);
	for (unsigned i = 0; i < 3; i++)
		assert_in_range(served[i], 850, 1150);
	/* Of two that are up both are drawn. */
	set_down(0, true);
	atomic_store(&endpoints[1].cell->active, 0);
	serve(&b, 100, NOW);
	assert_int_equal(served[1], 100);
	set_down(1, true);
	serve(&b, 100, NOW);
	assert_int_equal(served[2], 100);
}

/* 3 : 1 while both are idle; three requests in flight at the heavy one make it 300 / 4 to 100 / 1, which is 3 : 4. */
static void weights_are_divided_by_what_is_in_flight(void **state)
{
	struct balance b = { .method = BALANCE_LEAST_BUSY };

	(void)state;
	service.n_endpoints = 2;
	endpoints[0].weight = 300;
	serve(&b, 400, NOW);
	assert_in_range(served[0], 298, 302);
	atomic_store(&endpoints[0].cell->active, 3);
	serve(&b, 700, NOW);
	assert_in_range(served[0], 297, 303);
	atomic_store(&endpoints[0].cell->active, 1000000);
	serve(&b, 1000, NOW);
	assert_true(served[0] <= 2);
}

static void random_follows_weights(void **state)
{
	struct balance b = { .method = BALANCE_AT_RANDOM };

	(void)state;
	endpoints[0].weight = 300;
	serve(&b, 10000, NOW);
	assert_in_range(served[0], 5750, 6250);
	assert_in_range(served[1], 1800, 2200);
	set_down(0, true);
	serve(&b, 10000, NOW);
	assert_int_equal(served[0], 0);
	assert_in_range(served[1], 4750, 5250);
}

/* ---------- by hash ---------- */

static struct balance by_hash(void)
{
	struct ring_host hosts[MOST];

	for (unsigned i = 0; i < service.n_endpoints; i++)
		hosts[i] = (struct ring_host){ endpoints[i].text, endpoints[i].weight };
	service.ring = ring_new(hosts, service.n_endpoints, 1024);
	return (struct balance){ .method = BALANCE_BY_HASH };
}

static unsigned pick_key(const struct balance *b, unsigned worker, unsigned key)
{
	struct pick p = pick_of(b, worker, NOW);
	char text[16];

	p.has_key = true;
	p.key_hash = xxh64((struct str){ text, (size_t)snprintf(text, sizeof(text), "k%u", key) }, 0);
	return (unsigned)(rotation_pick(&p) - endpoints);
}

static void a_key_has_one_endpoint_on_every_worker(void **state)
{
	struct balance b;

	(void)state;
	service.n_endpoints = 5;
	b = by_hash();
	for (unsigned key = 0; key < 500; key++) {
		unsigned first = pick_key(&b, 0, key);

		for (unsigned worker = 1; worker < 8; worker++)
			assert_int_equal(pick_key(&b, worker, key), first);
	}
	part_drop(ring_part(service.ring));
}

/* Its keys go to the next one on the ring, and come back with it; no other key moves. */
static void only_keys_of_one_that_is_down_move(void **state)
{
	unsigned before[500], moved = 0, taken[MOST] = { 0 };
	struct balance b;

	(void)state;
	service.n_endpoints = 5;
	b = by_hash();
	for (unsigned key = 0; key < 500; key++)
		before[key] = pick_key(&b, 0, key);
	set_down(2, true);
	for (unsigned key = 0; key < 500; key++) {
		unsigned now = pick_key(&b, 0, key);

		if (before[key] != 2) {
			assert_int_equal(now, before[key]);
			continue;
		}
		assert_int_not_equal(now, 2);
		taken[now]++;
		moved++;
	}
	assert_in_range(moved, 60, 140);
	for (unsigned i = 0; i < 5; i++)
		assert_true(i == 2 || taken[i] > 0);
	set_down(2, false);
	for (unsigned key = 0; key < 500; key++)
		assert_int_equal(pick_key(&b, 0, key), before[key]);
	/* A retry goes to the next distinct host. */
	const struct endpoint *tried[] = { &endpoints[before[0]] };
	struct pick p = pick_of(&b, 0, NOW);
	p.has_key = p.is_fresh = true;
	p.key_hash = xxh64(STR("k0"), 0);
	p.tried = tried;
	p.n_tried = 1;
	const struct endpoint *second = rotation_pick(&p);
	assert_ptr_not_equal(second, tried[0]);
	set_down(before[0], true);
	assert_int_equal(pick_key(&b, 0, 0), second - endpoints);
	part_drop(ring_part(service.ring));
}

static void without_a_key_any_endpoint_serves(void **state)
{
	struct balance b;

	(void)state;
	b = by_hash();
	serve(&b, 3000, NOW);
	for (unsigned i = 0; i < 3; i++)
		assert_in_range(served[i], 850, 1150);
	part_drop(ring_part(service.ring));
}

/* ---------- warming up ---------- */

static void shares_grow_with_age(void **state)
{
	struct balance b = { .method = BALANCE_IN_TURN, .warmup_ms = 10000 };
	static const struct {
		int64_t age_ms, weight;
	} cases[] = {
		{ -5, 10000 }, { 0, 10000 }, { 500, 10000 }, { 1000, 10000 }, { 1001, 10010 }, { 2500, 25000 },
		{ 5000, 50000 }, { 9999, 99990 }, { 10000, 100000 }, { 1000000, 100000 },
	};

	(void)state;
	atomic_store(&endpoints[0].cell->warm_from_ms, NOW);
	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		assert_int_equal(rotation_weight(&b, &endpoints[0], NOW + cases[i].age_ms), cases[i].weight);
	assert_int_equal(rotation_weight(NULL, &endpoints[0], NOW), 100000);
	/* The end of an ejection counts like a birth. */
	atomic_store(&endpoints[0].cell->ejected_until_ms, NOW + 60000);
	assert_int_equal(rotation_weight(&b, &endpoints[0], NOW + 60000 + 5000), 50000);
}

/* One old, one new: 10 of 110 at first, then more and more, the half in the end. */
static void a_new_endpoint_begins_small(void **state)
{
	static const enum balance_method methods[] = { BALANCE_IN_TURN, BALANCE_LEAST_BUSY };

	(void)state;
	service.n_endpoints = 2;
	atomic_store(&endpoints[1].cell->warm_from_ms, NOW);
	for (unsigned m = 0; m < 2; m++) {
		struct balance b = { .method = methods[m], .warmup_ms = 10000 };

		renew();
		serve(&b, 1100, NOW);
		assert_in_range(served[1], 98, 102);
		serve(&b, 1500, NOW + 5000);
		assert_in_range(served[1], 495, 505);
		serve(&b, 1000, NOW + 10000);
		assert_in_range(served[1], 440, 560);
	}
}

/* The lightest weight there is, at the start of the longest warm-up, is served all the same. */
static void no_share_is_rounded_to_nothing(void **state)
{
	struct balance b = { .method = BALANCE_IN_TURN, .warmup_ms = 3600000 };

	(void)state;
	service.n_endpoints = 2;
	endpoints[0].weight = 100;
	endpoints[1].weight = 1;
	atomic_store(&endpoints[1].cell->warm_from_ms, NOW);
	serve(&b, 3003, NOW + 1);
	assert_in_range(served[1], 2, 4);
}

static void all_that_warm_up_together_are_equal(void **state)
{
	struct balance b = { .method = BALANCE_IN_TURN, .warmup_ms = 10000 };

	(void)state;
	for (unsigned i = 0; i < 3; i++)
		atomic_store(&endpoints[i].cell->warm_from_ms, NOW);
	serve(&b, 300, NOW + 1);
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(served[i], 100);
}

/* ---------- health does not matter ---------- */

static void few_that_are_up_are_a_panic(void **state)
{
	struct pick p;

	(void)state;
	service.n_endpoints = 4;
	service.panic_percent = 50;
	set_down(0, true);
	set_down(1, true);
	p = pick_of(NULL, 0, NOW);
	assert_false(rotation_panics(&p));
	set_down(2, true);
	assert_true(rotation_panics(&p));
	memset(served, 0, sizeof(served));
	p.panics = true;
	for (unsigned i = 0; i < 40; i++)
		served[rotation_pick(&p) - endpoints]++;
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(served[i], 10);
	service.panic_percent = 0;
	assert_false(rotation_panics(&p));
}

/* ---------- candidates ---------- */

static unsigned members(const struct group_key *key)
{
	const struct group *g = group(0, key);
	unsigned bits = 0;

	for (unsigned i = 0; i < g->n; i++)
		bits |= 1U << g->members[i];
	return bits;
}

static void groups_are_by_port_version_and_lane(void **state)
{
	static const struct str lane_list[] = { { "gray", 4 }, { "v2", 2 } };
	const struct lane_names known = { lane_list, 2, 77 };

	(void)state;
	service.n_endpoints = 5;
	tags[0] = STR("v1");
	tags[1] = STR("v2");
	tags[2] = STR("blue");
	service.n_tags = 3;
	endpoints[0].version = endpoints[1].version = STR("v1");
	endpoints[2].version = STR("v2");
	endpoints[3].tag = STR("blue");
	endpoints[4].port = 81;
	assert_int_equal(rotation_tag(&service, STR("v2")), 2);
	assert_int_equal(rotation_tag(&service, STR("v3")), 0);
	assert_int_equal(members(&all), 31);
	assert_int_equal(members(&(struct group_key){ GROUP_ALL, .port = 81 }), 16);
	assert_int_equal(members(&(struct group_key){ GROUP_VERSION, .tag = 0 }), 3);
	assert_int_equal(members(&(struct group_key){ GROUP_TAGGED, .tag = 1 }), 4);
	assert_int_equal(members(&(struct group_key){ GROUP_TAGGED, .tag = 2 }), 8);
	/* A version is a tag when a lane has its name. */
	lanes = &known;
	assert_int_equal(members(&(struct group_key){ GROUP_BASELINE, .lanes = 77 }), 1 | 2 | 16);
	lanes = NULL;
	assert_int_equal(members(&(struct group_key){ .kind = GROUP_BASELINE }), 1 | 2 | 4 | 16);
	/* None without a tag: all of them. */
	assert_int_equal(members(&(struct group_key){ GROUP_BASELINE, .port = 81 }), 16);
	for (unsigned i = 0; i < 5; i++)
		endpoints[i].tag = STR("blue");
	renew();
	assert_int_equal(members(&(struct group_key){ .kind = GROUP_BASELINE }), 31);
}

/* Ports and lanes come and go; what is kept of them is bounded, and what is in use stays. */
static void groups_make_room(void **state)
{
	struct group *used = group(0, &all);
	unsigned kept = 0;

	(void)state;
	for (uint16_t port = 1; port < 1000; port++) {
		group(0, &(struct group_key){ GROUP_ALL, .port = port });
		assert_ptr_equal(group(0, &all), used);
	}
	for (const struct group *g = service.rotation->groups[0]; g; g = g->next)
		kept++;
	assert_in_range(kept, 2, ROTATION_GROUPS_MAX);
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, start, stop)

int main(void)
{
	static const struct CMUnitTest tests[] = {
		CASE(equal_weights_go_round),
		CASE(workers_begin_apart),
		CASE(unequal_weights_are_smooth),
		CASE(smooth_sequence_is_the_known_one),
		CASE(those_that_are_down_are_left_out),
		CASE(one_that_was_tried_is_not_preferred),
		CASE(the_less_busy_of_two_is_chosen),
		CASE(weights_are_divided_by_what_is_in_flight),
		CASE(random_follows_weights),
		CASE(a_key_has_one_endpoint_on_every_worker),
		CASE(only_keys_of_one_that_is_down_move),
		CASE(without_a_key_any_endpoint_serves),
		CASE(shares_grow_with_age),
		CASE(a_new_endpoint_begins_small),
		CASE(no_share_is_rounded_to_nothing),
		CASE(all_that_warm_up_together_are_equal),
		CASE(few_that_are_up_are_a_panic),
		CASE(groups_are_by_port_version_and_lane),
		CASE(groups_make_room),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
