/*
 * tls.c -- connections: the choice of a certificate, the handshake, bytes in and out.
 *
 * OpenSSL reads through a BIO of ours that says whether the kernel was emptied, so that a request costs one receive.
 * It writes into a buffer of the thread, which goes to the kernel in one call at the end of each of our calls. What
 * the kernel does not take is copied to the connection and goes first next time.
 *
 * The byte that is owed: sealed bytes cannot be taken back. When some of them have to wait, tls_send() reports one
 * byte less than it sealed, so that its caller, who must offer that byte again, comes back when the socket is
 * writable; then the byte is passed over.
 */
#include <errno.h>
#include <pthread.h>
#include <sys/socket.h>
#include "core/list.h"
#include "core/mem.h"
#include "net/tls_parts.h"

enum {
	RECORD = 16384,
	SEALED_RECORD = RECORD + 256,              /* its head, tag and padding at most */
	BATCH = 8 * SEALED_RECORD,
	WAIT_MAX = 2 * BATCH,                      /* answers to a peer that asks and does not read */
	IDLE_READS_MAX = 12,                       /* receives in a row that bring no content: it wants our time */
	NAME_MAX_DNS = 255,
};

struct tls {
	SSL *ssl;
	const struct tls_names *names;
	int fd;
	char *name;                                /* the host the client named; NULL */
	char *wait;                                /* sealed bytes [wait_at, wait_n) that the kernel did not take */
	size_t wait_at, wait_n, wait_cap;
	unsigned long error;
	uint8_t failure;                           /* enum tls_failure */
	bool has_failure;
	bool owes;                                 /* see above */
	bool is_short;                             /* the last receive emptied the kernel */
	bool is_empty;                             /* OpenSSL wanted more than there was */
	bool is_ended;                             /* the peer's end, with or without a goodbye */
	bool is_broken;                            /* no more can be sent or understood */
	bool is_open;                              /* the handshake succeeded */
	bool is_h2;
	bool owes_ticket;                          /* TLS 1.3: it goes out with the first bytes sent */
	bool is_last;                              /* the goodbye goes out with the next bytes sent */
	uint8_t reads;                             /* receives since the last content, or since our caller asked */
	struct tls_client_side *client;            /* NULL: we are the server */
	bool asks_client;                          /* as the tls_server that was chosen, with its client CAs */
	uint8_t client_ca[TLS_DIGEST];
};

/* Of the call that is on the stack: empty between calls. */
static _Thread_local struct {
	size_t n;
	char p[BATCH];
} batch;
static _Thread_local char small_parts[RECORD];

/* ---------- sealed bytes to and from the kernel ---------- */

/* How many of the bytes the kernel took; all when sending failed, for then they are of no use. */
static size_t put_to_kernel(struct tls *t, const char *p, size_t n)
{
	size_t at = 0;

	while (at < n && !t->is_broken) {
		ssize_t sent = send(t->fd, p + at, n - at, MSG_NOSIGNAL);

		if (sent >= 0)
			at += (size_t)sent;
		else if (errno == EAGAIN)
			return at;
		else if (errno != EINTR)
			t->is_broken = true;
	}
	return n;
}

static void let_wait(struct tls *t, const char *p, size_t n)
{
	if (t->wait_n + n > t->wait_cap) {
		t->wait_cap = t->wait_n + n;
		t->wait = mem_resize(t->wait, t->wait_cap);
	}
	memcpy(t->wait + t->wait_n, p, n);
	t->wait_n += n;
}

/* Sends what waits and what was sealed since. False when something waits still. */
static bool flush(struct tls *t)
{
	size_t taken = 0;

	if (t->wait) {
		t->wait_at += put_to_kernel(t, t->wait + t->wait_at, t->wait_n - t->wait_at);
		if (t->wait_at == t->wait_n) {
			mem_free(t->wait);
			t->wait = NULL;
			t->wait_at = t->wait_n = t->wait_cap = 0;
		}
	}
	if (batch.n > 0 && !t->wait)
		taken = put_to_kernel(t, batch.p, batch.n);
	if (taken < batch.n)
		let_wait(t, batch.p + taken, batch.n - taken);
	batch.n = 0;
	return !t->wait;
}

