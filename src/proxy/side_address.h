/*
 * side_address.h -- which addresses calls of the gateway itself may go to.
 *
 * Loopback and private ranges are where such services live in practice, so they are allowed. Never: link-local
 * addresses, the metadata services of clouds (they hand out credentials to whoever asks from this machine), the
 * unspecified address, multicast, and our own admin listener. An IPv4 address within IPv6 (mapped, NAT64, 6to4) counts
 * as that address.
 */
#pragma once
#include <stdbool.h>
#include "net/addr.h"

bool side_address_is_blocked(const struct ip *ip);                /* whatever the port */
/* Control thread, before the workers start, and never after: where the admin API listens. */
void side_address_set_admin(const struct addr *admin);
bool side_address_may_call(const struct addr *to);                /* both rules */
