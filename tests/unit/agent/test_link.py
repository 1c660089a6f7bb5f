"""The agent and its server: meeting, losing and finding each other."""

import pytest
import trio
from trio.testing import MockClock

from taskd.agent import spawns, wire
from taskd.agent.executors.seat import FIRST_MAX
from taskd_protocol.agent_messages import Ack, Drain, HeartbeatSeen, Offered, Recorded
from taskd_protocol.connection_messages import Done, Error, Ping, Pong
from taskd_protocol.errors import (
    AgentDuplicate,
    AuthRefused,
    CertificateRefused,
    ConfigInvalid,
    RoleRefused,
    ServerBusy,
    TaskdError,
)
from taskd_protocol.resources import Supply
from taskd_protocol.task import COMMAND_NAME, Held, Pool, TaskSpec
from taskd_protocol.workflow_messages import Spawn
from unit.agent.making import grant, mark, task_id, welcome
from unit.agent.stage import SERVER_AHEAD_MS, SYNC, Peer, Stage, playing

LABELS = {
    "zone": "north",
    "taskd.agent": "a1",
    "taskd.host": "h1",
    "taskd.python": "3.12",
    "taskd.arch": "riscv64",
}


async def test_an_agent_says_who_it_is_and_what_it_has(autojump_clock: MockClock) -> None:
    stage = Stage(autojump_clock, {"m.f": False, "m.g": False, "m.a": True})
    async with playing(stage, stage.agent()):
        peer = await stage.peer()
        hello, offer = await peer.greet()
        assert (hello.role, hello.name, hello.token, hello.boot_id) == ("agent", "a1", "taskd_agent_x", b"B" * 16)
        assert (hello.session, hello.mark) == (None, None)
        assert offer.pools == [
            Pool("process", 2, ["m.f", "m.g"]),
            Pool("async", 100, ["m.a"]),
            Pool("command", 2, [COMMAND_NAME]),
        ]
        assert (offer.queues, offer.labels, offer.holding) == (["q"], LABELS, [])


async def test_the_code_says_which_version_it_is_unless_the_agent_is_told(autojump_clock: MockClock) -> None:
    stage = Stage(autojump_clock, SYNC)
    stage.versions = ["7"]
    async with playing(stage, stage.agent()):
        _, offer = await (await stage.peer()).greet()
        assert offer.labels == {**LABELS, "taskd.version": "7"}
    stage = Stage(autojump_clock, SYNC)
    stage.versions = ["7", "8"]
    with pytest.raises(ConfigInvalid, match="versions '7' and '8': say which, --code-version"):
        await stage.agent().run()
    async with playing(stage, stage.agent(code_version="9")):
        _, offer = await (await stage.peer()).greet()
        assert offer.labels["taskd.version"] == "9"


async def test_an_agent_without_modules_runs_commands_and_starts_no_worker(autojump_clock: MockClock) -> None:
    stage = Stage(autojump_clock, {})
    async with playing(stage, stage.agent(modules=())):
        _, offer = await (await stage.peer()).greet()
        assert [pool.kind for pool in offer.pools] == ["command"]
        assert offer.labels["taskd.python"] == "3.13", "this program's own, where no worker says another"
        assert offer.supplies == [Supply("cpu", 2_000), Supply("memory", 4 << 30)]
        assert stage.workers == []


async def test_heartbeats_come_in_time_with_what_is_held_and_how_the_host_is(autojump_clock: MockClock) -> None:
    stage = Stage(autojump_clock, SYNC)
    async with playing(stage, stage.agent()):
        peer = await stage.greeted()
        await peer.lease(grant(1), grant(2))
        began = trio.current_time()
        with trio.move_on_after(16):
            await peer.expect(Ack)
        assert [beat.number for beat in peer.heartbeats] == [1, 2, 3, 4]
        assert 15 <= trio.current_time() - began <= 17
        last = peer.heartbeats[-1]
        assert (sorted(last.held), last.lease_number) == ([1, 2], 1)
        assert last.host.cpu_percent == 12.5


async def test_work_goes_on_without_the_server_and_is_handed_in_later(autojump_clock: MockClock) -> None:
    stage = Stage(autojump_clock, SYNC)
    async with playing(stage, stage.agent()):
        peer = await stage.peer()
        await peer.greet(welcome(session=b"1" * 16, sequence=8))
        await peer.send(Offered())
        await peer.lease(grant(1), grant(2))
        first, second = stage.workers
        await first.has(1)
        await second.has(1)
        stage.unreachable()
        await peer.cut()
        first.returns(*[given.token for given in first.grants])
        await trio.sleep(100)
        stage.refusals.clear()
        again = await stage.peer()
        hello, offer = await again.greet()
        assert (hello.session, hello.mark) == (b"1" * 16, mark(8))
        assert sorted(held.token for held in offer.holding) == [1, 2]
        await again.send(Offered())
        done = first.grants[0].token
        assert [report.token for report in await again.reports(1)] == [done]
        second.returns(3 - done)
        assert [report.token for report in await again.reports(1)] == [3 - done]
        assert again.heartbeats[0].lease_number == 0, "no lease of this connection has come"


