"""Simulated peers: many in one program, each on a TLS connection of its own that speaks the protocol.

    python bench/crowd.py agents|clients --name NAME --count N [--beat S] [--held N] [--window N]

Says ``connected`` when all are there. Agents stay until the program is ended: they beat, hold leases of tasks that
never end, and report what else they are given as done, at once and with no worker. Clients wait for a number of
seconds on standard input; for so long each submits a task, waits for its result, and does that again; then the
milliseconds of all these trips are told, as JSON. A client asks for the outcome when its submit was acknowledged.
"""

import argparse
import json
import os
import random
import resource
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from time import perf_counter_ns, time_ns
from typing import TYPE_CHECKING, TypeVar

import programs
import trio

from taskd.agent.connect import connector
from taskd.agent.platform import Connect
from taskd.client.profile import resolve
from taskd_protocol.agent_messages import Ack, Heartbeat, HostStats, Lease, LeaseCredit, Offer, Offered
from taskd_protocol.connection import Connection, UnknownMessage, peer_side
from taskd_protocol.connection_messages import Error, Hello, Welcome
from taskd_protocol.ids import RANDOM_BYTES_PER_TASK_ID, make_task_ids
from taskd_protocol.limits import PROTOCOL_VERSION_MAX, PROTOCOL_VERSION_MIN
from taskd_protocol.messages import Accepted, OutcomeCredit, Outcomes, Submit, ToPeer, ToServer, Wait
from taskd_protocol.payload import pack, pack_arguments
from taskd_protocol.resources import CPU, MEMORY, Supply
from taskd_protocol.task import Pool, Report, TaskSpec

if TYPE_CHECKING:
    from taskd_protocol.task import Grant

PROGRAMS = 2
CONNECT_WITHIN_S = 180.0
TRIPS_WITHIN_S = 60.0
CONNECTING = 50
"""At once, of one program: the server lets 128 of one address be unauthenticated."""
SLOTS = 8
HELD = "bench.held"
"""A task that no agent ever ends."""
DONE = "bench.done"
"""A task that ends at once."""
NOOP = "bench_tasks.noop"
RESULT = pack(0)
CREDIT = 64
"""Outcomes after which a client gives credit back."""

MessageT = TypeVar("MessageT", bound=ToPeer)


class Peer:
    """One connection."""

    def __init__(self, name: str, token: str, connect: Connect) -> None:
        self.name = name
        self._token = token
        self._connect = connect
        self._wire: Connection[ToPeer] = peer_side()
        self._stream: trio.abc.Stream

    async def greet(self, role: str) -> None:
        """Connect, and be known."""
        self._stream = await self._connect()
        boot_id = random.randbytes(16) if role == "agent" else b""  # noqa: S311
        versions = PROTOCOL_VERSION_MIN, PROTOCOL_VERSION_MAX
        await self.send(Hello(*versions, role, self._token, name=self.name, boot_id=boot_id, software="bench"))
        await self.hear(Welcome)

    async def send(self, *messages: ToServer) -> None:
        """Send these."""
        for message in messages:
            self._wire.send(message)
        while data := self._wire.data_to_send():
            await self._stream.send_all(data)

    async def receive(self) -> list[ToPeer | UnknownMessage]:
        """Return what comes next.

        Raises:
            SystemExit: The server refused something, or hung up.
        """
        data = await self._stream.receive_some()
        if not data:
            sys.exit(f"{self.name}: the server hung up")
        messages = self._wire.receive(bytes(data))
        for message in messages:
            if isinstance(message, Error):
                sys.exit(f"{self.name}: {message.message}")
        return messages

    async def hear(self, wanted: type[MessageT]) -> MessageT:
        """Return the next message of this type; what comes with it is of no use."""
        while True:
            for message in await self.receive():
                if isinstance(message, wanted):
                    return message


class Agent(Peer):
    """An agent without workers."""

    def __init__(
        self, name: str, token: str, connect: Connect, *, beat_s: float, held: int = 0, window: int = 0
    ) -> None:
        super().__init__(name, token, connect)
        self._beat_s = beat_s
        self._held = held
        self._window = window
        self._tokens: list[int] = []
        self._lease_number = 0

    async def run(self, connecting: trio.CapacityLimiter, task_status: trio.TaskStatus[None]) -> None:
        """Connect, offer, ask for what it is to hold or to do, and go on for ever."""
        async with connecting:
            await self.greet("agent")
            supplies = [Supply(CPU, SLOTS * 1_000), Supply(MEMORY, SLOTS << 30)]
            pool = Pool("process", max(SLOTS, self._window), [HELD, *([DONE] if self._window else [])])
            await self.send(Offer([pool], labels={"zone": "a"}, supplies=supplies))
            await self.hear(Offered)
        if self._held or self._window:
            await self.send(LeaseCredit(0, self._held + self._window))
        task_status.started()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._beat)
            while True:
                for message in await self.receive():
                    if isinstance(message, Lease):
                        self._lease_number = message.number
                        await self._take(message.grants)

    async def _take(self, grants: "list[Grant]") -> None:
        self._tokens += [grant.token for grant in grants if grant.spec.name == HELD]
        now_ms = time_ns() // 1_000_000
        done = [
            Report(grant.token, grant.spec.id, grant.attempt, RESULT, now_ms)
            for grant in grants
            if grant.spec.name == DONE
        ]
        if done:
            await self.send(Ack(done), LeaseCredit(0, len(done)))

    async def _beat(self) -> None:
        number = 0
        await trio.sleep(random.uniform(0, self._beat_s))  # noqa: S311 - as agents that started at different times
        while True:
            number += 1
            host = HostStats(random.uniform(0, 100), 1 << 30, 8 << 30, 100, 1 << 28)  # noqa: S311
            await self.send(Heartbeat(number, self._lease_number, self._tokens, host))
            await trio.sleep(self._beat_s)


