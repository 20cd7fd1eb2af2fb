/*
 * listener.h -- listening sockets, and the socket options of connections in both directions.
 *
 * A port is shared by workers through SO_REUSEPORT: each opens a socket of its own for the same address,
 * and the kernel spreads connections. The kernel would let another process of our user join in silently, so
 * an address that is not held yet is first asked for with listener_probe(). All sockets are non-blocking
 * and closed on exec; accepted and connected ones have TCP_NODELAY. What a predecessor handed over
 * (handover.h) is used instead of opening anew.
 */
#pragma once
#include <stdbool.h>
#include "core/problem.h"
#include "net/addr.h"

/*
 * Binds and listens; IPv6 sockets take IPv6 only. Returns the descriptor, or -1 with why->text ("cannot
 * listen on 127.0.0.1:80: permission denied"; why->field empty).
 */
int listener_open(const struct addr *at, bool reuse_port, struct problem *why);
/* Whether nobody holds the address now. Nothing stays open. Port 0 is always free. */
MUST_USE bool listener_probe(const struct addr *at, struct problem *why);
/* The address a socket is bound to: the port the kernel chose for port 0. */
struct addr addr_of_socket(int fd);
/* The next waiting connection and its peer; -1 with errno set (EAGAIN: none). */
int addr_accept(int listener, struct addr *peer);
/* A socket that connects: writable once the handshake ended, then addr_connect_error() tells how. -1 with errno set. */
int addr_connect(const struct addr *to);
/* 0 when connected, else the errno the handshake ended with. */
int addr_connect_error(int fd);
