/*
 * token_series.h -- counts what AiTokenRateLimit refused, by route, consumer and rule. Consumers come with requests:
 * each worker keeps the series it has seen, at most TOKEN_SERIES_MAX; from then on consumers it did not see are
 * "other".
 */
#pragma once
#include "core/str.h"

#define TOKEN_SERIES_MAX 1000

struct worker;
/* Names; consumer absent: "none". rule: "rules[0]". Worker's thread. */
void token_series_count(struct worker *w, struct str route, struct str consumer, struct str rule);
