"""The server put together, on a real disk and a real port: how it starts, and how it ends."""

import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import msgspec
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from harness.peer import Peer, hello
from harness.server import leased, report
from taskd.net.tls_stream import TlsStream
from taskd.server import main
from taskd.server.addresses import Address
from taskd.server.datadir import open_data_dir
from taskd.server.main import FAREWELL_SECONDS, SETTLE_SECONDS, ServerPlan, Serving, serve
from taskd.server.platform import Platform, system_platform
from taskd_protocol.agent_messages import Ack, LeaseCredit, Offer, Offered
from taskd_protocol.connection_messages import Error, Ping, Pong, Welcome
from taskd_protocol.errors import (
    AddressInsecure,
    AddressInUse,
    DataDirInUse,
    ServerRolledBack,
    StoreCorrupt,
    TaskdError,
)
from taskd_protocol.handshake import make_mark
from taskd_protocol.house_messages import QueueList, QueuePage
from taskd_protocol.ids import make_task_ids
from taskd_protocol.messages import Accepted, Outcomes, Submit, TaskQuery, TaskViews, Wait
from taskd_protocol.task import Pool, TaskSpec

T = TypeVar("T")
LOOPBACK = Address("127.0.0.1", 0)


@dataclass
class Disk:
    """A disk that is real, until it hangs or breaks: all that is done in a thread is done to it."""

    back: trio.Event | None = None
    """It hangs until this is set."""
    broken: bool = False

    async def __call__(self, work: Callable[[], T], /) -> T:
        if self.back is not None:
            await self.back.wait()
        if self.broken:
            raise OSError("IO error: No space left on device")
        return await trio.to_thread.run_sync(work)


@dataclass
class Running:
    """A server that serves in this process, until it is stopped."""

    serving: Serving
    nursery: trio.Nursery
    ended: trio.Event
    errors: list[TaskdError]

    async def peer(
        self, role: str, token: str = "", *, says_hello: bool = True, reads: bool = True, **fields: object
    ) -> Peer:
        """Connect over TLS, as a role."""
        stream: trio.abc.Stream = await trio.open_tcp_stream(*self.serving.address)
        if self.serving.tls:
            context = ssl.create_default_context(cadata=self.serving.ca_pem)
            stream = TlsStream(stream, context, server_hostname="localhost")
            await stream.do_handshake()
        peer = Peer(stream, self.nursery, reads=reads)
        if says_hello:
            token = token or await self.serving.mint(role)
            kind = "agent" if role == "agent" else "client"
            await peer.send(msgspec.structs.replace(hello(kind, token, "a1", bytes(16)), **fields))
        return peer

    async def client(self, **fields: object) -> Peer:
        """Connect a client; return it welcomed."""
        peer = await self.peer("client", **fields)  # type: ignore[arg-type]
        await peer.take(Welcome)
        return peer

    async def stop(self) -> None:
        """Stop it in good order."""
        self.serving.stop()
        with trio.fail_after(SETTLE_SECONDS + FAREWELL_SECONDS + 10):
            await self.ended.wait()


@asynccontextmanager
async def running(
    data_dir: Path, *, tls: bool = True, platform: Platform | None = None, listen: Address = LOOPBACK
) -> AsyncIterator[Running]:
    """Serve from a data directory."""
    plan = ServerPlan(data_dir=data_dir, listen=listen, tls=tls)
    ended = trio.Event()
    errors: list[TaskdError] = []

    async def run(task_status: trio.TaskStatus[Serving]) -> None:
        try:
            await serve(plan, platform or system_platform(), task_status=task_status)
        except TaskdError as why:
            errors.append(why)
        ended.set()

    async with trio.open_nursery() as nursery:
        serving: Serving = await nursery.start(run)
        server = Running(serving, nursery, ended, errors)
        try:
            yield server
            if not ended.is_set():
                await server.stop()
        finally:
            nursery.cancel_scope.cancel()


