"""A real server on a disk that fails: from then on it acknowledges nothing, ends with 74, and has lost nothing.

A shim below the process (``crash/shim.c``) has writes and syncs of the store fail, fall short or take long; a small
file system of the case's own is filled up, and one whose device fails is made read-only by the kernel.
"""

import errno
import random
import subprocess
import time
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import trio

from campaigns.report import Found
from crash.campaign import TASKD, Campaign
from e2e.disks import FailingDisk, eat, failing_disk, small_disk
from harness.waiting import until
from taskd_protocol.agent_messages import Heartbeat, HeartbeatSeen
from taskd_protocol.connection_messages import Error
from taskd_protocol.messages import Accepted, Submit

SOURCE = Path(__file__).parent.parent / "crash" / "shim.c"
DISK_MIB = 160
LOAD_SECONDS = 60.0
"""For the first tasks to have ended: a second or two on a quiet machine."""

END_SECONDS = 10.0
"""For the process to have ended after an error: a second on a machine that is its own."""

SLOW_SECONDS = 3.0
LAG_SECONDS = 2.0
"""No answer to a heartbeat takes longer, whatever a sync takes: a tenth of it on a quiet machine."""

RULES = {
    "write: EIO": f"write_errno {errno.EIO}",
    "write: ENOSPC": f"write_errno {errno.ENOSPC}",
    "write: read-only": f"write_errno {errno.EROFS}",
    "write: torn, then EIO": f"write_partial 7\nwrite_errno {errno.EIO}",
    "write: partial": "write_partial 7",
    "sync: EIO": f"fsync_errno {errno.EIO}",
    "sync: ENOSPC": f"fsync_errno {errno.ENOSPC}",
    "sync: slow": "fsync_ms {ms}",
    "full": "",
    "made read-only": "",
}
KINDS = tuple(RULES)
SURVIVED = ("write: partial", "sync: slow")


@cache
def shim() -> Path:
    """Build it; gcc is wanted."""
    built = Path(mkdtemp(prefix="taskd-shim-")) / "shim.so"
    subprocess.run(["gcc", "-O1", "-shared", "-fPIC", "-o", str(built), str(SOURCE), "-ldl"], check=True)
    return built


@dataclass(kw_only=True)
class Rig(Campaign):
    """Server, client and agent as in the campaign of kills; the server's disk does as it is told."""

    control: Path = field(init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.control = self.home / "control"
        self.control.touch()

    @property
    def env(self) -> dict[str, str]:
        """With the shim."""
        return {
            **super().env,
            "LD_PRELOAD": str(shim()),
            "SHIM_MATCH": str(self.home / "data" / "store"),
            "SHIM_CTL": str(self.control),
        }

    @property
    def has_failed(self) -> bool:
        """A call has failed in the server."""
        return (self.home / "control.hit").exists()

    def obey(self, rules: str) -> None:
        """Have the disk do so from now on."""
        new = self.home / "control.new"
        new.write_text(rules)
        new.replace(self.control)

    async def ended(self) -> int:
        """Return the server's exit code."""
        assert self._server is not None
        with trio.fail_after(END_SECONDS):
            return await self._server.wait()

    @property
    def runs(self) -> bool:
        """The server has not ended."""
        assert self._server is not None
        return self._server.poll() is None

    async def probe(self) -> None:
        """Submit for ever; what was sent after a failure must not be acknowledged."""
        while True:
            async with self.connected("client", "prober") as peer:
                while not peer.over.is_set():
                    failed = self.has_failed
                    specs = self.specs(1)
                    number = peer.number()
                    await peer.send(Submit(number, specs))
                    if await peer.wait(Accepted) is not None:
                        assert not failed, "acknowledged after a storage error"
                        self.ledger.note_accepted({specs[0].id: specs[0]})
                    for error in peer.told(Error):
                        assert error.retryable, error
            await trio.sleep(0.05)

    async def lag(self) -> float:
        """Return the longest that an answer to a heartbeat has taken for a while."""
        longest = 0.0
        async with self.connected("agent", "listener") as peer:
            began = trio.current_time()
            while trio.current_time() < began + SLOW_SECONDS:
                asked = trio.current_time()
                number = peer.number()
                await peer.send(Heartbeat(number, 0, []))
                with trio.fail_after(LAG_SECONDS):
                    await peer.wait(HeartbeatSeen)
                longest = max(longest, trio.current_time() - asked)
                await trio.sleep(0.01)
        return longest


async def fail_once(kind: str, rng: random.Random, home: Path, found: Found, disk: FailingDisk | None = None) -> None:
    """Put a server under load, let its disk fail, start it again, and compare with what was acknowledged."""
    rig = Rig(home=home, rng=rng)
    try:
        async with trio.open_nursery() as nursery:
            await rig.start_server()
            await rig.serving()
            rig.play(nursery)
            nursery.start_soon(rig.probe)
            await until(lambda: rig.ledger.outcomes and len(rig.ledger.accepted) > 20, LOAD_SECONDS)
            await trio.sleep(rng.uniform(0, 0.5))
            found.fault(kind)
            if kind in SURVIVED:
                await _survive(rig, kind, rng, found)
            else:
                await _fail(rig, kind, found, disk)
            nursery.cancel_scope.cancel()
        standings = await rig.standings()
        rig.ledger.check(standings.get)
        found.ops += len(standings)
        assert await rig.stop_server() == 0
        assert await (await rig.start([TASKD, "fsck", "--data-dir", "data"], "fsck.log")).wait() == 0
    finally:
        await rig.close()


async def _survive(rig: Rig, kind: str, rng: random.Random, found: Found) -> None:
    """A disk that is slow, or takes little at a time, is a disk: the server goes on, and hears everybody."""
    rig.obey(RULES[kind].format(ms=rng.choice([50, 300, 1_000, 5_000])))
    lag = await rig.lag()
    rig.obey("")
    assert rig.runs, "it ended though nothing failed"
    found.reach("heard within 250 ms while a sync is slow", int(lag < 0.25))
    before = len(rig.ledger.accepted)
    await until(lambda: len(rig.ledger.accepted) > before, LOAD_SECONDS)


async def _fail(rig: Rig, kind: str, found: Found, disk: FailingDisk | None) -> None:
    """The next write or sync fails: it ends with 74, and starts again when the disk is well."""
    eaten = eat(rig.home / "data") if kind == "full" else None
    if disk is not None:
        disk.fail()
    rig.obey(RULES[kind])
    await until(lambda: rig.has_failed or not rig.runs, LOAD_SECONDS)
    failed_s = time.perf_counter()
    assert await rig.ended() == 74, (rig.home / "server.log").read_text()[-500:]
    found.reach("ended within a second", int(time.perf_counter() - failed_s < 1))
    if eaten is not None:
        eaten.unlink()
    if disk is not None:
        assert disk.is_read_only
        disk.mend()
    rig.obey("")
    (rig.home / "control.hit").unlink(missing_ok=True)
    await rig.start_server()
    await rig.serving()


def play(case: int, home: Path, found: Found) -> None:
    """Let the disk fail in one of the ways, each in its turn."""
    kind = KINDS[case % len(KINDS)]
    rng = random.Random(case)
    if kind == "full":
        with small_disk(home / "data", DISK_MIB):
            trio.run(fail_once, kind, rng, home, found)
    elif kind == "made read-only":
        with failing_disk(home / "data", DISK_MIB) as disk:
            trio.run(fail_once, kind, rng, home, found, disk)
    else:
        trio.run(fail_once, kind, rng, home, found)
