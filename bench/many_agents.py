"""Thousands of agents that are connected and do nothing but say so: what their heartbeats cost the server.

    python bench/many_agents.py [--agents N] [--beat S] [--held N] [--seconds N] [--no-tls] [--json]

The server is as shipped. The agents are two programs that speak the protocol through taskd's own TLS stream and
sans-IO connection, each agent on a connection of its own, and say what they hold of leases that never end. Each
beats in its own time; a client's round trips beside them, through an agent of the usual kind, tell of the latency.
"""

import argparse
import json
import os
import random
import resource
import shutil
import sys
import tempfile
import time
from contextlib import ExitStack, closing
from pathlib import Path
from time import perf_counter_ns
from typing import TYPE_CHECKING

import cases
import measure
import programs
import psutil
import trio

from taskd.agent.connect import connector
from taskd.agent.platform import Connect
from taskd.client import Client
from taskd.client.profile import resolve
from taskd_protocol.agent_messages import Heartbeat, HostStats, Lease, LeaseCredit, Offer, Offered
from taskd_protocol.connection import Connection, peer_side
from taskd_protocol.connection_messages import Error, Hello
from taskd_protocol.ids import RANDOM_BYTES_PER_TASK_ID, make_task_ids
from taskd_protocol.limits import PROTOCOL_VERSION_MAX, PROTOCOL_VERSION_MIN
from taskd_protocol.resources import CPU, MEMORY, Supply
from taskd_protocol.task import Pool, TaskSpec

if TYPE_CHECKING:
    from taskd_protocol.messages import ToPeer

PROGRAMS = 2
CONNECTING = 50
"""At once, of one program: the server lets 128 of one address be unauthenticated."""
CONNECT_WITHIN_S = 180.0
SETTLE_S = 10.0
TRIPS = 500
SLOTS = 8
HELD = "bench.held"
"""A task that no agent ever ends."""


class Agent:
    """One connection."""

    def __init__(self, name: str, token: str, connect: Connect, *, beat_s: float, held: int) -> None:
        self._name = name
        self._token = token
        self._connect = connect
        self._beat_s = beat_s
        self._held = held
        self._wire: Connection[ToPeer] = peer_side()
        self._tokens: list[int] = []
        self._lease_number = 0
        self._offered = False

    async def run(self, connecting: trio.CapacityLimiter, task_status: trio.TaskStatus[None]) -> None:
        """Connect, offer, ask for what it is to hold, and beat for ever."""
        async with connecting:
            stream = await self._connect()
            self._wire.send(
                Hello(
                    PROTOCOL_VERSION_MIN,
                    PROTOCOL_VERSION_MAX,
                    "agent",
                    self._token,
                    name=self._name,
                    boot_id=random.randbytes(16),  # noqa: S311
                    software="bench",
                )
            )
            await self._send(stream)
            await self._hear(stream)
            supplies = [Supply(CPU, SLOTS * 1_000), Supply(MEMORY, SLOTS << 30)]
            pool = Pool("process", SLOTS, [HELD])
            self._wire.send(Offer([pool], labels={"zone": "a"}, supplies=supplies))
            await self._send(stream)
            while not self._offered:
                await self._hear(stream)
        if self._held:
            self._wire.send(LeaseCredit(0, self._held))
            await self._send(stream)
        task_status.started()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._beat, stream)
            while True:
                await self._hear(stream)

    async def _beat(self, stream: trio.abc.Stream) -> None:
        number = 0
        await trio.sleep(random.uniform(0, self._beat_s))  # noqa: S311 - as agents that started at different times
        while True:
            number += 1
            host = HostStats(random.uniform(0, 100), 1 << 30, 8 << 30, 100, 1 << 28)  # noqa: S311
            self._wire.send(Heartbeat(number, self._lease_number, self._tokens, host))
            await self._send(stream)
            await trio.sleep(self._beat_s)

    async def _send(self, stream: trio.abc.Stream) -> None:
        while data := self._wire.data_to_send():
            await stream.send_all(data)

    async def _hear(self, stream: trio.abc.Stream) -> None:
        data = await stream.receive_some()
        if not data:
            sys.exit(f"{self._name}: the server hung up")
        for message in self._wire.receive(bytes(data)):
            if isinstance(message, Error):
                sys.exit(f"{self._name}: {message.message}")
            if isinstance(message, Offered):
                self._offered = True
            elif isinstance(message, Lease):
                self._lease_number = message.number
                self._tokens += [grant.token for grant in message.grants]


