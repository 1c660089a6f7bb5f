"""A campaign of kills: a real server under load, killed at any moment and started again, and who keeps count.

Server, agent and clients are processes; one agent and one client more are played here, to keep a
ledger of what the server said was recorded, and to be back at once after each kill.
"""

import os
import random
import secrets
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

import msgspec
import psutil
import trio

from harness.actors import NAME, Agent, Client, Ledger, Standing
from harness.peer import Peer, hello
from harness.specs import changed
from taskd.client.profile import Profile
from taskd.net.tls_stream import TlsStream
from taskd.server.clock import SystemClock
from taskd_protocol.connection_messages import Welcome
from taskd_protocol.ids import RANDOM_BYTES_PER_TASK_ID, format_task_id, make_task_ids, parse_task_id
from taskd_protocol.messages import TaskQuery, TaskViews
from taskd_protocol.payload import unpack
from taskd_protocol.task import TaskSpec

TASKD = str(Path(sys.executable).with_name("taskd"))
SERVING_SECONDS = 60.0
PAGE = 500

JOBS = """
from taskd import App, current

app = App()

@app.task
def work(number):
    context = current()
    return [context.attempt, context.fencing_token]
"""

CLIENT = '''
"""Submits until it is told to stop; each id that is acknowledged is written down before it goes on."""

import json, random, sys, threading, time
from pathlib import Path
from queue import SimpleQueue

import jobs
from taskd_protocol.errors import CannotConnect, TimedOut

home, seed = Path(sys.argv[1]), sys.argv[2]
rng = random.Random(seed)
accepted = (home / f"accepted-{seed}").open("w")
outcomes = (home / f"outcomes-{seed}").open("w")
waiting = SimpleQueue()
failed = []

def wait():
    try:
        while (handle := waiting.get()) is not None:
            print(json.dumps([handle.id, handle.result(timeout=100)]), file=outcomes, flush=True)
    except BaseException as error:
        failed.append(error)

waiter = threading.Thread(target=wait)
waiter.start()
try:
    while not (home / "stop").exists() and not failed:
        try:
            if rng.random() < 0.5:
                handles = jobs.work.map(range(rng.randint(1, 40)))
            else:
                handles = [jobs.work.submit(0)]
        except (CannotConnect, TimedOut):  # no server was there for half a minute of tries: nothing was acknowledged
            continue
        print(*[handle.id for handle in handles], sep="\\n", file=accepted, flush=True)
        for handle in handles:
            waiting.put(handle)
        time.sleep(0.01)
finally:
    waiting.put(None)
    waiter.join()
if failed:
    raise failed[0]
'''


class FileLedger(Ledger):
    """A ledger whose acknowledged ids are in a file before anybody goes on."""

    def __init__(self, file: TextIO) -> None:
        super().__init__()
        self._file = file

    def note_accepted(self, specs: Mapping[bytes, TaskSpec]) -> None:
        print(*[format_task_id(task_id) for task_id in specs], sep="\n", file=self._file, flush=True)
        super().note_accepted(specs)


