"""Workflow files: what they say becomes nodes, and each mistake is told with its place."""

import json
from pathlib import Path

import pytest

from taskd.text import flowfiles
from taskd.text.flowfiles import FlowFile, Problem, read_flow
from taskd_protocol.command import read_command
from taskd_protocol.payload import Input, pack, unpack, unpack_arguments
from taskd_protocol.resources import LabelRule, Need, Preference, Request, Where
from taskd_protocol.schedule import NO_TASK, Schedule, ScheduledWorkflow, Timing
from taskd_protocol.task import COMMAND_NAME, Use
from taskd_protocol.workflow import Choice, Node


def read(tmp_path: Path, text: str, suffix: str = ".toml") -> FlowFile:
    file = tmp_path / f"flow{suffix}"
    file.write_text(text)
    return read_flow(file)


def nodes(tmp_path: Path, text: str) -> dict[str, Node]:
    flow = read(tmp_path, 'name = "n"\n' + text)
    assert flow.problems == []
    return {node.name: node for node in flow.nodes}


def problems(tmp_path: Path, text: str, suffix: str = ".toml") -> list[tuple[int, str, str]]:
    return [(each.line, each.node, each.message) for each in read(tmp_path, text, suffix).problems]


def test_everything_that_can_be_said(tmp_path: Path) -> None:
    made = nodes(
        tmp_path,
        """
        [nodes.load]
        task = "m.load"
        args = [1, {node = "fetch"}, [{node = "list"}]]
        kwargs = {deep = {er = {node = "fetch"}}, plain = {node = 1}}
        after = ["pause", "list"]
        when = "none_failed"
        only_if = {fetch = "left", pause = 0}
        may_fail = true
        queue = "io"
        priority = 3
        timeout = "1.5m"
        delay = 2
        retry = {max_attempts = 7, on = ["builtins.OSError"]}

        [nodes.fetch]
        task = "m.fetch"

        [nodes.list]
        value = [1, {a = 2}]

        [nodes.pause]
        sleep = 0.5

        [nodes.approve]
        signal = "go"
        timeout = "1h"

        [nodes.each]
        task = "m.each"
        over = "list"
        in_flight = 4
        args = [{node = "fetch"}]

        [nodes.few]
        task = "m.each"
        over = [1, 2]

        [nodes.copy]
        command = ["cp", {node = "fetch"}]
        env = {A = "1", B = {node = "list"}}
        cwd = "/srv"

        [nodes.undo]
        task = "m.undo"
        compensates = "load"

        [nodes.tell]
        task = "m.tell"
        on = "failure"
        after = ["load"]

        [nodes.cheer]
        task = "m.tell"
        on = "success"
        when = "all_succeeded"
        """,
    )
    names = list(made)
    load = made["load"]
    assert load.task is not None
    assert [names[each] for each in load.needs] == ["fetch", "list"]
    assert [names[each] for each in load.after] == ["pause"]
    assert unpack_arguments(load.task.payload) == (
        [1, Input(0), [Input(1)]],
        {"deep": {"er": Input(0)}, "plain": {"node": 1}},
    )
    assert load.only_if == [Choice(names.index("fetch"), pack("left")), Choice(names.index("pause"), pack(0))]
    assert (load.when, load.may_fail, load.task.id) == ("none_failed", True, b"")
    assert (load.task.name, load.task.queue, load.task.priority, load.task.delay_ms) == ("m.load", "io", 3, 2_000)
    assert load.task.rules.timeout_ms == 90_000
    assert load.task.retry is not None
    assert (load.task.retry.max_attempts, load.task.retry.on) == (7, ["builtins.OSError"])
    assert (made["list"].kind, unpack(made["list"].packed)) == ("value", [1, {"a": 2}])
    assert (made["pause"].kind, made["pause"].wait_ms) == ("sleep", 500)
    assert (made["approve"].signal, made["approve"].wait_ms) == ("go", 3_600_000)
    each, few = made["each"], made["few"]
    assert (each.kind, each.over, each.in_flight_max) == ("map", 0, 4)
    assert [names[need] for need in each.needs] == ["list", "fetch"]
    assert each.task is not None
    assert unpack_arguments(each.task.payload) == ([Input(0), Input(1)], {})
    assert [names[need] for need in few.needs] == ["few-items"]
    assert unpack(made["few-items"].packed) == [1, 2]
    copy = made["copy"].task
    assert copy is not None
    assert copy.name == COMMAND_NAME
    call = read_command(copy.payload, [pack("f"), pack("l")])
    assert (call.argv, call.env, call.cwd) == (["cp", "f"], {"A": "1", "B": "l"}, "/srv")
    assert (made["undo"].phase, names[made["undo"].compensates], made["undo"].when) == (
        "compensate",
        "load",
        "all_done",
    )
    assert (made["tell"].phase, made["tell"].when) == ("on_failure", "all_done")
    assert (made["cheer"].phase, made["cheer"].when) == ("on_success", "all_succeeded")


