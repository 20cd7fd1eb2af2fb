/*
 * main.c -- flags → store → first snapshot → workers → wait for signals; nothing else.
 *
 * The main thread is the control thread. A thread of its own waits for signals: the first SIGTERM or SIGINT takes
 * readiness back and drains the workers, the second ends them at once; a successor that took over counts as the first.
 * Signals by which other servers are told to reload or to reopen their logs are logged and do nothing.
 * When their threads have ended the control loop is stopped, and only then are the workers freed: until then writes
 * wake them and signals stop them.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>
#include "cli/cli.h"
#include "cli/settings.h"
#include "control/control.h"
#include "core/clock.h"
#include "core/log.h"
#include "core/mem.h"
#include "core/metric.h"
#include "core/offload.h"
#include "net/descriptor.h"
#include "net/outbox.h"
#include "proxy/exchange.h"
#include "proxy/policy.h"
#include "proxy/worker.h"

static struct {
	struct program_settings settings;
	struct arena arena;
	struct worker_settings worker_settings;
	unsigned n_workers;
	struct worker *workers[WORKERS_MAX];
	struct mailbox *boxes;
	struct control *control;
	pthread_mutex_t lock;             /* signals against the end: workers and control are there while !is_over */
	pthread_t drain;                  /* started with the first signal, or when a successor serves */
	bool is_draining;
	bool is_over;
} program = { .lock = PTHREAD_MUTEX_INITIALIZER };

/* ---------- signals ---------- */

static void *drain(void *arg)
{
	/* The first one does work for the others: it goes last. */
	for (unsigned i = 1; i < program.n_workers; i++)
		worker_wait(program.workers[i]);
	worker_keep(program.workers[0], false);
	worker_wait(program.workers[0]);
	control_stop(program.control);
	return arg;
}

/* The first time everything drains, the second time it stops. False when there is nothing left to stop. */
static bool begin_stop(int sig)
{
	pthread_mutex_lock(&program.lock);
	bool is_over = program.is_over, is_first = !program.is_draining;

	if (!is_over) {
		log_info(is_first ? "stop.drain" : "stop.now", F_INT("signal", sig));
		control_set_ready(program.control, false);
		for (unsigned i = 0; i < program.n_workers; i++)
			worker_stop(program.workers[i], !is_first);
		if (is_first)
			program.drain = thread_start("drain", drain, NULL);
		program.is_draining = true;
	}
	pthread_mutex_unlock(&program.lock);
	return !is_over;
}

/* A successor serves. */
static void drain_for_successor(void *arg)
{
	(void)arg;
	begin_stop(0);
}

static void *wait_for_signals(void *arg)
{
	sigset_t *set = arg;
	int sig;

	while (sigwait(set, &sig) == 0) {
		bool is_to_stop = sig == SIGTERM || sig == SIGINT;

		if (!is_to_stop)
			log_info("signal.ignored", F_INT("signal", sig));
		else if (!begin_stop(sig))
			break;
	}
	return NULL;
}

/* Left alone SIGHUP, SIGUSR1 and SIGUSR2 would end the process, and all that is in flight with it. */
static void block_signals(sigset_t *set)
{
	const int signals[] = { SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2 };

	sigemptyset(set);
	for (size_t i = 0; i < sizeof signals / sizeof *signals; i++)
		sigaddset(set, signals[i]);
	pthread_sigmask(SIG_BLOCK, set, NULL);
	signal(SIGPIPE, SIG_IGN);
}

/* ---------- start ---------- */

static struct server_settings server_settings_of(const struct program_settings *s)
{
	struct server_settings out = server_default_settings;

