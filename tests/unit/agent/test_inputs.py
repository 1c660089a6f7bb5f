"""Inputs of workflows' tasks: fetched once, put where they belong, and waited for without harm to anything else."""

import pytest
from msgspec import structs
from msgspec.structs import replace
from trio.testing import MockClock

from taskd.agent import inputs as room
from taskd.agent.core import AgentCore, ToSend
from taskd.agent.executors.coroutine import _in_frames
from taskd.agent.wire import Handed, Returned, handed
from taskd.client.family import Found
from taskd_protocol.agent_messages import Drain, Nack, Offered
from taskd_protocol.command import pack_command, read_command
from taskd_protocol.connection_messages import Error
from taskd_protocol.errors import PayloadTooLarge, PayloadUnpackable, TaskCodes, UnexpectedMessage
from taskd_protocol.limits import KEPT_RESULT_BYTES_MIN
from taskd_protocol.payload import Input, pack, pack_arguments, unpack_arguments
from taskd_protocol.task import COMMAND_NAME, Failure, FailureReport, Given, Grant, Member, Pool, Report, Rules, Spawned
from taskd_protocol.workflow import NIL
from taskd_protocol.workflow_messages import InputPage, InputQuery, Missed
from unit.agent.conftest import Hire
from unit.agent.making import grant, lease, task_id, welcome
from unit.agent.stage import SYNC, Stage, playing
from unit.agent.workshop import call

ONE, TWO, LIST = Given(id=task_id(901)), Given(id=task_id(902)), Given(id=task_id(903), count=5)


def wanting(token: int, *given: Given, name: str = "m.f", payload: bytes | None = None) -> Grant:
    """A lease with these inputs, which are its arguments in order."""
    arguments = pack_arguments([Input(n) for n in range(len(given))], {}) if payload is None else payload
    made = grant(token, name, arguments)
    return replace(made, spec=replace(made.spec, given=Rules(member=Member(list(given)))))


def connected(slots: int = 2) -> AgentCore:
    core = AgentCore([Pool("process", slots, ["m.f"])])
    core.welcome(welcome(), 0)
    core.receive(Offered())
    core.messages()
    return core


def queries(core: AgentCore) -> list[InputQuery]:
    return [message for message in core.messages() if isinstance(message, InputQuery)]


def arguments(given: Grant | None) -> list[object]:
    """What its function would be called with."""
    assert given is not None
    member = given.spec.rules.member
    assert member is not None
    return unpack_arguments(given.spec.payload, [each.packed for each in member.inputs])[0]


def failures(messages: list[ToSend]) -> list[FailureReport]:
    return [report for message in messages if isinstance(message, Nack) for report in message.failures]


def test_what_is_at_hand_is_not_asked_for() -> None:
    core = connected()
    core.receive(lease(1, [wanting(1, Given(pack("v"))), grant(2)]))
    assert queries(core) == []
    assert arguments(core.pools[0].take()) == ["v"]


def test_a_lease_waits_for_its_inputs_and_lets_others_pass() -> None:
    core = connected(3)
    core.receive(lease(1, [wanting(1, ONE, Given(pack("here")), TWO), grant(2)]))
    asked = queries(core)
    assert asked == [InputQuery(1, 1, 0), InputQuery(2, 1, 2)]
    assert not core.has_news
    slots = core.pools[0]
    assert [g.token for g in [slots.take()] if g] == [2]
    assert slots.take() is None
    core.receive(InputPage(2, [pack("two")]))
    assert slots.take() is None
    core.receive(InputPage(1, [pack("one")]))
    assert arguments(slots.take()) == ["one", "here", "two"]
    assert slots.take() is None


def test_one_fetch_is_under_way_for_each_result_and_later_leases_find_it() -> None:
    core = connected(4)
    core.receive(lease(1, [wanting(1, ONE), wanting(2, ONE), wanting(3, ONE, ONE)]))
    assert queries(core) == [InputQuery(1, 1, 0)]
    core.receive(InputPage(1, [pack("one")]))
    taken = [core.pools[0].take() for _ in range(3)]
    assert [arguments(each) for each in taken] == [["one"], ["one"], ["one", "one"]]
    core.receive(lease(2, [wanting(4, ONE)]))
    assert queries(core) == []
    assert arguments(core.pools[0].take()) == ["one"]