def test_json_says_the_same(tmp_path: Path) -> None:
    document = {"name": "n", "nodes": {"b": {"task": "m.f", "args": [{"node": "a"}]}, "a": {"task": "m.f"}}}
    flow = read(tmp_path, json.dumps(document), ".json")
    assert (flow.problems, flow.name, [node.name for node in flow.nodes]) == ([], "n", ["a", "b"])
    assert flow.nodes[1].needs == [0]


HEAD = 'name = "n"\n'


@pytest.mark.parametrize(
    ("text", "line", "node", "said"),
    [
        ("name = ]", 1, "", "no TOML: Invalid value (at line 1, column 8)"),
        ("nodes = 3", 0, "", "it has no name"),
        (HEAD, 0, "", "it has no nodes"),
        (HEAD + "nodes = {a = 3}", 2, "a", "it is no table"),
        (HEAD + 'polcy = "x"\n[nodes.a]\ntask = "f"', 2, "", "'polcy' is unknown; did you mean 'policy'?"),
        ('policy = "x"\n' + HEAD + '[nodes.a]\ntask = "f"', 1, "", "policy 'x' is unknown; use finish_what_you_can"),
        (HEAD + "[nodes.a]\nwhen = 'always'", 2, "a", "it says not what it is: say one of task, command, value"),
        (HEAD + "[nodes.a]\ntask = 'f'\nsleep = 1.0", 2, "a", "it has task and sleep: say one"),
        (HEAD + "[nodes.a]\ntask = 3", 3, "a", "task: Expected `str`, got `int`"),
        (HEAD + "[nodes.a]\ntask = 'f'\nargs = 'x'", 4, "a", "args: Expected `array`"),
        (HEAD + "[nodes.a]\ntask = 'f'\nqueu = 'x'", 4, "a", "'queu' is unknown; did you mean 'queue'?"),
        (HEAD + "[nodes.a]\ntask = 'f'\nkey = 'x'", 4, "a", "'key' is unknown"),
        (HEAD + "[nodes.a]\ntask = 'f'\ntimeout = '3 x'", 4, "a", "timeout: '3 x' is no duration"),
        (HEAD + "[nodes.a]\ntask = 'f'\nretry = {max = 'x'}", 4, "a", "got `str` at `retry.max`"),
        (HEAD + "[nodes.a]\ntask = 'f'\npriority = 999", 2, "a", "priority 999 is out of range"),
        (HEAD + "[nodes.a]\ntask = 'f'\nafter = ['b']", 4, "a", "there is no node 'b'"),
        (HEAD + "[nodes.abc]\ntask = 'f'\nargs = [{node = 'abd'}]", 4, "abc", "no node 'abd'; did you mean 'abc'?"),
        (HEAD + "[nodes.a]\ntask = 'f'\nafter = ['a']", 2, "a", "it waits for itself: a waits for a"),
        (HEAD + "[nodes.a]\ntask = 'f'\nwhen = 'x'", 2, "a", "trigger rule 'x' is unknown"),
        (HEAD + "[nodes.a]\ntask = 'f'\nover = 3", 4, "a", "over is the name of a node, or a list"),
        (HEAD + "[nodes.a]\nsleep = 1\nargs = [1]", 4, "a", "args is not for a node with sleep"),
        (HEAD + "[nodes.a]\nvalue = 1\nqueue = 'q'", 4, "a", "queue is for a task; this node has value"),
        (HEAD + "[nodes.a]\nsleep = 'x'", 3, "a", "sleep: 'x' is no duration"),
        (HEAD + "[nodes.a]\nsleep = 0.0", 2, "a", "wait of 0 ms is out of range"),
        (HEAD + "[nodes.a]\ncommand = []", 3, "a", "command is empty"),
        (HEAD + "[nodes.a]\ncommand = ['x', 1]", 3, "a", "command: 1 is no word"),
        (HEAD + "[nodes.a]\ntask = 'f'\non = 'x'", 4, "a", "on 'x' is unknown; use success or failure"),
        (
            HEAD + "[nodes.b]\ntask = 'f'\n[nodes.a]\ntask = 'f'\non = 'success'\ncompensates = 'b'",
            6,
            "a",
            "both on and compensates",
        ),
        (
            HEAD + "[nodes.b]\nvalue = [1]\n[nodes.a]\ntask = 'f'\nover = 'b'\nargs = [{node = 'b'}]",
            6,
            "a",
            "it maps over 'b', whose items take its place",
        ),
    ],
)
def test_a_mistake_is_told_with_its_place(tmp_path: Path, text: str, line: int, node: str, said: str) -> None:
    found = problems(tmp_path, text)
    assert (line, node) in [(at, of) for at, of, _ in found], found
    assert any(said in message for at, of, message in found if (at, of) == (line, node)), found