def specs(count: int) -> list[TaskSpec]:
    """Make new tasks."""
    now_ms = system_platform().clock.wall_ms()
    entropy = system_platform().token_bytes(10 * count)
    return [TaskSpec(task_id, "m.f", b"args") for task_id in make_task_ids(count, now_ms, entropy)]


async def test_it_serves_over_tls_and_keeps_what_it_was_given(tmp_path: Path) -> None:
    """A task's whole life, over two lives of the server."""
    async with running(tmp_path / "data") as server:
        serving = server.serving
        assert serving.address.port
        assert serving.ready()
        assert serving.data_dir == tmp_path / "data"
        assert {"localhost", "127.0.0.1"} <= set(serving.host_names)
        client, agent = await server.client(), await server.peer("agent")
        await agent.take(Welcome)
        await agent.send(Offer([Pool("process", 1, ["m.f"])]))
        await agent.take(Offered)
        await agent.send(LeaseCredit(0, 1))
        done, waiting = specs(2)
        await client.ask(Submit(1, [done, waiting]), Accepted)
        (grant,) = await leased(agent, 1)
        await client.send(Wait(2, [done.id]))
        await agent.send(Ack([report(grant, b"\x2a")]))
        assert (await client.take(Outcomes)).outcomes[0].result == b"\x2a"
        token = await serving.mint("client")
        assert serving.knows("client", token)
        assert not serving.knows("admin", token)
        assert not serving.knows("client", "garbage")
        await server.stop()
        assert not serving.ready()
    async with running(tmp_path / "data") as server:
        assert server.serving.ca_pem == serving.ca_pem
        assert server.serving.knows("client", token)
        client = await server.client(token=token)
        views = (await client.ask(TaskQuery(1, [done.id, waiting.id]), TaskViews)).views
        assert [view.state for view in views if view] == ["succeeded", "ready"]


async def test_an_orderly_end_answers_what_was_asked(tmp_path: Path) -> None:
    """What was submitted before the end is accepted behind its flush; what comes later is put off."""
    disk = Disk()
    async with running(tmp_path / "data", platform=replace(system_platform(), flush=disk)) as server:
        client = await server.client()
        disk.back = trio.Event()
        submit, late = Submit(1, specs(3)), Submit(2, specs(1))
        await client.send(submit, Ping(1))
        await client.take(Pong)
        server.serving.stop()
        await server.serving.wait_stopping()
        await wait_all_tasks_blocked(0.05)
        with pytest.raises(OSError, match="connect"):
            await trio.open_tcp_stream(*server.serving.address)
        await client.send(late)
        refused = await client.answer(late, Error)
        assert (refused.code, refused.retryable) == ("server.stopping", True)
        disk.back.set()
        accepted = await client.answer(submit, Accepted)
        assert accepted.mark.sequence
        assert (await client.end()).code == "server.stopping"
        await server.ended.wait()
        assert server.errors == []
    async with running(tmp_path / "data") as server:
        client = await server.client()
        views = (await client.ask(TaskQuery(1, [spec.id for spec in [*submit.tasks, *late.tasks]]), TaskViews)).views
        assert [view is not None for view in views] == [True, True, True, False]


