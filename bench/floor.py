"""The floor: the least program of taskd's shape. taskd's speed is told as a share of it, in the same run.

A client; a server (trio, TLS, RocksDB); two agents, each with one worker process at the far end
of a socket pair. Each submit, lease and completion is on disk, by one fsync for all that came
meanwhile, before anyone is told of it; results are stored, and pushed to the client. Nothing
else: no retries, priorities, checks, credentials, heartbeats, credit or reconnecting, and only
the happy path. What makes it quick is written beside it.

    python bench/floor.py [--mode processes|async] [--tasks 20000] [--no-tls] [--window 1000] [--json]
"""

import argparse
import asyncio
import json
import os
import shutil
import signal
import socket
import ssl
import tempfile
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from time import perf_counter_ns

import measure
import msgspec
import trio
from rocksdict import Options, Rdict, WriteBatch

AGENTS = 2
SUBMIT_TASKS = 1_000
READ_BYTES = 256 * 1024
SECONDS_MAX = 120

Task = tuple[bytes, str, bytes]  # id, name, packed arguments


class Submit(msgspec.Struct, array_like=True, tag=1, gc=False):
    """Client to server: keep these."""

    tasks: list[Task]


class Lease(msgspec.Struct, array_like=True, tag=2, gc=False):
    """Server to agent, which passes it on as it is: run these."""

    grants: list[tuple[int, Task]]


class Ack(msgspec.Struct, array_like=True, tag=3, gc=False):
    """Agent to server: token, id and packed result of each."""

    reports: list[tuple[int, bytes, bytes]]


class Outcomes(msgspec.Struct, array_like=True, tag=4, gc=False):
    """Server to client: id and packed result of each."""

    outcomes: list[tuple[bytes, bytes]]


class Durable(msgspec.Struct, array_like=True, tag=5, gc=False):
    """The answer to Submit and Ack: so many are on disk."""

    count: int


Message = Submit | Lease | Ack | Outcomes | Durable
pack = msgspec.msgpack.Encoder().encode
unpack = msgspec.msgpack.Decoder(Message).decode
unpack_call = msgspec.msgpack.Decoder(tuple[list[int], dict[str, int]]).decode


def frame(message: Message) -> bytes:
    """Return the message as it goes over the wire: a 4-byte length, then msgpack."""
    body = pack(message)
    return len(body).to_bytes(4, "big") + body


def messages(buffer: bytearray, data: bytes | bytearray) -> Iterator[Message]:
    """Add what was read to the buffer and take the whole messages out of it; one decode for a whole batch."""
    buffer += data
    start = 0
    while len(buffer) - start >= 4 + (size := int.from_bytes(buffer[start : start + 4], "big")):
        yield unpack(bytes(buffer[start + 4 : start + 4 + size]))
        start += 4 + size
    del buffer[:start]


