"""Waf and multipart bodies that are no forms: frameworks read them as such, the library does not."""
import pytest
from test_waf import has_packages, is_blocked, path, post    # noqa: F401, path is a fixture

pytestmark = pytest.mark.skipif(not has_packages(), reason="libmodsecurity3 and modsecurity-crs are not installed")
PARTS = {    # what stands in front of the content of a part, for frameworks that read it as a parameter
	"named": b'Content-Disposition: form-data; name="q"\r\n', "named file": b'Content-Disposition: form-data; name="q"; filename="a.php"\r\n',
	"attached": b'Content-Disposition: attachment; name="q"\r\n', "inline": b"content-disposition: inline\r\n",
	"image with a name": b'Content-Type: image/png\r\nContent-Disposition: form-data; name="q"\r\n',
	"identified": b"Content-ID: <q>\r\nContent-Type: text/plain\r\n", "json": b"Content-Type: application/json; charset=utf-8\r\n", "bare": b"",
}


def mixed(*parts, boundary=b"x"):
	return b"".join(b"--%s\r\n%s\r\n%s\r\n" % (boundary, head, content) for head, content in parts) + b"--%s--\r\n" % boundary


@pytest.mark.parametrize("kind", ["related", "mixed", "Mixed"])
@pytest.mark.parametrize("part", PARTS)
def test_attacks_in_parts_of_other_kinds_are_refused(gw, path, backend, kind, part):
	attack = b"1' UNION SELECT password FROM users--" if part != "named file" else b"x"
	body = mixed((b"Content-Type: text/plain\r\n", b"hello"), (PARTS[part], attack))
	for type in (f"multipart/{kind}; boundary=x", f'multipart/{kind};type="application/json"; boundary="x"'):
		assert is_blocked(post(gw, path, body, type))
	assert backend.requests() == []


@pytest.mark.parametrize("type", ["multipart/related; boundary=x; type=\"application/json\"", "multipart/mixed; boundary=\"x\"", "multipart/form-data; boundary=x"])
def test_ordinary_parts_pass_as_they_came(gw, path, backend, type):
	is_form = "form" in type
	parts = [(b'Content-Disposition: form-data; name="a"\r\n', b"hello"), (b'Content-Disposition: form-data; name="f"; filename="a.png"\r\n'
		b"Content-Type: image/png\r\n", bytes(range(256)) * 50)]
	if not is_form:
		parts += [(b"Content-Type: application/json\r\nContent-ID: <1>\r\n", b'{"name":"holiday.png","tags":["a","b"]}'),
			(b"Content-Type: image/png\r\n", bytes(range(256)) * 50), (b"Content-Disposition: attachment; filename=b.bin\r\n", b"\0\1\2" * 5000)]
	body = mixed(*parts)
	assert post(gw, path, body, type).status == 200
	assert (backend.last().body, backend.last().header("Content-Type")) == (body, type)


def test_fields_of_parts_of_other_kinds_have_their_limit(gw, path, backend):
	answer = post(gw, path, mixed((b"Content-Type: text/plain\r\n", b"a " * (100 << 10))), "multipart/mixed; boundary=x")
	assert (answer.status, answer.json["errorCode"]) == (413, "ErrRequestTooLarge")
	assert backend.requests() == []


def test_a_part_says_once_what_it_is(gw, path, backend):
	"""The library takes the first of two, and what follows for a file."""
	once = (PARTS["named file"], PARTS["named"], b"Content-Type: text/plain\r\n")
	for type in ("multipart/form-data; boundary=x", "multipart/mixed; boundary=x"):
		for head in (once[0] + once[1], once[1] + once[0], once[0] + once[2] + once[1], once[0] + once[0]):
			assert is_blocked(post(gw, path, mixed((b'Content-Disposition: form-data; name="a"\r\n', b"1"), (head, b"1' UNION SELECT 1--")), type), 400)
	assert backend.requests() == []


@pytest.mark.parametrize(("type", "body"), [("multipart/mixed", b"--x\r\n\r\na\r\n--x--\r\n"), ("multipart/related; boundary=y", mixed((b"", b"a"))),
	("multipart/mixed; boundary=x", b"no parts"), ("multipart/mixed; boundary=x", b"--x\r\n\r\nnever ends"), ("multipart/mixed; boundary=x",
	b"--x\r\nContent-Disposition: form-data; name=\"a\"\r\nContent-Disposition: form-data; name=\"b\"\r\n\r\na\r\n--x--\r\n")])
def test_parts_that_cannot_be_read_are_refused(gw, path, backend, type, body):
	assert is_blocked(post(gw, path, body, type), 400)
	assert backend.requests() == []


@pytest.mark.parametrize("kind", ["alternative", "digest", "x-mixed-replace", "byteranges", "form-data2", "anything"])
def test_other_kinds_of_parts_are_refused(gw, path, backend, kind):
	body = mixed((PARTS["named"], b"hello"))
	assert is_blocked(post(gw, path, body, f"multipart/{kind}; boundary=x"), 415)
	assert is_blocked(post(gw, path, body, f"Multipart/{kind} ; boundary=x"), 415)
	assert backend.requests() == []