	out.limits = (struct h1_limits){
		.head_bytes = (uint32_t)s->headBytes,
		.fields = (uint32_t)s->headFields,
		.target_bytes = (uint32_t)s->targetBytes,
		.keep_underscores = s->keepUnderscores,
	};
	out.header_timeout_ms = s->headerTimeoutMs;
	out.body_idle_ms = s->bodyIdleMs;
	out.body_rate = s->bodyMinRate;
	out.idle_ms = s->idleTimeoutMs;
	out.write_stall_ms = s->writeStallMs;
	out.h2_ping_ms = s->http2PingMs;
	out.h2_ping_timeout_ms = s->http2PingTimeoutMs;
	out.requests_per_connection = (uint64_t)s->requestsPerConnection;
	out.receive_bytes = (size_t)s->receiveBufferBytes;
	out.connections = (unsigned)s->maxConnections;
	out.drain_idle_ms = s->drainIdleMs;
	out.keeps_reserve = true;
	return out;
}

static const char *text_or_null(struct str s)
{
	return s.n ? s.p : NULL;
}

static void start_workers(void)
{
	const struct program_settings *s = &program.settings;
	struct worker_settings *w = &program.worker_settings;

	*w = worker_default_settings;
	w->server = server_settings_of(s);
	w->connect_timeout_ms = s->connectTimeoutMs;
	w->upstream_idle_ms = s->upstreamIdleMs;
	w->drain_ms = s->drainTimeoutMs;
	w->memory_bytes = s->workerMemoryBytes;
	w->overload_lag_ms = s->overloadLagMs;
	w->access_log = s->accessLog;
	w->dns_servers = text_or_null(s->dnsServers);
	w->pin = s->pinWorkers;
	w->classes = policy_classes;
	exchange_metrics();
	for (unsigned i = 0; i < program.n_workers; i++)
		program.workers[i] = worker_start(i, w, &program.boxes[i]);
	worker_keep(program.workers[0], true);
}

static void wake_worker(void *arg, unsigned i)
{
	(void)arg;
	if (program.workers[i])
		worker_wake(program.workers[i]);
}

static struct control *open_control(struct problem *why)
{
	const struct program_settings *s = &program.settings;
	struct control_settings c = {
		.data_dir = s->data.p,
		.admin = s->admin.p,
		.store = text_or_null(s->store),
		.takeover = s->takeover,
		.cluster = s->cluster.p,
		.node = s->node.p,
		.host_names = s->adminHosts.items,
		.n_host_names = (unsigned)s->adminHosts.n,
		.features = s->gatewayFeatures,
		.keeps_underscores = s->keepUnderscores,
		.compiler = { .workers = program.n_workers, .mailboxes = program.boxes, .wake_worker = wake_worker },
	};

	return control_new(&c, why);
}

static int fail_start(const struct problem *why)
{
	fprintf(stderr, "sluice: %s%s%s\n", why->field, *why->field ? ": " : "", why->text);
	return 1;
}

static void announce(void)
{
	const struct program_settings *s = &program.settings;
	struct str host = s->admin;

	while (host.n > 0 && host.p[host.n - 1] != ':')
		host.n--;
	if (control_token_is_new(program.control))
		fprintf(stderr, "sluice: the admin token is in %s\n", control_token_path(program.control));
	if (s->demo)
		fprintf(stderr, "admin  http://%.*s%u\ntoken  %s\ntry    curl -i http://127.0.0.1:8080/hello\n",
			STR_FMT(host), control_admin_port(program.control), control_token_path(program.control));
	log_info("start", F_TEXT("version", SLUICE_VERSION), F_INT("adminPort", control_admin_port(program.control)),
		 F_INT("workers", program.n_workers));
	fprintf(stderr, "ready\n");
}

static bool start(struct problem *why)
{
	const struct program_settings *s = &program.settings;
	uint16_t backend = 0;

	program.control = open_control(why);
	if (!program.control)
		return false;
	start_workers();
	if (!control_start(program.control, why))
		return false;
	if (s->demo) {
		backend = demo_start_backend();
		if (!backend || !demo_create(program.control, s->cluster.p, backend))
			return problem(why, "--demo", "could not be set up; see the lines above");
	}
	return true;
}

