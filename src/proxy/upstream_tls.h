/*
 * upstream_tls.h -- TLS towards upstreams, as exchanges use it: which identity a call has and for which name its
 * connection is made; handshakes are counted and logged.
 */
#pragma once
#include "http/client.h"
#include "proxy/exchange.h"

void upstream_tls_metrics(void);                  /* control thread, before workers start */
void upstream_tls_watch(struct client *c);        /* whose handshakes are counted */
/* Sets tls and server_name of a call to x->endpoint. */
void upstream_secure(struct exchange *x, struct call *c);
/* The same without an exchange. `host`: what is asked for, with or without a port; absent: the endpoint's own name. */
void upstream_secure_call(struct call *c, const struct endpoint *e, struct str host);
/*
 * The same for a health check, whose `host` may be absent. Nobody knows the hosts that clients will ask for, so where
 * neither the check nor the identity names one, any that the certificate bears is good.
 */
void upstream_secure_probe(struct call *c, const struct tls_client *tls, struct str host, struct str endpoint_host);
/*
 * Whether a failed call says nothing about the endpoint: a client asked for a host that its certificate does not bear.
 */
bool upstream_failed_for_name(const struct exchange *x, const struct call *c);
