"""The agent: core, executors and link put together, from start to end.

Nursery tree: the agent's nursery holds the link, who keeps commit marks, the end that signals ask for, and
one task per executor, each with its own nursery of seats, workers' pipes or commands.
"""

import gc
import random
import secrets
import signal
from typing import TYPE_CHECKING

import structlog
import trio

from taskd.agent.clock import SystemClock
from taskd.agent.config import OWN_LABELS, AgentConfig
from taskd.agent.connect import connector
from taskd.agent.core import AgentCore
from taskd.agent.executors import Executor
from taskd.agent.executors.command import CommandExecutor
from taskd.agent.executors.coroutine import CoroutineExecutor
from taskd.agent.executors.process import ProcessExecutor
from taskd.agent.executors.seat import Hand, hire_first
from taskd.agent.gathering import Rule
from taskd.agent.host import Host, oom_kills
from taskd.agent.kin import memory_of
from taskd.agent.link import FINAL, ServerLink
from taskd.agent.platform import Platform
from taskd.agent.publishing import publish
from taskd.agent.spawner import open_spawner
from taskd.agent.streams import MARKS_BYTES, Bounds
from taskd.agent.supplies import find_machine, supplies
from taskd.client.marks import KEEP_EVERY_S, MarkKeeper
from taskd_protocol.errors import ConfigInvalid, TaskdError
from taskd_protocol.handshake import BOOT_ID_BYTES
from taskd_protocol.resources import ONE
from taskd_protocol.task import COMMAND_NAME, Pool

if TYPE_CHECKING:
    from taskd_protocol.limiting import Limit
    from taskd_protocol.schedule import Schedule

log = structlog.get_logger("taskd.agent")

RECORD_S = 5.0
"""At the end, for the server to record the last reports; what it has not, it will run again."""

CLOSE_S = 5.0
"""At the end, for workers to leave by themselves, with what user code does at exit."""

GC_THRESHOLD = 50_000
"""Objects between two collections of the youngest generation: leases and reports hold no cycles, so that looking for
them at Python's 700 finds nothing and costs a tenth of the agent's time."""


