/*
 * Rows are made once for each combination of labels and never go away. One lock guards the table: it is taken once or
 * twice for each request to a model, and a row costs less to find than an event of a stream costs to read.
 */
#include "policy/ai_metrics.h"
#include <pthread.h>
#include "core/map.h"
#include "core/mem.h"
#include "core/metric.h"

enum { LABELS = 4, KEY_MAX = 2 + (LABELS + 1) * (AI_LABEL_MAX + 1), STATUSES = 600 };

/* By route, service, model and consumer. */
enum by_consumer { INPUT, OUTPUT, TOTAL, SERVICE_MS, SERVICE_COUNT, FIRST_TOKEN_MS, STREAM_COUNT, BY_CONSUMER };
static const enum metric_id consumer_families[BY_CONSUMER] = {
	[INPUT] = METRIC_AI_INPUT_TOKENS,
	[OUTPUT] = METRIC_AI_OUTPUT_TOKENS,
	[TOTAL] = METRIC_AI_TOTAL_TOKENS,
	[SERVICE_MS] = METRIC_AI_SERVICE_MS,
	[SERVICE_COUNT] = METRIC_AI_SERVICE_COUNT,
	[FIRST_TOKEN_MS] = METRIC_AI_FIRST_TOKEN_MS,
	[STREAM_COUNT] = METRIC_AI_STREAM_COUNT,
};

/* By what was asked for, what answered, operation and provider. */
enum by_model { REQUEST_SECONDS, FIRST_TOKEN_SECONDS, TOKEN_SECONDS, INPUT_TOKENS, OUTPUT_TOKENS, BY_MODEL };

struct row {
	struct series *series[BY_CONSUMER];
	char key[];
};
_Static_assert((int)BY_MODEL <= (int)BY_CONSUMER, "a row holds either");

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct map rows;
static struct series *statuses[STATUSES];
static struct series *missing;

/* How long the character that begins at p is; 0: there is none, or one that is not shown. */
static size_t printable(struct str s)
{
	unsigned char c = (unsigned char)s.p[0];
	size_t n = c < 0x80 ? 1 : c >= 0xf0 ? 4 : c >= 0xe0 ? 3 : 2;

	if (c < 0x20 || c == 0x7f || n > s.n || !str_is_utf8((struct str){ s.p, n }))
		return 0;
	/* U+0080 .. U+009F: control characters as well. */
	return c == 0xc2 && (unsigned char)s.p[1] < 0xa0 ? 0 : n;
}

struct str ai_label(struct str value, char *out)
{
	size_t n = 0;

	while (value.n > 0) {
		size_t length = printable(value);

		if (n + (length ? length : 1) > AI_LABEL_MAX)
			break;
		if (length)
			memcpy(out + n, value.p, length);
		else
			out[n] = '_';
		n += length ? length : 1;
		length = length ? length : 1;
		value.p += length;
		value.n -= length;
	}
	return (struct str){ out, n };
}

/* `table`: which of the two. Labels are shorter than AI_LABEL_MAX. */
static struct str make_key(char *out, char table, const struct str *labels)
{
	char *end = out;

	*end++ = table;
	for (unsigned i = 0; i < LABELS; i++) {
		end = str_put(end, labels[i]);
		*end++ = '\0';
	}
	return (struct str){ out, (size_t)(end - out) };
}

static struct row *make_row(struct str key)
{
	struct row *row = mem_alloc(sizeof(*row) + key.n);

	memcpy(row->key, key.p, key.n);
	map_put(&rows, (struct str){ row->key, key.n }, row);
	return row;
}

static void open_consumer_row(struct row *row, const struct str *labels)
{
	for (unsigned i = 0; i < BY_CONSUMER; i++)
		row->series[i] = metric_series(consumer_families[i], labels);
}

static void open_model_row(struct row *row, const struct str *labels)
{
	struct str typed[LABELS + 1];

	memcpy(typed + 1, labels, LABELS * sizeof(*labels));
	row->series[REQUEST_SECONDS] = metric_series(METRIC_AI_REQUEST_SECONDS, labels);
	row->series[FIRST_TOKEN_SECONDS] = metric_series(METRIC_AI_FIRST_TOKEN_SECONDS, labels);
	row->series[TOKEN_SECONDS] = metric_series(METRIC_AI_TOKEN_SECONDS, labels);
	typed[0] = STR("input");
	row->series[INPUT_TOKENS] = metric_series(METRIC_AI_TOKEN_USAGE, typed);
	typed[0] = STR("output");
	row->series[OUTPUT_TOKENS] = metric_series(METRIC_AI_TOKEN_USAGE, typed);
}

