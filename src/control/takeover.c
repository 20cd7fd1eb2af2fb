#include "control/takeover.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>
#include "control/api.h"
#include "control/control_parts.h"
#include "control/write.h"
#include "core/log.h"
#include "net/handover.h"

enum {
	ANSWER_MS = 30000,                 /* of a predecessor: it may be in the middle of a write */
	ASK_MS = 5000,                     /* for the first message of a successor */
	START_MS = 120000,                 /* for a successor to load the store and bind */
	RETRY_MS = 1000,
};

/* ---------- the predecessor ---------- */

static void drop_peer(struct takeover *t)
{
	if (t->peer.fd < 0)
		return;
	loop_remove(t->control->loop, &t->peer);
	close(t->peer.fd);
	t->peer.fd = -1;
	timer_disarm(&t->patience);
}

/* The successor is not to be: we go on. Its process may still hold the lock for a moment. */
static void take_back(struct takeover *t)
{
	struct problem why = { 0 };

	t->state = TAKEOVER_SERVES;
	if (store_resume(t->control->store, &why)) {
		t->is_out = false;
		log_warn("takeover.failed", F_TEXT("now", "this process goes on"));
		return;
	}
	log_error("takeover.store_is_out", F_TEXT("why", why.text));
	loop_arm(t->control->loop, &t->patience, RETRY_MS);
}

static void refuse(struct takeover *t, const char *why)
{
	log_warn("takeover.refused", F_TEXT("why", why));
	if (!handover_send(t->peer.fd, HANDOVER_REFUSED, NULL))
		log_debug("takeover.refused_unheard");
	drop_peer(t);
	t->state = TAKEOVER_SERVES;
	if (t->is_out)
		take_back(t);
}

static void fail_peer(struct takeover *t)
{
	/* Unheard when it is dead; otherwise it must not believe that it has the store. */
	if (!handover_send(t->peer.fd, HANDOVER_TAKEN_BACK, NULL))
		log_debug("takeover.failure_unheard");
	drop_peer(t);
	take_back(t);
}

static void lend(struct takeover *t)
{
	/* What was accepted is durable before somebody else may write. */
	api_flush(t->control);
	store_suspend(t->control->store);
	t->state = TAKEOVER_LENT;
	t->is_out = true;
	log_info("takeover.asked");
	loop_arm(t->control->loop, &t->patience, START_MS);
	if (!handover_send_listeners(t->peer.fd))
		fail_peer(t);
}

static void go(struct takeover *t)
{
	struct control *c = t->control;

	t->state = TAKEOVER_GONE;
	if (!handover_send(t->peer.fd, HANDOVER_GO, NULL))
		log_debug("takeover.go_unheard");
	drop_peer(t);
	log_info("takeover.done");
	if (c->server) {
		/* New callers are the successor's: it can write. */
		server_leave(&c->listener);
		server_drain(c->server);
	}
	t->gone(t->arg);
}

static void peer_ready(struct watch *w, uint32_t events)
{
	struct takeover *t = CONTAINER(w, struct takeover, peer);
	enum handover_kind kind = handover_receive(w->fd, 0, NULL);

	(void)events;
	if (kind == HANDOVER_NOTHING)
		return;
	if (t->state == TAKEOVER_ASKED) {
		if (kind == HANDOVER_ASK)
			lend(t);
		else
			refuse(t, kind == HANDOVER_END ? "it closed" : "no message of this version");
	} else if (t->state == TAKEOVER_LENT) {
		if (kind == HANDOVER_READY)
			go(t);
		else
			fail_peer(t);
	}
}

static void out_of_patience(struct timer *timer)
{
	struct takeover *t = CONTAINER(timer, struct takeover, patience);

	if (t->peer.fd < 0)
		take_back(t);
	else if (t->state == TAKEOVER_ASKED)
		refuse(t, "it said nothing");
	else
		fail_peer(t);
}

