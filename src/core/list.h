/* list.h -- intrusive doubly linked ring. A node is on at most one list; an unlinked node points to itself. */
#pragma once
#include <stdbool.h>
#include <stddef.h>

struct list {
	struct list *next, *prev;
};
#define LIST_INIT(l) { &(l), &(l) }
#define CONTAINER(ptr, T, member) ((T *)(void *)((char *)(ptr) - offsetof(T, member)))

static inline void list_init(struct list *l)
{
	l->next = l->prev = l;
}

static inline bool list_is_empty(const struct list *l)
{
	return l->next == l;
}

static inline void list_push(struct list *head, struct list *node)         /* at the front */
{
	node->next = head->next;
	node->prev = head;
	head->next->prev = node;
	head->next = node;
}

static inline void list_append(struct list *head, struct list *node)       /* at the end */
{
	list_push(head->prev, node);
}

static inline void list_remove(struct list *node)                          /* harmless on an unlinked node */
{
	node->prev->next = node->next;
	node->next->prev = node->prev;
	list_init(node);
}
#define LIST_EACH(node, head) \
	for (struct list *node = (head)->next, *node##_next = node->next; node != (head); \
	     node = node##_next, node##_next = node->next)