def be_agents(options: argparse.Namespace) -> None:
    """Be a share of the agents; say so when all are there."""
    profile = resolve(None)
    connect, token = connector(profile), profile.agent_token or profile.token

    async def main() -> None:
        connecting = trio.CapacityLimiter(CONNECTING)
        async with trio.open_nursery() as nursery:
            async with trio.open_nursery() as starting:
                for number in range(options.agents):
                    agent = Agent(f"{options.be}-{number}", token, connect, beat_s=options.beat, held=options.held)
                    starting.start_soon(nursery.start, agent.run, connecting)
            print("connected", flush=True)

    trio.run(main)


def run(directory: Path, options: argparse.Namespace) -> measure.Facts:
    """Measure the server with no agent but one, then with all of them."""
    with ExitStack() as stack:
        running = stack.enter_context(cases.cluster(directory, tls=not options.no_tls, agents=[()]))
        server = psutil.Process(running.servers[-1].pid)
        alone = watch(server, options.seconds)
        memory_alone = server.memory_info().rss
        if options.held:
            submit_held(options.agents * options.held + 1_000)
        began = time.monotonic()
        connect_all(stack, directory, options)
        connected_s = time.monotonic() - began
        cases.wait_for_agents(1 + options.agents)
        time.sleep(SETTLE_S)
        with_all = watch(server, options.seconds)
        cases.wait_for_agents(1 + options.agents)  # none was lost
        return {
            "agents": options.agents,
            "beat_s": options.beat,
            "held_each": options.held,
            "connected_s": connected_s,
            "alone": alone,
            "with_all": with_all,
            "memory_kib_each": (server.memory_info().rss - memory_alone) / 1024 / options.agents,
        }


def connect_all(stack: ExitStack, directory: Path, options: argparse.Namespace) -> None:
    """Start the programs, and wait until their agents are connected."""
    started = []
    for number in range(PROGRAMS):
        argv = [sys.executable, __file__, "--be", f"many-{number}", "--agents", str(options.agents // PROGRAMS)]
        argv += ["--beat", str(options.beat), "--held", str(options.held)]
        started.append(stack.enter_context(programs.program(argv, directory / f"many-{number}.log", heard=True)))
    for program in started:
        programs.line(program, CONNECT_WITHIN_S)


def submit_held(count: int) -> None:
    """Submit tasks that never end."""
    with closing(Client()) as client:
        for start in range(0, count, 10_000):
            many = min(10_000, count - start)
            ids = make_task_ids(many, time.time_ns() // 1_000_000, os.urandom(many * RANDOM_BYTES_PER_TASK_ID))
            client.submit([TaskSpec(task_id, HELD) for task_id in ids])


def watch(server: psutil.Process, seconds: int) -> measure.Facts:
    """Return what the server uses of a core while nothing is asked of it, and then how quick it is."""
    import bench_tasks  # noqa: PLC0415 - looks for the profile

    before, began = measure.cpu_ns({"server": [server.pid]}), perf_counter_ns()
    time.sleep(seconds)
    used = measure.cpu_ns({"server": [server.pid]})["server"] - before["server"]
    percent = 100 * used / (perf_counter_ns() - began)
    trips: list[float] = []
    for number in range(TRIPS):
        began = perf_counter_ns()
        assert bench_tasks.noop.submit(number).result(timeout=60) == number
        trips.append((perf_counter_ns() - began) / 1e6)
    return {
        "percent_of_a_core": percent,
        "trip_p50_ms": measure.quantile(trips, 0.5),
        "trip_p99_ms": measure.quantile(trips, 0.99),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Many agents, measured.")
    parser.add_argument("--agents", type=int, default=2_000)
    parser.add_argument("--beat", type=float, default=3.0, help="seconds between heartbeats")
    parser.add_argument("--held", type=int, default=4, help="leases of each")
    parser.add_argument("--seconds", type=int, default=15, help="to look at the server's CPU")
    parser.add_argument("--no-tls", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--data-dir", type=Path, default=Path("build/bench"), help="on a real disk")
    parser.add_argument("--be", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    if options.be:
        be_agents(options)
        return
    options.data_dir.mkdir(parents=True, exist_ok=True)
    directory = Path(tempfile.mkdtemp(prefix="agents-", dir=options.data_dir)).resolve()
    facts = run(directory, options)
    shutil.rmtree(directory)  # kept when something went wrong: the logs are in it
    print(json.dumps(facts) if options.json else measure.in_words(facts))


if __name__ == "__main__":
    main()
