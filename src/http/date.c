/* date.c -- the Date field (RFC 9110 5.6.7), made once a second per thread. */
#include <time.h>
#include "core/clock.h"
#include "http/h1.h"

#define DATE_BYTES 29

static void put2(char *out, int v)
{
	out[0] = (char)('0' + v / 10);
	out[1] = (char)('0' + v % 10);
}

static void make_date(char *out, int64_t seconds)
{
	static const char days[] = "SunMonTueWedThuFriSat", months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
	time_t t = (time_t)seconds;
	struct tm tm;

	gmtime_r(&t, &tm);
	memcpy(out, "Sun, 00 Jan 0000 00:00:00 GMT", DATE_BYTES);
	memcpy(out, days + tm.tm_wday * 3, 3);
	put2(out + 5, tm.tm_mday);
	memcpy(out + 8, months + tm.tm_mon * 3, 3);
	put2(out + 12, (tm.tm_year + 1900) / 100 % 100);
	put2(out + 14, (tm.tm_year + 1900) % 100);
	put2(out + 17, tm.tm_hour);
	put2(out + 20, tm.tm_min);
	put2(out + 23, tm.tm_sec % 60);
}

struct str http_date_now(void)
{
	static _Thread_local int64_t made = -1;
	static _Thread_local char text[DATE_BYTES];
	int64_t seconds = clock_wall_ms() / 1000;

	if (seconds != made) {
		make_date(text, seconds);
		made = seconds;
	}
	return (struct str){ text, DATE_BYTES };
}
