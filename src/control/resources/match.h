/*
 * match.h -- what a request must look like to be taken by a route: the table and the rules beyond it.
 */
#pragma once
#include "control/resources/types.h"
#include "core/problem.h"

extern const struct field route_match_fields[];
/* Paths relative to the match. */
/* A method as requests spell it: "get" is none that means GET. */
MUST_USE bool format_request_method(struct str s, struct problem *why);
MUST_USE bool route_match_check(const struct route_match *m, struct problem *why);
/* The path of an operation: "/" first, segments that are text or one {parameter}, each name once. */
bool format_template(struct str s, struct problem *why);
