"""Logs: readable, safe to show, and never a reason to fail."""

import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from taskd.server import tokens
from taskd.server.logs import configure_logs

TOKEN = tokens.mint("admin", bytes(range(40))).text
SECRET = tokens.parse(TOKEN).secret


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """What is set up here is set up for the whole process."""
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield
    structlog.reset_defaults()
    root.handlers[:], root.level = before


def fail(message: str) -> None:
    """Raise, with something among the locals that is nobody's business."""
    secret = "sword" + "fish"
    if secret:
        raise ValueError(message)


class Terminal(io.StringIO):
    """Says that it is one."""

    def isatty(self) -> bool:
        return True


def test_json_is_an_object_per_line() -> None:
    """What is no terminal gets lines for machines, with what was bound and what is local to the context."""
    stream = io.StringIO()
    configure_logs(stream=stream)
    with structlog.contextvars.bound_contextvars(task="0197"):
        structlog.get_logger("taskd").info("leased\nx", attempt=2, peer="a\x1b[31m\nb")
    structlog.get_logger("taskd").debug("not asked for")
    (line,) = stream.getvalue().splitlines()
    event = json.loads(line)
    assert event.pop("timestamp").endswith("Z")
    assert event == {"event": "leased\nx", "level": "info", "attempt": 2, "peer": "a\x1b[31m\nb", "task": "0197"}


@pytest.mark.parametrize("form", ["json", "people"])
@pytest.mark.parametrize(
    "value",
    [TOKEN, TOKEN.encode(), [TOKEN], f"see {TOKEN[:-5]}", f"taskd://{TOKEN}@host:1?ca=x"],
    ids=["text", "bytes", "list", "cut", "url"],
)
def test_tokens_are_cut_out(form: str, value: object) -> None:
    """Wherever they stand: in a value, in the event, in an exception. The key id stays, to find the token by."""
    stream = io.StringIO()
    configure_logs(stream=stream, form="json" if form == "json" else "people")
    log = structlog.get_logger()
    log.warning("refused", value=value)
    log.warning(str(value))
    try:
        fail(str(value))
    except ValueError:
        log.exception("failed", code="taskd-join-AAECAwQFBgcICQoLDA0ODw==")
    text = stream.getvalue()
    assert SECRET not in text
    assert "AAECAwQ" not in text
    assert text.count(tokens.parse(TOKEN).key_id) >= 3


def test_people_read_plain_lines() -> None:
    """A terminal gets the people's form; nobody else's words move its cursor, and locals are not shown."""
    stream = Terminal()
    configure_logs(stream=stream)
    log = structlog.get_logger()
    log.info("joined\x1b[2J\nfake line", name="\x1b[2Jx\nfake")
    try:
        fail("\x1b[2Jbad")
    except ValueError:
        log.exception("failed")
    text = stream.getvalue()
    assert "\x1b[2J" not in text
    assert not [line for line in text.splitlines() if line.startswith("fake")]
    assert "swordfish" not in text
    assert "ValueError" in text


def test_lines_of_libraries_come_along() -> None:
    """Their warnings, in our form, with their name; a broken one of theirs costs nothing."""
    stream = io.StringIO()
    configure_logs(stream=stream, level="debug")
    logging.getLogger("library").warning("took %d s", 3)
    logging.getLogger("library").info("chatter")
    logging.getLogger("library").error("took %d s", "no number")
    (line,) = stream.getvalue().splitlines()
    event = json.loads(line)
    assert (event["event"], event["logger"], event["level"]) == ("took 3 s", "library", "warning")


def test_a_stream_that_is_gone_costs_the_line_alone() -> None:
    """A closed standard error, or a full disk behind it, stops no server."""

    class Full(io.StringIO):
        def write(self, _text: str, /) -> int:
            raise OSError(28, "No space left on device")

    closed = io.StringIO()
    closed.close()
    for stream in (closed, Full()):
        configure_logs(stream=stream, form="json")
        structlog.get_logger().error("something")
