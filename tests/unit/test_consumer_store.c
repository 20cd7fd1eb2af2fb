/*
 * test_consumer_store.c -- documents of consumers in the store: those written before keys were kept as digests are
 * brought over at the start, once.
 */
/* room: control */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sqlite3.h>
#include "control_node.h"
#include "control/resource.h"
#include "control/secrets.h"
#include "core/crypto.h"
#include "core/password.h"
#include <cmocka.h>                       /* last: it has a macro of the name fail */

static struct node node;

/* Puts a document into the store as it was written before keys were kept as digests. */
static void store_as_before(const char *id, const char *doc)
{
	char path[96];
	struct secrets secrets;
	struct problem why;
	sqlite3 *db;
	sqlite3_stmt *q;
	struct resource *r = resource_new(RESOURCE_CONSUMER, str_of(id));
	struct json *old = json_parse(&node.arena, str_of(doc), &why);
	struct sbuf out = { 0 };

	assert_true(secrets_open(&secrets, node.dir, &why));
	assert_non_null(old);
	secrets_seal(&secrets, r, old, &node.arena);
	json_write(&out, old);
	resource_drop(r);
	snprintf(path, sizeof path, "%s/sluice.db", node.dir);
	assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
	const char *insert = "INSERT INTO resource VALUES ('consumer', ?1, 1000, 1, 1, 1, ?2)";

	assert_int_equal(sqlite3_prepare_v2(db, insert, -1, &q, NULL), SQLITE_OK);
	sqlite3_bind_text(q, 1, id, -1, SQLITE_STATIC);
	sqlite3_bind_text(q, 2, out.p, -1, SQLITE_STATIC);
	assert_int_equal(sqlite3_step(q), SQLITE_DONE);
	sqlite3_finalize(q);
	sqlite3_close(db);
	sbuf_free(&out);
}

/* Row id of the store as text. */
static struct str stored(const char *id)
{
	char path[96];
	sqlite3 *db;
	sqlite3_stmt *q;

	snprintf(path, sizeof path, "%s/sluice.db", node.dir);
	assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
	assert_int_equal(sqlite3_prepare_v2(db, "SELECT doc FROM resource WHERE id = ?1", -1, &q, NULL), SQLITE_OK);
	sqlite3_bind_text(q, 1, id, -1, SQLITE_STATIC);
	assert_int_equal(sqlite3_step(q), SQLITE_ROW);
	struct str doc = arena_copy(&node.arena, str_of((const char *)sqlite3_column_text(q, 0)));

	sqlite3_finalize(q);
	sqlite3_close(db);
	return doc;
}

static const char *digest_of_key(const char *key)
{
	uint8_t digest[32];
	struct sbuf out = { 0 };

	crypto_sha256(str_of(key), digest);
	for (unsigned i = 0; i < sizeof digest; i++)
		sbuf_addf(&out, "%02x", digest[i]);
	struct str text = arena_copy(&node.arena, sbuf_str(&out));

	sbuf_free(&out);
	return text.p;
}

static void test_keys_and_passwords_of_before(void **state)
{
	struct problem why = { 0 };
	const struct json *doc, *keys, *basic;
	struct str first, again;

	(void)state;
	node_stop(&node);
	store_as_before("csm-old", "{\"name\":\"old\",\"enable\":true,\"identities\":{\"apiKey\":{\"credentials\":["
			"{\"apikey\":\"old-key-1\",\"generateMode\":\"Custom\"},{\"apikey\":\"old-key-2\","
			"\"generateMode\":\"System\"}]},"
			"\"basic\":{\"username\":\"u\",\"password\":\"old:password\"}}}");
	assert_true(node_start(&node, &why));
	doc = model_get(control_model(node.control), RESOURCE_CONSUMER, STR("csm-old"))->doc;
	keys = json_get(json_get(json_get(doc, "identities"), "apiKey"), "credentials");
	basic = json_get(json_get(doc, "identities"), "basic");
	assert_string_equal(json_text(keys->child, "digest").p, digest_of_key("old-key-1"));
	assert_string_equal(json_text(keys->child->next, "digest").p, digest_of_key("old-key-2"));
	assert_true(json_text(keys->child, "credentialId").n > 4);
	assert_null(json_get(keys->child, "apikey"));
	assert_null(json_get(basic, "password"));
	assert_true(password_matches(STR("old:password"), json_text(basic, "passwordHash")));
	const char *other = "{'name':'d','identities':{'apiKey':{'credentials':[{'apikey':'old-key-2'}]}}}";

	assert_int_equal(node_call(&node, "POST", "/api/v1/consumers", other, NULL), 409);
	/* It was stored anew, once: what is there is sealed, and stays as it is. */
	first = stored("csm-old");
	assert_null(strstr(first.p, "apikey"));
	assert_non_null(strstr(first.p, "credentialId"));
	node_stop(&node);
	assert_true(node_start(&node, &why));
	again = stored("csm-old");
	assert_string_equal(first.p, again.p);
}

static int setup(void **state)
{
	struct problem why = { 0 };

	(void)state;
	node_make_dir(&node);
	assert_true(node_start(&node, &why));
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	node_stop(&node);
	node_remove(&node);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_keys_and_passwords_of_before, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
