#include "policy/password_check.h"
#include <stdatomic.h>
#include "core/cidr.h"
#include "core/clock.h"
#include "core/mem.h"
#include "core/offload.h"
#include "core/thread.h"
#include "proxy/policy.h"
#include "proxy/worker.h"

/* The checks of one user that are not in the pool yet; there is none without a check. */
struct lane {
	struct list node;                 /* own.lanes: the first has its turn */
	struct list checks;               /* password_check.of_lane, oldest first */
	uint64_t user;
	unsigned n;
};

struct password_check {
	struct offload_job job;
	struct loop *loop;
	struct list node;                 /* in own.pending until it is over */
	struct list of_lane;
	struct lane *lane;                /* NULL: in the pool, or over */
	uint64_t address;                 /* who asks, as far as turns go */
	struct waitlist waiting;
	struct proof proof;
	unsigned users;                   /* who joined and has not left */
	bool is_over, is_good, has_result;
	size_t password_n, hash_n;
	char password[PASSWORD_BYTES_MAX], hash[PASSWORD_HASH_MAX];
};

/* What is in it is in no lane's order any more: each worker has its share of the threads there, and one more. */
static struct offload pool = OFFLOAD_POOL("passwords", 0, 4096, .nice = 5);
static atomic_uint n_workers;             /* that check passwords */

/* Of this worker. */
static _Thread_local struct {
	struct list pending, lanes;
	unsigned n_waiting, n_running;    /* in lanes; in the pool */
} own;

static void start_own(void)
{
	if (own.pending.next)
		return;
	list_init(&own.pending);
	list_init(&own.lanes);
	atomic_fetch_add_explicit(&n_workers, 1, memory_order_relaxed);
}

/* The pool has a thread for each CPU but one. */
static unsigned most_at_once(void)
{
	unsigned threads = thread_cpus() > 1 ? thread_cpus() - 1 : 1;

	if (threads > OFFLOAD_THREADS_MAX)
		threads = OFFLOAD_THREADS_MAX;
	return threads / atomic_load_explicit(&n_workers, memory_order_relaxed) + 1;
}

static void compare(struct offload_job *j)
{
	struct password_check *c = CONTAINER(j, struct password_check, job);

	c->is_good = password_matches((struct str){ c->password, c->password_n }, (struct str){ c->hash, c->hash_n });
}

static void release_if_done(struct password_check *c)
{
	if (!c->is_over || c->users > 0)
		return;
	mem_wipe(c->password, sizeof c->password);
	mem_free(c);
}

/* ---------- lanes ---------- */

static struct lane *find_lane(uint64_t user)
{
	LIST_EACH(node, &own.lanes) {
		struct lane *l = CONTAINER(node, struct lane, node);

		if (l->user == user)
			return l;
	}
	return NULL;
}

/* A new one is the last to have its turn. */
static void enter_lane(struct password_check *c, uint64_t user)
{
	struct lane *l = find_lane(user);

	if (!l) {
		l = MEM_NEW(struct lane);
		l->user = user;
		list_init(&l->checks);
		list_append(&own.lanes, &l->node);
	}
	list_append(&l->checks, &c->of_lane);
	c->lane = l;
	l->n++;
	own.n_waiting++;
}

static void leave_lane(struct password_check *c)
{
	struct lane *l = c->lane;

	list_remove(&c->of_lane);
	c->lane = NULL;
	own.n_waiting--;
	if (--l->n > 0)
		return;
	list_remove(&l->node);
	mem_free(l);
}

/* Without a result. */
static void give_up(struct password_check *c)
{
	list_remove(&c->node);
	c->is_over = true;
	waitlist_wake(&c->waiting);
	release_if_done(c);
}

/* `l`: NULL for all lanes. */
static unsigned count_of(const struct lane *l, uint64_t address)
{
	unsigned n = 0;

	LIST_EACH(node, &own.pending) {
		const struct password_check *c = CONTAINER(node, struct password_check, node);

		n += c->lane && (!l || c->lane == l) && c->address == address;
	}
	return n;
}

/* The youngest check of the address that has most there, where it would still have no less than the newcomer's. */
static struct password_check *find_victim(const struct lane *l, uint64_t address)
{
	unsigned most = count_of(l, address) + 2, n;
	struct password_check *victim = NULL;

	LIST_EACH(node, &own.pending) {
		struct password_check *c = CONTAINER(node, struct password_check, node);

		if (!c->lane || (l && c->lane != l) || (n = count_of(l, c->address)) < most)
			continue;
		if (n > most || !victim || victim->address == c->address)
			victim = c;
		most = n;
	}
	return victim;
}

static struct lane *longest_lane(void)
{
	struct lane *longest = NULL;

