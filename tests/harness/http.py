"""HTTP without sockets: requests to the application in this process, as a client's would reach it."""

import json
from collections.abc import Mapping
from typing import Any, cast
from urllib.parse import unquote

import trio
from starlette.types import Message, Scope

from harness.server import Server
from taskd.http.app import OpenSite, make_app
from taskd.http.rates import Rates

HOST = "localhost:7071"


class Answer:
    """What was answered."""

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    @property
    def json(self) -> Any:  # type: ignore[explicit-any]  # noqa: ANN401 - a test says what it expects
        """The document."""
        assert self.headers["content-type"] == "application/json", self.headers
        return json.loads(self.body)

    @property
    def error(self) -> tuple[int, str, str]:
        """Status, code and message of a refusal."""
        told = self.json["error"]
        return self.status, cast("str", told["code"]), cast("str", told["message"])


class Browser:
    """Asks an application, with the token of a role.

    Attributes:
        is_silent: Its bodies never come.
    """

    def __init__(
        self,
        server: Server,
        *,
        prefix: str = "",
        rates: Rates | None = None,
        open_site: OpenSite | None = None,
        scheme: str = "http",
    ) -> None:
        self.server = server
        self.is_silent = False
        self.scheme = scheme
        self.app = make_app(
            ready=lambda: True,
            hosts=["localhost"],
            services=server.services,
            prefix=prefix,
            rates=rates,
            open_site=open_site,
        )

    async def get(self, path: str, *, role: str | None = "viewer", **headers: str) -> Answer:
        """Ask for a page of the API."""
        return await self.ask("GET", f"/api/v1{path}", b"", role=role, **headers)

    async def post(self, path: str, body: object = None, *, role: str | None = "admin", **headers: str) -> Answer:
        """Ask for a change."""
        raw = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        if raw:
            headers = {"content_type": "application/json"} | headers
        return await self.ask("POST", f"/api/v1{path}", raw, role=role, **headers)

    async def ask(self, method: str, path: str, body: bytes = b"", *, role: str | None, **headers: str) -> Answer:
        """Make a request, and wait until it is answered.

        Args:
            method: In capitals.
            path: With its query.
            body: Sent as a whole.
            role: Whose token is shown; None: none.
            headers: By their names, with an underscore for each hyphen.
        """
        said = {"host": HOST} | {name.replace("_", "-"): value for name, value in headers.items()}
        if role is not None:
            said.setdefault("authorization", f"Bearer {self.server.tokens[role]}")
        sent: list[Message] = []
        received = self.is_silent

        async def receive() -> Message:
            nonlocal received
            if received:
                await trio.sleep_forever()
            received = True
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Message) -> None:
            await trio.lowlevel.checkpoint()
            sent.append(message)

        await self.app(scope(method, path, said, self.scheme), receive, send)
        head = {name.decode(): value.decode("latin-1") for name, value in sent[0]["headers"]}
        return Answer(sent[0]["status"], head, b"".join(message["body"] for message in sent[1:]))


def scope(method: str, path: str, headers: Mapping[str, str], scheme: str = "http") -> Scope:
    """Return what an application is told of a request."""
    bare, _, query = path.partition("?")
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": scheme,
        "path": unquote(bare),
        "raw_path": bare.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in headers.items()],
        "client": ("127.0.0.1", 1),
        "server": ("localhost", 7071),
    }
