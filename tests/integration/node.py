"""Programs of tests/node/: clients and servers of other makers."""
import os
import subprocess

import pytest

from backends import ROOT

FOLDER = ROOT / "tests/node"


def command(script, *arguments):
	if not (FOLDER / "node_modules").is_dir():
		pytest.skip("the npm packages of tests/node are not installed: tools/install_deps test")
	return ["node", str(FOLDER / script), *map(str, arguments)]


def run(script, *arguments, seconds=60, environment=None):
	"""What it printed; it has to exit with 0."""
	done = subprocess.run(command(script, *arguments), capture_output=True, text=True, timeout=seconds,
		env={**os.environ, **(environment or {})})
	assert done.returncode == 0, f"{script}: {done.stdout[-2000:]}{done.stderr[-4000:]}"
	return done.stdout.strip()


class Server:
	"""A server that says its port first."""

	def __init__(self, script, *arguments):
		self.process = subprocess.Popen(command(script, *arguments), stdout=subprocess.PIPE, text=True)
		line = self.process.stdout.readline()
		assert line.strip().isdigit(), f"{script} said {line!r}"
		self.port = int(line)

	def __enter__(self):
		return self

	def __exit__(self, *_):
		self.process.kill()
		self.process.wait()
		self.process.stdout.close()
