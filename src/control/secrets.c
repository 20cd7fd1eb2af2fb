#include "control/secrets.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>
#include "control/document.h"
#include "control/feature.h"
#include "control/resource.h"
#include "core/crypto.h"
#include "core/mem.h"
#include "proxy/gateway_keys.h"
#include "proxy/policy.h"

static bool refuse(struct problem *why, const char *path, const char *what)
{
	return problem_of(why, PROBLEM_INTERNAL, "", "%s: %s: %s", path, what, strerror(errno));
}

/* Written aside and linked in, so that a half-written key never stands under the name. */
static bool make_key(struct secrets *s, const char *path, struct problem *why)
{
	char aside[4200];

	snprintf(aside, sizeof aside, "%s.new", path);
	crypto_random(s->key, sizeof s->key);
	s->is_new = true;
	int fd = open(aside, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	if (fd < 0)
		return refuse(why, aside, "cannot be made");
	bool ok = write(fd, s->key, sizeof s->key) == (ssize_t)sizeof s->key && fsync(fd) == 0;

	if (close(fd) != 0 || !ok || rename(aside, path) != 0)
		return refuse(why, path, "cannot be written");
	return true;
}

bool secrets_open(struct secrets *s, const char *data_dir, struct problem *why)
{
	char path[4096];
	uint8_t more;

	*s = (struct secrets){ 0 };
	snprintf(path, sizeof path, "%s/secret.key", data_dir);
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return errno == ENOENT ? make_key(s, path, why) : refuse(why, path, "cannot be opened");
	struct stat st;
	bool loose = fstat(fd, &st) == 0 && (st.st_mode & 077);
	bool ok = read(fd, s->key, sizeof s->key) == (ssize_t)sizeof s->key && read(fd, &more, 1) == 0;

	close(fd);
	if (!ok)
		return problem_of(why, PROBLEM_INTERNAL, "",
			"%s is no key of 32 bytes; restore it from a backup", path);
	if (loose)
		return problem_of(
			why, PROBLEM_INTERNAL, "", "%s can be read by others; run: chmod 600 %s", path, path);
	return true;
}

void secrets_withdraw(const struct secrets *s, const char *data_dir)
{
	char path[4096];

	snprintf(path, sizeof path, "%s/secret.key", data_dir);
	if (s->is_new)
		unlink(path);
}

/* ---------- where a kind keeps its secrets ---------- */

typedef struct json *changer(void *arg, const char *path, struct json *value);

static bool is_secret_row(const struct field *f)
{
	for (; f->type != FIELD_END; f++) {
		if (field_has_secrets(f))
			return true;
		if (f->fields && is_secret_row(f->fields))
			return true;
	}
	return false;
}

/* The fields of the config when the class has secrets. */
static const struct field *config_fields(enum resource_kind kind, const struct json *doc)
{
	const struct policy_class *class = NULL;

	if (kind == RESOURCE_POLICY)
		class = policy_class_find(json_text(doc, "className"));
	return class && is_secret_row(class->fields) ? class->fields : NULL;
}

static struct json *parse_config(const struct json *doc, struct arena *a)
{
	struct problem why;
	struct json *config = json_parse(a, json_text(doc, "config"), &why);

	return config && config->type == JSON_OBJECT ? config : NULL;
}

static void put_config(struct json *doc, const struct json *config, struct arena *a)
{
	struct sbuf text = { 0 };

	json_write(&text, config);
	json_put(a, doc, "config", json_new_text(a, arena_copy(a, sbuf_str(&text))));
	mem_wipe(text.p, text.n);
	sbuf_free(&text);
}

static bool is_secret_feature(enum resource_kind kind, const struct json *doc)
{
	const struct feature *f = kind == RESOURCE_FEATURE ? feature_find(json_text(doc, "name")) : NULL;

	return f && f->secret;
}

static void change_secrets(enum resource_kind kind, struct json *doc, struct arena *a, changer *change, void *arg)
{
	const struct field *config_rows = config_fields(kind, doc);

	fields_secrets(resource_classes[kind]->fields, doc, change, arg);
	if (config_rows) {
		struct json *config = parse_config(doc, a);

		if (config) {
			fields_secrets(config_rows, config, change, arg);
			put_config(doc, config, a);
		}
	}
	if (is_secret_feature(kind, doc)) {
		struct json *value = json_get(doc, "value");
		struct json *now = value ? change(arg, "value", value) : NULL;

		if (now)
			json_put(a, doc, "value", now);
		else
			json_drop(doc, "value");
	}
}

/* ---------- sealing ---------- */

struct sealing {
	const struct secrets *secrets;
	const struct resource *resource;
	struct arena *a;
	bool failed;
};

static struct str label_of(const struct sealing *s, const char *path)
{
	return arena_printf(s->a, "%s/%.*s/%s", resource_classes[s->resource->kind]->name,
	                    STR_FMT(s->resource->id), path);
}

static struct json *seal(void *arg, const char *path, struct json *value)
{
	struct sealing *s = arg;
	struct sbuf plain = { 0 };

	json_write(&plain, value);
	struct str sealed = crypto_seal(s->a, s->secrets->key, label_of(s, path), sbuf_str(&plain));

	mem_wipe(plain.p, plain.n);
	sbuf_free(&plain);
	return json_new_text(s->a, sealed);
}

static struct json *unseal(void *arg, const char *path, struct json *value)
{
	struct sealing *s = arg;
	struct problem why;
	struct str plain = { NULL, 0 };

	/* From before it was known to be one: it is sealed when it is written next. */
	if (value->type == JSON_STRING && str_starts(value->string, STR("{")))
		return value;
	if (value->type == JSON_STRING)
		plain = crypto_unseal(s->a, s->secrets->key, label_of(s, path), value->string);
	struct json *v = plain.p ? json_parse(s->a, plain, &why) : NULL;

	if (!v)
		s->failed = true;
	return v;
}

void secrets_seal(const struct secrets *s, const struct resource *r, struct json *doc, struct arena *a)
{
	change_secrets(r->kind, doc, a, seal, &(struct sealing){ s, r, a, false });
}

bool secrets_unseal(const struct secrets *s, const struct resource *r, struct json *doc, struct arena *a,
	struct problem *why)
{
	struct sealing sealing = { s, r, a, false };

	change_secrets(r->kind, doc, a, unseal, &sealing);
	if (!sealing.failed)
		return true;
	return problem_of(why, PROBLEM_INTERNAL, "",
		"a secret of %s %.*s cannot be opened with secret.key; "
		"restore the key that was there when it was stored",
		resource_classes[r->kind]->name, STR_FMT(r->id));
}

static struct json *leave_out(void *arg, const char *path, struct json *value)
{
	(void)arg;
	(void)path;
	(void)value;
	return NULL;
}

struct json *secrets_strip(const struct resource *r, struct arena *a)
{
	struct json *doc = json_clone(a, r->doc);

	change_secrets(r->kind, doc, a, leave_out, NULL);
	return doc;
}

void secrets_keep(enum resource_kind kind, struct json *doc, const struct json *old, struct arena *a,
	struct problem *moved)
{
	const struct field *rows = config_fields(kind, old);

	document_keep_secrets(resource_classes[kind]->fields, doc, old, a, moved);
	if (!rows)
		return;
	struct json *config = parse_config(doc, a);
	const struct json *was = parse_config(old, a);

	if (!config || !was)
		return;
	const bool is_first = !moved->field[0];

	document_keep_secrets(rows, config, was, a, moved);
	if (is_first && moved->field[0])
		problem_prefix(moved, "config");
	put_config(doc, config, a);
}

bool secrets_check_masks(enum resource_kind kind, struct json *doc, struct problem *why)
{
	struct arena a = { 0 };
	const struct field *rows = config_fields(kind, doc);
	struct json *config = rows ? parse_config(doc, &a) : NULL;
	bool ok = document_check_masks(resource_classes[kind]->fields, doc, why);

	if (ok && config && !document_check_masks(rows, config, why)) {
		problem_prefix(why, "config");
		ok = false;
	}
	arena_free(&a);
	return ok;
}

struct str secrets_key_check(const struct secrets *s, struct arena *a)
{
	return crypto_seal(a, s->key, STR("meta/keyCheck"), STR("sluice"));
}

bool secrets_is_key_of(const struct secrets *s, struct str key_check, struct arena *a)
{
	return str_equal(crypto_unseal(a, s->key, STR("meta/keyCheck"), key_check), STR("sluice"));
}

#define SESSION_LABEL STR("meta/sessionSecret")

struct str secrets_make_session(const struct secrets *s, struct arena *a)
{
	uint8_t secret[GATEWAY_SECRET_SIZE];
	struct str sealed;

	crypto_random(secret, sizeof secret);
	sealed = crypto_seal(a, s->key, SESSION_LABEL, (struct str){ (const char *)secret, sizeof secret });
	mem_wipe(secret, sizeof secret);
	return sealed;
}

bool secrets_use_session(const struct secrets *s, struct str sealed, struct arena *a, struct problem *why)
{
	struct str plain = crypto_unseal(a, s->key, SESSION_LABEL, sealed);

	if (plain.n != GATEWAY_SECRET_SIZE)
		return problem_of(why, PROBLEM_INTERNAL, "", "the secret of session cookies in the store cannot be "
			"opened with secret.key; restore the key that was there when it was stored");
	gateway_keys_set((const uint8_t *)plain.p);
	mem_wipe((char *)(uintptr_t)plain.p, plain.n);
	return true;
}