static int write_sealed(BIO *bio, const char *p, int n)
{
	struct tls *t = BIO_get_data(bio);

	BIO_clear_retry_flags(bio);
	if (n <= 0)
		return 0;
	if (batch.n + (size_t)n > BATCH)
		flush(t);
	if (t->is_broken)
		return -1;
	if (t->wait_n - t->wait_at > WAIT_MAX) {
		BIO_set_retry_write(bio);
		return -1;
	}
	if ((size_t)n > BATCH) {
		let_wait(t, p, (size_t)n);
		return n;
	}
	memcpy(batch.p + batch.n, p, (size_t)n);
	batch.n += (size_t)n;
	return n;
}

static int read_sealed(BIO *bio, char *p, int n)
{
	struct tls *t = BIO_get_data(bio);
	ssize_t got;

	BIO_clear_retry_flags(bio);
	/* Within a handshake one receive for each edge is enough: the edge after it is the next step. */
	if (!t->is_open && t->is_short) {
		BIO_set_retry_read(bio);
		return -1;
	}
	if (t->reads++ == IDLE_READS_MAX) {
		t->is_ended = t->is_broken = true;
		return -1;
	}
	do
		got = recv(t->fd, p, (size_t)n, 0);
	while (got < 0 && errno == EINTR);
	t->is_short = got < n;
	if (got == 0)
		t->is_ended = true;
	if (got < 0 && errno == EAGAIN)
		BIO_set_retry_read(bio);
	else if (got < 0)
		t->is_ended = t->is_broken = true;
	return (int)got;
}

static long control_bio(BIO *bio, int command, long number, void *p)
{
	const struct tls *t = BIO_get_data(bio);

	(void)number, (void)p;
	if (command == BIO_CTRL_FLUSH)
		return 1;
	return command == BIO_CTRL_EOF && t->is_ended;
}

static BIO_METHOD *bio_method;

static void make_method(void)
{
	bio_method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "sluice");
	BUG_ON(!bio_method);
	BIO_meth_set_write(bio_method, write_sealed);
	BIO_meth_set_read(bio_method, read_sealed);
	BIO_meth_set_ctrl(bio_method, control_bio);
}

/* ---------- the client's hello ---------- */

struct str tls_read_server_name(const uint8_t *p, size_t n)
{
	const struct str none = { NULL, 0 };

	/* list length (2) | type 0 = host name (1) | length (2) | name: there is one type, and one name of it */
	if (n < 6 || ((size_t)p[0] << 8 | p[1]) != n - 2 || p[2] != 0 || ((size_t)p[3] << 8 | p[4]) != n - 5)
		return none;
	if (n - 5 > NAME_MAX_DNS)
		return none;
	for (size_t i = 5; i < n; i++)
		if (p[i] <= ' ' || p[i] >= 0x7f)
			return none;
	return (struct str){ (const char *)p + 5, n - 5 };
}

static const struct tls_server *look_up(const struct pmap *servers, struct str name)
{
	struct part *found = pmap_get(servers, name);

	return found ? CONTAINER(found, struct tls_server, part) : NULL;
}

const struct tls_server *tls_names_find(const struct tls_names *names, struct str name)
{
	const struct tls_server *found;
	char lower[NAME_MAX_DNS];

	if (name.n && name.p[name.n - 1] == '.')
		name.n--;
	if (name.n == 0 || name.n > sizeof lower || !names->servers)
		return names->fallback;
	for (size_t i = 0; i < name.n; i++)
		lower[i] = str_lower(name.p[i]);
	found = look_up(names->servers, (struct str){ lower, name.n });
	/* "*" takes the place of the byte before each dot. */
	for (size_t i = 1; !found && i < name.n; i++) {
		if (lower[i] != '.')
			continue;
		lower[i - 1] = '*';
		found = look_up(names->servers, (struct str){ lower + i - 1, name.n - i + 1 });
	}
	return found ? found : names->fallback;
}

static void keep_name(struct tls *t, struct str name)
{
	if (!name.n || t->name)
		return;
	t->name = mem_alloc(name.n + 1);
	memcpy(t->name, name.p, name.n);
}

