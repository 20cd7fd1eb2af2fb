/*
 * settings.c -- how file, environment and flags become one tree that the table decodes.
 *
 * Each setting remembers who gave it last, so that a complaint names the flag, the variable or the line of the file.
 */
#include "cli/settings.h"
#include <errno.h>
#include <stdlib.h>
#include "cli/yaml.h"

enum { SETTINGS_MAX = 64 };

enum source { SOURCE_NONE, SOURCE_FILE, SOURCE_VARIABLE, SOURCE_FLAG };

struct loading {
	struct arena *arena;
	struct json *tree;
	const char *path;                 /* of the settings file, or NULL */
	uint8_t sources[SETTINGS_MAX];    /* enum source, by row */
	struct problem *why;
};

static const struct field *find_flag(struct str name)
{
	char flag[SETTING_NAME];

	for (const struct field *f = settings_fields; f->type != FIELD_END; f++) {
		settings_spell(f->name, false, flag);
		if (f->type != FIELD_JSON && str_equal(name, str_of(flag)))
			return f;
	}
	return NULL;
}

/* "field: text" becomes "source: field: text". */
static bool name_source(struct problem *why, const char *source)
{
	char text[sizeof why->text];

	snprintf(text, sizeof text, "%s%s%s", why->field, *why->field ? ": " : "", why->text);
	snprintf(why->field, sizeof why->field, "%s", source);
	snprintf(why->text, sizeof why->text, "%s", text);
	return false;
}

/* The complaint about a setting, wherever it came from. */
static bool blame(struct loading *l)
{
	char name[SETTING_NAME + 2] = "--", source[160];
	size_t n = strcspn(l->why->field, ".[");
	const struct field *f = settings_fields;

	while (f->type != FIELD_END && (strlen(f->name) != n || strncmp(f->name, l->why->field, n) != 0))
		f++;
	if (f->type == FIELD_END)
		return false;
	switch ((enum source)l->sources[f - settings_fields]) { /* flat switch */
	case SOURCE_FILE:
		snprintf(source, sizeof source, "%s:%u", l->path, json_find_line(l->tree, l->why->field));
		return name_source(l->why, source);
	case SOURCE_VARIABLE:
		settings_spell(f->name, true, name);
		break;
	case SOURCE_FLAG:
	case SOURCE_NONE:
		settings_spell(f->name, false, name + 2);
		break;
	}
	snprintf(l->why->field, sizeof l->why->field, "%s", name);
	return false;
}

static bool is_word(struct str text, const char *a, const char *b, const char *c)
{
	return str_equal(text, str_of(a)) || str_equal(text, str_of(b)) || str_equal(text, str_of(c));
}

/* The text of a flag or variable as the type of its row. */
static bool put(struct loading *l, const struct field *f, struct str text, enum source source)
{
	struct json *value = json_new_text(l->arena, text);
	struct problem ignored;

	l->sources[f - settings_fields] = (uint8_t)source;
	if (f->type == FIELD_INT) {
		value = json_parse(l->arena, text, &ignored);
		if (!value || value->type != JSON_INT) {
			problem(l->why, f->name, "must be an integer, not \"%.*s\"", STR_FMT(text));
			return blame(l);
		}
	} else if (f->type == FIELD_BOOL) {
		bool yes = is_word(text, "true", "1", "yes");

		if (!yes && !is_word(text, "false", "0", "no")) {
			problem(l->why, f->name, "must be true or false, not \"%.*s\"", STR_FMT(text));
			return blame(l);
		}
		value = json_new_bool(l->arena, yes);
	} else if (f->type == FIELD_TEXTS) {
		struct str part;

		value = json_new(l->arena, JSON_ARRAY);
		while (text.n > 0 && str_split(&text, ',', &part))
			json_add(value, json_new_text(l->arena, str_trim(part)));
	}
	json_put(l->arena, l->tree, f->name, value);
	return true;
}

static bool take_environment(struct loading *l)
{
	char name[SETTING_NAME];

	for (const struct field *f = settings_fields; f->type != FIELD_END; f++) {
		settings_spell(f->name, true, name);
		const char *value = f->type == FIELD_JSON ? NULL : getenv(name);
		if (value && *value && !put(l, f, str_of(value), SOURCE_VARIABLE))
			return false;
	}
	return true;
}

