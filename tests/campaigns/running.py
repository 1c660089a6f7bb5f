"""Has the cases of a campaign played by processes of their own, and writes down what they come to.

A case that does not end in its time, or takes its process with it, is a violation as any other.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field

import msgspec
import psutil
import trio

from campaigns.catalogue import Campaign
from campaigns.report import ROOT, Found, Report, read_report, write_report

STOP_SECONDS = 20.0
"""For a case that is interrupted to put away what it started."""

TOLD_SECONDS = 20.0
"""Between two lines about how far it is."""


def run_anew(name: str, campaign: Campaign, numbers: Iterable[int], *, at_once: int = 1) -> Report:
    """Play cases whatever is known; the report is written unless there is one that knows more."""
    before = read_report(name)
    numbers = list(numbers)
    report = Report(commit=before.commit)
    return _Round(name, campaign, report, numbers, writes=set(before.seeds) <= set(numbers)).play(at_once)


def run_cases(
    name: str,
    campaign: Campaign,
    numbers: Iterable[int],
    *,
    seconds: float = float("inf"),
    until_broken: bool = False,
    at_once: int = 1,
    tell: Callable[[str], None] = lambda _line: None,
) -> Report:
    """Play cases until all are played or the time is over; return what is known of the commit now.

    Args:
        name: Of the campaign, and so of its report.
        campaign: How it is played.
        numbers: Which; those that the report knows already are not played again.
        seconds: No case begins later.
        until_broken: None is played after one that has broken a promise.
        at_once: So many at the same time.
        tell: Told now and then how far it is.
    """
    report = read_report(name)
    left = sorted(set(numbers) - set(report.seeds))
    played = _Round(name, campaign, report, left, seconds=seconds, until_broken=until_broken, tell=tell)
    return played.play(at_once)


@dataclass
class _Round:
    """Cases of a campaign that are played now."""

    name: str
    campaign: Campaign
    report: Report
    numbers: list[int]
    writes: bool = True
    seconds: float = float("inf")
    until_broken: bool = False
    tell: Callable[[str], None] = lambda _line: None
    _left: Iterator[int] = field(init=False)
    _began_s: float = field(default_factory=time.perf_counter)
    _told_s: float = field(default_factory=time.perf_counter)
    _ended_count: int = 0

    def play(self, at_once: int) -> Report:
        """Play them, so many at the same time."""
        self._left = iter(self.numbers)
        if self.numbers:
            trio.run(self._play_all, min(at_once, len(self.numbers)))
        return self.report

    async def _play_all(self, at_once: int) -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(at_once):
                nursery.start_soon(self._play_some)

    async def _play_some(self) -> None:
        player: _Player | None = None
        try:
            while (number := self._next()) is not None:
                if player is None:
                    player = await _Player.start(self.name, self.campaign)
                began_s = time.perf_counter()
                found = await player.play(number)
                self._note(number, found, time.perf_counter() - began_s)
                if player.is_over:
                    player = None
        finally:
            if player is not None:
                await player.close()

    def _next(self) -> int | None:
        """Return the case that is to be played now, if one is."""
        if time.perf_counter() - self._began_s > self.seconds or (self.until_broken and self.report.violations):
            return None
        return next(self._left, None)

    def _note(self, number: int, found: Found, took_s: float) -> None:
        again = f"make prove CAMPAIGN={self.name} FROM={number} TO={number}"
        found.violations = [f"case {number}: {violation} | {again}" for violation in found.violations]
        self.report.add(found)
        self.report.seeds.append(number)
        self.report.wall_s += took_s
        self._ended_count += 1
        if self.writes:
            write_report(self.name, self.report)
        for violation in found.violations:
            self.tell(f"{self.name}: {violation}")
        now_s = time.perf_counter()
        if now_s - self._told_s > TOLD_SECONDS:
            self._told_s = now_s
            left_s = (now_s - self._began_s) / self._ended_count * (len(self.numbers) - self._ended_count)
            broken = f", {len(self.report.violations)} promises broken" if self.report.violations else ""
            done = f"{self._ended_count} of {len(self.numbers)} cases, {now_s - self._began_s:.0f} s"
            self.tell(f"{self.name}: {done}, about {left_s:.0f} s to go{broken}")


class _Player:
    """A process that plays case after case."""

    def __init__(self, campaign: Campaign, process: trio.Process) -> None:
        self._campaign = campaign
        self._process = process
        self._unread = b""
        self._family: list[psutil.Process] = []
        self.is_over = False

    @classmethod
    async def start(cls, name: str, campaign: Campaign) -> "_Player":
        words = [sys.executable, "-m", "campaigns.player", campaign.module, name]
        path = os.pathsep.join([str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")])
        env = {**os.environ, "PYTHONPATH": path}
        player = cls(
            campaign, await trio.lowlevel.open_process(words, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        )
        if not await player._read_line():
            await player.close()
            raise RuntimeError(f"{campaign.module} cannot be played")
        return player

    async def play(self, number: int) -> Found:
        """Have it play a case; afterwards it may be over."""
        assert self._process.stdin is not None
        with suppress(trio.BrokenResourceError):
            await self._process.stdin.send_all(b"%d\n" % number)
        line = None
        with trio.move_on_after(self._campaign.limit_s):
            line = await self._read_line()
        if line:
            answer = msgspec.json.decode(line, type=Found | str)
            if isinstance(answer, str):
                raise KeyboardInterrupt  # not by us: by who looks on
            return answer
        if line is None:
            where = await self._interrupt()
            violation = f"had not ended after {self._campaign.limit_s:.0f} s: {where}"
        else:
            violation = f"took its process with it, which ended with {await self._process.wait()}"
        await self.close()
        return Found(violations=[violation])

    async def _interrupt(self) -> str:
        """Interrupt what it plays; return where that was."""
        self._look_at_family()
        self._process.send_signal(signal.SIGINT)
        line = b""
        with trio.move_on_after(STOP_SECONDS):
            line = await self._read_line()
        answer = msgspec.json.decode(line, type=Found | str) if line else "it did not end when it was told to"
        return answer if isinstance(answer, str) else "just when it was told to"

    async def _read_line(self) -> bytes:
        """Return its next line; empty if it ends before."""
        assert self._process.stdout is not None
        while b"\n" not in self._unread:
            part = await self._process.stdout.receive_some()
            if not part:
                return b""
            self._unread += bytes(part)
        line, _, self._unread = self._unread.partition(b"\n")
        return line

    async def close(self) -> None:
        """Let it end, or end it, with all that came from it."""
        self.is_over = True
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with trio.CancelScope(shield=True):
            await self._process.stdin.aclose()
            with trio.move_on_after(STOP_SECONDS):
                await self._process.wait()
            self._look_at_family()
            for process in self._family:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            if self._process.poll() is None:
                self._process.kill()
            await self._process.wait()
            await self._process.stdout.aclose()

    def _look_at_family(self) -> None:
        """Know every process that has come from it, even if it ends before them."""
        with suppress(psutil.NoSuchProcess):
            self._family += psutil.Process(self._process.pid).children(recursive=True)


def seats(campaign: Campaign) -> int:
    """Return how many cases are best played at once here."""
    return 1 if campaign.is_timed else len(os.sched_getaffinity(0))
