#include "cli/flags.h"
#include <string.h>

#define DOC_COLUMN 28

const struct flag client_flags[] = {
	{ "--server", NULL, "URL", "the control API: https anywhere, http on this machine (SLUICE_SERVER, "
	  "http://127.0.0.1:9070)", FLAG_VALUE, offsetof(struct client_options, server) },
	{ "--token-file", NULL, "FILE", "holds the token (SLUICE_TOKEN_FILE, admin.token of SLUICE_DATA or "
	  "./sluice-data)", FLAG_VALUE, offsetof(struct client_options, token_file) },
	{ "--ca-file", NULL, "FILE", "PEM of the authorities to believe in for https, instead of the system's",
	  FLAG_VALUE, offsetof(struct client_options, ca_file) },
	{ "--output", "-o", "FORMAT", "table (for people) or json (what the API answers)", FLAG_VALUE,
	  offsetof(struct client_options, output) },
	{ "--quiet", "-q", NULL, "nothing but the answer, and errors", FLAG_SWITCH,
	  offsetof(struct client_options, quiet) },
	{ "--no-color", NULL, NULL, "no colours, also on a terminal (NO_COLOR)", FLAG_SWITCH,
	  offsetof(struct client_options, no_color) },
	FLAGS_END
};

/* The value behind "=", or NULL when there is none; *fits: it is this flag. */
static const char *split(const struct flag *f, const char *arg, bool *fits)
{
	size_t n = strlen(f->name);

	*fits = strncmp(arg, f->name, n) == 0 && (arg[n] == '\0' || arg[n] == '=');
	if (*fits)
		return arg[n] == '=' ? arg + n + 1 : NULL;
	*fits = f->letter && strcmp(arg, f->letter) == 0;
	return NULL;
}

static const struct flag *find(const struct flag *rows, const char *arg, const char **value)
{
	for (const struct flag *f = rows; f && f->name; f++) {
		bool fits;

		*value = split(f, arg, &fits);
		if (fits)
			return f;
	}
	return NULL;
}

static bool put(const struct flag *f, void *options, const char *value, struct problem *why)
{
	char *at = (char *)options + f->at;
	struct flag_list *list = (struct flag_list *)(void *)at;

	switch (f->kind) {
	case FLAG_SWITCH:
		if (value)
			return problem(why, f->name, "takes no value");
		*(bool *)at = true;
		return true;
	case FLAG_VALUE:
		*(const char **)(void *)at = value;
		return true;
	case FLAG_VALUES:
		if (list->n == FLAG_LIST_MAX)
			return problem(why, f->name, "may be given %d times", FLAG_LIST_MAX);
		list->texts[list->n++] = value;
		return true;
	}
	return false;
}

/* Takes the flag at *args and its value; *args is then the last of them. */
static bool take_flag(const struct flag_use *use, char *const **args, struct problem *why)
{
	const char *value = NULL;
	const struct flag *f = find(use->own, **args, &value);

	if (!f)
		f = find(client_flags, **args, &value);
	if (!f)
		return problem(why, **args, "is not a known flag");
	if (f->value && !value) {
		value = *++*args;
		if (!value)
			return problem(why, f->name, "needs a value: %s %s", f->name, f->value);
	}
	return put(f, use->options, value, why);
}

bool flags_parse(struct flag_use *use, char *const *args, struct problem *why)
{
	bool is_over = false;

	use->n = 0;
	for (; *args; args++) {
		bool is_flag = !is_over && (*args)[0] == '-' && (*args)[1] != '\0';

		if (is_flag && strcmp(*args, "--") == 0) {
			is_over = true;
		} else if (is_flag) {
			if (!take_flag(use, &args, why))
				return false;
		} else if (use->n == use->most) {
			return problem(why, *args, "is one argument too many");
		} else {
			use->words[use->n++] = *args;
		}
	}
	return true;
}

void flags_help(const struct flag *rows, FILE *out)
{
	for (const struct flag *f = rows; f && f->name; f++) {
		int n = fprintf(out, "  %s%s%s%s%s", f->letter ? f->letter : "", f->letter ? ", " : "", f->name,
				f->value ? " " : "", f->value ? f->value : "");

		fprintf(out, "%*s%s\n", n < DOC_COLUMN ? DOC_COLUMN - n : 1, "", f->doc);
	}
}
