/*
 * control_parts.h -- the inside of struct control, for the files of this room that make it up; nobody else
 * needs it.
 */
#pragma once
#include <stdatomic.h>
#include "control/control.h"
#include "control/model.h"
#include "control/operator.h"
#include "control/secrets.h"
#include "control/store.h"
#include "control/takeover.h"
#include "core/loop.h"
#include "core/metric.h"
#include "http/server.h"

struct control {
	struct model *model;
	struct compiler *compiler;
	struct store *store;
	struct secrets secrets;
	struct operators operators;
	struct list batch;                /* struct change: applied, neither durable nor in force */
	unsigned n_batch;

	struct loop *loop;
	struct server *server;            /* NULL without a listener */
	struct server_listener listener;
	uint16_t port;
	struct list answers;              /* struct api_request waiting for the batch, in order of arrival */
	struct task flush;                /* at the end of a turn with a batch or answers */
	struct timer tick;
	struct takeover takeover;
	atomic_bool is_ready, is_stopping;
	bool is_started;

	char *data_dir, *cluster, *node, *store_url;
	struct str *hosts;                /* names the Host header may have, lower case */
	unsigned n_hosts;
	bool keeps_underscores;
	bool any_ip_host;                 /* listens on a wildcard address: every IP literal is one of ours */
	struct series *api_requests, *store_up, *degraded;
	struct arena arena;               /* lives as long as the control plane */
};