class Client(Peer):
    """A client that asks for one thing after another."""

    async def run(self, connecting: trio.CapacityLimiter, task_status: trio.TaskStatus["Client"]) -> None:
        """Connect."""
        async with connecting:
            await self.greet("client")
        task_status.started(self)

    async def trips(self, until: float, spent_ms: list[float]) -> None:
        """Submit a task and wait for its result, again and again."""
        payload, number = pack_arguments((0,), {}), 0
        while trio.current_time() < until:
            began = perf_counter_ns()
            ids: list[bytes] = list(make_task_ids(1, time_ns() // 1_000_000, os.urandom(RANDOM_BYTES_PER_TASK_ID)))
            await self.send(Submit(2 * number + 1, [TaskSpec(ids[0], NOOP, payload)]))
            await self.hear(Accepted)
            await self.send(Wait(2 * number + 2, ids))
            [outcome] = (await self.hear(Outcomes)).outcomes
            assert outcome.state == "succeeded", outcome
            spent_ms.append((perf_counter_ns() - began) / 1e6)
            number += 1
            if number % CREDIT == 0:
                await self.send(OutcomeCredit(CREDIT))


async def be_agents(make: Callable[[int], Agent], count: int) -> None:
    """Be so many agents, for ever; say so when all are there."""
    connecting = trio.CapacityLimiter(CONNECTING)
    async with trio.open_nursery() as nursery:
        async with trio.open_nursery() as starting:
            for number in range(count):
                starting.start_soon(nursery.start, make(number).run, connecting)
        print("connected", flush=True)


async def be_clients(make: Callable[[int], Client], count: int) -> None:
    """Be so many clients; say so when all are there, and have them work for as long as is said."""
    connecting = trio.CapacityLimiter(CONNECTING)
    clients = [make(number) for number in range(count)]
    async with trio.open_nursery() as nursery:
        for client in clients:
            nursery.start_soon(nursery.start, client.run, connecting)
    print("connected", flush=True)
    seconds = float(await trio.to_thread.run_sync(sys.stdin.readline))
    spent_ms: list[float] = []
    async with trio.open_nursery() as nursery:
        for client in clients:
            nursery.start_soon(client.trips, trio.current_time() + seconds, spent_ms)
    print(json.dumps(spent_ms), flush=True)


def start(stack: ExitStack, directory: Path, kind: str, count: int, *arguments: str) -> list[subprocess.Popen[bytes]]:
    """Start the programs that are so many peers; come back when all are connected."""
    shares = [count // PROGRAMS + (number < count % PROGRAMS) for number in range(PROGRAMS)]
    started = []
    for number, share in enumerate(share for share in shares if share):
        argv = [sys.executable, __file__, kind, "--name", f"{kind}-{count}-{number}", "--count", str(share), *arguments]
        log = directory / f"{kind}-{number}.log"
        started.append(stack.enter_context(programs.program(argv, log, heard=True, spoken=kind == "clients")))
    for program in started:
        programs.line(program, CONNECT_WITHIN_S)
    return started


def trips(clients: list[subprocess.Popen[bytes]], seconds: float) -> list[float]:
    """Have all clients of these programs make trips for so long; return the milliseconds of each."""
    for program in clients:
        assert program.stdin
        program.stdin.write(f"{seconds}\n".encode())
        program.stdin.flush()
    told: list[list[float]] = [json.loads(programs.line(program, seconds + TRIPS_WITHIN_S)) for program in clients]
    return [spent_ms for each in told for spent_ms in each]


def main() -> None:
    """Be what is asked for."""
    parser = argparse.ArgumentParser(description="Simulated peers.")
    parser.add_argument("kind", choices=("agents", "clients"))
    parser.add_argument("--name", required=True, help="of all of them; each has a number, too")
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--beat", type=float, default=5.0, help="seconds between an agent's heartbeats")
    parser.add_argument("--held", type=int, default=0, help="leases that an agent holds for ever")
    parser.add_argument("--window", type=int, default=0, help="leases that an agent can take and end at once")
    options = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    profile = resolve(None)
    connect = connector(profile)

    def client(number: int) -> Client:
        return Client(f"{options.name}-{number}", profile.token, connect)

    def agent(number: int) -> Agent:
        token = profile.agent_token or profile.token
        name = f"{options.name}-{number}"
        return Agent(name, token, connect, beat_s=options.beat, held=options.held, window=options.window)

    if options.kind == "agents":
        trio.run(partial(be_agents, agent, options.count))
    else:
        trio.run(partial(be_clients, client, options.count))


if __name__ == "__main__":
    main()
