"""The real server over records of workflows and schedules that are none: what they belong to is set aside, and told.

Everything else goes on: the server starts, another workflow ends, another schedule fires.
"""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, cast

import pytest
import trio

from crash.images import open_at
from e2e.house import House, Running, house, wait_until
from taskd.core import records
from taskd.core.flows import nodes_id
from taskd.core.records import Kind
from taskd.store.keys import make_key
from taskd_protocol.ids import parse_task_id
from taskd_protocol.workflow import member_id

GARBAGE = b"\xc1damaged"

FLOW = """
name = "flow"

[nodes.hold]
sleep = 36000

[nodes.items]
value = [1, 2, 3]

[nodes.each]
task = "m.work"
over = "items"
in_flight = 1

[nodes.go]
signal = "go"

[nodes.late]
signal = "late"
after = ["go"]
"""

Write = tuple[Kind, bytes, bytes | None]


class Image(NamedTuple):
    """A data directory of a server that has stopped, with two workflows and two schedules."""

    folder: Path
    hurt: str
    well: str


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    with house(tmp_path_factory.mktemp("home")) as home:
        (home.work / "flow.toml").write_text(FLOW)
        server = home.serve("--data-dir", "data")
        hurt, well = [home.ask("workflow", "submit", "flow.toml") for _ in range(2)]
        for workflow in (hurt, well):
            home.ask("workflow", "signal", workflow, "late", '"x"')
        for schedule in ("hurt", "well"):
            home.ask("schedule", "add", schedule, "m.work", "--every", "1s", "--overlap", "allow")
            home.ask("schedule", "trigger", schedule)
        assert server.end() == 0
        kept = tmp_path_factory.mktemp("image") / "data"
        shutil.copytree(home.work / "data", kept)
        return Image(kept, hurt, well)


@pytest.fixture
def home(image: Image, tmp_path: Path) -> Iterator[House]:
    with house(tmp_path / "home") as made:
        shutil.copytree(image.folder, made.work / "data")
        yield made


def damage(home: House, *writes: Write) -> None:
    async def write() -> None:
        store = open_at(home.work / "data" / "store")
        store.stage([(make_key(kind, record_id), value) for kind, record_id, value in writes])
        await store.close()

    trio.run(write)


def read(home: House, *words: str) -> dict[str, object]:
    return cast("dict[str, object]", json.loads(home.ask(*words, "--json")))


def states(home: House, workflow: str) -> dict[str, str]:
    nodes = cast("list[dict[str, str]]", read(home, "workflow", "show", workflow)["nodes"])
    return {node["name"]: node["state"] for node in nodes}


def history(home: House, schedule: str) -> str:
    return home.ask("schedule", "history", schedule, "--json")


def check_that_others_go_on(home: House, image: Image) -> None:
    home.ask("workflow", "signal", image.well, "go")
    wait_until(lambda: states(home, image.well)["late"] == "succeeded")
    assert read(home, "workflow", "show", image.well)["state"] == "running"
    before = history(home, "well")
    wait_until(lambda: history(home, "well") != before)


def told(server: Running) -> list[dict[str, str]]:
    """What the log says of it."""
    lines = [json.loads(line) for line in server.log.read_text().splitlines()]
    return [line for line in lines if "cannot be read" in line["event"]]


FLOWS: dict[str, Callable[[bytes], Write]] = {
    "workflow": lambda i: (records.WORKFLOW, i, GARBAGE),
    "workflow lost": lambda i: (records.WORKFLOW, i, None),
    "nodes": lambda i: (records.NODES, nodes_id(i, 0), GARBAGE),
    "nodes lost": lambda i: (records.NODES, nodes_id(i, 0), None),
    "node": lambda i: (records.NODE, member_id(i, 0), GARBAGE),
    "signal": lambda i: (records.SIGNAL, i + b"late", GARBAGE),
    "signal misnamed": lambda i: (records.SIGNAL, i + b"\xff\xfe", b"\xc0"),
}


