"""What is measured of the host: what others use is told apart from what the agent's own processes do."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from taskd.agent import host
from taskd.agent.cgroup import Cgroups
from taskd.agent.host import Host
from taskd.agent.kin import Kin, Use, memory_of
from unit.client.faces import wait_until


def nothing() -> Use:
    return Use()


def test_the_host_is_measured() -> None:
    stats = Host(nothing).stats()
    assert 0 <= stats.cpu_percent <= 100
    assert stats.load1 >= 0
    assert 0 < stats.memory_used <= stats.memory_total
    assert 0 < stats.memory_outside <= stats.memory_total


class Groups(Cgroups):
    """Control groups with such limits."""

    def __init__(self, tmp_path: Path, *, cpus: float | None = None, memory: int | None = None, used: int = 0) -> None:
        super().__init__(tmp_path / "nowhere")
        self._said = cpus, memory, used

    def cpus(self) -> float | None:
        return self._said[0]

    def memory(self) -> int | None:
        return self._said[1]

    def memory_used(self) -> int | None:
        return self._said[2]


def test_the_limit_of_the_cgroup_stands_for_the_hosts_memory(tmp_path: Path) -> None:
    stats = Host(lambda: Use(0, 100_000), groups=Groups(tmp_path, memory=1_000_000, used=250_000)).stats()
    assert (stats.memory_used, stats.memory_total, stats.memory_outside) == (250_000, 1_000_000, 150_000)
    stats = Host(lambda: Use(0, 300_000), groups=Groups(tmp_path, memory=1_000_000, used=250_000)).stats()
    assert stats.memory_outside == 0


class Processor:
    """Four CPUs whose times the test sets, in hundredths of a second."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "stat"
        self.busy = [0.0] * 4
        self.total = 0.0
        self.own = Use()
        self.write()

    def write(self) -> None:
        lines = [
            f"cpu{n} {round(busy)} 0 0 {round(self.total - busy)} 0 0 0 0 99 99" for n, busy in enumerate(self.busy)
        ]
        self.file.write_text("cpu  1 2 3 4 5 6 7 8 9 10\n" + "\n".join(lines) + "\nintr 1 2\n")

    def go_on(self, *shares: float, own: float) -> None:
        """Ten seconds, in which each CPU was so busy, and the agent's own processes used so many CPUs."""
        self.total += 1_000
        self.busy = [busy + 1_000 * share for busy, share in zip(self.busy, shares, strict=True)]
        self.own = Use(self.own.cpu_ticks + round(own * 1_000))
        self.write()


@pytest.fixture
def processor(tmp_path: Path) -> Processor:
    return Processor(tmp_path)


def test_what_others_use_is_what_is_busy_less_our_own(processor: Processor, tmp_path: Path) -> None:
    groups = Groups(tmp_path)
    measured = Host(lambda: processor.own, groups=groups, cpus=range(4), stat=processor.file)
    processor.go_on(1, 1, 0.5, 0, own=0.5)
    assert measured.stats().cpu_outside == 2_000
    processor.go_on(1, 1, 1, 1, own=4)
    assert measured.stats().cpu_outside == 0
    processor.go_on(0.1, 0, 0, 0, own=0.2)
    assert measured.stats().cpu_outside == 0, "never below nothing"
    assert measured.stats().cpu_outside == 0, "and nothing when no time has passed"


def test_two_agents_on_cpus_of_their_own_each_measure_these(processor: Processor, tmp_path: Path) -> None:
    first = Host(lambda: processor.own, groups=Groups(tmp_path), cpus=[0, 1], stat=processor.file)
    second = Host(nothing, groups=Groups(tmp_path), cpus=[2, 3], stat=processor.file)
    processor.go_on(1, 0, 1, 0.5, own=1)
    assert (first.stats().cpu_outside, second.stats().cpu_outside) == (0, 1_500)


def test_under_a_quota_only_what_is_left_too_little_of_counts(processor: Processor, tmp_path: Path) -> None:
    measured = Host(nothing, groups=Groups(tmp_path, cpus=1.5), cpus=range(4), stat=processor.file)
    processor.go_on(1, 1, 0, 0, own=0)
    assert measured.stats().cpu_outside == 0, "two are free, and no more than one and a half are ours"
    processor.go_on(1, 1, 1, 0, own=0)
    assert measured.stats().cpu_outside == 500


def test_who_uses_what_is_not_offered_takes_nothing(processor: Processor, tmp_path: Path) -> None:
    """Of four CPUs and a million bytes one CPU and 400,000 bytes are the agent's to give."""
    groups = Groups(tmp_path, memory=1_000_000, used=650_000)
    measured = Host(nothing, groups=groups, cpus=range(4), stat=processor.file, spare_cpu=3_000, spare_bytes=600_000)
    processor.go_on(1, 1, 0.5, 0, own=0)
    stats = measured.stats()
    assert (stats.cpu_outside, stats.memory_outside) == (0, 50_000)
    processor.go_on(1, 1, 1, 0.5, own=0)
    assert measured.stats().cpu_outside == 500


