"""Campaign c1: many seeds, each a run of its own."""

import gc
import logging
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from unittest import mock

import structlog
import trio

from campaigns.report import Found, Report, current_commit
from harness.world import SMALL
from simulation.clock import WALL_MS, Alarms, jumping_clock
from simulation.lives import Stepping, is_dead_here
from simulation.plan import Mode, make_plan
from simulation.world import World
from taskd.server.certificates import Certificates, open_certificates

SMALL_AGENTS = {"taskd.client.family.TASKS_TOLD": 2}
"""Bounds of agents and their workers that are small where those of the core are."""

SMALL_AUDIENCE = {
    "taskd.server.onlooker.BYTES_MAX": 20_000,
    "taskd.server.bus.PENDING_MAX": 5,
    "taskd.server.bus.PAGE_IDS_MAX": 10,
    "taskd.server.journal.RECENT_TASKS_MAX": 20,
    "taskd.server.journal.PAGE": 3,
}
"""Likewise, of what is kept for who looks on."""


def run_campaign(seeds: Iterable[int], mode: Mode | None = None) -> Report:
    """Run these seeds, each in the mode asked for or in its own; return what came of them."""
    report = Report(commit=current_commit())
    for seed in seeds:
        began_s = time.perf_counter()
        run_seed(seed, report, mode)
        report.seeds.append(seed)
        report.wall_s += time.perf_counter() - began_s
    return report


def play(case: int, _home: Path, found: Found) -> None:
    """Run the seed of that number; see ``campaigns``."""
    run_seed(case, found)


def run_seed(seed: int, found: Found, mode: Mode | None = None, tell: Callable[[str], None] | None = None) -> str:
    """Run one seed.

    Args:
        seed: What everything that is left to chance is drawn from.
        found: Where to note what came of it.
        mode: None: the seed's own.
        tell: Told all that happens, line by line.

    Returns:
        The digest of the trace.
    """
    plan = make_plan(seed, mode)
    result = Found()
    worlds: list[World] = []
    alarms = Alarms()

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            world = World(plan, result, alarms=alarms, certificates=make_certificates(), nursery=nursery, tell=tell)
            worlds.append(world)
            await world.run(nursery)
            nursery.cancel_scope.cancel()

    with (
        determined(plan.seed, alarms, small=plan.small),
        uncollected(),
        _watched_logs(worlds, logging.WARNING if tell is None else logging.INFO),
    ):
        trio.run(main, clock=jumping_clock(alarms), instruments=[Stepping()])
    found.add(result)
    return worlds.pop().trace.digest()


@contextmanager
def determined(seed: int, alarms: Alarms, *, small: bool = False) -> Iterator[None]:
    """Have trio choose by the seed, and make the core's bounds small if asked to."""
    with ExitStack() as patches:
        patches.enter_context(mock.patch.object(trio._core._run, "_ALLOW_DETERMINISTIC_SCHEDULING", new=True))
        patches.enter_context(mock.patch.object(trio, "sleep", alarms.sleep))
        if small:
            for where, bound in [*SMALL.items(), *SMALL_AGENTS.items(), *SMALL_AUDIENCE.items()]:
                patches.enter_context(mock.patch(where, bound))
        trio._core._run._r.seed(seed)
        yield


@contextmanager
def uncollected() -> Iterator[None]:
    """Have garbage collected when the run is over: in its midst it takes a tenth of the time, and hits anywhere."""
    gc.freeze()  # modules are no garbage, nor is what a run before has left on purpose
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.collect()


@contextmanager
def _watched_logs(worlds: list[World], level: int) -> Iterator[None]:
    """Keep logs to ourselves; what a server says of itself is looked at."""

    def look(_logger: object, _method: str, event: structlog.types.EventDict) -> structlog.types.EventDict:
        for world in worlds if not is_dead_here() else ():
            world.trace.say("log:", event)
            if event["event"] == "connection_failed":
                world.violated("crash", f"a session failed: {event}")
            elif event["event"] == "agent lost":
                world.lost(event["agent"])
            elif event["event"] == "agent in quarantine":
                world.quarantined.add(event["agent"])
                world.put_away.add(event["agent"])
                world.reach("an agent put in quarantine")
        raise structlog.DropEvent

    before = structlog.get_config()
    structlog.configure(processors=[look], wrapper_class=structlog.make_filtering_bound_logger(level))
    try:
        yield
    finally:
        structlog.configure(**before)


@cache
def make_certificates() -> Certificates:
    """Make certificates, which nothing here uses: no TLS is spoken."""
    with tempfile.TemporaryDirectory() as folder:
        return open_certificates(Path(folder), ["localhost"], WALL_MS)
