/*
 * yaml.h -- YAML files into the JSON tree that everything else validates: one validator for files and API.
 *
 * Plain scalars are typed by the YAML 1.2 core schema (null, true, false, integers, floats); quoted ones are texts.
 * Each node knows its line and column. Refused: duplicate names, names that are no texts, more than 64 levels or
 * 200,000 nodes (aliases count each time they are used, so they cannot blow up).
 */
#pragma once
#include "core/json.h"

/* All documents of the text, as items of an array. NULL fills *why: "line 3, column 5: ...". */
struct json *yaml_parse(struct arena *a, struct str text, struct problem *why);
