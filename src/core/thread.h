/*
 * thread.h -- threads with names, and an inbox: a lock-free stack of handed-over items that another thread takes whole.
 */
#pragma once
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

pthread_t thread_start(const char *name, void *(*run)(void *), void *arg);   /* signals blocked; stops on failure */
/* Pins the calling thread to one of the usable CPUs: 0 .. thread_cpus() - 1, counted round. Not for the main thread. */
void thread_pin(int cpu);
unsigned thread_cpus(void);                                                  /* usable CPUs, at least 1 */

struct inbox_item {
	struct inbox_item *next;
};
struct inbox {
	_Atomic(struct inbox_item *) head;
};
/* Hands `item` over; true when the inbox was empty before (the taker may sleep: wake it). Any thread. */
bool inbox_put(struct inbox *in, struct inbox_item *item);
/* Takes everything, oldest first. One taker. */
struct inbox_item *inbox_take(struct inbox *in);
