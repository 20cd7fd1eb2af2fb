#include "policy/password_check.h"
#include "core/clock.h"
#include "core/mem.h"
#include "core/offload.h"
#include "proxy/worker.h"

struct password_check {
	struct offload_job job;
	struct list node;                 /* in `pending` until it is over */
	struct waitlist waiting;
	struct proof proof;
	unsigned users;                   /* who joined and has not left */
	bool is_over, is_good, has_result;
	size_t password_n, hash_n;
	char password[PASSWORD_BYTES_MAX], hash[PASSWORD_HASH_MAX];
};

static struct offload pool = OFFLOAD_POOL("passwords", 0, PASSWORD_QUEUE_MAX, .nice = 5);
static _Thread_local struct list pending;          /* of this worker */

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

static void over(struct offload_job *j)
{
	struct password_check *c = CONTAINER(j, struct password_check, job);
	int64_t now_ms = clock_ms();

	list_remove(&c->node);
	c->is_over = true;
	c->has_result = j->end == OFFLOAD_RAN;
	if (c->has_result)
		proof_keep(&c->proof, c->is_good, now_ms, now_ms + (c->is_good ? PASSWORD_GOOD_MS : PASSWORD_BAD_MS));
	waitlist_wake(&c->waiting);
	release_if_done(c);
}

static struct password_check *find(const struct proof *p)
{
	if (!pending.next)
		list_init(&pending);
	LIST_EACH(node, &pending) {
		struct password_check *c = CONTAINER(node, struct password_check, node);

		if (memcmp(c->proof.mac, p->mac, sizeof p->mac) == 0)
			return c;
	}
	return NULL;
}

static struct password_check *begin(struct exchange *x, const struct proof *p, struct str password, struct str hash)
{
	struct password_check *c = MEM_NEW(struct password_check);

	BUG_ON(password.n > sizeof c->password || hash.n > sizeof c->hash);
	c->proof = *p;
	c->password_n = password.n;
	c->hash_n = hash.n;
	memcpy(c->password, password.p ? password.p : "", password.n);
	memcpy(c->hash, hash.p, hash.n);
	c->job.run = compare;
	c->job.over = over;
	c->job.deadline_us = clock_now_us() + PASSWORD_WAIT_MS * 1000;
	if (offload_submit(&pool, &c->job, worker_loop(exchange_worker(x)))) {
		list_append(&pending, &c->node);
		return c;
	}
	c->is_over = true;
	release_if_done(c);
	return NULL;
}

struct password_check *password_check_join(struct exchange *x, struct waitlist_entry *e, const struct proof *p,
					   struct str password, struct str hash)
{
	struct password_check *c = find(p);

	if (!c)
		c = begin(x, p, password, hash);
	if (!c)
		return NULL;
	c->users++;
	waitlist_join(&c->waiting, e, exchange_worker(x), PASSWORD_WAIT_MS);
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
	if (c->users == 0 && !c->is_over) {
		offload_cancel(&c->job);
		/* Nobody may join what will not be done. */
		list_remove(&c->node);
	}
	release_if_done(c);
}