static bool take_flags(struct loading *l, char *const *args)
{
	for (int i = 0; args[i]; i++) {
		struct str name = str_of(args[i]), value = { 0 };
		const struct field *f;
		size_t at;

		if (!str_starts(name, STR("--")))
			return problem(l->why, args[i], "is not a flag; see `sluice run --help`");
		name = (struct str){ name.p + 2, name.n - 2 };
		at = str_find(name, '=');
		if (at < name.n) {
			value = (struct str){ name.p + at + 1, name.n - at - 1 };
			name.n = at;
		}
		f = find_flag(name);
		if (!f && !str_equal(name, STR("config")))
			return problem(l->why, args[i], "is not a known flag; see `sluice run --help`");
		if (!value.p && f && f->type == FIELD_BOOL)
			value = STR("true");
		else if (!value.p && args[i + 1])
			value = str_of(args[++i]);
		else if (!value.p)
			return problem(l->why, args[i], "needs a value");
		if (f && !put(l, f, value, SOURCE_FLAG))
			return false;
	}
	return true;
}

bool file_read(const char *path, struct arena *a, struct str *out, struct problem *why)
{
	FILE *f = fopen(path, "re");
	size_t cap = 65536, n = 0;
	char *text = arena_take(a, cap);
	int error = 0;

	if (!f)
		return problem(why, path, "cannot be read: %s", strerror(errno));
	while (!feof(f) && !ferror(f) && n <= 64u << 20) {
		if (n == cap) {
			char *larger = arena_take(a, cap * 2);

			memcpy(larger, text, n);
			text = larger;
			cap *= 2;
		}
		n += fread(text + n, 1, cap - n, f);
		error = ferror(f) ? errno : 0;
	}
	fclose(f);
	if (error == EISDIR)
		return problem(why, path, "is a directory; name the file in it that is meant, or each of them");
	if (error)
		return problem(why, path, "cannot be read: %s", strerror(error));
	if (n > 64u << 20)
		return problem(why, path, "is larger than 64 MiB");
	*out = (struct str){ text, n };
	return true;
}

/* One step of a path: a member name or an index. */
static const struct json *step_into(const struct json *v, struct str name)
{
	uint64_t index;

	if (v->type != JSON_ARRAY)
		return json_get_str(v, name);
	if (!str_to_u64(name, 1u << 30, &index))
		return NULL;
	for (v = v->child; v && index > 0; index--)
		v = v->next;
	return v;
}

unsigned json_find_line(const struct json *tree, const char *path)
{
	const struct json *v = tree;
	unsigned line = 1;

	while (v) {
		size_t n = strcspn(path, ".[]");

		line = v->line ? v->line : line;
		if (!*path)
			break;
		if (n > 0)
			v = step_into(v, (struct str){ path, n });
		path += n;
		path += *path != '\0';
	}
	return line;
}

bool settings_check(const struct json *tree, struct arena *a, struct problem *why)
{
	struct program_settings out;

	return settings_decode(tree, &out, a, why) && settings_fit(&out, why);
}

/* The file's one document, checked, with the line in the complaint. */
static struct json *read_file(const char *path, struct arena *a, struct problem *why)
{
	struct program_settings ignored;
	struct json *all, *tree;
	struct str text;
	char source[160];

	if (!file_read(path, a, &text, why))
		return NULL;
	all = yaml_parse(a, text, why);
	if (!all) {
		name_source(why, path);
		return NULL;
	}
	tree = all->n ? all->child : json_new(a, JSON_OBJECT);
	if (all->n > 1 || (tree->type != JSON_OBJECT && tree->type != JSON_NULL)) {
		problem(why, path, "must hold one mapping of settings");
		return NULL;
	}
	if (tree->type == JSON_NULL)
		tree = json_new(a, JSON_OBJECT);
	if (!settings_decode(tree, &ignored, a, why)) {
		snprintf(source, sizeof source, "%s:%u", path, json_find_line(tree, why->field));
		name_source(why, source);
		return NULL;
	}
	return tree;
}

static bool take_file(struct loading *l)
{
	if (!l->path || !*l->path)
		return true;
	l->tree = read_file(l->path, l->arena, l->why);
	for (const struct field *f = settings_fields; l->tree && f->type != FIELD_END; f++)
		if (json_get(l->tree, f->name))
			l->sources[f - settings_fields] = SOURCE_FILE;
	return l->tree != NULL;
}

static const char *config_path(char *const *args)
{
	for (int i = 0; args[i]; i++) {
		if (strcmp(args[i], "--config") == 0 && args[i + 1])
			return args[i + 1];
		if (strncmp(args[i], "--config=", 9) == 0)
			return args[i] + 9;
	}
	return getenv("SLUICE_CONFIG");
}

bool settings_load(struct program_settings *out, char *const *args, struct arena *a, struct problem *why)
{
	struct loading l = { .arena = a, .why = why, .path = config_path(args) };

	l.tree = json_new(a, JSON_OBJECT);
	if (!take_file(&l) || !take_environment(&l) || !take_flags(&l, args))
		return false;
	return (settings_decode(l.tree, out, a, why) && settings_fit(out, why)) || blame(&l);
}
