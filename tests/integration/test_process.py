"""The process as supervisors, shells and other tools meet it."""
import signal

from gw import Gateway
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