static void stop(void)
{
	pthread_mutex_lock(&program.lock);
	program.is_over = true;
	pthread_mutex_unlock(&program.lock);
	/* It stopped the control loop, and may not be out of that call yet. */
	pthread_join(program.drain, NULL);
	for (unsigned i = 0; i < program.n_workers; i++)
		worker_join(program.workers[i]);
	offload_stop_all();
	control_free(program.control);
	mem_free(program.boxes);
	log_stop();
	metric_stop();
	arena_free(&program.arena);
	arena_drop_cache();
}

/*
 * A core file would hold every secret. The limit is passed over where cores are piped to a program, which then gets no
 * memory of ours.
 */
static void leave_no_core(void)
{
	const struct rlimit none = { 0, 0 };
	FILE *filter = fopen("/proc/self/coredump_filter", "we");

	setrlimit(RLIMIT_CORE, &none);
	if (!filter)
		return;
	fputs("0", filter);
	fclose(filter);
}

static int run(char **args)
{
	static sigset_t signals;
	enum log_level level = LOG_INFO;
	struct problem why = { 0 };

	if (!settings_load(&program.settings, args, &program.arena, &why))
		return fail_start(&why);
	BUG_ON(!log_level_parse(program.settings.logLevel, &level));
	if (!program.settings.coreDumps)
		leave_no_core();
	descriptor_start();
	block_signals(&signals);
	clock_update();
	program.n_workers = program.settings.workers ? (unsigned)program.settings.workers : thread_cpus();
	if (program.n_workers > WORKERS_MAX)
		program.n_workers = WORKERS_MAX;
	program.boxes = mem_alloc(program.n_workers * sizeof *program.boxes);
	metric_start(program.n_workers + 1);
	metric_thread(0);
	log_start(2, level);
	outbox_use_io_uring(program.settings.ioUring);
	if (!start(&why)) {
		log_stop();
		return fail_start(&why);
	}
	control_set_ready(program.control, true);
	if (!control_take_over(program.control, drain_for_successor, NULL, &why)) {
		log_stop();
		return fail_start(&why);
	}
	announce();
	/* It may be within a wait for one more signal when the process ends: nobody joins it. */
	pthread_detach(thread_start("signals", wait_for_signals, &signals));
	control_run(program.control);
	stop();
	return 0;
}

static int run_command(int argc, char **argv)
{
	const char *command = argc > 1 ? argv[1] : "help";

	for (int i = 2; i < argc; i++)
		if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)
			return cli_help(command);
	if (strcmp(command, "run") == 0)
		return run(argv + 2);
	if (strcmp(command, "check") == 0)
		return cli_check(argc - 2, argv + 2);
	if (strcmp(command, "policy") == 0)
		return cli_policy(argc - 2, argv + 2);
	if (strcmp(command, "status") == 0)
		return cli_status(argv + 2);
	if (strcmp(command, "trace") == 0)
		return cli_trace(argv + 2);
	if (strcmp(command, "version") == 0 || strcmp(command, "--version") == 0)
		return cli_version();
	if (strcmp(command, "help") == 0 || strcmp(command, "--help") == 0 || strcmp(command, "-h") == 0)
		return cli_help(argc > 2 ? argv[2] : NULL);
	fprintf(stderr, "sluice: no such command: %s; see `sluice help`\n", command);
	return 2;
}

/*
 * A standard stream that is closed would be the number of the next descriptor: log records would go into a socket or an
 * eventfd. In its place stands what takes no byte and gives none, so that writing fails as before.
 */
static void fill_standard_streams(void)
{
	int fd;

	do
		fd = open("/dev/null", O_PATH | O_CLOEXEC);
	while (fd >= 0 && fd <= STDERR_FILENO);
	if (fd >= 0)
		close(fd);
}

int main(int argc, char **argv)
{
	fill_standard_streams();

	int code = run_command(argc, argv);

	/* Half a schema must not look like a whole one. */
	if (fflush(stdout) == 0 && !ferror(stdout))
		return code;
	fprintf(stderr, "sluice: standard output cannot be written\n");
	return code ? code : 1;
}
