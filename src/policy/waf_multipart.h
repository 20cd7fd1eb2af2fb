/*
 * waf_multipart.h -- multipart bodies: how much of one are fields and not files, for rules look at fields and that
 * takes long; and bodies of mixed parts in the form that the library can read.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include "core/arena.h"
#include "core/str.h"

/*
 * Bytes of the parts without a file name. `type`: the Content-Type with its boundary. A body that is not made of parts
 * counts whole: whether it is refused for its form is decided elsewhere.
 */
size_t waf_multipart_fields(struct str type, struct str body);

/* A part says twice what it is: which of the two counts, the library and the application may see differently. */
bool waf_multipart_is_ambiguous(struct str type, struct str body);

/*
 * multipart/related and multipart/mixed. The library reads forms only, many frameworks read these as forms too. What
 * they are called is changed to multipart/form-data: absent when it is none of them.
 */
struct str waf_multipart_form_type(struct arena *a, struct str type);
/*
 * The body as that of a form: parts without a name get one, and those that hold no text a file name. What cannot be
 * understood stays as it is: the library refuses it.
 */
void waf_multipart_form_body(struct sbuf *out, struct str type, struct str body);
