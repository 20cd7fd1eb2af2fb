/*
 * h1_notes.h -- what the head parser noticed on its way and the rules of framing judge afterwards.
 *
 * Private to this room. Places are indexes of rows: rows move when the array grows.
 */
#pragma once
#include "http/h1.h"

struct h1_notes {
	struct message *m;
	const char *end;                  /* of the head */
	uint64_t noted;                   /* bit set of the enum header_id to take note of */
	unsigned fields, limit;           /* beyond the rows (cookie crumbs, dropped names), and allowed in all */
	unsigned codings, connections;    /* Transfer-Encoding and Connection lines */
	uint16_t host, length, coding, connection, expect; /* places (of the last), when the field is there */
	bool has_host, has_length, has_upgrade, has_expect;
	bool keep_underscores;
};

enum h1_fault h1_settle_request(struct h1_notes *notes);
enum h1_fault h1_settle_response(struct h1_notes *notes);
