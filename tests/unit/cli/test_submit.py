import json

import pytest

from taskd_protocol.ids import format_task_id
from taskd_protocol.messages import TaskViews
from taskd_protocol.payload import pack, unpack_arguments
from taskd_protocol.resources import LEARNED, LabelRule, Need, Request, Where
from taskd_protocol.task import Outcome, Retry, Unique
from unit.cli.fake_client import FakeClient, Taskd
from unit.cli.test_tasks import ONE, VIEW, WAITING


def test_what_no_agent_could_run_is_told_beside_its_id(taskd: Taskd, client: FakeClient) -> None:
    client.warnings = ["no agent that is connected could ever run app.fetch: it waits for gpu: needs 1, there is none"]
    ended = taskd("submit", "app.fetch", "--gpu", "1")
    assert ended.complaint == f"taskd: {client.warnings[0]}"
    assert ended.out == f"{format_task_id(client.submitted[0].id)}\n"


def test_submit_prints_the_id_alone(taskd: Taskd, client: FakeClient) -> None:
    """So that a script can take it as it is."""
    ended = taskd("submit", "app.add", "[1, 2]")
    (spec,) = client.submitted
    assert (ended.code, ended.out, ended.err) == (0, f"{format_task_id(spec.id)}\n", "")
    assert (spec.name, spec.queue, spec.priority, spec.delay_ms, spec.retry) == ("app.add", "default", 0, 0, None)
    assert unpack_arguments(spec.payload) == ([1, 2], {})
    assert spec.traceparent.startswith("00-")


def test_submit_takes_every_option(taskd: Taskd, client: FakeClient) -> None:
    options = [
        "--queue",
        "q",
        "--priority",
        "-7",
        "--delay",
        "1.5m",
        "--key",
        "k",
        "--max-attempts",
        "9",
        "--time-limit",
        "2m",
        "--at-most-once",
        "--sticky",
        "model-7",
        "--fair-key",
        "tenant",
        "--exclusive",
    ]
    taskd("submit", "app.add", "[1]", "--kwargs", '{"b": null}', *options)
    (spec,) = client.submitted
    assert (spec.queue, spec.priority, spec.delay_ms, spec.key) == ("q", -7, 90_000, "k")
    assert (spec.retry, spec.rules.timeout_ms) == (Retry(max_attempts=9), 120_000)
    assert (spec.rules.at_most_once, spec.rules.exclusive, spec.rules.fair_key) == (True, True, "tenant")
    assert spec.rules.sticky == "model-7"
    assert unpack_arguments(spec.payload) == ([1], {"b": None})


def test_what_may_be_stopped_says_so(taskd: Taskd, client: FakeClient) -> None:
    taskd("submit", "m.f", "--preemptible")
    [spec] = client.submitted
    assert spec.rules.preemptible


def test_where_it_may_run_and_what_it_holds(taskd: Taskd, client: FakeClient) -> None:
    """Of a submit by name it is not known whether the task is a coroutine: it is taken for none."""
    wishes = ["--memory", "1GiB", "--gpu", "a100:2", "--resource", "license=2", "--label", "zone=a"]
    taskd("submit", "app.add", "[1]", *wishes, "--label", "cores >= 8")
    taskd("submit", "app.add", "[1]", "--cpu", "0", "--memory", "auto")
    first, second = [spec.rules.where for spec in client.submitted]
    assert first == Where(
        [Request([Need("cpu", 1000), Need("gpu", 2000, "a100"), Need("license", 2000), Need("memory", 1 << 30)])],
        [LabelRule("cores", ">=", ["8"]), LabelRule("zone", "=", ["a"])],
    )
    assert second == Where([Request([Need("memory", LEARNED)])])


@pytest.mark.parametrize(
    ("flag", "value", "told"),
    [
        ("--cpu", "-1", "out of range"),
        ("--memory", "4G", "unit is unknown"),
        ("--gpu", "1.5", "a part of one, or whole ones"),
        ("--resource", "license=none at all", "is no number"),
        ("--label", "zone", "is no rule for a label"),
    ],
)
def test_a_wish_that_makes_no_sense_is_refused(
    taskd: Taskd, client: FakeClient, flag: str, value: str, told: str
) -> None:
    ended = taskd("submit", "app.add", "[1]", flag, value)
    assert (ended.code, told in ended.err, client.submitted) == (2, True, [])