@dataclass(kw_only=True)
class Campaign:
    """What runs, and the ledgers.

    A ``Ground`` for the client and the agent that are played.
    """

    home: Path
    rng: random.Random
    port: int = 0
    kills: int = 0
    calm: bool = False
    ledger: Ledger = field(init=False)
    _file: TextIO = field(init=False)
    _server: trio.Process | None = None
    _started: list[trio.Process] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._file = (self.home / "accepted-played").open("w")
        self.ledger = FileLedger(self._file)

    # -- processes ------------------------------------------------------------------------

    @property
    def env(self) -> dict[str, str]:
        """Of what is started: ours, with a home of its own."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("TASKD_", "XDG_"))}
        return {**kept, "HOME": str(self.home)}

    async def start(self, words: Sequence[str], log: str, *, heard: bool = False) -> trio.Process:
        """Start a program; what it says goes into a file, but its standard output to us if it is ``heard``."""
        with (self.home / log).open("ab") as file:
            process = await trio.lowlevel.open_process(
                words,
                env=self.env,
                cwd=self.home,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if heard else file,
                stderr=file,
            )
        self._started.append(process)
        return process

    async def close(self) -> None:
        """Kill what still runs, and what came from it."""
        self._file.close()
        with trio.CancelScope(shield=True), trio.move_on_after(SERVING_SECONDS):
            for process in self._started:
                if process.poll() is None:
                    children = psutil.Process(process.pid).children(recursive=True)
                    process.kill()
                    for child in children:
                        with suppress(psutil.NoSuchProcess):
                            child.kill()
                await process.wait()
                if process.stdout is not None:
                    await process.stdout.aclose()

    async def start_server(self) -> None:
        """Start it on the port of the first time."""
        if not self.port:
            with socket.create_server(("127.0.0.1", 0)) as free:
                self.port = free.getsockname()[1]
        listen = ["--listen", f"127.0.0.1:{self.port}", "--http", "127.0.0.1:0"]
        self._server = await self.start([TASKD, "server", "--data-dir", "data", *listen], "server.log", heard=True)

    async def serving(self) -> None:
        """Return when it says that it serves."""
        assert self._server is not None
        assert self._server.stdout is not None
        line = b""
        with trio.fail_after(SERVING_SECONDS):
            while not line.endswith(b"\n"):
                part = await self._server.stdout.receive_some()
                assert part, f"no server any more: {(self.home / 'server.log').read_text()[-2_000:]}"
                line += bytes(part)
        assert line.startswith(b"serving taskd://"), line

    async def kill_server(self) -> None:
        """``kill -9``."""
        assert self._server is not None
        self._server.kill()
        assert await self._server.wait() == -9
        self.kills += 1

    async def stop_server(self) -> int:
        """SIGTERM; return its exit code."""
        assert self._server is not None
        self._server.terminate()
        with trio.fail_after(SERVING_SECONDS):
            return await self._server.wait()

    # -- peers ----------------------------------------------------------------------------

    def play(self, nursery: trio.Nursery) -> Client:
        """Begin to play an agent, which runs the real clients' tasks too, and a client; return the client."""
        client = Client(ground=self, rng=random.Random(self.rng.random()), name="played")
        agent = Agent(ground=self, rng=random.Random(self.rng.random()), name="played", names=[NAME, "jobs.work"])
        nursery.start_soon(client.run)
        nursery.start_soon(agent.run)
        return client

    @asynccontextmanager
    async def connected(self, role: str, name: str) -> AsyncIterator[Peer]:
        """See ``Ground``."""
        profile = self.profile()
        token = profile.agent_token if role == "agent" else profile.token
        async with trio.open_nursery() as nursery:
            peer = Peer(await self._open_stream(profile), nursery)
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                await peer.send(hello(role, token, name, name.encode().ljust(16)))
            await peer.wait(Welcome)
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                yield peer
            nursery.cancel_scope.cancel()

    async def _open_stream(self, profile: Profile) -> trio.abc.Stream:
        """Return a connection over TLS, as soon as there is a server to have one with."""
        context = ssl.create_default_context(cadata=profile.ca_pem)
        while True:
            try:
                below = await trio.open_tcp_stream("127.0.0.1", self.port)
            except OSError:
                await trio.sleep(0.02)
                continue
            stream = TlsStream(below, context, server_hostname="localhost")
            try:
                await stream.do_handshake()
            except trio.BrokenResourceError:
                await trio.aclose_forcefully(stream)
            else:
                return stream

    def profile(self) -> Profile:
        """Return what the server wrote for its user."""
        (path,) = (self.home / ".config" / "taskd" / "profiles").iterdir()
        return msgspec.json.decode(path.read_bytes(), type=Profile)

    def specs(self, count: int = 1, **fields: object) -> list[TaskSpec]:
        """See ``Ground``."""
        entropy = secrets.token_bytes(count * RANDOM_BYTES_PER_TASK_ID)
        ids = make_task_ids(count, SystemClock().wall_ms(), entropy)
        return [changed(TaskSpec(task_id, NAME), **fields) for task_id in ids]

    async def standings(self) -> dict[bytes, Standing | None]:
        """Ask the server how the tasks stand that were acknowledged, or whose end an agent was told is recorded.

        Some of the latter may not be among the former: a client that met no server for long enough gave up a submit
        that had arrived.
        """
        ids = list(dict.fromkeys([*self.accepted(), *self.ledger.recorded]))
        found: dict[bytes, Standing | None] = {}
        async with self.connected("client", "who asks") as peer:
            for start in range(0, len(ids), PAGE):
                some = list(ids[start : start + PAGE])
                answer = await peer.ask(TaskQuery(peer.number(), some), TaskViews)
                for task_id, view in zip(some, answer.views, strict=True):
                    found[task_id] = None if view is None else Standing(view.state, view.attempt, view.result)
        assert len(found) == len(ids)
        return found

    # -- ledgers --------------------------------------------------------------------------

    def accepted(self) -> list[bytes]:
        """Return every id that was written down as acknowledged; of a key there is one."""
        lines = [line for path in self.home.glob("accepted-*") for line in path.read_text().splitlines()]
        return [parse_task_id(line) for line in dict.fromkeys(lines)]

    def outcomes(self) -> dict[bytes, list[int]]:
        """Return the results that the real clients wrote down."""
        lines = [line for path in self.home.glob("outcomes-*") for line in path.read_text().splitlines()]
        told = [msgspec.json.decode(line, type=tuple[str, list[int]]) for line in lines]
        assert len({task_id for task_id, _ in told}) == len(told), "an outcome was told twice"
        return {parse_task_id(task_id): result for task_id, result in told}

    def check(self, standings: Mapping[bytes, Standing | None]) -> None:
        """Compare the ledgers with how all that was acknowledged stands after the last start."""
        accepted = set(self.accepted())
        lost = [format_task_id(task_id) for task_id in accepted if standings[task_id] is None]
        assert lost == [], f"{len(lost)} acknowledged tasks are gone"
        self.ledger.check(standings.get)
        assert self.ledger.left(standings.get) == []
        assert self.ledger.outcomes.keys() == self.ledger.accepted.keys()
        outcomes = self.outcomes()
        assert accepted == self.ledger.accepted.keys() | outcomes.keys()
        for task_id, result in outcomes.items():
            standing = standings[task_id]
            assert standing is not None
            assert (standing.state, standing.attempt) == ("succeeded", result[0])
            assert unpack(standing.result or b"") == result, "an outcome has changed"
