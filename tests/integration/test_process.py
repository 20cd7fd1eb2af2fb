"""The process as supervisors, shells and other tools meet it."""
import os
import signal
import subprocess

from gw import PROGRAM, Gateway, free_port
from wire import wait_until


def test_signals_that_mean_reload_elsewhere_end_nothing(gw, backend):
	gw.route("/signals", backend)
	for number, sent in enumerate((signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2), 1):
		gw.process.send_signal(sent)
		wait_until(lambda: len(gw.events("signal.ignored")) == number, 20, "a record of the signal")
		assert gw.events("signal.ignored")[-1]["signal"] == sent
		assert gw.get("/signals").status == 200
	assert gw.ask("GET", "/readyz") == {"status": "ready"}


def test_signals_that_are_ignored_do_not_count_as_the_first(backend):
	with Gateway() as gw:
		gw.route("/signals", backend)
		with gw.connect() as client:
			client.request("GET", "/signals")
			gw.process.send_signal(signal.SIGHUP)
			wait_until(lambda: gw.events("signal.ignored"), 20, "a record of the signal")
			gw.process.send_signal(signal.SIGTERM)
			wait_until(lambda: gw.events("stop.drain"), 20, "a record of the drain")
		assert not gw.events("stop.now")


def test_a_closed_standard_stream_is_no_descriptor_of_ours(tmp_path):
	"""Whatever got the number of standard error would get the log."""
	data = tmp_path / "data"
	process = subprocess.Popen(["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", PROGRAM, "run", f"--data={data}",
		f"--admin=127.0.0.1:{free_port()}"])
	try:
		wait_until((data / "sluice.sock").exists, 60, "a gateway that serves")
		assert [os.readlink(f"/proc/{process.pid}/fd/{fd}") for fd in range(3)] == ["/dev/null"] * 3
	finally:
		process.terminate()
		assert process.wait(30) == 0


def test_a_command_whose_standard_output_is_closed_says_so():
	done = subprocess.run(["sh", "-c", 'exec "$@" >&-', "sh", PROGRAM, "policy", "classes"], stderr=subprocess.PIPE, timeout=60)
	assert (done.returncode, done.stderr) == (1, b"sluice: standard output cannot be written\n")
