/*
 * The directory is in two steps, so that a change copies about sqrt(pages) pointers and not all of them:
 *
 *      struct pmap ──► segments[] ──► struct segment ──► pages[64] ──► struct page ──► struct item (key, value)
 *
 * The low bits of a key's hash choose the page, the high ones the slot in it. An item is shared by all the
 * pages (of different versions) that hold it. Pages are never changed, only replaced; a directory is changed in
 * place when nobody else holds it. A page has on average at most FULL items: beyond it the number of pages doubles.
 */
#include "core/pmap.h"
#include "core/mem.h"

enum {
	SEGMENT_BITS = 6,
	SEGMENT_PAGES = 1 << SEGMENT_BITS,
	FULL = 16,
};

struct item {
	uint32_t refs;
	uint32_t key_size;
	struct part *value;
	char key[];
};

struct entry {
	uint64_t hash;
	struct item *item;                         /* NULL = free */
};

struct page {
	uint32_t refs;
	uint32_t n;
	uint32_t mask;                             /* slots - 1; at least a third of the slots are free */
	struct entry entries[];
};

struct segment {
	uint32_t refs;
	struct page *pages[SEGMENT_PAGES];         /* NULL = empty */
};

struct pmap {
	uint32_t refs;
	uint32_t bits;                             /* log2 of the number of pages */
	size_t count;
	struct segment *segments[];
};

void part_drop(struct part *p)
{
	if (!p)
		return;
	BUG_ON(p->refs == 0);
	if (--p->refs == 0)
		p->destroy(p);
}

uint64_t pmap_hash(struct str key)
{
	uint64_t state = 0, word = 0;
	const char *p = key.p;
	size_t left = key.n;

	for (; left >= sizeof(word); p += sizeof(word), left -= sizeof(word)) {
		memcpy(&word, p, sizeof(word));
		state = pmap_hash_word(state, word);
	}
	word = 0;
	if (left)
		memcpy(&word, p, left);
	return pmap_hash_end(state, word, key.n);
}

static void drop_item(struct item *item)
{
	if (--item->refs == 0) {
		part_drop(item->value);
		mem_free(item);
	}
}

static void drop_page(struct page *page)
{
	if (!page || --page->refs)
		return;
	for (uint32_t i = 0; i <= page->mask; i++)
		if (page->entries[i].item)
			drop_item(page->entries[i].item);
	mem_free(page);
}

static void drop_segment(struct segment *segment)
{
	if (--segment->refs)
		return;
	for (unsigned i = 0; i < SEGMENT_PAGES; i++)
		drop_page(segment->pages[i]);
	mem_free(segment);
}

static size_t count_segments(uint32_t bits)
{
	return bits > SEGMENT_BITS ? (size_t)1 << (bits - SEGMENT_BITS) : 1;
}

static struct pmap *make_map(uint32_t bits, bool with_segments)
{
	size_t n = count_segments(bits);
	struct pmap *m = mem_alloc(sizeof(*m) + n * sizeof(m->segments[0]));

	m->refs = 1;
	m->bits = bits;
	for (size_t i = 0; with_segments && i < n; i++) {
		m->segments[i] = MEM_NEW(struct segment);
		m->segments[i]->refs = 1;
	}
	return m;
}

struct pmap *pmap_new(void)
{
	return make_map(0, true);
}

struct pmap *pmap_hold(struct pmap *m)
{
	m->refs++;
	return m;
}

void pmap_drop(struct pmap *m)
{
	if (!m || --m->refs)
		return;
	for (size_t i = 0; i < count_segments(m->bits); i++)
		drop_segment(m->segments[i]);
	mem_free(m);
}

static inline size_t page_index(uint32_t bits, uint64_t hash)
{
	return (size_t)(hash & ((UINT64_C(1) << bits) - 1));
}

static const struct item *find_item(const struct pmap *m, struct str key, uint64_t hash)
{
	size_t index = page_index(m->bits, hash);
	const struct page *page = m->segments[index >> SEGMENT_BITS]->pages[index & (SEGMENT_PAGES - 1)];

	if (!page)
		return NULL;
	for (uint32_t i = (uint32_t)(hash >> 32) & page->mask;; i = (i + 1) & page->mask) {
		const struct entry *e = &page->entries[i];

		if (!e->item)
			return NULL;
		if (e->hash == hash && str_equal((struct str){ e->item->key, e->item->key_size }, key))
			return e->item;
	}
}

struct part *pmap_get_hashed(const struct pmap *m, struct str key, uint64_t hash)
{
	const struct item *item = find_item(m, key, hash);

	return item ? item->value : NULL;
}

struct part *pmap_get(const struct pmap *m, struct str key)
{
	return pmap_get_hashed(m, key, pmap_hash(key));
}

static struct page *make_page(uint32_t room)
{
	uint32_t slots = 2;

	while (slots * 2 < room * 3)
		slots *= 2;
	struct page *page = mem_alloc(sizeof(*page) + slots * sizeof(page->entries[0]));

	page->refs = 1;
	page->mask = slots - 1;
	return page;
}

