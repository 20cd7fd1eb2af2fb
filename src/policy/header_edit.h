/*
 * header_edit.h -- one change to the fields of a message: add, update or remove.
 *
 * Add joins the new value to those that are there, in one line with commas; Set-Cookie gets a line of its own
 * (RFC 9110 5.3) and Cookie is joined with "; ". Update leaves exactly one line. Fields that carry framing,
 * routing or connection state cannot be changed: header_is_editable says which.
 */
#pragma once
#include <stdbool.h>
#include "http/message.h"

enum header_action { HEADER_ACTION_ADD, HEADER_ACTION_UPDATE, HEADER_ACTION_REMOVE };

bool header_is_editable(struct str name);
struct header_change {
	enum header_action action;
	enum header_id id;                /* header_lookup(name) */
	struct str name;
};
/*
 * name and value live as long as the message's arena; the value may stand in a header and is not empty, except for
 * REMOVE.
 */
void header_edit(struct message *m, const struct header_change *change, struct str value);
