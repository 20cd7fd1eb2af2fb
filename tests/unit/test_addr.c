/* room: net */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <unistd.h>
#include "net/addr.h"
#include "net/listener.h"

static struct addr addr_of(const char *text)
{
	struct addr a;

	if (!addr_parse(str_of(text), &a))
		fail_msg("%s", text);
	return a;
}

static struct ip ip_of(const char *text)
{
	struct ip ip;

	assert_true(ip_parse(str_of(text), &ip));
	return ip;
}

static void reads_and_prints(void **state)
{
	static const char *const good[] = { "1.2.3.4:80", "0.0.0.0:0", "[::1]:65535", "[2001:db8::1]:8080" };
	static const char *const bad[] = { "", "1.2.3.4", "1.2.3.4:", "1.2.3.4:65536", "1.2.3.4:08",
		"1.2.3.4:-1", "::1:80",
		"[::1]", "[::1]80", "[::1", "[1.2.3.4]:80", "[]:80", ":80", "localhost:80", "1.2.3.4:80 ",
			"[fe80::1%lo]:80",
		"1.2.3.4:80:90" };
	char text[ADDR_TEXT];

	(void)state;
	for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
		struct addr a = addr_of(good[i]);

		assert_int_equal(addr_print(&a, text), strlen(good[i]));
		assert_string_equal(text, good[i]);
	}
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		struct addr a;

		if (addr_parse(str_of(bad[i]), &a))
			fail_msg("accepted: %s", bad[i]);
	}
}

static void folds_mapped_addresses(void **state)
{
	struct addr a = addr_of("1.2.3.4:80"), b = addr_of("[::ffff:1.2.3.4]:80"), c = addr_of("1.2.3.4:81"),
		none = { 0 };
	struct addr mapped = { .storage.v6 = { .sin6_family = AF_INET6, .sin6_port = htons(80) },
		.length = sizeof mapped.storage.v6 };
	struct ip ip = ip_of("1.2.3.4"), got;
	char text[ADDR_TEXT];

	(void)state;
	memcpy(&mapped.storage.v6.sin6_addr, ip.bytes, 16);
	got = addr_ip(&mapped);
	assert_memory_equal(&got, &ip, sizeof ip);
	assert_true(addr_equal(&a, &mapped));
	assert_true(addr_equal(&a, &b));
	assert_false(addr_equal(&a, &c));
	assert_false(addr_equal(&a, &none));
	assert_true(addr_equal(&none, &none));
	addr_print(&mapped, text);
	assert_string_equal(text, "1.2.3.4:80");
	addr_print_ip(&a, text);
	assert_string_equal(text, "1.2.3.4");
	assert_int_equal(addr_port(&mapped), 80);
}

static void knows_its_own_addresses(void **state)
{
	static const struct { const char *ip; bool loopback, local, wildcard; } rows[] = {
		{ "127.0.0.1", true, true, false }, { "127.9.8.7", true, true, false }, { "::1", true, true, false },
		{ "192.0.2.1", false, false, false }, { "2001:db8::1", false, false, false }, { "0.0.0.0",
			false, false, true },
		{ "::", false, false, true }, { "128.0.0.1", false, false, false },
	};

	(void)state;
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		struct ip ip = ip_of(rows[i].ip);

		assert_int_equal(addr_is_loopback(&ip), rows[i].loopback);
		assert_int_equal(addr_is_local(&ip), rows[i].local);
		assert_int_equal(addr_is_wildcard(&ip), rows[i].wildcard);
	}
}

static int option(int fd, int level, int name)
{
	int value = -1;
	socklen_t n = sizeof value;

	assert_int_equal(getsockopt(fd, level, name, &value, &n), 0);
	return value;
}

static void assert_ready(int fd, short events)
{
	struct pollfd p = { .fd = fd, .events = events };

	assert_int_equal(poll(&p, 1, 5000), 1);
}