static void put_entry(struct page *page, uint64_t hash, struct item *item)
{
	uint32_t i = (uint32_t)(hash >> 32) & page->mask;

	while (page->entries[i].item)
		i = (i + 1) & page->mask;
	page->entries[i] = (struct entry){ hash, item };
	page->n++;
}

/* A copy of `old` (NULL = empty) without `leaves` and with `joins`; either may be NULL. NULL when nothing is left. */
static struct page *change_page(const struct page *old, const struct item *leaves, uint64_t hash, struct item *joins)
{
	uint32_t n = (old ? old->n : 0) - (leaves ? 1 : 0) + (joins ? 1 : 0);

	if (n == 0)
		return NULL;
	struct page *page = make_page(n);

	for (uint32_t i = 0; old && i <= old->mask; i++) {
		const struct entry *e = &old->entries[i];

		if (!e->item || e->item == leaves)
			continue;
		e->item->refs++;
		put_entry(page, e->hash, e->item);
	}
	if (joins)
		put_entry(page, hash, joins);
	return page;
}

static struct item *make_item(struct str key, struct part *value)
{
	BUG_ON(key.n > UINT32_MAX);
	struct item *item = mem_alloc(sizeof(*item) + key.n);

	item->refs = 1;
	item->key_size = (uint32_t)key.n;
	item->value = value;
	part_hold(value);
	if (key.n)
		memcpy(item->key, key.p, key.n);
	return item;
}

/* The caller's reference to m becomes one to a directory that only it holds. */
static struct pmap *own_map(struct pmap *m)
{
	if (m->refs == 1)
		return m;
	struct pmap *own = make_map(m->bits, false);

	own->count = m->count;
	for (size_t i = 0; i < count_segments(m->bits); i++) {
		own->segments[i] = m->segments[i];
		own->segments[i]->refs++;
	}
	pmap_drop(m);
	return own;
}

static struct segment *own_segment(struct segment *segment)
{
	if (segment->refs == 1)
		return segment;
	struct segment *own = MEM_NEW(struct segment);

	own->refs = 1;
	for (unsigned i = 0; i < SEGMENT_PAGES; i++) {
		own->pages[i] = segment->pages[i];
		if (own->pages[i])
			own->pages[i]->refs++;
	}
	drop_segment(segment);
	return own;
}

/* Moves all items to a directory of 2^bits pages. A doubling happens so rarely that its cost is spread thin. */
static struct pmap *rebuild(struct pmap *m, uint32_t bits)
{
	struct pmap *wide = make_map(bits, true);
	size_t pages = (size_t)1 << m->bits;

	wide->count = m->count;
	for (size_t at = 0; at < pages; at++) {
		const struct page *old = m->segments[at >> SEGMENT_BITS]->pages[at & (SEGMENT_PAGES - 1)];

		for (uint32_t i = 0; old && i <= old->mask; i++) {
			const struct entry *e = &old->entries[i];

			if (!e->item)
				continue;
			size_t index = page_index(bits, e->hash);
			struct page **slot = &wide->segments[index >> SEGMENT_BITS]->pages[index & (SEGMENT_PAGES - 1)];
			struct page *page = change_page(*slot, NULL, e->hash, e->item);

			e->item->refs++;
			drop_page(*slot);
			*slot = page;
		}
	}
	pmap_drop(m);
	return wide;
}

static struct pmap *fit(struct pmap *m)
{
	size_t pages = (size_t)1 << m->bits;

	if (m->count > pages * FULL)
		return rebuild(m, m->bits + 1);
	if (m->bits > 0 && m->count < pages * FULL / 8)
		return rebuild(m, m->bits - 1);
	return m;
}

struct pmap *pmap_set(struct pmap *m, struct str key, struct part *value)
{
	uint64_t hash = pmap_hash(key);
	const struct item *before = find_item(m, key, hash);

	if ((before ? before->value : NULL) == value)
		return m;
	m = own_map(m);
	size_t index = page_index(m->bits, hash);
	struct segment **segment = &m->segments[index >> SEGMENT_BITS];

	*segment = own_segment(*segment);
	struct page **slot = &(*segment)->pages[index & (SEGMENT_PAGES - 1)];
	struct page *page = change_page(*slot, before, hash, value ? make_item(key, value) : NULL);

	m->count = m->count - (before ? 1 : 0) + (value ? 1 : 0);
	drop_page(*slot);
	*slot = page;
	return fit(m);
}

size_t pmap_count(const struct pmap *m)
{
	return m->count;
}

static bool visit_page(const struct page *page, bool (*each)(void *arg, struct str key, struct part *value), void *arg)
{
	for (uint32_t i = 0; page && i <= page->mask; i++) {
		struct item *item = page->entries[i].item;

		if (item && !each(arg, (struct str){ item->key, item->key_size }, item->value))
			return false;
	}
	return true;
}

bool pmap_each(const struct pmap *m, bool (*each)(void *arg, struct str key, struct part *value), void *arg)
{
	size_t pages = (size_t)1 << m->bits;

	for (size_t at = 0; at < pages; at++)
		if (!visit_page(m->segments[at >> SEGMENT_BITS]->pages[at & (SEGMENT_PAGES - 1)], each, arg))
			return false;
	return true;
}
