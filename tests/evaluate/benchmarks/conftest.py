"""What is kept of data sets goes to a folder of the test's own."""

import pytest

import rebus
from rebus import catalog


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("REBUS_HOME", str(tmp_path_factory.mktemp("home")))


def _bundled(name):
    if name not in catalog.bundled():
        pytest.skip(f"{name} is not in this copy of the package")
    return rebus.load(name, device="cpu")


@pytest.fixture(scope="session")
def clip():
    return _bundled("clip/scenes")


@pytest.fixture(scope="session")
def paligemma():
    return _bundled("paligemma/scenes")
