#include "core/password.h"
#include <crypt.h>
#include "core/crypto.h"
#include "core/fault.h"
#include "core/mem.h"

enum { SALT_BYTES = 16 };

_Static_assert(PASSWORD_BYTES_MAX < CRYPT_MAX_PASSPHRASE_SIZE, "libcrypt takes them all");

/* False: libcrypt cannot read the setting. */
static bool apply(struct str password, const char *setting, char out[PASSWORD_HASH_MAX])
{
	struct crypt_data *scratch = MEM_NEW(struct crypt_data);
	char text[PASSWORD_BYTES_MAX + 1];

	memcpy(text, password.p ? password.p : "", password.n);
	text[password.n] = '\0';
	const char *hash = crypt_rn(text, setting, scratch, sizeof(*scratch));
	bool ok = hash && strlen(hash) < PASSWORD_HASH_MAX;

	if (ok)
		memcpy(out, hash, strlen(hash) + 1);
	mem_wipe(text, sizeof(text));
	mem_wipe(scratch, sizeof(*scratch));
	mem_free(scratch);
	return ok;
}

void password_hash(struct str password, char out[PASSWORD_HASH_MAX])
{
	char random[SALT_BYTES], setting[CRYPT_GENSALT_OUTPUT_SIZE];

	BUG_ON(password.n > PASSWORD_BYTES_MAX);
	crypto_random(random, sizeof(random));
	BUG_ON(!crypt_gensalt_rn("$y$", 0, random, sizeof(random), setting, sizeof(setting)));
	BUG_ON(!apply(password, setting, out));
}

bool password_matches(struct str password, struct str hash)
{
	char setting[PASSWORD_HASH_MAX], found[PASSWORD_HASH_MAX];

	if (password.n > PASSWORD_BYTES_MAX || hash.n == 0 || hash.n >= sizeof(setting) ||
	    (password.n && memchr(password.p, '\0', password.n)))
		return false;
	memcpy(setting, hash.p, hash.n);
	setting[hash.n] = '\0';
	return apply(password, setting, found) && str_equal_secret(str_of(found), hash);
}
