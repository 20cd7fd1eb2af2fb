/*
 * control_node.h -- a control plane without a listener, in a directory of its own, and one worker that adopts
 * at once.
 */
#pragma once
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "control/control.h"
#include "core/clock.h"
#include "core/metric.h"
#include "proxy/snapshot.h"

struct node {
	char dir[64];
	struct mailbox box;
	struct view *view;
	struct control *control;
	struct arena arena;               /* of answers */
};

static inline void node_take_sockets(void *arg, const struct snapshot *s)
{
	(void)arg;
	for (unsigned i = 0; i < s->n_listeners; i++)
		close(s->listeners[i].fds[0]);
}

static inline void node_adopt(void *arg, unsigned worker)
{
	struct node *n = arg;

	(void)worker;
	n->view = snapshot_adopt(n->view, &n->box, node_take_sockets, NULL);
}

static inline bool node_start(struct node *n, struct problem *why)
{
	struct control_settings settings = {
		.data_dir = n->dir,
		.compiler = { .workers = 1, .mailboxes = &n->box, .wake_worker = node_adopt, .wake_arg = n },
	};

	n->control = control_new(&settings, why);
	return n->control && control_start(n->control, why);
}

static inline void node_stop(struct node *n)
{
	if (n->view)
		snapshot_unpin(n->view, NULL, &n->box);
	n->view = NULL;
	control_free(n->control);
	n->control = NULL;
	memset(&n->box, 0, sizeof n->box);
}

static inline void node_make_dir(struct node *n)
{
	static bool metrics_run;

	memset(n, 0, sizeof *n);
	if (!metrics_run)
		metric_start(1);
	metrics_run = true;
	metric_thread(0);
	snprintf(n->dir, sizeof n->dir, "/tmp/sluice-test-XXXXXX");
	BUG_ON(!mkdtemp(n->dir));
	clock_update();
}

static inline void node_remove(struct node *n)
{
	char command[128];

	arena_free(&n->arena);
	snprintf(command, sizeof command, "rm -rf %s", n->dir);
	BUG_ON(system(command) != 0);
}

/* Calls the API with a body in which ' stands for ". Adds the answer to *out; returns the status. */
static inline int node_ask(struct node *n, const char *method, const char *path, const char *body, struct sbuf *out)
{
	char text[8192] = "";

	snprintf(text, sizeof text, "%s", body ? body : "");
	for (char *p = text; *p; p++)
		if (*p == '\'')
			*p = '"';
	return control_call(n->control, method, path, str_of(text), out);
}

/* *answer is the parsed body; NULL = not wanted. */
static inline int node_call(struct node *n, const char *method, const char *path, const char *body,
                            struct json **answer)
{
	struct sbuf out = { 0 };
	struct problem why;
	int status = node_ask(n, method, path, body, &out);
	struct json *v = json_parse(&n->arena, arena_copy(&n->arena, sbuf_str(&out)), &why);

	sbuf_free(&out);
	if (answer)
		*answer = v;
	return status;
}