def test_a_resource_that_is_said_twice_is_refused(taskd: Taskd, client: FakeClient) -> None:
    for options in (["--resource", "license=1", "--resource", "license=2"], ["--cpu", "1", "--resource", "cpu=2"]):
        ended = taskd("submit", "app.add", "[1]", *options)
        assert (ended.code, client.submitted) == (2, [])
        assert f"says {options[-1].partition('=')[0]} twice, '1' and '2'; say one" in ended.err
    taskd("submit", "app.add", "[1]", "--cpu", "1", "--resource", "cpu=1")
    assert len(client.submitted) == 1, "the same twice is no contradiction"


def test_unique_is_a_word_or_a_time(taskd: Taskd, client: FakeClient) -> None:
    for options in (
        ["--unique", "queued"],
        ["--unique", "running", "--unique-key", "k", "--replace"],
        ["--unique", "1.5m"],
    ):
        taskd("submit", "app.add", "[1]", *options)
    assert [spec.rules.unique for spec in client.submitted] == [
        Unique("queued"),
        Unique("running", key="k", replace=True),
        Unique("window", 90_000),
    ]
    for options in (["--replace"], ["--unique-key", "k"], ["--unique", "always"]):
        ended = taskd("submit", "app.add", "[1]", *options)
        assert (ended.code, "queued" in ended.err or "--unique is meant" in ended.err) == (2, True)
    assert len(client.submitted) == 3


def test_an_object_names_the_arguments(taskd: Taskd, client: FakeClient) -> None:
    taskd("submit", "app.add", '{"a": 1, "b": 2}', "--kwargs", '{"b": 3}')
    assert unpack_arguments(client.submitted[0].payload) == ([], {"a": 1, "b": 3})


def test_submit_without_arguments(taskd: Taskd, client: FakeClient) -> None:
    taskd("submit", "app.tick")
    assert unpack_arguments(client.submitted[0].payload) == ([], {})


def test_a_key_that_is_known_gives_the_first_tasks_id(taskd: Taskd, client: FakeClient) -> None:
    client.known_as = ONE
    assert taskd("submit", "app.add", "[1]", "--key", "k").out == f"{format_task_id(ONE)}\n"


def test_submit_and_wait_prints_the_result(taskd: Taskd, client: FakeClient) -> None:
    client.outcomes = [Outcome(ONE, "succeeded", 1, pack(3))]
    ended = taskd("submit", "app.add", "[1, 2]", "--wait", "--timeout", "5")
    assert (ended.code, ended.out) == (0, "3\n")
    assert client.timeouts == [3.0]


def test_a_wait_tells_why_the_task_does_not_run(taskd: Taskd, client: FakeClient) -> None:
    """A name that is mistyped would else wait without a word, for ever."""
    client.outcomes = [Outcome(ONE, "succeeded", 1, pack(3))]
    client.replies = [TaskViews(0, [WAITING])]
    client.late = 1
    ended = taskd("submit", "app.add", "[1, 2]", "--wait", "--timeout", "5")
    assert (ended.code, ended.out) == (0, "3\n")
    assert ended.err == f"taskd: not started yet: {WAITING.waits_for}\n"
    assert client.timeouts == [3.0, 2.0]


def test_submit_as_json_prints_the_task(taskd: Taskd, client: FakeClient) -> None:
    client.replies = [TaskViews(0, [VIEW])]
    assert json.loads(taskd("submit", "app.fetch", "[]", "--json").out)["id"] == format_task_id(ONE)


@pytest.mark.parametrize("timeout", ["", "-1", "1 parsec", "1e3", "٣"])
def test_a_timeout_that_is_none(timeout: str, taskd: Taskd, client: FakeClient) -> None:
    assert taskd("submit", "f", "--timeout", timeout).code == 2
    assert not client.submitted


def test_numbers_beyond_64_bits_travel(taskd: Taskd, client: FakeClient) -> None:
    """JSON has no widest integer, and nothing is rounded."""
    taskd("submit", "f", f"[{2**80}]")
    assert unpack_arguments(client.submitted[0].payload) == ([2**80], {})