def test_a_kill_for_memory_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    before = host.oom_kills()
    groups = Cgroups()
    monkeypatch.setattr(host, "_groups", lambda: groups)
    monkeypatch.setattr(groups, "oom_kills", lambda: Cgroups().oom_kills() + 2)
    assert host.oom_kills() == before + 2


Start = Callable[[str], "subprocess.Popen[bytes]"]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start Python programs that read one line and end."""
    started: list[subprocess.Popen[bytes]] = []

    def run(code: str) -> "subprocess.Popen[bytes]":
        started.append(subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE))
        return started[-1]

    yield run
    for process in started:
        process.kill()
        process.communicate()


BUSY = "import time\nwhile time.process_time() < {seconds}: pass\n"
"""For so long."""
THEN_WAIT = "print(flush=True)\ninput()\n"


def test_our_own_is_all_that_comes_from_a_process(start: Start) -> None:
    """A child, one that a thread started, and those that have ended already."""
    kin = Kin()
    busy = BUSY.format(seconds=0.2)
    process = start(
        "import subprocess, sys, threading\n"
        f"child = [sys.executable, '-c', {busy + THEN_WAIT!r}]\n"
        f"subprocess.run([sys.executable, '-c', {busy!r}])\n"
        "several = []\n"
        "def go():\n"
        "    several.append(subprocess.Popen(child, stdin=subprocess.PIPE, stdout=subprocess.PIPE))\n"
        "    several[-1].stdout.readline(); done.set(); several[-1].wait()\n"
        "done = threading.Event()\n"
        "threading.Thread(target=go, daemon=True).start()\n"
        "done.wait()\n" + busy + THEN_WAIT
    )
    kin.add(process.pid)
    before = kin.use()
    assert process.stdout is not None
    process.stdout.readline()
    after = kin.use()
    assert (after.cpu_ticks - before.cpu_ticks) / os.sysconf("SC_CLK_TCK") >= 0.5
    assert after.memory_bytes > 10 << 20
    kin.discard(process.pid)
    assert kin.use().memory_bytes < after.memory_bytes
    kin.close()


def test_a_process_that_has_ended_counts_no_more(start: Start) -> None:
    kin = Kin()
    kin.others.clear()
    process = start(THEN_WAIT)
    assert process.stdout is not None
    process.stdout.readline()
    kin.add(process.pid)
    assert kin.use().memory_bytes > 1 << 20
    process.communicate(b"\n")
    assert kin.use() == Use()
    kin.add(process.pid)
    kin.discard(process.pid)
    kin.close()


def test_what_several_share_counts_once_where_it_matters(start: Start) -> None:
    """Below a runner of its own, as a worker is: what else a runner has is counted with it."""
    code = (
        "import os\nheld = bytearray(os.urandom(1)) * (64 << 20)\n"
        "for _ in range(3):\n    if not os.fork():\n        input()\n        os._exit(0)\n" + THEN_WAIT
    )
    runner = start(
        "import subprocess, sys\n"
        f"worker = subprocess.Popen([sys.executable, '-c', {code!r}], stdout=subprocess.PIPE)\n"
        "worker.stdout.readline(); print(worker.pid, flush=True); worker.wait()"
    )
    assert runner.stdout is not None
    worker = int(runner.stdout.readline())
    wait_until(lambda: memory_of(worker, 1 << 40) > 4 * (64 << 20))
    assert 64 << 20 < memory_of(worker, 1 << 20) < 2 * (64 << 20)
    assert memory_of(worker, 0) > 0
    assert memory_of(1 << 22, 0) == 0, "nobody"


def test_a_heartbeat_costs_less_than_a_millisecond_for_a_hundred_workers() -> None:
    """Looked at twenty times, the least: what else runs here takes its time as well."""
    kin = Kin()
    run = ["sh", "-c", "sleep 100 & echo $!; wait"]
    runners = [subprocess.Popen(run, stdout=subprocess.PIPE, start_new_session=True) for _ in range(100)]
    try:
        for runner in runners:
            assert runner.stdout is not None
            kin.add(int(runner.stdout.readline()))
        took_s = []
        for _ in range(20):
            began_s = time.perf_counter()
            kin.use()
            took_s.append(time.perf_counter() - began_s)
        assert min(took_s) < 0.001
    finally:
        for runner in runners:
            os.killpg(runner.pid, signal.SIGKILL)
            runner.communicate()
        kin.close()
