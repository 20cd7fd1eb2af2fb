/*
 * chat_facts.h -- what is known around a request to a model: names of the configuration and what the client got, for
 * records and metrics. Also where there is no chat.
 */
#pragma once
#include "core/str.h"

struct exchange;

struct chat_facts {
	struct str route, service;        /* names; absent: none matched, none was asked */
	struct str provider;              /* as configured; absent: the service is none of models */
	int status;                       /* that the client got; 0: none */
	bool is_events;                   /* the client got events */
	bool is_ai;                       /* by API and path; without its body no more is known. Preflights are none */
	bool names_model;                 /* and it is of a kind whose body does so */
	int64_t waited_us;                /* that policies held the request up, so far */
};
/* The texts live as long as the exchange. */
struct chat_facts chat_facts(const struct exchange *x);