static void accept_peer(struct watch *w, uint32_t events)
{
	struct takeover *t = CONTAINER(w, struct takeover, listener);
	int fd = handover_accept(w->fd);

	(void)events;
	if (fd < 0) {
		if (errno == EPERM)
			log_warn("takeover.refused", F_TEXT("why", "a process of another user"));
		return;
	}
	if (t->state != TAKEOVER_SERVES) {
		if (!handover_send(fd, HANDOVER_REFUSED, NULL))
			log_debug("takeover.refused_unheard");
		close(fd);
		return;
	}
	t->peer.fd = fd;
	t->peer.ready = peer_ready;
	t->state = TAKEOVER_ASKED;
	loop_arm(t->control->loop, &t->patience, ASK_MS);
	if (!loop_add(t->control->loop, &t->peer, EPOLLIN))
		refuse(t, "out of memory in the kernel");
}

void takeover_offer(struct takeover *t, void (*gone)(void *arg), void *arg)
{
	struct problem why = { 0 };

	t->gone = gone;
	t->arg = arg;
	t->listener.ready = accept_peer;
	t->listener.fd = handover_listen(t->path, &why);
	if (t->listener.fd < 0)
		log_warn("takeover.not_offered", F_TEXT("why", why.text));
	else
		BUG_ON(!loop_add(t->control->loop, &t->listener, EPOLLIN));
}

/* ---------- the successor ---------- */

static void inherit(const struct handover_sockets *sockets)
{
	for (unsigned i = 0; i < sockets->n; i++)
		handover_inherit(sockets->fds[i]);
}

bool takeover_ask(struct takeover *t, struct problem *why)
{
	struct handover_sockets sockets;
	enum handover_kind kind = HANDOVER_SOCKETS;
	int fd = handover_connect(t->path);

	if (fd < 0 && (errno == ENOENT || errno == ECONNREFUSED))
		return true;
	if (fd < 0)
		return problem_of(why, PROBLEM_INTERNAL, "takeover", "cannot ask at %s: %s", t->path, strerror(errno));
	t->predecessor = fd;
	if (!handover_send(fd, HANDOVER_ASK, NULL))
		kind = HANDOVER_END;
	while (kind == HANDOVER_SOCKETS && (kind = handover_receive(fd, ANSWER_MS, &sockets)) == HANDOVER_SOCKETS)
		inherit(&sockets);
	if (kind == HANDOVER_SOCKETS_END)
		return true;
	return problem_of(why, PROBLEM_INTERNAL, "takeover",
			  "the running process %s; it goes on serving. Stop it, or try again",
			  kind == HANDOVER_GARBAGE   ? "speaks another version of the hand-over"
			  : kind == HANDOVER_NOTHING ? "does not answer"
						     : "does not hand over");
}

bool takeover_confirm(struct takeover *t, struct problem *why)
{
	enum handover_kind kind = HANDOVER_END;

	if (t->predecessor < 0)
		return true;
	unsigned unused = handover_close_rest();

	if (handover_send(t->predecessor, HANDOVER_READY, NULL))
		kind = handover_receive(t->predecessor, ANSWER_MS, NULL);
	close(t->predecessor);
	t->predecessor = -1;
	/* When it died the store and the sockets are ours all the same. */
	if (kind == HANDOVER_GO || kind == HANDOVER_END) {
		log_info("takeover.taken", F_INT("unusedSockets", unused));
		return true;
	}
	return problem_of(why, PROBLEM_INTERNAL, "takeover",
			  "the running process goes on serving: this one took too long");
}

/* ---------- life ---------- */

void takeover_init(struct takeover *t, struct control *c)
{
	t->control = c;
	t->predecessor = t->listener.fd = t->peer.fd = -1;
	timer_init(&t->patience, out_of_patience);
	snprintf(t->path, sizeof t->path, "%s/sluice.sock", c->data_dir);
}

void takeover_end(struct takeover *t)
{
	timer_disarm(&t->patience);
	if (t->listener.fd >= 0) {
		loop_remove(t->control->loop, &t->listener);
		close(t->listener.fd);
		/* After a hand-over the name leads to the successor's. */
		if (t->state != TAKEOVER_GONE)
			unlink(t->path);
	}
	drop_peer(t);
	if (t->predecessor >= 0)
		close(t->predecessor);
}