async def test_a_report_whose_answer_was_lost_is_sent_again_and_once_recorded_never(autojump_clock: MockClock) -> None:
    stage = Stage(autojump_clock, SYNC)
    async with playing(stage, stage.agent()):
        peer = await stage.greeted()
        await peer.lease(grant(1))
        (await stage.who_has(1)).returns(1)
        assert (await peer.expect(Ack)).reports[0].result == b"r1"
        await peer.cut()
        peer = await stage.peer()
        _, offer = await peer.greet()
        assert offer.holding == [Held(1, task_id(1), 1)]
        await peer.send(Offered())
        assert [report.token for report in await peer.reports(1)] == [1]
        await trio.sleep(1)
        await peer.cut()
        _, offer = await (await stage.peer()).greet()
        assert offer.holding == []


async def test_what_was_given_away_meanwhile_is_killed_and_not_reported(autojump_clock: MockClock) -> None:
    stage = Stage(autojump_clock, SYNC)
    async with playing(stage, stage.agent(processes=1)):
        peer = await stage.greeted()
        await peer.lease(grant(1), grant(2))
        (worker,) = stage.workers
        await worker.has(1)
        worker.runs = 1
        await peer.cut()
        peer = await stage.peer()
        await peer.greet()
        await peer.send(Offered([1, 2]))
        await stage.until(lambda: len(stage.workers) == 2)
        assert worker.signals[0] == "TERM"
        await peer.lease(grant(3))
        await stage.workers[1].has(1)
        stage.workers[1].returns(3)
        assert [report.token for report in await peer.reports(1)] == [3]


@pytest.mark.parametrize("is_async", [False, True])
async def test_workers_spawn_no_more_than_their_agent_can_hold_while_the_server_is_away(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, *, is_async: bool
) -> None:
    monkeypatch.setattr(spawns, "TASKS_MAX", 3)
    stage = Stage(autojump_clock, {"m.f": is_async})
    async with playing(stage, stage.agent(processes=1)):
        peer = await stage.greeted()
        await peer.lease(grant(1))
        (worker,) = stage.workers
        await worker.has(1)
        await peer.cut()
        for first in range(0, 4, 2):
            worker.say(wire.Children(1, first, [TaskSpec(b"", "m.f")] * 2))
        await trio.sleep(0.1)
        peer = await stage.peer()
        await peer.greet()
        await peer.send(Offered([]))
        for first in range(0, 4, 2):
            assert worker.holds_spawns
            spawn = await peer.expect(Spawn)
            assert (spawn.first, len(spawn.tasks)) == (first, 2)
            await peer.send(Done(spawn.request_id))
        await trio.sleep(0.1)
        assert not worker.holds_spawns


async def test_the_first_try_comes_within_half_a_second_and_tries_never_end(autojump_clock: MockClock) -> None:
    stage = Stage(autojump_clock, SYNC)
    stage.unreachable()
    async with playing(stage, stage.agent()):
        await trio.sleep(3_600)
        waits = [later - sooner for sooner, later in zip(stage.dials, stage.dials[1:], strict=False)]
        assert all(wait <= 0.5 for wait in waits[:10])
        assert max(waits) <= 15
        assert sum(waits[50:]) / len(waits[50:]) > 5, "a server that is long gone is not pestered"
        stage.refusals.clear()
        await stage.greeted()
        assert trio.current_time() - 3_600 <= 15


async def test_a_server_that_falls_silent_is_left_after_three_heartbeats(autojump_clock: MockClock) -> None:
    stage = Stage(autojump_clock, SYNC)
    async with playing(stage, stage.agent()):
        peer = await stage.greeted()
        peer.answers_heartbeats = False
        began = trio.current_time()
        with pytest.raises((EOFError, trio.BrokenResourceError)):
            await peer.expect(Drain)
        assert 15 <= trio.current_time() - began <= 21
        await stage.greeted()


async def test_any_word_of_the_server_is_life(autojump_clock: MockClock) -> None:
    stage = Stage(autojump_clock, SYNC)
    async with playing(stage, stage.agent()):
        peer = await stage.greeted()
        peer.answers_heartbeats = False
        for nonce in range(12):
            await peer.send(Ping(nonce))
            assert await peer.expect(Pong) == Pong(nonce)
            await trio.sleep(5)
        assert len(stage.dials) == 1


@pytest.mark.parametrize("refusal", [AuthRefused("no"), RoleRefused("no")])
async def test_a_refused_token_ends_the_agent(autojump_clock: MockClock, refusal: TaskdError) -> None:
    stage = Stage(autojump_clock, SYNC)

    async def refuse() -> None:
        peer = await stage.peer()
        await peer.next()
        await peer.send(Error(0, refusal.code, "that token is not good"))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(refuse)
        with pytest.raises(type(refusal), match="that token is not good"):
            await stage.agent().run()
    assert len(stage.dials) == 1


