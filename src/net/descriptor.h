/*
 * descriptor.h -- how many descriptors there are, and for whom the last ones are kept.
 *
 * The kernel gives out the lowest free number, so the number of a new descriptor tells how many are in use. Those of
 * clients may use all but a reserve, upstream connections half of that reserve too; what is left is for the control
 * API, the store, the log and names.
 */
#pragma once
#include <stdbool.h>

enum descriptor_use { DESCRIPTOR_CLIENT, DESCRIPTOR_UPSTREAM };

/* Raises the process's limit as far as it may and settles the reserve. Before it no descriptor is scarce. */
void descriptor_start(void);
/* Whether a descriptor that was just opened is out of the reserve: give another one back, or this one. */
bool descriptor_is_scarce(int fd, enum descriptor_use use);
