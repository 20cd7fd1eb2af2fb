"""docs/guide/quickstart.md, literally: every command runs in one shell, and prints what the page says it prints.

A ```text block is the whole output of the ```sh block before it, line by line; `...` in a line stands for anything.
`make run` is replaced by the program that is being tested; all else is run as it stands.
"""
import os
import re
import shutil
import subprocess

import pytest
from gw import COMPLAINTS, PROGRAM, ROOT

PAGE = ROOT / "docs/guide/quickstart.md"
README = ROOT / "README.md"
START = r'''
"$SLUICE_BIN" run --demo --data sluice-data >server.log 2>&1 &
server=$!
for i in $(seq 600); do
	grep -qx ready server.log && break
	kill -0 $server || break
	sleep 0.05
done
grep -qx ready server.log || { cat server.log; exit 1; }
'''
STOP = r'''
kill -TERM $server
wait $server
echo "$?" >server.status
kill $(jobs -p) 2>/dev/null
'''
# A network namespace of its own begins without a loopback interface.
LOOPBACK_UP = r'''
import fcntl, os, socket, struct, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
    fcntl.ioctl(s, 0x8914, struct.pack("16sh14x", b"lo", 0x49))
os.execvp(sys.argv[1], sys.argv[1:])
'''


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


def apart():
	"""How to run something on a network of its own, so that the page's ports are free; here when that is not allowed."""
	prefix = ["unshare", "-rn"]
	if shutil.which("unshare") and subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode == 0:
		return [*prefix, "python3", "-c", LOOPBACK_UP]
	return []


def run_blocks(blocks, folder):
	"""The output of each block."""
	mark = "=== end of block"
	script = "exec 2>&1\n"
	for number, (commands, _) in enumerate(blocks):
		script += START if commands.strip() == "make run" else commands
		script += f"printf '\\n%s\\n' '{mark} {number}'\n"
	script += STOP
	environment = {**os.environ, "SLUICE_BIN": PROGRAM, "TMPDIR": str(folder)}
	done = subprocess.run([*apart(), "bash", "-c", script], cwd=folder, env=environment, capture_output=True, timeout=120,
		stdin=subprocess.DEVNULL, check=False)
	text = done.stdout.decode()
	parts = re.split(rf"\n{mark} \d+\n", text)
	assert len(parts) == len(blocks) + 1, f"stopped early: {text}"
	return parts[:-1]


def fits(expected, line):
	return re.fullmatch(".*".join(map(re.escape, expected.split("..."))), line) is not None


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory):
	folder = tmp_path_factory.mktemp("quickstart")
	blocks = read_blocks(PAGE.read_text())
	return blocks, run_blocks(blocks, folder), folder


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
	out = run_blocks([["make run\n", None], [commands + "\n", None]], tmp_path)[1]
	assert "HTTP/1.1 200 OK" in out and '"path": "/hello"' in out