class Peer:
    """One connection of the server, and what waits to be sent on it: reading never waits on writing."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.outbox: list[bytes] = []
        self.wake = trio.Event()
        self.held = 0

    async def write(self) -> None:
        """Send what is released, all of it in one go."""
        while True:
            await self.wake.wait()
            pieces, self.outbox, self.wake = self.outbox, [], trio.Event()
            await self.stream.send_all(b"".join(pieces))


class Server:
    """Gather, decide, stage; flush in a thread; release what the flush covers."""

    def __init__(self, path: Path, window: int, control: socket.socket) -> None:
        options = Options(raw_mode=True)
        options.create_if_missing(True)  # noqa: FBT003 - it takes it by position alone
        self.db = Rdict(str(path), options)
        self.window = window
        self.control = control
        self.inbox: list[tuple[Peer, Message]] = []
        self.arrived = trio.Event()
        self.ready: deque[Task] = deque()
        self.token = 0
        self.agents: list[Peer] = []
        self.client: Peer | None = None
        self.staged: list[tuple[Peer, bytes]] = []
        self.staged_some = trio.Event()
        self.fsyncs_ns: list[int] = []
        self.stages_ns = {"decode": 0, "decide": 0, "stage": 0, "encode": 0}
        self.turns = 0

    async def session(self, stream: trio.abc.Stream) -> None:
        """Serve one peer; its first byte tells its role."""
        peer = Peer(stream)
        if await stream.receive_some(1) == b"a":
            self.agents.append(peer)
        else:
            self.client = peer
        if self.client and len(self.agents) == AGENTS:
            self.control.send(b"!")
        buffer = bytearray()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer.write)
            while data := await stream.receive_some(READ_BYTES):
                began = perf_counter_ns()
                self.inbox.extend([(peer, message) for message in messages(buffer, data)])
                self.arrived.set()
                self.stages_ns["decode"] += perf_counter_ns() - began

    async def decide(self) -> None:
        """Take turns: whatever has arrived is one atomic batch. Goes on while a flush is under way."""
        while True:
            await self.arrived.wait()
            inbox, self.inbox, self.arrived = self.inbox, [], trio.Event()
            instants = [perf_counter_ns()]
            batch = WriteBatch(raw_mode=True)
            effects = [effect for peer, message in inbox for effect in self.apply(peer, message, batch.put)]
            effects += self.place(batch.put)
            instants.append(perf_counter_ns())
            # Ids that rise make keys that rise: 0.3 us each in the memtable, random ones 0.9 us.
            self.db.write(batch)
            instants.append(perf_counter_ns())
            self.staged += [(peer, frame(message)) for peer, message in effects]
            self.staged_some.set()
            instants.append(perf_counter_ns())
            for stage, began, ended in zip(("decide", "stage", "encode"), instants, instants[1:], strict=False):
                self.stages_ns[stage] += ended - began
            self.turns += 1

    def apply(self, peer: Peer, message: Message, put: Callable[[bytes, bytes], None]) -> list[tuple[Peer, Message]]:
        """Keep tasks or results; return what to tell whom."""
        match message:
            case Submit(tasks):
                for task in tasks:
                    put(b"t" + task[0], pack(task))
                self.ready.extend(tasks)
                return [(peer, Durable(len(tasks)))]
            case Ack(reports):
                for _, task_id, result in reports:
                    put(b"r" + task_id, result)
                peer.held -= len(reports)
                assert self.client
                outcomes = Outcomes([(task_id, result) for _, task_id, result in reports])
                return [(peer, Durable(len(reports))), (self.client, outcomes)]
            case _:
                raise AssertionError(message)

    def place(self, put: Callable[[bytes, bytes], None]) -> list[tuple[Peer, Message]]:
        """Lease what is ready to whoever has room."""
        effects: list[tuple[Peer, Message]] = []
        for agent in self.agents:
            room = min(self.window - agent.held, len(self.ready))
            # Costs are per batch, so batches must not crumble: no lease of less than a quarter window, but the last.
            if room and room >= min(self.window // 4, len(self.ready)):
                grants = [(self.token + i, self.ready.popleft()) for i in range(1, room + 1)]
                for token, task in grants:
                    put(b"l" + task[0], token.to_bytes(8, "big"))
                self.token += room
                agent.held += room
                effects.append((agent, Lease(grants)))
        return effects

    async def flush(self) -> None:
        """Flush what was staged, then release it: one fsync under way, the next one takes all that came meanwhile."""
        while True:
            await self.staged_some.wait()
            staged, self.staged, self.staged_some = self.staged, [], trio.Event()
            await trio.to_thread.run_sync(self.fsync)
            for peer, data in staged:
                peer.outbox.append(data)
                peer.wake.set()

    def fsync(self) -> None:
        """Sync the log; in a thread."""
        began = perf_counter_ns()
        self.db.flush_wal(True)  # noqa: FBT003 - frees the GIL, as a write with sync=True does not
        self.fsyncs_ns.append(perf_counter_ns() - began)

    async def report(self) -> None:
        """Tell what was counted and end, when the client says so by closing or is gone."""
        await trio.lowlevel.wait_readable(self.control)
        facts = {"fsyncs_ns": self.fsyncs_ns, "stages_ns": self.stages_ns, "turns": self.turns}
        self.control.sendall(json.dumps(facts).encode())
        os._exit(0)


def run_server(
    listening: socket.socket, context: ssl.SSLContext | None, path: Path, window: int, control: socket.socket
) -> None:
    """Accept peers and turn the loop until the client is gone."""

    async def main() -> None:
        server = Server(path, window, control)
        listener: trio.abc.Listener[trio.abc.Stream] = trio.SocketListener(trio.socket.from_stdlib_socket(listening))
        if context:
            listener = trio.SSLListener(listener, context)
        async with trio.open_nursery() as nursery:
            for loop in (server.decide, server.flush, server.report):
                nursery.start_soon(loop)
            await trio.serve_listeners(server.session, [listener])

    trio.run(main)


def run_agent(address: tuple[str, int], context: ssl.SSLContext | None, worker: socket.socket) -> None:
    """Pass leases to the worker and its reports to the server, as they are: no decoding in between."""

    async def relay(source: trio.abc.Stream, sink: trio.abc.Stream) -> None:
        while data := await source.receive_some(READ_BYTES):
            await sink.send_all(data)
        os._exit(0)

    async def main() -> None:
        server: trio.abc.Stream = await trio.open_tcp_stream(*address)
        if context:
            server = trio.SSLStream(server, context, server_hostname="localhost")
        pipe = trio.SocketStream(trio.socket.from_stdlib_socket(worker))
        await server.send_all(b"a")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(relay, server, pipe)
            nursery.start_soon(relay, pipe, server)

    trio.run(main)


def noop(value: int) -> int:
    """Be the body of a task."""
    return value


async def anoop(value: int) -> int:
    """Be the body of an async task."""
    return value


def run_worker(sock: socket.socket, others: socket.socket) -> None:
    """Run functions, blocking: a batch in, a batch out."""
    others.close()
    functions = {"noop": noop}
    buffer = bytearray()
    while data := sock.recv(READ_BYTES):
        for message in messages(buffer, data):
            if isinstance(message, Lease):
                reports = []
                for token, (task_id, name, call) in message.grants:
                    args, kwargs = unpack_call(call)
                    reports.append((token, task_id, pack(functions[name](*args, **kwargs))))
                sock.sendall(frame(Ack(reports)))


def run_async_worker(sock: socket.socket, others: socket.socket) -> None:
    """Run coroutines, each an asyncio task of its own: a batch in, a batch out."""
    others.close()
    functions = {"anoop": anoop}

    async def run(grant: tuple[int, Task]) -> tuple[int, bytes, bytes]:
        token, (task_id, name, call) = grant
        args, kwargs = unpack_call(call)
        return token, task_id, pack(await functions[name](*args, **kwargs))

    async def main() -> None:
        reader, writer = await asyncio.open_connection(sock=sock, limit=READ_BYTES)
        buffer = bytearray()
        while data := await reader.read(READ_BYTES):
            for message in messages(buffer, data):
                if isinstance(message, Lease):
                    writer.write(frame(Ack(await asyncio.gather(*map(run, message.grants)))))

    asyncio.run(main())


def drive(sock: socket.socket, name: str, count: int) -> None:
    """Submit everything, then read until every result is held. Ids rise; all SUBMITs are under way at once."""
    life = os.urandom(8)
    for start in range(0, count, SUBMIT_TASKS):
        numbers = range(start, min(start + SUBMIT_TASKS, count))
        sock.sendall(frame(Submit([(life + i.to_bytes(8, "big"), name, pack(([i], {}))) for i in numbers])))
    buffer = bytearray()
    results: dict[bytes, int] = {}
    durable = 0
    while len(results) < count:
        for message in messages(buffer, sock.recv(READ_BYTES)):
            if isinstance(message, Outcomes):
                results.update((task_id, msgspec.msgpack.decode(result)) for task_id, result in message.outcomes)
            elif isinstance(message, Durable):
                durable += message.count
    assert durable == count
    assert all(results[life + i.to_bytes(8, "big")] == i for i in range(count))


def fork(body: Callable[[], None]) -> int:
    """Run the body in a child; each ends by itself when the socket to its parent in the chain does."""
    pid = os.fork()
    if pid == 0:
        try:
            body()
        finally:
            os._exit(1)
    return pid


def run(mode: str, count: int, window: int, path: Path, *, tls: bool) -> measure.Facts:
    """Start everything, measure from the first submit to the last result, end everything."""
    contexts = measure.tls_contexts(path) if tls else (None, None)
    listening = socket.create_server(("127.0.0.1", 0))
    address = listening.getsockname()
    control, servers = socket.socketpair()
    pids: measure.Pids = {"server": [], "agents": [], "workers": [], "client": [os.getpid()]}
    try:
        for _ in range(AGENTS):
            agents, workers = socket.socketpair()
            worker = run_worker if mode == "processes" else run_async_worker
            pids["workers"].append(fork(partial(worker, workers, agents)))
            workers.close()
            pids["agents"].append(fork(partial(run_agent, address, contexts[1], agents)))
            agents.close()
        pids["server"].append(fork(partial(run_server, listening, contexts[0], path / "db", window, servers)))
        servers.close()
        sock = socket.create_connection(address)
        if contexts[1]:
            sock = contexts[1].wrap_socket(sock, server_hostname="localhost")
        sock.sendall(b"c")
        control.recv(1)  # the server has everyone
        cpu_before, began = measure.cpu_ns(pids), perf_counter_ns()
        drive(sock, "noop" if mode == "processes" else "anoop", count)
        ended, cpu_after = perf_counter_ns(), measure.cpu_ns(pids)
        control.shutdown(socket.SHUT_WR)
        told = json.loads(b"".join(iter(partial(control.recv, READ_BYTES), b"")))
    finally:
        for pid in (pid for role, children in pids.items() if role != "client" for pid in children):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    return {
        "tasks": count,
        "seconds": (ended - began) / 1e9,
        "tasks_per_s": count * 1e9 / (ended - began),
        "cpu_us": measure.cpu_us(cpu_before, cpu_after, count),
        "fsync_p50_ms": measure.quantile(told["fsyncs_ns"], 0.5) / 1e6,
        "fsyncs": len(told["fsyncs_ns"]),
        "turns": told["turns"],
        "stages_us": {stage: ns / count / 1e3 for stage, ns in told["stages_ns"].items()},
    }


def main() -> None:
    """Run once and print."""
    parser = argparse.ArgumentParser(description="The least program of taskd's shape, measured.")
    parser.add_argument("--mode", choices=("processes", "async"), default="processes")
    parser.add_argument("--tasks", type=int, default=20_000)
    parser.add_argument("--window", type=int, default=1_000, help="tasks that an agent holds at once")
    parser.add_argument("--no-tls", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--data-dir", type=Path, default=Path("build/bench"), help="on a real disk")
    options = parser.parse_args()
    signal.alarm(SECONDS_MAX)  # ends the client; all others end with it
    options.data_dir.mkdir(parents=True, exist_ok=True)
    path = Path(tempfile.mkdtemp(prefix="floor-", dir=options.data_dir))
    try:
        facts = run(options.mode, options.tasks, options.window, path, tls=not options.no_tls)
    finally:
        shutil.rmtree(path)
    facts |= {"mode": options.mode, "tls": not options.no_tls, "window": options.window}
    print(json.dumps(facts) if options.json else measure.in_words(facts))


if __name__ == "__main__":
    main()
