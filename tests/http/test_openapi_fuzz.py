"""T19: requests made from the server's own description, right ones and wrong ones: nothing fails inside, and every answer is
one that the description allows."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from requests import PreparedRequest, Request
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.transport import Response
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from tests.http.asking import Answer, Ask
from tests.http.test_manage import toy

from cairn import App
from cairn.framework.http.auth import EVERY_GRANT, open_to_everyone
from cairn.framework.http.openapi import describe
from cairn.framework.http.routes import ROUTES

DOCUMENT = describe([route for route in ROUTES if not route.is_page], has_auth=False)
SCHEMA = schemathesis.openapi.from_dict(DOCUMENT)
OPERATIONS = {
    f"{method.upper()} {path}": SCHEMA[path][method.upper()]
    for path, methods in DOCUMENT["paths"].items()
    for method in methods
}

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]

#: Requests an operation, right and wrong ones each.
EXAMPLES = 40


class Server:
    """An App with a few conversations, and the loop it lives on."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner()
        self._app = App([toy()], store=":memory:", auth=open_to_everyone(tuple(EVERY_GRANT)))
        self._ask = Ask(self._app)
        self._runner.run(self._open())

    async def _open(self) -> None:
        self._app.http  # noqa: B018
        await self._app.__aenter__()
        await self.refill()

    async def refill(self) -> None:
        """The conversations are there, also when one was just deleted."""
        for id in ("c", "a/b"):
            conversation = self._app.conversation("toy", id)
            if not await conversation.exists():
                await (await conversation.send("Hello.")).reply()

    def ask(self, prepared: PreparedRequest) -> Answer:
        """The request as it would be sent; a live one hangs up."""
        assert prepared.url is not None and prepared.method is not None
        url = urlsplit(prepared.url)
        body = prepared.body.encode() if isinstance(prepared.body, str) else prepared.body or b""
        headers = [(name, _text(value)) for name, value in prepared.headers.items()]
        gone = asyncio.Event()
        if "live=" in url.query:
            gone.set()
        return self._runner.run(
            self._ask(prepared.method, url.path, headers=headers, raw=bytes(body), query=url.query, hang_up=gone)
        )

    def ready(self) -> None:
        self._runner.run(self.refill())

    def close(self) -> None:
        self._runner.run(self._app.__aexit__(None, None, None))
        self._runner.close()


def _text(value: Any) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


def check(server: Server, case: Case, checks: list[Any]) -> None:
    """Send it, and hold the answer against the description."""
    prepared = Request(**case.as_transport_kwargs(base_url="http://localhost")).prepare()
    answer = server.ask(prepared)
    if not answer.status:
        return  # a live request that hung up before there was anything to say
    headers = {name: [value] for name, value in answer.headers.items()}
    response = Response(answer.status, headers, answer.body, prepared, 0.0, True)
    case.validate_response(response, checks=checks)


PROFILE = settings(
    max_examples=EXAMPLES,
    phases=[Phase.explicit, Phase.generate],
    deadline=timedelta(seconds=20),
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(OPERATIONS))
def test_what_the_description_allows_is_answered_as_it_says(server: Server, name: str) -> None:
    """T19: by a known agent, for conversations that exist and that do not."""

    @PROFILE
    @given(case=OPERATIONS[name].as_strategy(), id=st.sampled_from(["c", "a/b", "new", None]))
    def run(case: Case, id: str | None) -> None:
        _aim(case, id)
        check(server, case, CHECKS)

    server.ready()
    run()


#: Operations that can be asked wrongly: the others take nothing but names.
WRONGLY = sorted(
    name
    for name, operation in OPERATIONS.items()
    if operation.definition.raw.get("requestBody")
    or any(p["in"] == "query" for p in operation.definition.raw.get("parameters", ()))
)


@pytest.mark.slow
@pytest.mark.parametrize("name", WRONGLY)
def test_what_the_description_forbids_is_refused(server: Server, name: str) -> None:
    """T19: with a status and an envelope of the description; a wrong body never with success. Unknown parameters of a query are
    ignored, as the wire has it."""

    @PROFILE
    @given(case=OPERATIONS[name].as_strategy(GenerationMode.NEGATIVE), id=st.sampled_from(["c", "a/b"]))
    def run(case: Case, id: str) -> None:
        wrong = {place.value for place, part in case.meta.components.items() if part.mode is GenerationMode.NEGATIVE}
        _aim(case, id)
        check(server, case, [*CHECKS, *([negative_data_rejection] if wrong == {"body"} else [])])

    server.ready()
    run()


def _aim(case: Case, id: str | None) -> None:
    """At an agent there is, and a conversation there may be."""
    if "kind" in case.path_parameters and id is not None:
        case.path_parameters["kind"] = "toy"
        if "id" in case.path_parameters:
            case.path_parameters["id"] = id