/*
 * The row of these labels; where there may be no further one, or not for them, that of "other" in the places that
 * `bounded` names.
 */
static struct row *find_row(char table, struct str *labels, unsigned bounded, bool may_add)
{
	char key_of[KEY_MAX];
	struct str key = make_key(key_of, table, labels);
	struct row *row = map_get(&rows, key);

	if (row)
		return row;
	if (!may_add) {
		for (unsigned i = 0; i < LABELS; i++)
			if (bounded & 1U << i)
				labels[i] = STR("other");
		key = make_key(key_of, table, labels);
		row = map_get(&rows, key);
	}
	if (row)
		return row;
	row = make_row(key);
	if (table == 'c')
		open_consumer_row(row, labels);
	else
		open_model_row(row, labels);
	return row;
}

static void count_by_consumer(struct series *const *series, const struct ai_measure *m)
{
	metric_add(series[SERVICE_MS], m->service_us / 1000);
	metric_add(series[SERVICE_COUNT], 1);
	if (m->has_usage) {
		metric_add(series[INPUT], m->input);
		metric_add(series[OUTPUT], m->output);
		metric_add(series[TOTAL], m->total);
	}
	if (m->first_token_us > 0) {
		metric_add(series[FIRST_TOKEN_MS], m->first_token_us / 1000);
		metric_add(series[STREAM_COUNT], 1);
	}
}

static void count_by_model(struct series *const *series, const struct ai_measure *m)
{
	metric_observe_us(series[REQUEST_SECONDS], m->service_us);
	if (m->has_usage) {
		metric_observe(series[INPUT_TOKENS], m->input);
		metric_observe(series[OUTPUT_TOKENS], m->output);
	}
	if (m->first_token_us > 0)
		metric_observe_us(series[FIRST_TOKEN_SECONDS], m->first_token_us);
	if (m->token_us > 0)
		metric_observe_us(series[TOKEN_SECONDS], m->token_us);
}

static struct str label_or_none(struct str value, char *out)
{
	return value.n > 0 ? ai_label(value, out) : STR("none");
}

void ai_metrics_count(const struct ai_measure *m, size_t max_series)
{
	char text[2 * LABELS][AI_LABEL_MAX];
	struct str by_consumer[LABELS] = { label_or_none(m->route, text[0]), label_or_none(m->service, text[1]),
					   label_or_none(m->model, text[2]), label_or_none(m->consumer, text[3]) };
	struct str by_model[LABELS] = { label_or_none(m->request_model, text[4]),
					label_or_none(m->response_model, text[5]), m->operation,
					label_or_none(m->provider, text[6]) };
	struct row *consumer, *model;

	pthread_mutex_lock(&lock);
	/* Places 2 and 3: model and consumer; 0 and 1: the two models. */
	consumer = find_row('c', by_consumer, 0xc, m->is_answered && rows.n < max_series);
	model = find_row('m', by_model, 0x3, m->is_answered && rows.n < max_series);
	pthread_mutex_unlock(&lock);
	count_by_consumer(consumer->series, m);
	count_by_model(model->series, m);
}

void ai_metrics_count_status(int status)
{
	char text[STR_DIGITS];
	struct str label = STR("none");
	struct series *s;

	status = status >= 100 && status < STATUSES ? status : 0;
	if (status)
		label = (struct str){ text, (size_t)(str_put_u64(text, (uint64_t)status) - text) };
	pthread_mutex_lock(&lock);
	if (!statuses[status])
		statuses[status] = metric_series(METRIC_AI_REQUESTS, &label);
	s = statuses[status];
	pthread_mutex_unlock(&lock);
	metric_add(s, 1);
}

void ai_metrics_count_estimate(void)
{
	if (missing)
		metric_add(missing, 1);
}

void ai_metrics_open(void)
{
	if (!missing)
		missing = metric_series(METRIC_AI_USAGE_MISSING, NULL);
}
