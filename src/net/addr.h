/*
 * addr.h -- where a socket is bound or connected: an IPv4 or IPv6 address with a port.
 *
 * `struct ip` (core/cidr.h) is the address alone. IPv4-mapped IPv6 addresses are folded into IPv4 on the
 * way out of a struct addr, so one peer has one spelling.
 */
#pragma once
#include <netinet/in.h>
#include <stdbool.h>
#include <sys/socket.h>
#include "core/cidr.h"
#include "core/str.h"

struct addr {
	union {
		struct sockaddr any;
		struct sockaddr_in v4;
		struct sockaddr_in6 v6;
	} storage;
	socklen_t length;                  /* 0: no address */
};
#define ADDR_TEXT 56                       /* "[" IPv6 "]:65535" and its NUL */

/* "1.2.3.4:80" or "[::1]:80"; the port 0..65535 must be there; no names, no zone ids. */
bool addr_parse(struct str text, struct addr *out);
struct addr addr_of_ip(const struct ip *ip, uint16_t port);
struct addr addr_any(bool v6, uint16_t port);                 /* 0.0.0.0 or [::] */
struct ip addr_ip(const struct addr *a);                      /* IPv4 as IPv4-mapped */
uint16_t addr_port(const struct addr *a);
size_t addr_print(const struct addr *a, char out[ADDR_TEXT]);     /* as addr_parse reads it; returns the length */
size_t addr_print_ip(const struct addr *a, char out[46]);
bool addr_equal(const struct addr *a, const struct addr *b);  /* address and port */
/* Whether an interface of this host has the address, or it is in 127.0.0.0/8 or ::1. Asks the kernel. */
bool addr_is_local(const struct ip *ip);
bool addr_is_loopback(const struct ip *ip);
bool addr_is_wildcard(const struct ip *ip);                   /* 0.0.0.0 or :: */