def test_all_mistakes_are_told(tmp_path: Path) -> None:
    """Also several of one node; and a circle once."""
    text = HEAD + "[nodes.a]\ntask = 1\nqueu = 2\nafter = ['x', 'b']\n[nodes.b]\ntask = 'f'\nafter = ['a']\nqueue = 1\n"
    found = problems(tmp_path, text)
    assert [(line, node) for line, node, _ in found] == [(2, "a"), (3, "a"), (4, "a"), (5, "a"), (9, "b")]
    assert "a waits for b waits for a" in found[0][2]


def test_each_circle_is_told_once(tmp_path: Path) -> None:
    """A node is told of in one at most: nodes that all wait for each other are one mistake, not thousands."""
    chain = "[nodes.{}]\ntask = 'f'\nafter = {}\n"
    two = chain.format("a", ["b"]) + chain.format("b", ["a"]) + chain.format("c", ["c", "a"])
    assert [(line, node) for line, node, _ in problems(tmp_path, HEAD + two)] == [(2, "a"), (8, "c")]
    names = [f"n{number}" for number in range(40)]
    tangle = HEAD + "".join([chain.format(name, names) for name in names])
    assert len(problems(tmp_path, tangle)) <= len(names)


def test_a_node_behind_one_that_runs_later(tmp_path: Path) -> None:
    text = HEAD + "[nodes.a]\ntask = 'f'\non = 'failure'\n[nodes.b]\ntask = 'f'\nafter = ['a']\n"
    assert "node 'b' comes after 'a', which runs when the workflow has failed" in problems(tmp_path, text)[0][2]


def test_a_name_that_stands_twice(tmp_path: Path) -> None:
    """The last one would count, and the first be gone in silence."""
    twice = '{"name": "n", "nodes": {\n"a": {"value": 1},\n"a": {"value": 2}}}'
    assert problems(tmp_path, twice, ".json") == [(3, "", "'a' stands 2 times in one object")]
    assert problems(tmp_path, HEAD + "[nodes.a]\nvalue = 1\n[nodes.a]\nvalue = 2\n")[0][0] == 4


