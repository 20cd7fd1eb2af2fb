#include "control/operator.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>
#include "core/crypto.h"
#include "core/mem.h"

void operator_digest(struct str token, char digest[OPERATOR_DIGEST_LENGTH + 1])
{
	uint8_t bytes[32];

	crypto_sha256(token, bytes);
	for (unsigned i = 0; i < 32; i++)
		snprintf(digest + 2 * i, 3, "%02x", bytes[i]);
}

static bool refuse(struct problem *why, const char *path, const char *what)
{
	return problem_of(why, PROBLEM_INTERNAL, "", "%s: %s: %s", path, what, strerror(errno));
}

/* Written aside and renamed, so that a half-written token never stands under the name. */
static bool make_token(struct operators *o, struct problem *why)
{
	char aside[4200], line[OPERATOR_TOKEN_LENGTH + 2];

	snprintf(aside, sizeof aside, "%s.new", o->path);
	crypto_id(line, OPERATOR_TOKEN_LENGTH);
	operator_digest((struct str){ line, OPERATOR_TOKEN_LENGTH }, o->digest);
	line[OPERATOR_TOKEN_LENGTH] = '\n';
	int fd = open(aside, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	if (fd < 0)
		return refuse(why, aside, "cannot be made");
	bool ok = write(fd, line, OPERATOR_TOKEN_LENGTH + 1) == OPERATOR_TOKEN_LENGTH + 1 && fsync(fd) == 0;

	mem_wipe(line, sizeof line);
	if (close(fd) != 0 || !ok || rename(aside, o->path) != 0)
		return refuse(why, o->path, "cannot be written");
	o->is_new = true;
	return true;
}

bool operators_open(struct operators *o, const char *data_dir, struct problem *why)
{
	char text[512];

	*o = (struct operators){ 0 };
	if ((size_t)snprintf(o->path, sizeof o->path, "%s/admin.token", data_dir) >= sizeof o->path)
		return problem_of(why, PROBLEM_INTERNAL, "", "the path of the data directory is too long");
	int fd = open(o->path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return errno == ENOENT ? make_token(o, why) : refuse(why, o->path, "cannot be opened");
	struct stat st;
	bool loose = fstat(fd, &st) == 0 && (st.st_mode & 077);
	ssize_t n = read(fd, text, sizeof text);

	close(fd);
	while (n > 0 && (text[n - 1] == '\n' || text[n - 1] == '\r' || text[n - 1] == ' '))
		n--;
	if (loose)
		return problem_of(why, PROBLEM_INTERNAL, "", "%s can be read by others; run: chmod 600 %s",
			o->path, o->path);
	if (n < 16 || n == (ssize_t)sizeof text)
		return problem_of(why, PROBLEM_INTERNAL, "",
			"%s holds no token of 16 to 500 bytes; delete it to have a new one made", o->path);
	operator_digest((struct str){ text, (size_t)n }, o->digest);
	mem_wipe(text, sizeof text);
	return true;
}

static struct str bearer(struct str authorization)
{
	static const struct str word = { "Bearer ", 7 };

	if (authorization.n <= word.n || !str_equal_nocase((struct str){ authorization.p, word.n }, word))
		return (struct str){ NULL, 0 };
	return str_trim((struct str){ authorization.p + word.n, authorization.n - word.n });
}

bool operator_find(const struct operators *o, const struct model *m, struct str x_auth_token,
	struct str authorization, struct operator* out)
{
	struct str token = x_auth_token.n ? str_trim(x_auth_token) : bearer(authorization);
	char digest[OPERATOR_DIGEST_LENGTH + 1];
	size_t i = 0;

	*out = (struct operator){ 0 };
	if (!token.n)
		return false;
	operator_digest(token, digest);
	out->is_admin = str_equal_secret(str_of(digest), str_of(o->digest));
	for (const struct resource *r; (r = model_next(m, RESOURCE_TOKEN, &i));)
		if (str_equal_secret(str_of(digest), json_text(r->doc, "digest")))
			out->token = r;
	return out->is_admin || out->token;
}

bool operator_action_fits(struct str pattern, struct str action)
{
	struct str retry_pattern = { NULL, 0 }, retry_action = { NULL, 0 };

	while (action.n) {
		if (pattern.n && pattern.p[0] == '*') {
			retry_pattern = (struct str){ pattern.p + 1, pattern.n - 1 };
			retry_action = action;
			pattern = retry_pattern;
		} else if (pattern.n && pattern.p[0] == action.p[0]) {
			pattern = (struct str){ pattern.p + 1, pattern.n - 1 };
			action = (struct str){ action.p + 1, action.n - 1 };
		} else if (retry_pattern.p) {
			pattern = retry_pattern;
			retry_action = (struct str){ retry_action.p + 1, retry_action.n - 1 };
			action = retry_action;
		} else {
			return false;
		}
	}
	while (pattern.n && pattern.p[0] == '*')
		pattern = (struct str){ pattern.p + 1, pattern.n - 1 };
	return pattern.n == 0;
}

bool operator_may(const struct operator *who, struct str action)
{
	if (who->is_admin)
		return true;
	const struct json *actions = who->token ? json_get(who->token->doc, "actions") : NULL;

	for (const struct json *v = actions ? actions->child : NULL; v; v = v->next)
		if (operator_action_fits(v->string, action))
			return true;
	return false;
}
