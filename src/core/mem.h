/*
 * mem.h -- the only door to the allocator. Allocation cannot fail: on exhaustion the process stops with a message
 * (bounded budgets, not NULL checks, are what protects us from peers).
 */
#pragma once
#include <stddef.h>

void *mem_alloc(size_t size);                  /* zeroed */
void *mem_alloc_aligned(size_t alignment, size_t size);   /* zeroed; mem_free frees it, mem_resize must not */
void *mem_resize(void *p, size_t size);        /* like realloc; new bytes are not zeroed */
void mem_free(void *p);                        /* NULL is fine */
/* Pages that were freed a while ago go back to the system; now and then, from a thread that has time. */
void mem_give_back(void);
void mem_wipe(void *p, size_t size);           /* zeroes secrets; the compiler may not drop it */
#define MEM_NEW(T) ((T *)mem_alloc(sizeof(T)))
