#include "net/proxy_protocol.h"

#define LINE_MAX_BYTES 107                /* of version 1, CRLF included */
#define SIGNATURE "\r\n\r\n\0\r\nQUIT\n"
#define SIGNATURE_BYTES 12
#define FIXED_BYTES 16                    /* of version 2: signature, command, family, length */
#define TYPE_CRC32C 0x03

enum { LOCAL = 0x20, PROXY = 0x21 };
enum { UNSPECIFIED = 0x00, TCP_V4 = 0x11, TCP_V6 = 0x21, UNIX_STREAM = 0x31 };

/* ---------- version 1 ---------- */

static bool take_ip(struct str *rest, bool is_v4, struct ip *ip)
{
	struct str part;

	return str_split(rest, ' ', &part) && (str_find(part, ':') == part.n) == is_v4 && ip_parse(part, ip);
}

static bool take_port(struct str *rest, uint64_t *port)
{
	struct str part;

	return str_split(rest, ' ', &part) && str_to_u64(part, UINT16_MAX, port);
}

/* "TCP4 source destination port port" without its line end. */
static bool parse_line(struct str rest, struct proxy_header *out)
{
	struct str family;
	struct ip source, destination;
	uint64_t source_port, destination_port;
	bool is_v4;

	if (!str_split(&rest, ' ', &family))
		return false;
	if (str_equal(family, STR("UNKNOWN")))
		return true;
	is_v4 = str_equal(family, STR("TCP4"));
	if (!is_v4 && !str_equal(family, STR("TCP6")))
		return false;
	if (!take_ip(&rest, is_v4, &source) || !take_ip(&rest, is_v4, &destination) ||
	    !take_port(&rest, &source_port) || !take_port(&rest, &destination_port) || rest.p)
		return false;
	out->has_source = true;
	out->source = addr_of_ip(&source, (uint16_t)source_port);
	return true;
}

static enum proxy_result parse_v1(const char *p, size_t n, struct proxy_header *out)
{
	size_t end = str_find((struct str){ p, n < LINE_MAX_BYTES ? n : LINE_MAX_BYTES }, '\n');

	if (end == n && n < LINE_MAX_BYTES)
		return PROXY_MORE;
	if (end == LINE_MAX_BYTES || p[end - 1] != '\r')
		return PROXY_BAD;
	out->size = end + 1;
	return parse_line((struct str){ p + 6, end - 7 }, out) ? PROXY_DONE : PROXY_BAD;
}

/* ---------- version 2 ---------- */

static unsigned read_u16(const char *p)
{
	return (unsigned)(uint8_t)p[0] << 8 | (uint8_t)p[1];
}

static uint32_t read_u32(const char *p)
{
	return (uint32_t)read_u16(p) << 16 | read_u16(p + 2);
}

/* Castagnoli's checksum of the header with the four bytes at `skip` taken as zero. */
static uint32_t checksum(const char *p, size_t n, size_t skip)
{
	uint32_t crc = UINT32_MAX;

	for (size_t i = 0; i < n; i++) {
		crc ^= i >= skip && i < skip + 4 ? 0 : (uint8_t)p[i];
		for (unsigned bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78U : 0);
	}
	return ~crc;
}

/* Extensions: they must fill the rest exactly; a checksum among them must be right. The others say nothing to us. */
static bool check_extensions(const char *p, size_t at, size_t size)
{
	while (at < size) {
		if (size - at < 3 || size - at - 3 < read_u16(p + at + 1))
			return false;
		unsigned length = read_u16(p + at + 1);

		if ((uint8_t)p[at] == TYPE_CRC32C &&
		    (length != 4 || checksum(p, size, at + 3) != read_u32(p + at + 3)))
			return false;
		at += 3 + length;
	}
	return true;
}

static struct ip ip_of(const char *p, bool is_v4)
{
	struct ip ip = { .bytes = { [10] = 0xff, [11] = 0xff } };

	if (is_v4)
		memcpy(ip.bytes + 12, p, 4);
	else
		memcpy(ip.bytes, p, 16);
	return ip;
}

/* How many bytes the addresses of a family take; -1: it cannot be that of a TCP connection. */
static int address_bytes(unsigned family)
{
	switch (family) {
	case UNSPECIFIED: return 0;
	case TCP_V4: return 12;
	case TCP_V6: return 36;
	case UNIX_STREAM: return 216;
	default: return -1;
	}
}

static enum proxy_result parse_v2(const char *p, size_t n, struct proxy_header *out)
{
	unsigned command, family;
	int addresses;
	struct ip ip;

	if (n < FIXED_BYTES)
		return PROXY_MORE;
	command = (uint8_t)p[12];
	family = (uint8_t)p[13];
	addresses = address_bytes(family);
	out->size = FIXED_BYTES + read_u16(p + 14);
	if ((command != LOCAL && command != PROXY) || out->size > PROXY_HEADER_MAX)
		return PROXY_BAD;
	if (command == PROXY && (addresses < 0 || out->size < FIXED_BYTES + (size_t)addresses))
		return PROXY_BAD;
	if (n < out->size)
		return PROXY_MORE;
	/* Of LOCAL everything behind the length is to be passed over, whatever it is. */
	if (command == LOCAL || family == UNSPECIFIED)
		return PROXY_DONE;
	if (!check_extensions(p, FIXED_BYTES + (size_t)addresses, out->size))
		return PROXY_BAD;
	if (family == UNIX_STREAM)
		return PROXY_DONE;
	ip = ip_of(p + FIXED_BYTES, family == TCP_V4);
	out->has_source = true;
	out->source = addr_of_ip(&ip, (uint16_t)read_u16(p + FIXED_BYTES + (family == TCP_V4 ? 8 : 32)));
	return PROXY_DONE;
}

enum proxy_result proxy_protocol_parse(const char *p, size_t n, struct proxy_header *out)
{
	size_t v1 = n < 6 ? n : 6, v2 = n < SIGNATURE_BYTES ? n : SIGNATURE_BYTES;

	*out = (struct proxy_header){ 0 };
	if (n == 0)
		return PROXY_MORE;
	if (memcmp(p, SIGNATURE, v2) == 0)
		return v2 < SIGNATURE_BYTES ? PROXY_MORE : parse_v2(p, n, out);
	if (memcmp(p, "PROXY ", v1) == 0)
		return v1 < 6 ? PROXY_MORE : parse_v1(p, n, out);
	return PROXY_BAD;
}
