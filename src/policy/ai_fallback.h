/* ai_fallback.h -- the texts of the setting ai.fallback.on: which answers count as failures. */
#pragma once
#include "core/problem.h"
#include "core/str.h"

/* "4xx", "5xx", or a status from 400 to 599 such as "429". */
MUST_USE bool ai_fallback_check_status(struct str text, struct problem *why);
