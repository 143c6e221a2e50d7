"""What is kept of data sets goes to a folder of the test's own."""

import pytest


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REBUS_HOME", str(tmp_path_factory.mktemp("home")))
