/* room: proxy */
/* What an exchange remembers of the steps it entered: each one's own memory, and whose done hook is owed. */
#include "core/arena.h"
#include "proxy/exchange.h"
/* Last: it takes the name fail() for a macro. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#define STEPS 1000

const struct policy_class *const policy_classes[] = { NULL };

static struct step steps[STEPS];
static unsigned n_done;

/* Newest first, and each finds what it left. */
static void leave(struct exchange *x, const struct step *s)
{
	const struct step **mine = exchange_state(x, s);

	assert_ptr_equal(*mine, s);
	assert_ptr_equal(s, &steps[STEPS - 1 - n_done]);
	n_done++;
}

static const struct policy_class marker = { .name = "Marker", .state_size = sizeof(void *), .done = leave };

static void any_number_of_steps_may_be_entered(void **state)
{
	struct exchange *x;
	struct arena arena = { 0 };

	(void)state;
	x = NEW(&arena, struct exchange);
	for (unsigned i = 0; i < STEPS; i++) {
		steps[i].class = &marker;
		*(const struct step **)exchange_state(x, &steps[i]) = &steps[i];
		assert_ptr_equal(*(const struct step **)exchange_state(x, &steps[i]), &steps[i]);
	}
	pipeline_done(x);
	assert_int_equal(n_done, STEPS);
	arena_free(&x->arena);
	arena_free(&arena);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(any_number_of_steps_may_be_entered) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
