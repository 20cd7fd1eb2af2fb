"""How much of everything. SLUICE_FULL=1 runs each test at the scale that its figure is stated for (docs/guide and the project's reliability
figures); without it a shorter run shows the same in less time. A variable of its own sets a single one."""
import os

FULL = bool(os.environ.get("SLUICE_FULL") or os.environ.get("SLUICE_TEST_FULL"))


def sized(name, short, full):
	return type(short)(os.environ.get(name, full if FULL else short))