int tls_choose(SSL *ssl, int *alert, void *arg)
{
	struct tls *t = SSL_get_app_data(ssl);
	const unsigned char *p;
	size_t n;
	struct str name = { NULL, 0 };
	const struct tls_server *server;

	(void)arg;
	if (SSL_client_hello_get0_ext(ssl, TLSEXT_TYPE_server_name, &p, &n))
		name = tls_read_server_name(p, n);
	keep_name(t, name);
	server = t->names ? tls_names_find(t->names, name) : NULL;
	if (!server) {
		*alert = SSL_AD_UNRECOGNIZED_NAME;
		t->failure = TLS_FAILURE_NAME;
		t->has_failure = true;
		return SSL_CLIENT_HELLO_ERROR;
	}
	SSL_set_SSL_CTX(ssl, server->context);
	SSL_set_min_proto_version(ssl, tls_wire_version(server->min));
	SSL_set_max_proto_version(ssl, tls_wire_version(server->max));
	t->asks_client = server->asks_client;
	memcpy(t->client_ca, server->client_ca, TLS_DIGEST);
	if (t->asks_client)
		SSL_set_verify(ssl, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
	return SSL_CLIENT_HELLO_SUCCESS;
}

static bool offers(const unsigned char *in, unsigned in_n, struct str protocol)
{
	for (unsigned at = 0; at < in_n; at += 1u + in[at])
		if (in[at] == protocol.n && at + 1 + protocol.n <= in_n &&
		    memcmp(in + at + 1, protocol.p, protocol.n) == 0)
			return true;
	return false;
}

TLS_CHOOSE_PROTOCOL(tls_choose_protocol)
{
	struct tls *t = SSL_get_app_data(ssl);
	struct str chosen = STR("h2");

	(void)arg;
	if (!t->names || !t->names->speaks_http)
		return SSL_TLSEXT_ERR_NOACK;
	t->is_h2 = t->names->is_h2 && offers(in, in_n, chosen);
	if (!t->is_h2)
		chosen = STR("http/1.1");
	if (!t->is_h2 && !offers(in, in_n, chosen))
		return SSL_TLSEXT_ERR_ALERT_FATAL;
	*out = (const unsigned char *)chosen.p;
	*out_n = (unsigned char)chosen.n;
	return SSL_TLSEXT_ERR_OK;
}

/* ---------- the handshake ---------- */

struct tls *tls_open(int fd, SSL_CTX *context)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	struct tls *t = MEM_NEW(struct tls);
	BIO *bio;

	pthread_once(&once, make_method);
	t->fd = fd;
	t->ssl = SSL_new(context);
	bio = BIO_new(bio_method);
	BUG_ON(!t->ssl || !bio);
	BIO_set_data(bio, t);
	BIO_set_init(bio, 1);
	SSL_set_bio(t->ssl, bio, bio);
	SSL_set_app_data(t->ssl, t);
	return t;
}

struct tls *tls_accept(int fd, const struct tls_names *names)
{
	struct tls *t = tls_open(fd, tls_start_context());

	t->names = names;
	SSL_set_accept_state(t->ssl);
	return t;
}

SSL *tls_ssl(const struct tls *t)
{
	return t->ssl;
}

struct tls_client_side **tls_client_side(struct tls *t)
{
	return &t->client;
}

unsigned long tls_error(const struct tls *t)
{
	return t->error;
}

bool tls_has_ended(const struct tls *t)
{
	return t->is_ended;
}

void tls_set_names(struct tls *t, const struct tls_names *names)
{
	t->names = names;
}

static enum tls_failure classify(const struct tls *t)
{
	int reason = ERR_GET_REASON(t->error);

	switch (reason) {
	case SSL_R_HTTP_REQUEST:
		return TLS_FAILURE_PLAIN_TEXT;
	case SSL_R_UNSUPPORTED_PROTOCOL:
	case SSL_R_VERSION_TOO_LOW:
	case SSL_R_WRONG_SSL_VERSION:
	case SSL_R_UNKNOWN_PROTOCOL:
	case SSL_R_NO_PROTOCOLS_AVAILABLE:
	case SSL_R_INAPPROPRIATE_FALLBACK:
		return TLS_FAILURE_VERSION;
	case SSL_R_NO_SHARED_CIPHER:
	case SSL_R_NO_SUITABLE_KEY_SHARE:
	case SSL_R_NO_SUITABLE_SIGNATURE_ALGORITHM:
	case SSL_R_NO_SHARED_SIGNATURE_ALGORITHMS:
		return TLS_FAILURE_CIPHER;
	case SSL_R_NO_APPLICATION_PROTOCOL:
		return TLS_FAILURE_ALPN;
	case SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE:
		return TLS_FAILURE_CLIENT_MISSING;
	case SSL_R_CERTIFICATE_VERIFY_FAILED:
		return TLS_FAILURE_CLIENT_REFUSED;
	default:
		break;
	}
	if (reason > SSL_AD_REASON_OFFSET && reason < SSL_AD_REASON_OFFSET + 256)
		return TLS_FAILURE_ALERT;
	return t->is_ended ? TLS_FAILURE_CLOSED : TLS_FAILURE_PROTOCOL;
}

