"""The HTTP API of a running server, asked whatever its own description allows, and what it does not."""

from collections.abc import Iterator
from typing import Final

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import Case, GenerationMode
from schemathesis.checks import (
    content_type_conformance,
    not_a_server_error,
    response_schema_conformance,
    status_code_conformance,
)

from e2e.house import House, house
from taskd.http.resources import ROUTES
from taskd.http.routes import API, AnyRoute

EXAMPLES: Final = 10
"""Of each route: what is odd about one comes early."""

CHECKS: Final = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]

ANSWERING: Final = [route for route in ROUTES if not route.streams]


class Served:
    """A server, and who asks it."""

    def __init__(self, at_home: House) -> None:
        at_home.serve()
        profile = at_home.profile()
        self.url = profile["http"] + API
        self.headers = {"Authorization": f"Bearer {profile['token']}"}
        self.schema = schemathesis.openapi.from_url(f"{self.url}/openapi.json")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server of its own: what is asked may stop agents, revoke tokens and cancel everything."""
    with house(tmp_path_factory.mktemp("http")) as at_home:
        yield Served(at_home)


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["allowed", "not allowed"])
@pytest.mark.parametrize("route", ANSWERING, ids=[f"{route.method} {route.path}" for route in ANSWERING])
def test_every_route_answers_as_it_is_described(served: Served, route: AnyRoute, mode: GenerationMode) -> None:
    """Whatever it is asked: with a document of the described type, or a refusal; never with a fault."""
    operation = served.schema[route.path.replace(":path}", "}")][route.method]

    @settings(max_examples=EXAMPLES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy(generation_mode=mode))
    def ask(case: Case) -> None:  # type: ignore[type-arg]  # the kind of schema makes no difference
        if "seconds" in case.query:
            case.query["seconds"] = 0
        response = case.call(headers=served.headers)
        case.validate_response(response, checks=CHECKS)

    ask()


def test_the_description_is_whole(served: Served) -> None:
    """It names every route."""
    named = {(method.upper(), path) for path, page in served.schema.raw_schema["paths"].items() for method in page}
    assert named >= {(route.method, route.path.replace(":path}", "}")) for route in ROUTES}