def test_a_list_comes_in_pages_and_is_another_thing_than_a_list_of_other_length() -> None:
    core = connected(4)
    core.receive(lease(1, [wanting(1, LIST), wanting(2, replace(LIST, count=0))]))
    assert queries(core) == [InputQuery(1, 1, 0), InputQuery(2, 2, 0)]
    core.receive(InputPage(2, []))
    core.receive(InputPage(1, [pack(0), pack([1])], last=False))
    assert queries(core) == [InputQuery(3, 1, 0, after=2)]
    core.receive(InputPage(3, [pack("2"), pack(None), pack(4)]))
    assert arguments(core.pools[0].take()) == [[]]
    assert arguments(core.pools[0].take()) == [[0, [1], "2", None, 4]]


def test_after_a_reconnect_what_was_unanswered_is_asked_again() -> None:
    core = connected()
    core.receive(lease(1, [wanting(1, LIST)]))
    queries(core)
    core.receive(InputPage(1, [pack(0), pack(1)], last=False))
    queries(core)
    offer = core.welcome(welcome(), 0)
    assert [held.token for held in offer.holding] == [1]
    core.receive(Offered())
    (asked,) = queries(core)
    assert (asked.token, asked.after) == (1, 2)
    core.receive(InputPage(asked.request_id, [pack(2)]))
    assert arguments(core.pools[0].take()) == [[0, 1, 2]]


def test_a_result_that_is_gone_fails_the_attempt_for_good() -> None:
    """With the server's own code; a second lease that wants the same asks for itself."""
    core = connected()
    core.receive(lease(1, [wanting(1, ONE, TWO), wanting(2, ONE)]))
    queries(core)
    core.receive(Error(1, "result.gone", "it was removed"))
    messages = core.messages()
    (report,) = failures(messages)
    assert (report.token, report.outcome, report.final) == (1, "failed", True)
    assert report.failure is not None
    assert (report.failure.code, report.failure.message) == ("result.gone", "an input cannot be had: it was removed")
    assert InputQuery(3, 2, 0) in messages
    core.receive(InputPage(2, [pack("nobody's")]))
    core.receive(InputPage(3, [pack("one")]))
    assert [given.token for given in [core.pools[0].take()] if given] == [2]
    assert core.pools[0].take() is None


def test_a_busy_server_is_asked_again_later() -> None:
    core = connected()
    core.receive(lease(1, [wanting(1, ONE)]))
    queries(core)
    core.receive(Error(1, "server.busy", "busy", retryable=True))
    assert queries(core) == []
    core.shed()
    assert queries(core) == [InputQuery(2, 1, 0)]
    core.shed()
    assert queries(core) == [], "it is on its way"


def test_a_lease_that_is_gone_is_asked_for_by_another() -> None:
    core = connected()
    core.receive(lease(1, [wanting(1, ONE), wanting(2, ONE)]))
    queries(core)
    core.dropped(0, 1)
    core.receive(Error(1, "lease.stale", "not yours"))
    messages = core.messages()
    assert InputQuery(2, 2, 0) in messages
    assert [(report.token, report.outcome) for report in failures(messages)] == [(1, "released")]
    core.receive(InputPage(2, [pack("one")]))
    assert [given.token for given in [core.pools[0].take()] if given] == [2]


def test_a_lease_that_waits_for_inputs_is_given_back_with_the_others() -> None:
    core = connected()
    core.receive(lease(1, [grant(1), wanting(2, ONE)]))
    queries(core)
    core.drain()
    given_back = failures(core.messages())
    assert [(report.token, report.outcome, report.unstarted) for report in given_back] == [
        (1, "released", True),
        (2, "released", True),
    ]
    core.receive(InputPage(1, [pack("late")]))
    core.shed()
    assert core.held == 0
    assert queries(core) == []