	LIST_EACH(node, &own.lanes) {
		struct lane *l = CONTAINER(node, struct lane, node);

		if (!longest || l->n > longest->n)
			longest = l;
	}
	return longest;
}

/* By users first: several may come from one address. */
static struct password_check *choose_victim(const struct lane *mine, uint64_t address)
{
	const struct lane *longest;

	if (mine && mine->n >= PASSWORD_LANE_MAX)
		return find_victim(mine, address);
	longest = longest_lane();
	if (longest->n > (mine ? mine->n : 0) + 1)
		return CONTAINER(longest->checks.prev, struct password_check, of_lane);
	return find_victim(NULL, address);
}

static bool make_room(uint64_t user, uint64_t address)
{
	const struct lane *mine = find_lane(user);
	struct password_check *victim;

	if ((!mine || mine->n < PASSWORD_LANE_MAX) && own.n_waiting < PASSWORD_QUEUE_MAX)
		return true;
	victim = choose_victim(mine, address);
	if (!victim)
		return false;
	leave_lane(victim);
	give_up(victim);
	return true;
}

/* ---------- into the pool, and back ---------- */

static void over(struct offload_job *j);

static void start_some(void)
{
	const unsigned most = most_at_once();

	while (own.n_running < most && !list_is_empty(&own.lanes)) {
		struct lane *l = CONTAINER(own.lanes.next, struct lane, node);
		struct password_check *c = CONTAINER(l->checks.next, struct password_check, of_lane);

		/* Before it may go with its last check. */
		list_remove(&l->node);
		list_append(&own.lanes, &l->node);
		leave_lane(c);
		c->job.run = compare;
		c->job.over = over;
		if (!offload_submit(&pool, &c->job, c->loop)) {
			give_up(c);
			continue;
		}
		own.n_running++;
	}
}

static void over(struct offload_job *j)
{
	struct password_check *c = CONTAINER(j, struct password_check, job);
	int64_t now_ms = clock_ms();

	own.n_running--;
	c->has_result = j->end == OFFLOAD_RAN;
	if (c->has_result)
		proof_keep(&c->proof, c->is_good, now_ms, now_ms + (c->is_good ? PASSWORD_GOOD_MS : PASSWORD_BAD_MS));
	give_up(c);
	start_some();
}

/* ---------- requests ---------- */

static struct password_check *find(const struct proof *p)
{
	LIST_EACH(node, &own.pending) {
		struct password_check *c = CONTAINER(node, struct password_check, node);

		if (memcmp(c->proof.mac, p->mac, sizeof p->mac) == 0)
			return c;
	}
	return NULL;
}

static uint64_t address_of(const struct exchange *x)
{
	const struct ip *ip = exchange_client_ip(x);

	return str_hash((struct str){ (const char *)ip->bytes,
				      ip_is_v4(ip) ? sizeof ip->bytes : sizeof ip->bytes / 2 });
}

static struct password_check *begin(struct exchange *x, const struct password_claim *claim)
{
	const uint64_t user = claim->user.p ? str_hash(claim->user) : 0, address = address_of(x);
	struct password_check *c;

	BUG_ON(claim->password.n > sizeof c->password || claim->hash.n > sizeof c->hash);
	if (!make_room(user, address))
		return NULL;
	c = MEM_NEW(struct password_check);
	c->loop = worker_loop(exchange_worker(x));
	c->address = address;
	c->proof = claim->proof;
	c->password_n = claim->password.n;
	c->hash_n = claim->hash.n;
	memcpy(c->password, claim->password.p ? claim->password.p : "", claim->password.n);
	memcpy(c->hash, claim->hash.p, claim->hash.n);
	c->job.deadline_us = clock_now_us() + PASSWORD_WAIT_MS * 1000;
	list_append(&own.pending, &c->node);
	enter_lane(c, user);
	return c;
}

struct password_check *password_check_join(struct exchange *x, struct waitlist_entry *e,
	const struct password_claim *claim)
{
	struct password_check *c;

	start_own();
	c = find(&claim->proof);
	if (!c)
		c = begin(x, claim);
	if (!c)
		return NULL;
	c->users++;
	waitlist_join(&c->waiting, e, exchange_worker(x), PASSWORD_WAIT_MS);
	start_some();
	return c;
}

enum proof_found password_check_result(const struct password_check *c)
{
	if (!c->has_result)
		return PROOF_NONE;
	return c->is_good ? PROOF_GOOD : PROOF_BAD;
}

void password_check_leave(struct password_check *c)
{
	c->users--;
	if (c->users == 0 && !c->is_over && c->lane) {
		leave_lane(c);
		list_remove(&c->node);
		c->is_over = true;
	} else if (c->users == 0 && !c->is_over) {
		offload_cancel(&c->job);
		/* Nobody may join what will not be done. */
		list_remove(&c->node);
	}
	release_if_done(c);
}
