/*
 * scan.h -- how far a run of permitted bytes goes. Private to this room.
 *
 * The three scans look at 16 bytes at a time where the CPU has SSE2, and never read outside [p, end).
 */
#pragma once
#include <stdint.h>

enum scan_class {
	SCAN_TOKEN = 1,                   /* tchar of RFC 9110 5.6.2 */
	SCAN_HOST = 2,                    /* letters, digits, '-', '.', '_': what a Host name may be made of */
	SCAN_UNRESERVED = 4,              /* RFC 3986 2.3 */
	SCAN_VALUE = 8,                   /* field value: HTAB, SP, visible, obs-text */
	SCAN_VISIBLE = 16,                /* 0x21 .. 0x7e */
	SCAN_PLAIN = 32,                  /* visible, and means itself in a path: not % ? # \ */
	SCAN_DIGIT = 64,
	SCAN_UNDERSCORE = 128,
};
extern const uint8_t scan_classes[256];
#define SCAN_IS(c, class_bits) (scan_classes[(uint8_t)(c)] & (class_bits))

const char *scan_value(const char *p, const char *end);      /* first byte that no field value may hold, or end */
const char *scan_visible(const char *p, const char *end);    /* first byte outside 0x21 .. 0x7e, or end */
const char *scan_byte(const char *p, const char *end, char c);   /* first c, or end */
const char *scan_class(const char *p, const char *end, unsigned class_bits);   /* first byte outside, or end */
int scan_hex(char c);                                        /* 0 .. 15, or -1 */