static enum tls_result give_up(struct tls *t)
{
	t->error = ERR_peek_error();
	ERR_clear_error();
	if (!t->has_failure)
		t->failure = (uint8_t)classify(t);
	t->has_failure = true;
	t->is_broken = true;
	return TLS_FAILED;
}

enum tls_result tls_handshake(struct tls *t)
{
	int result = 1, error;

	t->is_short = false;
	t->reads = 0;
	if (!SSL_is_init_finished(t->ssl)) {
		tls_clear_errors();
		result = SSL_do_handshake(t->ssl);
	}
	error = SSL_get_error(t->ssl, result);
	/* Also an alert goes out. */
	bool is_sent = flush(t);
	if (result == 1 && !t->is_broken) {
		tls_clear_errors();
		t->is_open = is_sent;
		t->owes_ticket = !t->client && SSL_version(t->ssl) == TLS1_3_VERSION;
		t->names = is_sent ? NULL : t->names;
		return is_sent ? TLS_DONE : TLS_WAITS;
	}
	if (!t->is_broken && (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE))
		return TLS_WAITS;
	return give_up(t);
}

enum tls_failure tls_failure(const struct tls *t)
{
	return t->failure;
}

const char *tls_failure_tag(enum tls_failure f)
{
	static const char *const tags[] = {
#define TLS_FAILURE_TAG(id, tag) tag,
		TLS_FAILURES(TLS_FAILURE_TAG)
#undef TLS_FAILURE_TAG
	};

	return tags[f];
}

const char *tls_failure_text(const struct tls *t)
{
	const char *text = ERR_reason_error_string(t->error);

	if (t->failure == TLS_FAILURE_CLIENT_REFUSED)
		text = X509_verify_cert_error_string(SSL_get_verify_result(t->ssl));
	return text ? text : "";
}

/* ---------- what was agreed ---------- */

bool tls_is_h2(const struct tls *t)
{
	return t->is_h2;
}

bool tls_is_resumed(const struct tls *t)
{
	return SSL_session_reused(t->ssl);
}

enum tls_version tls_version(const struct tls *t)
{
	int wire = SSL_version(t->ssl);

	for (enum tls_version v = TLS_1_0; v <= TLS_1_3; v++)
		if (tls_wire_version(v) == wire)
			return v;
	return TLS_UNSET;
}

struct str tls_name(const struct tls *t)
{
	return str_of(t->name);
}

bool tls_has_client(const struct tls *t, const uint8_t client_ca[TLS_DIGEST])
{
	return t->is_open && t->asks_client && memcmp(t->client_ca, client_ca, TLS_DIGEST) == 0;
}

/* ---------- bytes ---------- */

/* After a read that gave nothing. What is wrong for good shows again in every later call. */
static void note_end(struct tls *t)
{
	int error = SSL_get_error(t->ssl, 0);

	if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE) {
		t->is_empty = error == SSL_ERROR_WANT_READ;
		return;
	}
	t->is_ended = true;
	if (error == SSL_ERROR_SSL && !t->error)
		t->error = ERR_peek_error();
	/* After an error of the protocol nothing may be sent, not even a goodbye. */
	if (error != SSL_ERROR_ZERO_RETURN)
		t->is_broken = t->is_broken || error == SSL_ERROR_SSL;
	tls_clear_errors();
}

ssize_t tls_receive(struct tls *t, void *p, size_t n)
{
	size_t at = 0, got;

	t->is_empty = false;
	t->reads = 0;
	while (at < n) {
		if (SSL_read_ex(t->ssl, (char *)p + at, n - at, &got) != 1) {
			note_end(t);
			break;
		}
		at += got;
		t->reads = 0;
		if (!SSL_has_pending(t->ssl))
			break;
	}
	/* An alert, or the answer to a change of keys. */
	if (batch.n > 0 || t->wait)
		flush(t);
	if (at > 0)
		return (ssize_t)at;
	if (t->is_ended)
		return 0;
	errno = EAGAIN;
	return -1;
}