def test_files_that_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "No such file" in read_flow(tmp_path / "nope.toml").problems[0].message
    assert "neither in .toml nor in .json" in problems(tmp_path, "x", ".yaml")[0][2]
    assert problems(tmp_path, "{\n,", ".json")[0][0] == 2
    assert "no JSON object" in problems(tmp_path, "[]", ".json")[0][2]
    assert "nests too deeply" in problems(tmp_path, "[" * 200_000, ".json")[0][2]
    (tmp_path / "flow.toml").write_bytes(b"name = '\xff'")
    assert "not in UTF-8" in read_flow(tmp_path / "flow.toml").problems[0].message
    monkeypatch.setattr(flowfiles, "FILE_BYTES_MAX", 3)
    assert "more than 3 bytes" in problems(tmp_path, HEAD)[0][2]


def test_a_problem_is_one_line() -> None:
    assert Problem("a\nb", "n", 3).told("f.toml") == "f.toml:3: node 'n': a b"
    assert Problem("a").told("f.toml") == "f.toml: a"


NODE = """
[nodes.a]
value = 1
"""


def test_everything_that_can_be_said_of_a_schedule(tmp_path: Path) -> None:
    flow = read(
        tmp_path,
        """
        name = "etl"
        policy = "fail_fast"

        [schedule]
        name = "nightly"
        cron = ["0 3 * * *", "0 12 * * sat"]
        tz = "Europe/Oslo"
        gap = "shift"
        fold = "both"
        start = 2026-01-01T00:00:00
        end = "2027-01-01"
        not_on = [2026-12-25, "2026-12-24"]
        not_cron = "* * * * sun"
        overlap = "queue_one"
        missed = "all"
        missed_max = 3
        pause_after = 2

        [nodes.a]
        value = 1
        """,
    )
    assert flow.problems == []
    new_year = 1_767_222_000_000  # by the clock of Oslo
    timing = Timing(
        ("0 3 * * *", "0 12 * * sat"),
        zone="Europe/Oslo",
        gap="shift",
        fold="both",
        start_ms=new_year,
        end_ms=new_year + 365 * 86_400_000,
        not_dates=("2026-12-25", "2026-12-24"),
        not_cron=("* * * * sun",),
    )
    workflow = ScheduledWorkflow("etl", flow.nodes, "fail_fast")
    assert flow.schedule == Schedule("nightly", timing, NO_TASK, 0, "queue_one", "all", 3, 2, workflow=workflow)


@pytest.mark.parametrize(
    ("said", "timing"),
    [
        ('every = "15m"', Timing(every_ms=900_000)),
        ("every = 90", Timing(every_ms=90_000)),
        ('at = ["2026-12-24T18:00", 2026-12-25T18:00:00Z]', Timing(at_ms=(1_798_135_200_000, 1_798_221_600_000))),
    ],
)
def test_when_may_be_said_otherwise(tmp_path: Path, said: str, timing: Timing) -> None:
    flow = read(tmp_path, f'name = "etl"\n[schedule]\n{said}\n{NODE}')
    assert flow.schedule is not None
    assert (flow.schedule.timing, flow.schedule.name) == (timing, "etl")


@pytest.mark.parametrize(
    ("said", "line", "says"),
    [
        ('cron = "0 0 30 2 *"', 3, "names no day that there is"),
        ('cron = ["@daily",\n"x"]', 3, "cron line 'x'"),
        ('cron = "@daily"\ntz = "Mars/Olympus"', 4, "time zone 'Mars/Olympus' is unknown"),
        ('every = "soon"', 3, "'soon' is no duration"),
        ('cron = "@daily"\noverlap = "maybe"', 4, "use one of allow, skip, queue_one, cancel_running"),
        ('cron = "@daily"\noverlp = "skip"', 4, "did you mean 'overlap'?"),
        ('cron = "@daily"\nmissed_max = "2"', 4, "missed_max: Expected `int`, got `str`"),
        ('cron = "@daily"\nstart = "tomorrow"', 4, "is no instant"),
        ('cron = "@daily"\nevery = 60', 2, "exactly one of the three"),
        ("", 2, "exactly one of the three"),
        ('cron = "@daily"\nmissed_max = 2', 2, "takes no number"),
    ],
)
def test_what_is_wrong_with_a_schedule_is_told_with_its_line(tmp_path: Path, said: str, line: int, says: str) -> None:
    [(at, node, message)] = problems(tmp_path, f'name = "etl"\n[schedule]\n{said}\n{NODE}')
    assert (at, node) == (line, "")
    assert message.startswith("schedule: ")
    assert says in message


