/* chat_step.c -- the step that AI policies stand on, as a class of its own (chat.h says what it does). */
#include "ai/chat_parts.h"

static void settle(struct exchange *x, const struct step *s)
{
	struct chat *c = x->chat;

	if (c && c->level == s->level && c->guard_cut)
		chat_finish(c, CHAT_CUT);
}

static enum chat_end end_of(const struct exchange *x)
{
	const struct upstream_outcome outcome = exchange_outcome(x);

	if (outcome.end == OUTCOME_CLIENT_GONE)
		return CHAT_ABORTED;
	if (outcome.from == OUTCOME_LOCAL)
		return CHAT_LOCAL;
	if (outcome.from == OUTCOME_FAILURE)
		return CHAT_FAILED;
	return outcome.end == OUTCOME_CUT ? CHAT_CUT : CHAT_COMPLETE;
}

static void finish(struct exchange *x, const struct step *s)
{
	(void)s;
	if (x->chat)
		chat_finish(x->chat, end_of(x));
}

/* Its being there has the step remembered until the end. */
static void done(struct exchange *x, const struct step *s)
{
	(void)x;
	(void)s;
}

const struct policy_class chat_step = {
	.name = "AI",
	.alias = "Requests to models",
	.summary = "Reads requests to models and agents, and their answers.",
	.group = "AI",
	.scopes = SCOPE_ROUTES | SCOPE_SERVICE,
	.stage = STAGE_AI_CLASSIFY,
	.service_stage = STAGE_AI_CLASSIFY,
	.response_stage = RESPONSE_CHAT,
	.is_enforced = true,
	.wants = WANTS_REQUEST_BODY,
	.wants_body = chat_wants_body,
	.request = chat_classify,
	.service = chat_classify,
	.attempt = chat_shape_try,
	.response = chat_read_answer,
	.data = chat_read_piece,
	.settled = settle,
	.ending = finish,
	.done = done,
	.explain = chat_explain,
};