async def test_a_second_agent_of_a_name_ends_itself(autojump_clock: MockClock) -> None:
    stage = Stage(autojump_clock, SYNC)

    async def refuse() -> None:
        peer = await stage.peer()
        await peer.greet()
        await peer.send(Error(0, "agent.duplicate", "an agent named 'a1' is connected"))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(refuse)
        with pytest.raises(AgentDuplicate, match="a1"):
            await stage.agent().run()


async def test_a_wrong_certificate_ends_the_agent(autojump_clock: MockClock) -> None:
    stage = Stage(autojump_clock, SYNC)
    stage.refusals.append(CertificateRefused("another CA"))
    with pytest.raises(CertificateRefused):
        await stage.agent().run()


async def test_a_busy_or_stopping_server_is_tried_again(autojump_clock: MockClock) -> None:
    stage = Stage(autojump_clock, SYNC)
    async with playing(stage, stage.agent()):
        peer = await stage.peer()
        await peer.next()
        await peer.send(Error(0, ServerBusy.code, "later", retryable=True))
        peer = await stage.greeted()
        await peer.send(Error(0, "server.stopping", "going", retryable=True))
        await stage.greeted()


async def garbage(peer: Peer) -> None:
    await peer.stream.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")


async def nothing_for_agents(peer: Peer) -> None:
    await peer.send(Recorded([], mark=mark(1)), HeartbeatSeen(1, 0), Error(7, "auth.unheard_of", "what?"))


async def eof(peer: Peer) -> None:
    await peer.cut()


@pytest.mark.parametrize("trouble", [garbage, nothing_for_agents, eof])
async def test_whatever_else_comes_the_agent_connects_anew(autojump_clock: MockClock, trouble: object) -> None:
    stage = Stage(autojump_clock, SYNC)
    async with playing(stage, stage.agent()):
        assert callable(trouble)
        await trouble(await stage.peer())
        await trouble(await stage.greeted())
        await stage.greeted()


async def test_a_server_that_says_nothing_after_the_connect_is_left(autojump_clock: MockClock) -> None:
    stage = Stage(autojump_clock, SYNC)
    async with playing(stage, stage.agent()):
        await stage.peer()
        began = trio.current_time()
        await stage.greeted()
        assert 10 <= trio.current_time() - began <= 11


async def test_starts_and_outputs_are_told_by_the_servers_clock(autojump_clock: MockClock) -> None:
    stage = Stage(autojump_clock, SYNC)
    async with playing(stage, stage.agent(processes=1)):
        peer = await stage.greeted()
        await peer.lease(grant(1))
        await stage.workers[0].has(1)
        assert stage.workers[0].batches[0].clock_ahead_ms == SERVER_AHEAD_MS


async def test_a_module_that_fails_to_import_ends_the_agent_with_its_name(autojump_clock: MockClock) -> None:
    stage = Stage(autojump_clock, SYNC)
    stage.error = "module 'm' failed to import: ModuleNotFoundError: No module named 'x'"
    with pytest.raises(ConfigInvalid, match="module 'm' failed to import"):
        await stage.agent().run()
    assert stage.dials == []
    assert stage.workers[0].closed


async def test_modules_without_tasks_end_the_agent(autojump_clock: MockClock) -> None:
    with pytest.raises(ConfigInvalid, match="no tasks in m"):
        await Stage(autojump_clock, {}).agent().run()


async def test_a_worker_of_another_release_ends_the_agent(autojump_clock: MockClock) -> None:
    stage = Stage(autojump_clock, SYNC)
    stage.version = 999
    with pytest.raises(ConfigInvalid, match="another release"):
        await stage.agent().run()


async def test_a_first_worker_that_is_killed_is_followed_by_another(autojump_clock: MockClock) -> None:
    """Whoever killed it, it was not the modules."""
    stage = Stage(autojump_clock, SYNC)
    stage.killed = FIRST_MAX - 1
    async with playing(stage, stage.agent(processes=1)):
        peer = await stage.greeted()
        await peer.lease(grant(1))
        await stage.workers[FIRST_MAX - 1].has(1)
    assert all(worker.closed for worker in stage.workers)


async def test_modules_that_take_every_first_worker_down_end_the_agent(autojump_clock: MockClock) -> None:
    stage = Stage(autojump_clock, SYNC)
    stage.killed = FIRST_MAX
    with pytest.raises(ConfigInvalid, match="ended by SIGKILL before it was ready, as were those before it"):
        await stage.agent().run()
    assert len(stage.workers) == FIRST_MAX


async def test_an_agent_that_cannot_reach_its_server_can_still_be_stopped(autojump_clock: MockClock) -> None:
    stage = Stage(autojump_clock, SYNC)
    stage.unreachable()
    agent = stage.agent()
    async with playing(stage, agent):
        await trio.sleep(10)
        agent.drain()
        began = trio.current_time()
    assert trio.current_time() - began < 1
