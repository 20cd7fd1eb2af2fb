/*
 * secure.h -- what TLS means to exchanges: handshakes are counted, hosts that ask for more than their connection gives
 * are not served on it.
 *
 * A client names one host in the handshake and may send requests for another. What the configuration asks of the second
 * (a client certificate, a version) is therefore asked again for each request.
 */
#pragma once
#include "proxy/exchange.h"

void secure_metrics(void);                        /* control thread, before workers start */
/* For server_ops. */
bool secure_handshake_done(struct server_connection *c);
void secure_handshake_failed(struct server_connection *c, enum tls_failure why, const char *text);
/* The host was matched. False: it was answered (a redirection to https, 403, 421). */
bool secure_admit(struct exchange *x);
/* What the site refuses a request for that came over `tls` (NULL: in the clear); REASON_COMPLETED: nothing. */
enum reason_id secure_judge(const struct exchange *x, const struct tls *tls);
/* x->res becomes the redirection for REASON_HTTPS_ONLY. */
void secure_redirect(struct exchange *x);
/* The same for a tunnel, which has no answers. What passes through still encrypted is not ours to judge. */
bool secure_admits_tunnel(const struct exchange *x);
/* ,"tls":"TLSv1.3","sni":"a.example.com": a part of the access record; absent in the clear. */
struct str secure_record(struct exchange *x);
