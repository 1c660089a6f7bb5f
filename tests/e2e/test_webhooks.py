"""A webhook from the command line to a program that listens: signed, tried again, and not to where it may not go."""

import base64
import contextlib
import hashlib
import hmac
import json
import signal
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from e2e.house import House, house, wait_until

NETWORK = ("--webhook-network", "127.0.0.0/8")


class Listener:
    """Takes posts, or answers 503."""

    def __init__(self) -> None:
        self.posts: list[tuple[dict[str, str], bytes]] = []
        self.status = 204
        self.before_answer: Callable[[], None] = lambda: None
        listener = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body, status = self.rfile.read(int(self.headers["content-length"])), listener.status
                if status == 204:
                    listener.posts.append((dict(self.headers.items()), body))
                    listener.before_answer()
                with contextlib.suppress(OSError):  # who asked may be dead
                    self.send_response(status)
                    self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/hook?from=taskd"
        self._thread = threading.Thread(target=self.server.serve_forever)
        self._thread.start()

    def told(self) -> list[tuple[str, list[str]]]:
        return [(event["what"], event["ids"]) for _, body in self.posts for event in json.loads(body)["events"]]

    def close(self) -> None:
        self.server.shutdown()
        self._thread.join()
        self.server.server_close()


@pytest.fixture
def listener() -> Iterator[Listener]:
    made = Listener()
    yield made
    made.close()


@pytest.fixture
def home(tmp_path: Path) -> Iterator[House]:
    with house(tmp_path / "home") as made:
        yield made


def test_events_are_posted_signed_and_again_over_a_killed_server(home: House, listener: Listener) -> None:
    server = home.serve(*NETWORK)
    secret = home.ask("webhook", "add", "chat", listener.url, "what:task.")
    first = home.ask("submit", "shop.add", "[1]")
    wait_until(lambda: listener.told() == [("task.submitted", [first])])
    headers, body = listener.posts[0]
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    key = base64.b64decode(secret.removeprefix("whsec_"))
    assert headers["webhook-signature"] == "v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
    listener.status = 503
    second = home.ask("submit", "shop.add", "[2]")
    [shown] = wait_until(lambda: [hook for hook in json.loads(home.ask("webhook", "ls", "--json")) if hook["failures"]])
    assert shown["error"] == "it answered 503"
    server.end(signal.SIGKILL)
    listener.status = 204
    home.serve(*NETWORK)
    wait_until(lambda: listener.told() == [("task.submitted", [first]), ("task.submitted", [second])])
    home.ask("webhook", "rm", "chat")
    assert json.loads(home.ask("webhook", "ls", "--json")) == []


def test_a_server_killed_before_it_notes_an_answer_posts_the_same_again(home: House, listener: Listener) -> None:
    """Under the same id, signed anew; what has happened meanwhile follows, and a receiver that knows ids acts once."""
    server = home.serve(*NETWORK)
    home.ask("webhook", "add", "chat", listener.url, "what:task.")
    sent = []

    def die() -> None:
        listener.before_answer = lambda: None
        sent.append(home.ask("submit", "shop.add", "[2]"))
        server.end(signal.SIGKILL)

    listener.before_answer = die
    sent.insert(0, home.ask("submit", "shop.add", "[1]"))
    wait_until(lambda: server.process.poll() is not None)
    home.serve(*NETWORK)
    wait_until(lambda: listener.told()[-1] == ("task.submitted", [sent[-1]]))
    first, again = listener.posts[:2]
    assert (first[0]["webhook-id"], first[1]) == (again[0]["webhook-id"], again[1])
    acted = {headers["webhook-id"]: body for headers, body in listener.posts}
    assert [event["ids"] for body in acted.values() for event in json.loads(body)["events"]] == [
        [each] for each in sent
    ]


def test_this_machine_is_not_posted_to_unless_it_is_allowed(home: House, listener: Listener) -> None:
    home.serve()
    home.ask("webhook", "add", "chat", listener.url)
    home.ask("submit", "shop.add", "[1]")
    [shown] = wait_until(lambda: [hook for hook in json.loads(home.ask("webhook", "ls", "--json")) if hook["failures"]])
    assert "no public address" in shown["error"]
    assert listener.posts == []
    assert "no public address" in home.ask("webhook", "ls")
    refused = home.run("webhook", "add", "chat", "ftp://x/")
    assert refused.returncode == 2
    assert refused.stderr.count("\n") == 1