def test_all_that_is_wrong_with_a_schedule_is_told_at_once(tmp_path: Path) -> None:
    text = """name = "etl"
[schedule]
cron = "x"
tz = 3
gap = "jump"
[nodes.a]
value = 1
cron = "not this one"
"""
    assert [(line, node) for line, node, _ in problems(tmp_path, text)] == [(3, ""), (4, ""), (5, ""), (8, "a")]
    [(line, _, message)] = problems(tmp_path, f'schedule = 3\nname = "etl"\n{NODE}')
    assert (line, message) == (1, "schedule: it is no table: write [schedule], and below it cron or every")


def test_a_schedule_in_json(tmp_path: Path) -> None:
    text = '{"name": "etl",\n"nodes": {"a": {"value": 1}},\n"schedule": {\n"every": "x"\n}}'
    assert [line for line, _, _ in problems(tmp_path, text, ".json")] == [4]
    good = read(tmp_path, text.replace('"x"', '"1h"'), ".json")
    assert good.schedule is not None
    assert good.schedule.timing == Timing(every_ms=3_600_000)


def test_a_node_says_what_it_needs(tmp_path: Path) -> None:
    made = nodes(
        tmp_path,
        """
        [nodes.fit]
        task = "m.fit"
        labels = {zone = "a"}
        prefers = {"disk=ssd" = 5}
        min_life = "1h"
        sticky = "model-7"
        exclusive_host = true
        preemptible = true
        fair_key = "acme"
        limits = [{name = "card", key = "{acme}", weight = 2}]
        [nodes.fit.resources]
        cpu = 2
        memory = "1GiB"

        [nodes.pack]
        command = ["tar"]
        labels = ["cores>=8"]
        resources = [{gpu = 1}, {cpu = 8}]
        """,
    )
    fit, tar = [made[name].task for name in ("fit", "pack")]
    assert fit is not None
    assert fit.rules.where == Where(
        [Request([Need("cpu", 2000), Need("memory", 1 << 30)])],
        [LabelRule("zone", "=", ["a"])],
        [Preference(LabelRule("disk", "=", ["ssd"]), 5)],
        3_600_000,
        exclusive_host=True,
    )
    assert (fit.rules.sticky, fit.rules.preemptible, fit.rules.fair_key) == ("model-7", True, "acme")
    assert fit.rules.limits == [Use("card", "{acme}", 2)]
    assert tar is not None
    assert tar.rules.where == Where(
        [Request([Need("cpu", 1000), Need("gpu", 1000)]), Request([Need("cpu", 8000)])],
        [LabelRule("cores", ">=", ["8"])],
    )


def test_a_node_does_not_say_how_much_there_is_of_a_limit(tmp_path: Path) -> None:
    text = """
        name = "n"
        [nodes.a]
        task = "m.a"
        limits = [{name = "card", concurrency = 2}]
    """
    [(_, node, message)] = problems(tmp_path, text)
    assert node == "a"
    assert "is for @app.task" in message


def test_what_a_node_cannot_need_is_told(tmp_path: Path) -> None:
    text = """
        name = "n"
        [nodes.a]
        task = "m.a"
        resources = {memory = "1G"}
        [nodes.b]
        task = "m.b"
        resources = 3
        [nodes.c]
        task = "m.c"
        labels = ["zone"]
        """
    told = problems(tmp_path, text)
    assert [(node, line) for line, node, _ in told] == [("a", 3), ("b", 8), ("c", 9)]
    assert "unit is unknown" in told[0][2]
    assert told[1][2].startswith("resources: ")
    assert "is no rule" in told[2][2]
