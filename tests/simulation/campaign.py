"""A campaign: many seeds, one after another, and the report of what came of them."""

import gc
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from unittest import mock

import structlog
import trio

from harness.world import SMALL
from simulation.clock import WALL_MS, jumping_clock
from simulation.lives import Stepping
from simulation.plan import Mode, Plan, make_plan
from simulation.report import Report
from simulation.world import Result, World
from taskd.server.certificates import Certificates, open_certificates

ROOT = Path(__file__).parent.parent.parent


def run_campaign(seeds: Iterable[int], mode: Mode | None = None) -> Report:
    """Run these seeds, each in the mode asked for or in its own; return what came of them."""
    began_s, began_cpu_s = time.perf_counter(), time.process_time()
    report = Report()
    for seed in seeds:
        report.add(run_seed(seed, mode))
    report.wall_s = time.perf_counter() - began_s
    report.cpu_s = time.process_time() - began_cpu_s
    return report


def run_seed(seed: int, mode: Mode | None = None, tell: Callable[[str], None] | None = None) -> Result:
    """Run one seed; ``tell`` is told all that happens, line by line."""
    return run_plan(make_plan(seed, mode), tell)


def run_plan(plan: Plan, tell: Callable[[str], None] | None = None) -> Result:
    """Run what was planned."""
    worlds: list[World] = []

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            world = World(plan, _certificates(), nursery, tell)
            worlds.append(world)
            await world.run(nursery)
            nursery.cancel_scope.cancel()

    with _determined(plan), _watched_logs(worlds):
        try:
            trio.run(main, clock=jumping_clock(), instruments=[Stepping()])
        finally:
            gc.collect()
    return worlds[0].result


@contextmanager
def _determined(plan: Plan) -> Iterator[None]:
    """Have trio choose by the seed, and make the core's bounds small if the plan says so."""
    with ExitStack() as patches:
        patches.enter_context(mock.patch.object(trio._core._run, "_ALLOW_DETERMINISTIC_SCHEDULING", new=True))
        if plan.small:
            for where, bound in SMALL.items():
                patches.enter_context(mock.patch(where, bound))
        trio._core._run._r.seed(plan.seed)
        yield


@contextmanager
def _watched_logs(worlds: list[World]) -> Iterator[None]:
    """Keep logs to ourselves; an error that the server logs about itself is a find."""

    def look(_logger: object, _method: str, event: structlog.types.EventDict) -> structlog.types.EventDict:
        if event.get("event") == "connection_failed" and worlds:
            worlds[0].violated("crash", f"a session failed: {event}")
        raise structlog.DropEvent

    before = structlog.get_config()
    structlog.configure(processors=[look], wrapper_class=structlog.make_filtering_bound_logger(40))
    try:
        yield
    finally:
        structlog.configure(**before)


@cache
def _certificates() -> Certificates:
    """Make certificates, which nothing here uses: no TLS is spoken."""
    with tempfile.TemporaryDirectory() as folder:
        return open_certificates(Path(folder), ["localhost"], WALL_MS)
