#include "core/map.h"
#include "core/mem.h"

enum {
	SMALLEST = 8,
	SHRINKS_FROM = 256,
};

static uint64_t hash_of(struct str key)
{
	uint64_t hash = str_hash(key);

	return hash ? hash : 1;
}

/* Linear probing at a load of at most 3/4; removal shifts back, so there are no tombstones. */

static size_t find_slot(const struct map *m, struct str key, uint64_t hash)
{
	size_t mask = m->cap - 1, i = (size_t)hash & mask;

	while (m->entries[i].hash && !(m->entries[i].hash == hash && str_equal(m->entries[i].key, key)))
		i = (i + 1) & mask;
	return i;
}

static void set_capacity(struct map *m, size_t cap)
{
	struct map_entry *old = m->entries;
	size_t old_cap = m->cap;

	m->cap = cap;
	m->entries = mem_alloc(m->cap * sizeof(*m->entries));
	for (size_t i = 0; i < old_cap; i++)
		if (old[i].hash)
			m->entries[find_slot(m, old[i].key, old[i].hash)] = old[i];
	mem_free(old);
}

void *map_get(const struct map *m, struct str key)
{
	if (m->n == 0)
		return NULL;
	const struct map_entry *e = &m->entries[find_slot(m, key, hash_of(key))];

	return e->hash ? e->value : NULL;
}

void *map_put(struct map *m, struct str key, void *value)
{
	uint64_t hash = hash_of(key);

	if (m->n >= m->cap - m->cap / 4)
		set_capacity(m, m->cap ? m->cap * 2 : SMALLEST);
	struct map_entry *e = &m->entries[find_slot(m, key, hash)];

	if (e->hash) {
		void *replaced = e->value;

		/* The old key's bytes may go with the old value. */
		e->key = key;
		e->value = value;
		return replaced;
	}
	*e = (struct map_entry){ .key = key, .value = value, .hash = hash };
	m->n++;
	return NULL;
}

void *map_remove(struct map *m, struct str key)
{
	if (m->n == 0)
		return NULL;
	size_t mask = m->cap - 1, hole = find_slot(m, key, hash_of(key));

	if (!m->entries[hole].hash)
		return NULL;
	void *removed = m->entries[hole].value;

	for (size_t i = (hole + 1) & mask; m->entries[i].hash; i = (i + 1) & mask) {
		size_t home = (size_t)m->entries[i].hash & mask;

		/* An entry may move to the hole unless its home lies after the hole on the way to it. */
		if (((i - home) & mask) >= ((i - hole) & mask)) {
			m->entries[hole] = m->entries[i];
			hole = i;
		}
	}
	m->entries[hole] = (struct map_entry){ 0 };
	m->n--;
	/* What was large once may be small for ever after. Half full afterwards, so that growing is not near. */
	if (m->cap > SHRINKS_FROM && m->n < m->cap / 8)
		set_capacity(m, m->cap / 4);
	return removed;
}

void map_free(struct map *m)
{
	mem_free(m->entries);
	*m = (struct map){ 0 };
}

struct map_entry *map_next(const struct map *m, size_t *i)
{
	while (*i < m->cap) {
		struct map_entry *e = &m->entries[(*i)++];

		if (e->hash)
			return e;
	}
	return NULL;
}
