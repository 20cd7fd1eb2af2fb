/*
 * waf_multipart.h -- how much of a multipart body are fields and not files: rules look at fields, and that takes long.
 */
#pragma once
#include <stddef.h>
#include "core/str.h"

/*
 * Bytes of the parts without a file name. `type`: the Content-Type with its boundary. A body that is not made of parts
 * counts whole: whether it is refused for its form is decided elsewhere.
 */
size_t waf_multipart_fields(struct str type, struct str body);
