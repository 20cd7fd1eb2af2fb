/*
 * document.h -- work on a resource's JSON by its field table: fill in defaults, keep what a PUT left out, compare.
 *
 * Nothing here checks: fields_decode() has accepted the document, or is about to.
 */
#pragma once
#include <stdbool.h>
#include "core/field.h"

/*
 * A copy in table order with every default filled in and choices in their first spelling; null and "" where
 * they mean absent
 * are left out. Texts are copied.
 */
struct json *document_complete(const struct field *f, const struct json *input, struct arena *a);
/* Members of `old` that are immutable and absent in `doc` are added: a PUT need not repeat them. */
void document_keep_immutable(const struct field *f, struct json *doc, const struct json *old, struct arena *a);
/* Both completed. The problem names the first immutable member that differs. */
MUST_USE bool document_check_immutable(
	const struct field *f, const struct json *doc, const struct json *old, struct problem *why);
/*
 * Secret members that are absent in `doc` are taken from `old`, where they are never answered with. An item of
 * a list is the one with the same texts that are no secrets (an id, a name). An optional secret that is sent to
 * somebody is not kept where `doc` has "": then there is none.
 *
 * *moved (zeroed by the caller) gets the path of the first one that was kept although a member that says where it is
 * sent differs: whoever may write but not read would have it sent to himself. Such a document must be refused.
 */
void document_keep_secrets(const struct field *f, struct json *doc, const struct json *old, struct arena *a,
	struct problem *moved);
/* No secret is a mask ("******"): a mask that came back as a value would be stored as one. */
MUST_USE bool document_check_masks(const struct field *f, struct json *doc, struct problem *why);