bool tls_is_drained(const struct tls *t)
{
	if (t->is_ended || t->is_broken)
		return false;
	return t->is_empty || (t->is_short && !SSL_has_pending(t->ssl));
}

/* Plain bytes on their way: what is left of the caller's parts. */
struct cursor {
	const struct iovec *part;
	int n;
	size_t at;                                 /* in the first part */
};

static void step_over_empty(struct cursor *c)
{
	while (c->n > 0 && c->at == c->part->iov_len) {
		c->part++;
		c->n--;
		c->at = 0;
	}
}

/* The bytes of the next record: where they lie when they fill it, else small parts put together. */
static const char *next_record(struct cursor *c, size_t *n)
{
	size_t room = RECORD, have = c->part->iov_len - c->at;
	const char *p = (const char *)c->part->iov_base + c->at;

	if (have >= RECORD || c->n == 1) {
		*n = have < RECORD ? have : RECORD;
		c->at += *n;
		step_over_empty(c);
		return p;
	}
	while (c->n > 0 && room > 0) {
		have = c->part->iov_len - c->at;
		if (have > room)
			have = room;
		memcpy(small_parts + RECORD - room, (const char *)c->part->iov_base + c->at, have);
		c->at += have;
		room -= have;
		step_over_empty(c);
	}
	*n = RECORD - room;
	return small_parts;
}

/* Seals records until the batch is full or nothing is left. */
static bool seal(struct tls *t, struct cursor *c, size_t *sealed)
{
	while (c->n > 0 && batch.n + SEALED_RECORD <= BATCH) {
		size_t n, done;
		const char *p = next_record(c, &n);

		if (SSL_write_ex(t->ssl, p, n, &done) != 1) {
			ERR_clear_error();
			t->is_broken = true;
			return false;
		}
		*sealed += n;
	}
	return true;
}

static void say_goodbye(struct tls *t)
{
	if (SSL_get_shutdown(t->ssl) & SSL_SENT_SHUTDOWN)
		return;
	tls_clear_errors();
	SSL_shutdown(t->ssl);
	tls_clear_errors();
}

ssize_t tls_send(struct tls *t, struct iovec *parts, int n)
{
	struct cursor c = { parts, n, 0 };
	size_t sealed = 0;
	bool waits = !flush(t);

	step_over_empty(&c);
	if (t->owes_ticket && t->is_open) {
		SSL_new_session_ticket(t->ssl);
		t->owes_ticket = false;
	}
	if (!waits && t->owes && c.n > 0) {
		c.at++;
		sealed = 1;
		t->owes = false;
		step_over_empty(&c);
	}
	while (!waits && !t->is_broken && c.n > 0) {
		if (!seal(t, &c, &sealed))
			break;
		if (t->is_last && c.n == 0)
			say_goodbye(t);
		waits = !flush(t);
		if (waits && !t->is_broken) {
			t->owes = true;
			sealed--;
		}
	}
	if (t->is_broken) {
		batch.n = 0;
		errno = EPIPE;
		return -1;
	}
	if (sealed == 0 && waits) {
		errno = EAGAIN;
		return -1;
	}
	return (ssize_t)sealed;
}

void tls_send_last(struct tls *t)
{
	t->is_last = true;
}

void tls_shutdown(struct tls *t)
{
	if (!t->is_open || t->is_broken)
		return;
	say_goodbye(t);
	flush(t);
}

bool tls_said_goodbye(const struct tls *t)
{
	return SSL_get_shutdown(t->ssl) & SSL_RECEIVED_SHUTDOWN;
}

void tls_free(struct tls *t)
{
	if (t->client)
		tls_client_side_free(t);
	SSL_free(t->ssl);
	batch.n = 0;
	mem_free(t->name);
	mem_free(t->wait);
	mem_free(t);
}

ssize_t tls_peek_library(void *ssl, void *p, size_t n)
{
	size_t got = 0;

	if (SSL_peek_ex(ssl, p, n, &got) == 1)
		return (ssize_t)got;
	tls_clear_errors();
	return -1;
}
