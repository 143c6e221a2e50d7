"""What a use of Ray begins it ends, and errors of ours come out as they went in; with a stand-in for Ray."""

import sys
from types import SimpleNamespace

import pytest

from rebus.core.errors import BadImage, MissingExtra
from rebus.data.over_ray import ray_cluster


@pytest.fixture
def ray(monkeypatch):
    """A module `ray`; `connected`: before the block; `ended`: how often it was shut down."""
    found = SimpleNamespace(connected=False, ended=0, is_initialized=lambda: found.connected)

    def shutdown():
        found.ended += 1

    found.shutdown = shutdown
    monkeypatch.setitem(sys.modules, "ray", found)
    return found


@pytest.mark.parametrize("connected, ended", [(False, 1), (True, 0)])
def test_a_cluster_of_somebody_else_stays(ray, connected, ended):
    ray.connected = connected
    with ray_cluster("--over ray") as given:
        assert given is ray
        assert ray.ended == 0
    assert ray.ended == ended


def test_errors_of_ours_come_out_of_those_of_ray(ray):
    class TaskError(Exception):
        cause = BadImage("a.png: no image")

    with pytest.raises(BadImage, match=r"a\.png"), ray_cluster("--over ray"):
        raise TaskError
    with pytest.raises(ZeroDivisionError), ray_cluster("--over ray"):
        raise ZeroDivisionError
    assert ray.ended == 2


def test_a_generator_that_is_left_ends_it(ray):
    def rows():
        with ray_cluster("--over ray"):
            yield from range(9)

    generator = rows()
    next(generator)
    generator.close()
    assert ray.ended == 1


def test_without_ray_the_option_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtra, match="--engine ray"), ray_cluster("--engine ray"):
        pass