class Agent:
    """One agent, from its start until it is asked to go."""

    def __init__(self, config: AgentConfig, platform: Platform) -> None:
        self._config = config
        self._platform = platform
        self._asked = trio.Event()
        self._hurry = False
        self._link: ServerLink | None = None
        self._failure: TaskdError | None = None
        self._core: AgentCore | None = None
        self._executors: list[Executor] = []
        self._schedules: dict[str, list[Schedule]] = {}
        self._limits: dict[str, list[Limit]] = {}
        self._version = config.code_version
        self._python = ""  # of the workers
        self._together: dict[str, Rule] = {}

    def drain(self) -> None:
        """Finish what runs, within its grace, give back what has not started, and go."""
        self._asked.set()

    def stop(self) -> None:
        """Go now: what runs is killed and given back."""
        self._hurry = True
        self._asked.set()
        if self._link is not None:
            self._link.ring()

    async def run(self) -> None:
        """Work until asked to go.

        Raises:
            ConfigInvalid: A module cannot be imported, or there is no task in any.
            TaskdError: The server refuses this agent.
        """
        config = self._config
        hand: Hand | None = None
        names: dict[bool, list[str]] = {False: [], True: []}
        if config.modules:
            hand, names = await self._first_worker()
        pools = [Pool(kind, slots, known) for kind, slots, known in self._pools(names) if known]
        machine, start_ms = self._platform.machine, self._platform.clock.mono_ns() // 1_000_000
        core = self._core = AgentCore(
            pools,
            queues=config.queues,
            labels={**config.labels, **self._own_labels()},
            supplies=supplies(machine, config.resources, cpus=config.cpus, memory_bytes=config.memory_bytes),
            life_until_ms=start_ms + config.life_ms if config.life_ms else 0,
            pinned=machine.cpu_numbers if config.pin_cpus else (),
            bounds=Bounds(config.log_rate_bytes, config.log_bytes - MARKS_BYTES),
        )
        core.reports.traces_all = config.tells_all
        for slots in core.pools:
            slots.gathering.rules = self._together
        marks = MarkKeeper(config.server)
        core.mark = marks.read()
        link = self._link = ServerLink(
            self._platform,
            core,
            self._executors,
            name=config.agent_name,
            token=config.server.token,
            drain=self.drain,
        )
        for index, pool in enumerate(pools):
            self._executors.append(self._executor(core, index, pool, hand, link))
            hand = None
        log.info("agent", name=config.agent_name, tasks=len(names[False]) + len(names[True]), workers=config.slots)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._connect, link)
            nursery.start_soon(link.watch)
            nursery.start_soon(link.hand_on)
            nursery.start_soon(link.gather)
            nursery.start_soon(_keep_marks, marks, core)
            nursery.start_soon(publish, config.client, self._schedules, self._limits)
            async with trio.open_nursery() as executors:
                for executor in self._executors:
                    executors.start_soon(executor.run)
                await self._asked.wait()
                await self._go(link)
                executors.cancel_scope.deadline = trio.current_time() + CLOSE_S
            nursery.cancel_scope.cancel()
        marks.keep_last(core.mark)
        if self._failure is not None:
            raise self._failure

    async def _first_worker(self) -> tuple[Hand, dict[bool, list[str]]]:
        """Start a worker to learn what tasks there are."""
        hand, ready = await hire_first(self._platform)
        if ready.error:
            hand.process.close()
            raise ConfigInvalid(ready.error)
        if not ready.tasks:
            hand.process.close()
            modules = ", ".join(self._config.modules)
            raise ConfigInvalid(
                f"no tasks in {modules}: name the modules that hold a taskd.App and its @app.task functions"
            )
        self._schedules, self._limits = ready.schedules, ready.limits
        self._together = {task.name: Rule(task.batch, task.wait_ms) for task in ready.tasks if task.batch}
        self._python = ready.python
        self._version = self._config.code_version or next(iter(ready.versions), "")
        if len(ready.versions) > 1 and not self._config.code_version:
            hand.process.close()
            versions = " and ".join(map(repr, ready.versions))
            raise ConfigInvalid(f"the modules say that they are versions {versions}: say which, --code-version V")
        names = {kind: [task.name for task in ready.tasks if task.is_async is kind] for kind in (False, True)}
        return hand, names

    def _own_labels(self) -> dict[str, str]:
        """Return the labels that every agent has; no version where none was said."""
        machine = self._platform.machine
        labels = {
            "agent": self._config.agent_name,
            "host": machine.host,
            "version": self._version,
            "python": self._python or machine.python,
            "arch": machine.arch,
        }
        return {OWN_LABELS + name: value for name, value in labels.items() if value}

    def _pools(self, names: dict[bool, list[str]]) -> list[tuple[str, int, list[str]]]:
        config = self._config
        return [
            ("process", config.slots, names[False]),
            ("async", config.concurrency, names[True]),
            ("command", config.slots, [COMMAND_NAME]),
        ]

    def _executor(self, core: AgentCore, index: int, pool: Pool, hand: Hand | None, link: ServerLink) -> Executor:
        platform = self._platform
        if pool.kind == "process":
            return ProcessExecutor(platform, core, index, first=hand, ring=link.ring)
        if pool.kind == "async":
            return CoroutineExecutor(platform, core, index, loop=self._config.loop, first=hand, ring=link.ring)
        return CommandExecutor(platform, core, index, ring=link.ring)

    async def _connect(self, link: ServerLink) -> None:
        try:
            await link.run()
        except FINAL as refusal:
            self._failure = refusal
            self.stop()

    async def _go(self, link: ServerLink) -> None:
        """End in good order, in bounded time."""
        core = self._core
        assert core is not None
        core.drain()
        for executor in self._executors:
            await executor.recall()
        core.drain()
        if not self._hurry:
            log.info("draining", running=core.held)
        link.ring()
        with trio.move_on_after(self._config.drain_s):
            await link.until(lambda: not core.held or self._hurry)
        for executor in self._executors:
            executor.stop()
        with trio.move_on_after(CLOSE_S):
            await link.until(lambda: not core.held)
        for executor in self._executors:
            executor.close()
        link.ring()
        with trio.move_on_after(RECORD_S if link.connected else 0):
            await link.until(lambda: not core.reports.unrecorded)
        log.info("agent_gone", unrecorded=len(core.reports.unrecorded), held=core.held)


async def _keep_marks(marks: MarkKeeper, core: AgentCore) -> None:
    """Have the next process of this user know how far the server had come, should this one be killed."""
    while True:
        await trio.sleep(KEEP_EVERY_S)
        marks.keep(core.mark, trio.current_time())


async def run_agent(config: AgentConfig) -> None:
    """Run an agent on the real machine until SIGTERM, SIGINT, or the server asks it to go.

    The first signal drains, the second stops at once.

    Raises:
        ConfigInvalid: A setting is wrong, or a module cannot be imported.
        TaskdError: The server refuses this agent.
    """
    config.check()
    gc.freeze()  # what was imported: the first look at all of it took 13 to 18 ms, in the midst of work
    gc.set_threshold(GC_THRESHOLD)
    connect = connector(config.server)
    async with open_spawner(config.worker_argv() if config.modules else []) as spawner:
        machine = find_machine()
        platform = Platform(
            clock=SystemClock(),
            rng=random.Random(secrets.randbits(64)),  # noqa: S311 - jitter is no secret
            boot_id=secrets.token_bytes(BOOT_ID_BYTES),
            connect=connect,
            spawner=spawner,
            machine=machine,
            host_stats=Host(
                spawner.kin.use,
                spare_cpu=max(0, machine.cpus - round(config.cpus * ONE)) if config.cpus else 0,
                spare_bytes=max(0, machine.memory_bytes - config.memory_bytes) if config.memory_bytes else 0,
            ).stats,
            memory_of=memory_of,
            oom_kills=oom_kills,
        )
        agent = Agent(config, platform)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_obey_signals, agent)
            failure = await _outcome(agent)
            nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure


async def _outcome(agent: Agent) -> TaskdError | None:
    try:
        await agent.run()
    except TaskdError as error:
        return error
    return None


async def _obey_signals(agent: Agent) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for _ in signals:
            agent.drain()
            break
        async for _ in signals:
            agent.stop()