def test_no_more_than_a_bound_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was wanted longest ago goes first."""
    monkeypatch.setattr(room, "CACHE_BYTES", 250)
    core = connected(20)
    for token, given in enumerate([ONE, TWO, ONE, LIST, ONE, TWO], 1):
        core.receive(lease(token, [wanting(token, given)]))
        for query in queries(core):
            core.receive(InputPage(query.request_id, [pack(bytes(98))]))
        assert core.pools[0].take() is not None
    core.receive(lease(7, [wanting(7, ONE), wanting(8, TWO), wanting(9, LIST)]))
    assert [query.token for query in queries(core)] == [9]


def test_inputs_that_are_too_large_together_fail_the_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "ARGUMENTS_BYTES_MAX", 300)
    core = connected(4)
    core.receive(lease(1, [wanting(1, ONE, TWO), wanting(2, LIST)]))
    queries(core)
    core.receive(InputPage(1, [pack(bytes(200))]))
    core.receive(InputPage(2, [pack(bytes(200))]))
    core.receive(InputPage(3, [pack(bytes(200))] * 2, last=False))
    reports = failures(core.messages())
    assert [(report.token, report.final) for report in reports] == [(1, True), (2, True)]
    assert {report.failure.code for report in reports if report.failure} == {PayloadTooLarge.code}
    assert queries(core) == []


@pytest.mark.parametrize(
    "answer",
    [
        InputPage(7, [b"\xc0"]),
        Error(7, "result.gone", "whose?"),
        InputPage(1, []),
        InputPage(1, [b"\xc0", b"\xc0"]),
        InputPage(1, [b"\xc0"], last=False),
        InputPage(2, [], last=False),
    ],
)
def test_an_answer_that_makes_no_sense_ends_the_connection(answer: InputPage | Error) -> None:
    core = connected()
    core.receive(lease(1, [wanting(1, ONE), wanting(2, LIST)]))
    assert len(queries(core)) == 2
    with pytest.raises(UnexpectedMessage):
        core.receive(answer)


def test_a_slot_that_fetches_does_not_count_as_busy() -> None:
    """Nothing is handed back as if all slots ran long tasks."""
    core = connected(1)
    core.receive(lease(1, [wanting(1, ONE)]))
    queries(core)
    for _ in range(5):
        core.shed()
    assert [type(message) for message in core.messages() if not isinstance(message, InputQuery)] == []
    assert core.held == 1


async def test_inputs_travel_to_the_worker(autojump_clock: MockClock) -> None:
    stage = Stage(autojump_clock, SYNC)
    async with playing(stage, stage.agent(processes=1)):
        peer = await stage.greeted()
        await peer.lease(wanting(1, ONE))
        query = await peer.expect(InputQuery)
        assert (query.token, query.input) == (1, 0)
        await peer.send(InputPage(query.request_id, [pack("large")]))
        worker = await stage.who_has(1)
        assert arguments(worker.grants[0]) == ["large"]
        worker.returns(1)
        (report,) = await peer.reports(1)
        assert isinstance(report, Report)


async def test_a_refusal_reaches_the_lease_and_leaves_the_connection(autojump_clock: MockClock) -> None:
    stage = Stage(autojump_clock, SYNC)
    async with playing(stage, stage.agent(processes=1)):
        peer = await stage.greeted()
        await peer.lease(wanting(1, ONE))
        query = await peer.expect(InputQuery)
        await peer.send(Error(query.request_id, "result.gone", "removed"))
        (report,) = await peer.reports(1)
        assert isinstance(report, FailureReport)
        assert report.failure is not None
        assert report.failure.code == "result.gone"
        await peer.lease(grant(2))
        await stage.who_has(2)


async def test_an_agent_that_goes_gives_back_what_waits_for_inputs(autojump_clock: MockClock) -> None:
    stage = Stage(autojump_clock, SYNC)
    async with playing(stage, stage.agent(processes=1)):
        peer = await stage.greeted()
        await peer.lease(wanting(1, ONE))
        await peer.expect(InputQuery)
        await peer.send(Drain("go"))
        (report,) = await peer.reports(1)
        assert isinstance(report, FailureReport)
        assert (report.outcome, report.unstarted) == ("released", True)


@pytest.mark.parametrize(("kind", "name"), [("process", "echo"), ("asyncio", "aecho")])
async def test_a_real_worker_puts_inputs_in_their_places(hire: Hire, kind: str, name: str) -> None:
    bench = await hire(kind)
    made = call(1, name, [Input(0), {"k": Input(1)}])
    bench.give(
        replace(made, spec=replace(made.spec, given=Rules(member=Member([Given(pack((1, 2))), Given(pack("v"))]))))
    )
    assert await bench.result() == [(1, 2), {"k": "v"}]
    lost = replace(made, token=2, spec=replace(made.spec, given=Rules(member=Member([Given(pack(1))]))))
    bench.give(lost)
    failure = await bench.failure()
    assert failure.code == TaskCodes.ARGUMENTS_UNREADABLE
    assert "wants input 1" in failure.message


def test_words_of_a_command_may_be_inputs() -> None:
    payload = pack_command(["cp", Input(0), "to"], env={"N": Input(1), "S": "s"}, cwd=Input(2))
    read = read_command(payload, [pack("from"), pack(2.5), pack("/srv")])
    assert (read.argv, read.env, read.cwd) == (["cp", "from", "to"], {"N": "2.5", "S": "s"}, "/srv")


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ([], "no command"),
        ([pack(["a", "b"])], "type list: a word is made of text or a number"),
        ([pack(value=True)], "type bool"),
        ([pack("nul\0")], "NUL"),
    ],
)
def test_an_input_that_is_no_word_is_refused(inputs: list[bytes], said: str) -> None:
    with pytest.raises(PayloadUnpackable, match=said):
        read_command(pack_command(["echo", Input(0)]), inputs)
    with pytest.raises(PayloadUnpackable, match="wants input 1"):
        read_command(pack_command(["echo", Input(1)]), [pack("x")])


async def test_a_command_gets_inputs_or_fails_clearly(autojump_clock: MockClock) -> None:
    stage = Stage(autojump_clock, SYNC)
    async with playing(stage, stage.agent(processes=1)):
        peer = await stage.greeted()
        bad = wanting(1, Given(pack({})), name=COMMAND_NAME, payload=pack_command(["echo", Input(0)]))
        good = wanting(2, Given(pack(7)), name=COMMAND_NAME, payload=pack_command(["echo", Input(0)]))
        await peer.lease(bad, pool=1)
        (report,) = await peer.reports(1)
        assert isinstance(report, FailureReport)
        assert report.failure is not None
        assert (report.failure.code, "type dict" in report.failure.message) == (TaskCodes.ARGUMENTS_UNREADABLE, True)
        await peer.lease(good, pool=1)
        await stage.until(lambda: bool(stage.commands))
        assert stage.commands[0].plan.argv == ["echo", "7"]


def test_large_arguments_of_coroutines_go_in_frames_of_their_own() -> None:
    large = wanting(1, Given(bytes(900_000)))
    parts = list(_in_frames([grant(2), large, replace(large, token=3), grant(4), grant(5)]))
    assert [[each.token for each in part] for part in parts] == [[2, 1], [3, 4, 5]]
    assert list(_in_frames([])) == []


SPAWNED = Spawned(task_id(904), 3, b"d" * 16)


def parent(token: int, *given: Given) -> Grant:
    """A lease of a task that has spawned three tasks."""
    return replace(wanting(token, *given), spawned=SPAWNED)


def test_what_was_spawned_comes_with_the_lease_and_is_asked_for_anew_by_each() -> None:
    core = connected(4)
    core.receive(lease(1, [parent(1, ONE)]))
    assert queries(core) == [InputQuery(1, 1, 0), InputQuery(2, 1, -1)]
    pending = Missed(1, Failure(TaskCodes.PENDING, "it has not ended"))
    core.receive(InputPage(2, [pack(0), NIL], last=False, missed=[pending]))
    assert queries(core) == [InputQuery(3, 1, -1, after=2)]
    core.receive(InputPage(1, [pack("one")]))
    assert core.pools[0].take() is None
    core.receive(InputPage(3, [pack(2)]))
    taken = core.pools[0].take()
    assert isinstance(taken, Handed)
    assert taken.found == Found([pack(0), NIL, pack(2)], [pending])
    assert arguments(taken) == ["one"]
    assert (taken.token, taken.attempt, taken.spawned) == (1, 1, SPAWNED)
    core.receive(lease(2, [parent(2, ONE)]))
    assert queries(core) == [InputQuery(4, 2, -1)]


def test_a_lease_with_what_was_spawned_keeps_all_else() -> None:
    given = Grant(1, 2, grant(1).spec, 3, b"details", mark_start=True, spawned=SPAWNED)
    with_found = handed(given, Found([]))
    assert structs.astuple(with_found)[: len(structs.fields(Grant))] == structs.astuple(given)
    assert len(structs.fields(Handed)) == len(structs.fields(Grant)) + 1


def test_what_was_spawned_counts_to_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """Results, and why there are none."""
    monkeypatch.setattr(room, "ARGUMENTS_BYTES_MAX", 300)
    core = connected(4)
    core.receive(lease(1, [parent(1), parent(2, Given(pack(bytes(200))))]))
    queries(core)
    core.receive(InputPage(1, [NIL], last=False, missed=[Missed(0, Failure("task.raised", "m" * 301))]))
    core.receive(InputPage(2, [pack(bytes(100))] * 3))
    reports = failures(core.messages())
    assert [(report.token, report.final) for report in reports] == [(1, True), (2, True)]
    assert {report.failure.code for report in reports if report.failure} == {PayloadTooLarge.code}


def test_no_more_is_asked_at_a_time_than_servers_read() -> None:
    core = connected(100)
    core.receive(lease(1, [parent(token) for token in range(1, 41)]))
    assert [query.token for query in queries(core)] == list(range(1, 33))
    assert queries(core) == []
    core.receive(InputPage(1, [NIL] * 3))
    assert [query.token for query in queries(core)] == [33]


BIG = pack(bytes(KEPT_RESULT_BYTES_MIN))


def making(core: AgentCore, token: int, result: bytes, *, member: Member | None) -> None:
    """Have an attempt of this agent make a result."""
    made = grant(token)
    core.receive(lease(token, [replace(made, spec=replace(made.spec, given=Rules(member=member)))]))
    core.pools[0].take()
    core.succeeded(0, [Returned(token, result, 1, 1.0)])
    core.messages()


def test_what_was_made_here_is_not_asked_for() -> None:
    core = connected()
    making(core, 1, BIG, member=Member())
    mine = replace(ONE, maker=1)
    core.receive(lease(2, [wanting(2, mine, replace(TWO, maker=7))]))
    assert queries(core) == [InputQuery(1, 2, 1)], "what another agent has made is"
    core.receive(InputPage(1, [pack("two")]))
    assert arguments(core.pools[0].take()) == [bytes(KEPT_RESULT_BYTES_MIN), "two"]


@pytest.mark.parametrize(("result", "member"), [(BIG, None), (pack("small"), Member())])
def test_what_no_node_is_sent_here_for_is_not_kept(result: bytes, member: Member | None) -> None:
    core = connected()
    making(core, 1, result, member=member)
    core.receive(lease(2, [wanting(2, replace(ONE, maker=1))]))
    assert len(queries(core)) == 1


def test_what_was_made_is_kept_within_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "CACHE_BYTES", 2 * len(BIG))
    core = connected()
    for token in (1, 2, 3):
        making(core, token, BIG, member=Member())
    core.receive(lease(4, [wanting(4, *[replace(ONE, maker=token) for token in (1, 2, 3)])]))
    assert queries(core) == [InputQuery(1, 4, 0)]
