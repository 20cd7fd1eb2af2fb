"""docs/guide/quickstart.md, literally: every command runs in one shell, and prints what the page says it prints.

A ```text block is the whole output of the ```sh block before it, line by line; `...` in a line stands for anything.
`make run` is replaced by the program that is being tested; all else is run as it stands.
"""
import re

import pytest
from backends import ROOT
from gw import COMPLAINTS
from shell import START, STOP, run_blocks

PAGE = ROOT / "docs/guide/quickstart.md"
README = ROOT / "README.md"


def read_blocks(text):
	"""[(commands, expected output or None)] in order."""
	blocks = []
	for kind, body in re.findall(r"^```(\w*)\n(.*?)^```$", text, re.M | re.S):
		if kind == "sh":
			blocks.append([body, None])
		elif kind == "text":
			assert blocks and blocks[-1][1] is None, f"output without a command: {body}"
			blocks[-1][1] = body
		else:
			raise AssertionError(f"a block that is neither sh nor text: {body}")
	return blocks


def fits(expected, line):
	return re.fullmatch(".*".join(map(re.escape, expected.split("..."))), line) is not None


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory):
	folder = tmp_path_factory.mktemp("quickstart")
	blocks = read_blocks(PAGE.read_text())
	scripts = [START if commands.strip() == "make run" else commands for commands, _ in blocks]
	return blocks, run_blocks([*scripts, STOP], folder), folder


def test_the_page_prints_what_it_says(quickstart):
	blocks, outputs, _ = quickstart
	assert len(blocks) >= 8
	for (commands, expected), output in zip(blocks, outputs):
		if commands.strip() == "make run":
			continue
		assert expected is not None, f"nothing says what these print: {commands}"
		want, have = expected.rstrip().split("\n"), output.rstrip().split("\n")
		assert len(want) == len(have) and all(map(fits, want, have)), f"{commands}\nprinted\n{output}\nand not\n{expected}"


def test_the_page_begins_with_make_run_and_sees_a_429_and_back(quickstart):
	blocks, outputs, _ = quickstart
	assert blocks[0][0].strip() == "make run"
	codes = re.findall(r"\b(200|429)\b", "".join(outputs))
	assert "429" in codes and codes[-1] == "200"


def test_the_program_ended_in_order(quickstart):
	folder = quickstart[2]
	log = (folder / "server.log").read_bytes()
	assert not COMPLAINTS.search(log), log.decode("latin-1")[-4000:]
	assert (folder / "server.status").read_text() == "0\n", log.decode("latin-1")[-4000:]


def test_the_readme_names_the_same_first_command(tmp_path):
	text = README.read_text()
	assert re.search(r"^make run\b", text, re.M) and re.search(r"^make test\b", text, re.M)
	commands = "".join(re.findall(r"^curl .*$", text, re.M))
	out = run_blocks([START, commands + "\n", STOP], tmp_path)[1]
	assert "HTTP/1.1 200 OK" in out and '"path": "/hello"' in out
