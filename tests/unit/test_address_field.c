/* test_address_field.c -- which names tell where a client is. */
/* room: http */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include "http/address_field.h"
#include <cmocka.h>                       /* last: it has a macro of the name fail */

static void these_tell_it(void **state)
{
	static const char *const names[] = {
		"X-Forwarded-For", "x-forwarded-proto", "X_Forwarded_Host", "X-FORWARDED-CLIENT-CERT", "X-Forwarded",
		"Forwarded", "via", "VIA", "X-Real-IP", "x_real_ip", "CF-Connecting-IP", "True-Client-Ip",
		"X-Vercel-Forwarded-For", "forwarded_for", "remote_addr", "client-ip",
	};

	(void)state;
	for (size_t i = 0; i < sizeof names / sizeof *names; i++)
		if (!address_field_is(str_of(names[i])))
			fail_msg("%s", names[i]);
}

static void these_do_not(void **state)
{
	static const char *const names[] = {
		"", "-ip", "ip", "X-Skip", "X-Zip", "Viable", "X-Via", "X-Forwarded-", "X-Forward", "Forwarded-By-Us",
		"X-Request-Id", "X-Forwarded-User", "x_forwarded_email", "X-Forwarded-Groups", "Host", "Authorization",
		"X-Mse-Consumer",
	};

	(void)state;
	for (size_t i = 0; i < sizeof names / sizeof *names; i++)
		if (address_field_is(str_of(names[i])))
			fail_msg("%s", names[i]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(these_tell_it),
		cmocka_unit_test(these_do_not),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
