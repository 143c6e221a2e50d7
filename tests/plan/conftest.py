"""Traces of these tests are stored apart from the user's, and shared between the tests."""

import pytest


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REBUS_HOME", str(tmp_path_factory.mktemp("home")))
        yield