async def test_an_end_does_not_wait_for_strangers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has not said who it is has a few seconds, and then it is over; who says it now is put off."""
    monkeypatch.setattr(main, "FAREWELL_SECONDS", 1.0)
    async with running(tmp_path / "data") as server:
        token = await server.serving.mint("client")
        silent = await server.peer("client", says_hello=False)
        bare = await trio.open_tcp_stream(*server.serving.address)
        late = await server.peer("client", says_hello=False)
        server.serving.stop()
        await server.serving.wait_stopping()
        await wait_all_tasks_blocked(0.05)
        await late.send(hello("client", token))
        with trio.fail_after(FAREWELL_SECONDS):
            assert (await late.end()).code == "server.stopping"
        with trio.fail_after(FAREWELL_SECONDS + SETTLE_SECONDS + 5):
            await server.ended.wait()
            await silent.over.wait()
        await bare.aclose()
        assert server.errors == []


async def test_a_reader_that_does_not_read_does_not_keep_it_from_ending(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its connection is cut."""
    monkeypatch.setattr(main, "FAREWELL_SECONDS", 1.0)
    async with running(tmp_path / "data") as server:
        client = await server.client()
        large = [msgspec.structs.replace(spec, payload=bytes(8_000_000)) for spec in specs(1)]
        await client.ask(Submit(1, large), Accepted)
        stuck = await trio.open_tcp_stream(*server.serving.address)
        context = ssl.create_default_context(cadata=server.serving.ca_pem)
        tls = TlsStream(stuck, context, server_hostname="localhost")
        peer = Peer(tls, server.nursery, reads=False)
        await peer.send(hello("client", await server.serving.mint("client")))
        await tls.receive_some()
        await peer.send(*[TaskQuery(number, [large[0].id]) for number in range(1, 5)])
        await wait_all_tasks_blocked(0.2)
        await server.stop()
        await tls.aclose()
        assert server.errors == []


async def test_a_port_in_use_is_said_and_leaves_the_data_alone(tmp_path: Path) -> None:
    """The next try with another port finds everything free."""
    async with running(tmp_path / "one") as first:
        taken = first.serving.address
        with pytest.raises(AddressInUse, match="in use"):
            await serve(ServerPlan(data_dir=tmp_path / "two", listen=taken), system_platform())
        async with running(tmp_path / "two") as second:
            assert second.serving.address != taken


async def test_a_data_directory_in_use_is_said(tmp_path: Path) -> None:
    """By which process, and what to do."""
    async with running(tmp_path / "data"):
        with pytest.raises(DataDirInUse, match="stop it, or choose another"):
            await serve(ServerPlan(data_dir=tmp_path / "data", listen=LOOPBACK), system_platform())


async def test_without_tls_others_cannot_be_let_in(tmp_path: Path) -> None:
    """Loopback only; there it works."""
    open_to_all = ServerPlan(data_dir=tmp_path / "data", listen=Address("0.0.0.0", 0), tls=False)  # noqa: S104
    with pytest.raises(AddressInsecure):
        await serve(open_to_all, system_platform())
    async with running(tmp_path / "data", tls=False) as server:
        client = await server.client()
        await client.ask(QueueList(1), QueuePage)


async def test_a_rolled_back_data_directory_ends_the_server(tmp_path: Path) -> None:
    """As soon as a peer shows up that knows better; the reason comes out of ``serve``."""
    data = open_data_dir(tmp_path / "data", system_platform().token_bytes)
    mark_key = data.mark_key
    data.close()
    async with running(tmp_path / "data") as server:
        client = await server.peer("client")
        mark = (await client.take(Welcome)).mark
        newer = make_mark(mark_key, mark.lineage, mark.sequence + 1_000)
        other = await server.peer("client", mark=newer)
        assert (await other.end()).code == "server.rolled_back"
        assert (await client.end()).code == "server.stopping"
        await server.ended.wait()
        assert [type(why) for why in server.errors] == [ServerRolledBack]
    with pytest.raises(StoreCorrupt, match=f"told of commit {mark.sequence + 1_000}"):  # and nobody has to say it twice
        await serve(ServerPlan(data_dir=tmp_path / "data", listen=LOOPBACK), system_platform())


async def test_a_storage_error_ends_the_process_at_once(tmp_path: Path) -> None:
    """With the exit code of storage errors, and no answer."""
    exits: list[int] = []
    disk = Disk()
    platform = replace(system_platform(), flush=disk, exit=exits.append)
    async with running(tmp_path / "data", platform=platform) as server:
        client = await server.client()
        await client.ask(Submit(1, specs(1)), Accepted)
        disk.broken = True
        await client.send(Submit(2, specs(1)), Ping(1))
        await client.take(Pong)
        await wait_all_tasks_blocked(0.1)
        assert exits == [74]
        assert client.inbox == []
        disk.broken = False
        server.nursery.cancel_scope.cancel()
