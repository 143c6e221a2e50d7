"""What the description of the routes allows, and what it forbids: no request makes the server fail."""

import logging

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.serve.conftest import DETECTOR, ENCODER, GENERATIVE

KNOWN = (GENERATIVE, ENCODER, DETECTOR, "nobody/knows")


def attacked(url, examples):
    """Each route `examples` times, with models that are served in three of four cases."""
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
    seen = {"cases": 0, "statuses": set()}
    for result in schema.get_all_operations():
        operation = result.ok()

        @seed(20_240)
        @settings(
            max_examples=examples,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy())
        def check(case):
            named(case, seen["cases"])
            response = case.call(timeout=60)
            seen["cases"] += 1
            seen["statuses"].add(response.status_code)
            assert response.status_code < 500 or response.status_code == 503, (response.status_code, response.text)
            if response.status_code >= 400 and response.content:
                assert set(response.json()["error"]) == {"message", "type", "param", "code"}

        check()
    return seen


def named(case, number):
    """Names that are made up lead nowhere: put real ones in."""
    model = KNOWN[number % len(KNOWN)]
    if isinstance(case.body, dict) and isinstance(case.body.get("model"), str):
        case.body["model"] = model
    if case.path_parameters and "index" in case.path_parameters:
        case.path_parameters["index"] = "photos"
    if case.path_parameters and "model" in case.path_parameters:
        case.path_parameters["model"] = model


def test_no_request_makes_the_server_fail(url):
    logging.getLogger("schemathesis").setLevel(logging.ERROR)
    seen = attacked(url, 4)
    assert seen["cases"] > 40
    assert {200, 400} <= seen["statuses"]


@pytest.mark.slow
def test_two_thousand_requests_make_no_server_fail(url):
    assert attacked(url, 160)["cases"] >= 2_000
