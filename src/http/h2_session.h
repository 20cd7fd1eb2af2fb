/*
 * h2_session.h -- nghttp2 callbacks: the signatures it asks for, and those that both sides register. Only for
 * h2*.c.
 */
#pragma once
#include <nghttp2/nghttp2.h>
#include "http/h2.h"

#define H2_GIVE_DATA(function) \
	ssize_t function(nghttp2_session *ng, int32_t id, uint8_t *buffer, size_t room, uint32_t *flags, \
			 nghttp2_data_source *source, void *arg)
#define H2_SEND_DATA(function) \
	int function(nghttp2_session *ng, nghttp2_frame *frame, const uint8_t *head, size_t n, \
		     nghttp2_data_source *source, void *arg)
#define H2_TAKE_HEADER(function) \
	int function(nghttp2_session *ng, const nghttp2_frame *frame, const uint8_t *name, size_t name_n, \
		     const uint8_t *value, size_t value_n, uint8_t flags, void *arg)
#define H2_TAKE_DATA(function) \
	int function(nghttp2_session *ng, uint8_t flags, int32_t id, const uint8_t *p, size_t n, void *arg)

/* Says how much of a stream's queue goes next; source->ptr is the h2_stream. */
H2_GIVE_DATA(h2_give_data);
/* Puts the frame into the write under way, payload where it lies. */
H2_SEND_DATA(h2_send_data);
