"""The release program carries the hardening that the build asks for."""
import os
import subprocess

import pytest

PROGRAM = os.environ.get("SLUICE_RELEASE_BIN", "build/release/sluice")


def read(*options):
	return subprocess.run(["readelf", "--wide", *options, PROGRAM], capture_output=True, text=True, check=True).stdout


def test_is_position_independent():
	assert "DYN (Position-Independent Executable file)" in read("--file-header")


def test_binds_everything_at_start_and_makes_it_read_only():
	assert "GNU_RELRO" in read("--program-headers")
	flags = [line for line in read("--dynamic").splitlines() if "FLAGS" in line]
	assert any("BIND_NOW" in line or "NOW" in line for line in flags)


def test_has_no_executable_stack_and_no_writable_code():
	segments = [line.split() for line in read("--program-headers").splitlines() if line.startswith(("  LOAD", "  GNU_STACK"))]
	assert len(segments) > 3
	for segment in segments:
		flags = "".join(segment[6:-1])
		assert not ("W" in flags and "E" in flags), segment


@pytest.mark.parametrize("symbol", ["__stack_chk_fail", "__memcpy_chk", "__snprintf_chk"])
def test_checks_stack_and_buffers(symbol):
	assert symbol in read("--dyn-syms")


def test_allocates_with_jemalloc():
	assert "libjemalloc.so" in read("--dynamic")