@pytest.mark.parametrize("kind", FLOWS)
def test_a_workflow_is_set_aside(home: House, image: Image, kind: str) -> None:
    """It is shown as broken with the reason, told in the log, and takes no orders."""
    damage(home, FLOWS[kind](parse_task_id(image.hurt)))
    server = home.serve("--data-dir", "data")
    wait_until(lambda: read(home, "workflow", "show", image.hurt)["state"] == "broken")
    assert read(home, "workflow", "show", image.hurt)["reason"]
    [line] = [line for line in told(server) if line["event"] == "workflow cannot be read"]
    assert (line["level"], line["id"]) == ("error", image.hurt)
    listed = {str(row["id"]): row["state"] for row in cast("list[dict[str, object]]", read(home, "workflow", "ls"))}
    assert listed == {image.well: "running"} | ({} if kind == "workflow lost" else {image.hurt: "broken"})
    for words in (["signal", image.hurt, "go"], ["cancel", image.hurt]):
        refused = home.run("workflow", *words)
        assert (refused.returncode, refused.stderr.count("\n")) == (65, 1), refused.stderr
        assert "cannot be read" in refused.stderr
    waited = home.run("workflow", "wait", image.hurt)
    assert (waited.returncode, waited.stdout) == (1, "broken\n")
    assert home.run("workflow", "show", image.hurt).returncode == 0
    check_that_others_go_on(home, image)
    assert server.end() == 0
    checked = home.run("fsck", "--data-dir", "data")
    assert checked.returncode == 65
    assert "unreadable" in checked.stdout or "lost" in kind


def test_what_stands_for_no_workflow_stops_no_start(home: House, image: Image) -> None:
    damage(home, (records.OPEN, b"\x01", b""), (records.OPEN, bytes(16), b""))
    server = home.serve("--data-dir", "data")
    assert {line["id"] for line in told(server)} == {"01", "00000000-0000-0000-0000-000000000000"}
    assert states(home, image.hurt)["go"] == "waiting"
    check_that_others_go_on(home, image)
    assert server.end() == 0


SCHEDULES: dict[str, Write] = {
    "schedule": (records.SCHEDULE, b"hurt", GARBAGE),
    "schedule lost": (records.SCHEDULE, b"hurt", None),
    "standing": (records.STANDING, b"hurt", GARBAGE),
}


@pytest.mark.parametrize("kind", SCHEDULES)
def test_a_schedule_is_set_aside_until_it_is_set_anew(home: House, image: Image, kind: str) -> None:
    """It does not fire, since what is to be done, or what was decided, is not known; set anew, it does."""
    damage(home, SCHEDULES[kind])
    server = home.serve("--data-dir", "data")
    wait_until(lambda: read(home, "schedule", "show", "hurt")["state"] == "broken")
    assert [line["schedule"] for line in told(server) if line["event"] == "schedule cannot be read"] == ["hurt"]
    assert "hurt" in home.ask("schedule", "ls")
    before = history(home, "hurt")
    check_that_others_go_on(home, image)
    assert history(home, "hurt") == before
    if kind != "standing":
        for words in (["trigger", "hurt"], ["resume", "hurt"], ["preview", "hurt"]):
            refused = home.run("schedule", *words)
            assert (refused.returncode, refused.stderr.count("\n")) == (65, 1), refused.stderr
    home.ask("schedule", "add", "hurt", "m.work", "--every", "1s", "--overlap", "allow", "--replace")
    wait_until(lambda: history(home, "hurt") != before)
    assert read(home, "schedule", "show", "hurt")["state"] == "active"
    assert server.end() == 0
    assert home.run("fsck", "--data-dir", "data").returncode == 0


def test_a_schedule_whose_standing_cannot_be_read_is_resumed(home: House, image: Image) -> None:
    """Its code need not change for that: from now on it fires, and nothing that was before is made up for."""
    damage(home, SCHEDULES["standing"])
    home.serve("--data-dir", "data")
    home.ask("schedule", "resume", "hurt")
    check_that_others_go_on(home, image)
    decided = cast("list[dict[str, str]]", json.loads(history(home, "hurt")))
    assert decided[0]["outcome"] == "fired"
    assert "coalesced" not in {each["outcome"] for each in decided}
