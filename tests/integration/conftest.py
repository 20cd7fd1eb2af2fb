"""Fixtures: one gateway process and one recording upstream for each test file."""
import pytest
from backends import Backend
from gw import Gateway


@pytest.fixture(scope="module")
def gw():
	with Gateway() as gateway:
		yield gateway


@pytest.fixture(scope="module")
def backend_process():
	with Backend(4) as backend:
		yield backend


@pytest.fixture
def backend(backend_process):
	"""Its records are of this test alone."""
	backend_process.clear()
	return backend_process
