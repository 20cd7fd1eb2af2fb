"""Shell commands on a network of their own, around the program under test: for what needs fixed ports."""
import os
import re
import shutil
import subprocess

from gw import PROGRAM

# `sluice run --demo` in the background, data in ./sluice-data, standard error in ./server.log; waits until it is ready.
START = r'''
: >server.log
"$SLUICE_BIN" run --demo --data sluice-data >>server.log 2>&1 &
server=$!
for i in $(seq 600); do
	grep -qx ready server.log && break
	kill -0 $server || break
	sleep 0.05
done
grep -qx ready server.log || { cat server.log; exit 1; }
'''
# Its exit status goes to ./server.status.
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


def apart():
	"""How to run something on a network of its own, so that the page's ports are free; here when that is not allowed."""
	prefix = ["unshare", "-rn"]
	if shutil.which("unshare") and subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode == 0:
		return [*prefix, "python3", "-c", LOOPBACK_UP]
	return []


def run_blocks(blocks, folder):
	"""Runs shell commands in one bash, in `folder`; the output of each block, standard error included."""
	mark = "=== end of block"
	script = "exec 2>&1\n" + "".join(f"{commands}\nprintf '\\n%s\\n' '{mark} {n}'\n" for n, commands in enumerate(blocks))
	environment = {**os.environ, "SLUICE_BIN": PROGRAM, "TMPDIR": str(folder)}
	done = subprocess.run([*apart(), "bash", "-c", script], cwd=folder, env=environment, capture_output=True, timeout=120,
		stdin=subprocess.DEVNULL, check=False)
	text = done.stdout.decode()
	parts = re.split(rf"\n{mark} \d+\n", text)
	assert len(parts) == len(blocks) + 1, f"stopped early: {text}"
	return parts[:-1]