static void accepts_what_connects(void **state)
{
	struct problem why;
	struct addr any = addr_of("127.0.0.1:0"), at, peer, own;
	int listener = listener_open(&any, true, &why), client, server;
	char byte;

	(void)state;
	assert_true(listener >= 0);
	at = addr_of_socket(listener);
	assert_int_not_equal(addr_port(&at), 0);
	assert_int_equal(addr_accept(listener, &peer), -1);
	assert_int_equal(errno, EAGAIN);
	client = addr_connect(&at);
	assert_true(client >= 0);
	assert_ready(listener, POLLIN);
	server = addr_accept(listener, &peer);
	assert_true(server >= 0);
	assert_ready(client, POLLOUT);
	assert_int_equal(addr_connect_error(client), 0);
	own = addr_of_socket(client);
	assert_true(addr_equal(&peer, &own));
	for (int i = 0; i < 2; i++) {
		int fd = i ? client : server;

		assert_true(option(fd, IPPROTO_TCP, TCP_NODELAY));
		assert_true(fcntl(fd, F_GETFL) & O_NONBLOCK);
		assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
	}
	assert_int_equal(write(client, "x", 1), 1);
	assert_ready(server, POLLIN);
	assert_int_equal(read(server, &byte, 1), 1);
	close(listener);
	close(client);
	close(server);
	client = addr_connect(&at);           /* nobody listens any more */
	if (client >= 0) {
		assert_ready(client, POLLOUT);
		assert_int_equal(addr_connect_error(client), ECONNREFUSED);
		close(client);
	} else {
		assert_int_equal(errno, ECONNREFUSED);
	}
}

static void sees_that_a_port_is_taken(void **state)
{
	struct problem why;
	struct addr any = addr_of("127.0.0.1:0"), at, wildcard;
	int first = listener_open(&any, true, &why), second;

	(void)state;
	at = addr_of_socket(first);
	/* Shared ports are ours to share: a probe must see one that the kernel would let us join. */
	assert_false(listener_probe(&at, &why));
	assert_int_equal(why.kind, PROBLEM_INTERNAL);
	assert_non_null(strstr(why.text, "cannot listen on 127.0.0.1:"));
	wildcard = addr_any(false, addr_port(&at));
	assert_false(listener_probe(&wildcard, &why));
	second = listener_open(&at, true, &why);
	assert_true(second >= 0);
	assert_int_equal(listener_open(&at, false, &why), -1);
	close(first);
	assert_false(listener_probe(&at, &why));
	close(second);
	assert_true(listener_probe(&at, &why));
	assert_true(listener_probe(&any, &why));
	second = listener_open(&at, true, &why);
	assert_true(second >= 0);
	close(second);
}

static void listens_after_connections_that_linger(void **state)
{
	struct problem why;
	struct addr any = addr_of("127.0.0.1:0"), at, peer;
	int listener = listener_open(&any, true, &why), client, server;

	(void)state;
	at = addr_of_socket(listener);
	client = addr_connect(&at);
	assert_ready(listener, POLLIN);
	server = addr_accept(listener, &peer);
	close(server);                        /* the server side closes first and waits */
	assert_ready(client, POLLIN);
	close(client);
	close(listener);
	assert_true(listener_probe(&at, &why));
}

static void says_why_it_cannot_listen(void **state)
{
	struct problem why;
	struct addr elsewhere = addr_of("192.0.2.1:80");

	(void)state;
	assert_int_equal(listener_open(&elsewhere, true, &why), -1);
	assert_non_null(strstr(why.text, "cannot listen on 192.0.2.1:80: "));
	assert_non_null(strstr(why.text, "belongs to no interface"));
	assert_false(listener_probe(&elsewhere, &why));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(reads_and_prints),
		cmocka_unit_test(folds_mapped_addresses),
		cmocka_unit_test(knows_its_own_addresses),
		cmocka_unit_test(accepts_what_connects),
		cmocka_unit_test(sees_that_a_port_is_taken),
		cmocka_unit_test(listens_after_connections_that_linger),
		cmocka_unit_test(says_why_it_cannot_listen),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
