/*
 * own_cookie.h -- cookies that browsers have from policies (policy_class.own_cookies): they are for us, and nobody
 * behind us gets to see them.
 *
 * They let in whoever has them. A browser sends them with every request to the host, to whatever route and port, so
 * they are taken off all requests of a node that has such a policy, before anything looks at the request: routes, other
 * policies, upstreams, copies and authorization services. The policy itself asks exchange_own_cookies().
 */
#pragma once

struct exchange;

/* Where the snapshot has own_cookies: once, before the route is looked for. */
void own_cookies_take(struct exchange *x);
