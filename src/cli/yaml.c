#include "cli/yaml.h"
#include <yaml.h>

#define NODES_MAX 200000

struct reader {
	yaml_document_t document;
	struct arena *arena;
	struct problem *why;
	unsigned nodes;
};

static struct json *refuse(struct reader *r, const yaml_node_t *node, const char *text)
{
	problem(r->why, "", "line %zu, column %zu: %s", node->start_mark.line + 1, node->start_mark.column + 1, text);
	return NULL;
}

static struct json *convert(struct reader *r, int index, unsigned depth);

static bool is_one_of(struct str s, const char *const *words)
{
	for (; *words; words++)
		if (str_equal(s, str_of(*words)))
			return true;
	return false;
}

/* A plain scalar: what JSON reads as a number, true, false or null is that; everything else is a text. */
static struct json *plain(struct reader *r, struct str s)
{
	static const char *const nulls[] = { "null", "Null", "NULL", "~", "", NULL };
	static const char *const yes[] = { "true", "True", "TRUE", NULL };
	static const char *const no[] = { "false", "False", "FALSE", NULL };
	struct problem ignored;

	if (is_one_of(s, nulls))
		return json_new(r->arena, JSON_NULL);
	if (is_one_of(s, yes) || is_one_of(s, no))
		return json_new_bool(r->arena, is_one_of(s, yes));
	if ((s.p[0] >= '0' && s.p[0] <= '9') || s.p[0] == '-') {
		struct json *number = json_parse(r->arena, s, &ignored);

		if (number && (number->type == JSON_INT || number->type == JSON_REAL))
			return number;
	}
	return json_new_text(r->arena, s);
}

static struct json *scalar(struct reader *r, const yaml_node_t *node)
{
	struct str s = { (const char *)node->data.scalar.value, node->data.scalar.length };

	s = arena_copy(r->arena, s);
	if (!str_is_utf8(s) || memchr(s.p, 0, s.n))
		return refuse(r, node, "the text must be UTF-8 without NUL");
	if (node->data.scalar.style == YAML_PLAIN_SCALAR_STYLE)
		return plain(r, s);
	return json_new_text(r->arena, s);
}

static struct json *mapping(struct reader *r, const yaml_node_t *node, unsigned depth)
{
	struct json *object = json_new(r->arena, JSON_OBJECT);

	for (const yaml_node_pair_t *p = node->data.mapping.pairs.start; p < node->data.mapping.pairs.top; p++) {
		const yaml_node_t *key = yaml_document_get_node(&r->document, p->key);
		struct json *value;
		char *name;

		if (key->type != YAML_SCALAR_NODE)
			return refuse(r, key, "a name must be a text");
		name = arena_take(r->arena, key->data.scalar.length + 1);
		memcpy(name, key->data.scalar.value, key->data.scalar.length);
		name[key->data.scalar.length] = '\0';
		if (strlen(name) != key->data.scalar.length)
			return refuse(r, key, "a name must not contain NUL");
		if (json_get(object, name))
			return refuse(r, key, "this name was given before; give it once");
		value = convert(r, p->value, depth + 1);
		if (!value)
			return NULL;
		json_put(r->arena, object, name, value);
	}
	return object;
}

static struct json *sequence(struct reader *r, const yaml_node_t *node, unsigned depth)
{
	struct json *array = json_new(r->arena, JSON_ARRAY);

	for (const yaml_node_item_t *i = node->data.sequence.items.start; i < node->data.sequence.items.top; i++) {
		struct json *value = convert(r, *i, depth + 1);

		if (!value)
			return NULL;
		json_add(array, value);
	}
	return array;
}

static struct json *convert(struct reader *r, int index, unsigned depth)
{
	const yaml_node_t *node = yaml_document_get_node(&r->document, index);
	struct json *out = NULL;

	if (depth > JSON_MAX_DEPTH)
		return refuse(r, node, "nested too deeply (64 levels at most)");
	if (++r->nodes > NODES_MAX)
		return refuse(r, node, "too large (200,000 values at most)");
	if (node->type == YAML_SCALAR_NODE)
		out = scalar(r, node);
	else if (node->type == YAML_MAPPING_NODE)
		out = mapping(r, node, depth);
	else if (node->type == YAML_SEQUENCE_NODE)
		out = sequence(r, node, depth);
	if (out) {
		out->line = (unsigned)node->start_mark.line + 1;
		out->column = (unsigned)node->start_mark.column + 1;
	}
	return out;
}

static bool read_documents(struct reader *r, yaml_parser_t *parser, struct json *all)
{
	for (;;) {
		if (!yaml_parser_load(parser, &r->document))
			return problem(r->why, "", "line %zu, column %zu: %s", parser->problem_mark.line + 1,
				       parser->problem_mark.column + 1, parser->problem ? parser->problem : "not YAML");
		if (!yaml_document_get_root_node(&r->document)) {
			yaml_document_delete(&r->document);
			return true;
		}
		struct json *root = convert(r, 1, 0);
		yaml_document_delete(&r->document);
		if (!root)
			return false;
		json_add(all, root);
	}
}

struct json *yaml_parse(struct arena *a, struct str text, struct problem *why)
{
	struct reader r = { .arena = a, .why = why };
	struct json *all = json_new(a, JSON_ARRAY);
	yaml_parser_t parser;
	bool ok;

	BUG_ON(!yaml_parser_initialize(&parser));
	yaml_parser_set_input_string(&parser, (const unsigned char *)text.p, text.n);
	ok = read_documents(&r, &parser, all);
	yaml_parser_delete(&parser);
	return ok ? all : NULL;
}
