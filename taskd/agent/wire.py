"""The wire between an agent and its own processes: workers, and the runners that watch over them.

Frames as on the network, a msgpack array each. Both ends are of one release: a
worker of another is refused by ``VERSION``, so nothing here needs to stay compatible.
"""

import signal
from typing import TYPE_CHECKING

import msgspec

from taskd.agent.metering import RATE_BYTES_PER_S
from taskd.client.family import Found
from taskd_protocol.framing import frame
from taskd_protocol.limiting import Limit
from taskd_protocol.limits import MESSAGE_BYTES_MAX
from taskd_protocol.schedule import Schedule
from taskd_protocol.task import Failure, Grant, TaskSpec

VERSION = 10
"""Counted up with every change in this module."""

ARGUMENTS_BYTES_MAX = 128 * 1024 * 1024
"""Of one task, its arguments with all its inputs: they go to a worker in one frame, which both ends have in memory."""

FRAME_BYTES = ARGUMENTS_BYTES_MAX + 2 * MESSAGE_BYTES_MAX
"""Largest frame between own processes: the arguments of one task with their inputs, or a result, and a batch beside."""

READ_BYTES = 64 * 1024
"""What one read from a pipe takes at most. From 128 KiB on the C library maps memory for the buffer and unmaps it
again: 40 us for each small read, where 2 are enough."""

FDS_VARIABLE = "_TASKD_FDS"
"""Set for a worker by its runner: the numbers of the descriptors that it inherits, comma-separated."""

PAGE_BYTES = 4096
PAGE_RUNNING = 0
"""Word of the shared page in which a worker keeps the fencing token that it is running; 0: none."""
PAGE_RECALLED = 1
"""Word in which the agent puts the number of the last batch that it takes back."""
PAGE_CANCELLED = 2
"""Word in which the agent puts the fencing token that a blocking call, if it runs, is to end. Of those that are run
in one call, each has a word of its own, from this on."""

PAGE_SPAWNS_FULL = 3
"""Word in which the agent puts 1 while it holds as much as it may of what attempts have spawned; else 0."""

PAGE_READS = 510
"""Word that the agent counts up before and after each read of what the worker prints: odd while it reads."""

PAGE_OUTPUT_FULL = 511
"""Word in which the agent puts 1 while it holds as much as it may of what attempts have said; else 0."""

PRINTED_MARK = b"\x00\x1etaskd:%016x\x1e\x00"
"""What a worker prints behind the output of the attempt with that token, to both streams."""

STACKS_SIGNAL = signal.SIGRTMAX - 3
"""Has a worker write down the Python stacks of its threads, whatever they do. One that users' code hardly wants."""


class Setup(msgspec.Struct, array_like=True, frozen=True, tag=1):
    """To a worker: what it is from now on."""

    kind: str
    """``process``, ``asyncio`` or ``trio``."""
    concurrency: int
    """Coroutines at the same time."""
    bytes_per_s: int = RATE_BYTES_PER_S
    """One attempt may say."""


class Handed(Grant, array_like=True, frozen=True, gc=False):
    """A lease with what has become of what its task has spawned."""

    found: Found | None = None


def handed(grant: Grant, found: Found) -> Handed:
    """Return a lease with what has become of what its task has spawned."""
    return Handed(
        grant.token,
        grant.attempt,
        grant.spec,
        grant.deadline_in_ms,
        grant.details,
        grant.mark_start,
        grant.spawned,
        grant.granted,
        found,
    )


def found_of(grant: Grant) -> Found | None:
    """Return what has become of what the lease's task has spawned; None: nothing that came with it."""
    return grant.found if isinstance(grant, Handed) else None


if TYPE_CHECKING:
    Leased = Grant
else:
    Leased = Handed  # as which any lease can be read, and none is lost of those that are


class Batch(msgspec.Struct, array_like=True, frozen=True, tag=2):
    """To a worker: run these, in order, unless the page says that the batch was recalled."""

    number: int
    clock_ahead_ms: int
    """The server's wall clock less this machine's."""
    result_bytes_max: int
    grants: list[Leased]
    timed: list[int] = []
    """Tokens of those whose start the worker is to tell of."""
    cpus: list[int] = []
    """To which it is pinned, being one attempt alone; empty: to none."""
    together: bool = False
    """They are of one name, to be run in one call."""


class Stop(msgspec.Struct, array_like=True, frozen=True, tag=3):
    """To an event-loop worker: drop or cancel these, and report each."""

    tokens: list[int]


class Known(msgspec.Struct, array_like=True, frozen=True):
    """A task that a worker found in the modules."""

    name: str
    is_async: bool
    batch: int = 0
    """So many at most are run in one call; 0: each in its own."""
    wait_ms: int = 0
    """So long the first of them waits for others."""


class Ready(msgspec.Struct, array_like=True, frozen=True, tag=16):
    """From a worker, first: the modules are imported, or why not."""

    version: int
    tasks: list[Known] = []
    error: str = ""
    schedules: dict[str, list[Schedule]] = {}
    """What the code of each module defines, of every module that a task was found in."""
    versions: list[str] = []
    """Of the code, as its Apps say."""
    python: str = ""
    """Version of the interpreter, without what is a repair only."""
    limits: dict[str, list[Limit]] = {}
    """What the code of each module says of limits, likewise."""


class Returned(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=17):
    """From a worker: the function returned."""

    token: int
    result: bytes
    started_at_ms: int
    run_us: float
    peak_bytes: int = 0
    """The most memory that the worker held meanwhile; 0: not known."""


class Raised(msgspec.Struct, array_like=True, frozen=True, tag=18):
    """From a worker: the attempt ended without a result, and the worker goes on."""

    token: int
    failure: Failure
    started_at_ms: int
    run_us: float
    final: bool = False
    """No further attempt is wanted."""
    retry_after_ms: int | None = None
    """The next attempt is wanted so much later; None: as the policy says."""
    waits: bool = False
    """It ended to wait for what it has spawned, and has not failed."""
    peak_bytes: int = 0
    """As in ``Returned``."""
    released: bool = False
    """It was ended because of another that ran in the same call, and has not failed."""


class Recalled(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=19):
    """From a worker: of this batch nothing more will be started."""

    number: int


class Ends(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=20):
    """From an event-loop worker: what ended in one round of its loop."""

    ends: list[Returned | Raised]


class Started(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=21):
    """From a worker: an attempt that has limits to its time is about to run."""

    token: int


class Beat(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=22):
    """From a worker: the attempt goes on."""

    token: int
    details: bytes = b""
    """How far it has come, packed; empty: it does not say."""


class Children(msgspec.Struct, array_like=True, frozen=True, tag=23):
    """From a worker: an attempt has spawned these; comes before its end."""

    token: int
    first: int
    """So many it had spawned before, or earlier attempts."""
    tasks: list[TaskSpec]


class Said(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=24):
    """From a worker: an attempt said this. Comes before its end."""

    token: int
    stream: int
    data: bytes
    """Whole lines."""


class Unsaid(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=25):
    """From a worker: so much of what an attempt said was left out."""

    token: int
    bytes: int
    lines: int


class Printed(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=26):
    """From a worker, before the attempt's end: it has printed, and the mark is behind that."""

    token: int


class Run(msgspec.Struct, array_like=True, frozen=True, tag=32):
    """To a runner, first: start this, in a session of its own. All strings are bytes, as the system has them."""

    argv: list[bytes]
    environ: list[tuple[bytes, bytes]]
    cwd: bytes
    inherit: int
    """So many descriptors after the first three are inherited and named in ``FDS_VARIABLE``."""
    live_until_ms: int = 0
    """As if ``LiveUntil`` had come with it."""
    cpus: list[int] = []
    """To which it is pinned; empty: to none."""
    cell: bytes = b""
    """Folder of the control group that it joins before it runs; empty: it stays in ours."""


class Signal(msgspec.Struct, array_like=True, frozen=True, tag=33):
    """To a runner: end it. TERM goes to the group; KILL to every process that came from it."""

    kill: bool


class Launched(msgspec.Struct, array_like=True, frozen=True, tag=34):
    """From a runner: it runs."""

    pid: int


class ShowStacks(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=37):
    """To a runner: send the process ``STACKS_SIGNAL``."""


class LiveUntil(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=38):
    """To a runner: kill all at that time, unless another of these comes before."""

    mono_ms: int
    """By the kernel's monotonic clock, which all processes share; a length would count from its reading. 0: never."""


class NotStarted(msgspec.Struct, array_like=True, frozen=True, tag=35):
    """From a runner: the system refused, and why."""

    reason: str


class Exited(msgspec.Struct, array_like=True, frozen=True, tag=36):
    """From a runner, last: neither the process nor anything that came from it is left."""

    code: int
    """Exit code; negative: the signal that ended it."""
    killed: bool
    """The signal was sent on the agent's order, or for want of one that was due."""
    peak_bytes: int = 0
    """The most memory that one of them held, but no less than the runner's own."""


ToWorker = Setup | Batch | Stop
FromWorker = Ready | Returned | Raised | Recalled | Ends | Started | Beat | Children | Said | Unsaid | Printed
ToRunner = Run | Signal | ShowStacks | LiveUntil
FromRunner = Launched | NotStarted | Exited

_ENCODER = msgspec.msgpack.Encoder()


def encode(message: ToWorker | FromWorker | ToRunner | FromRunner) -> bytes:
    """Return the message as a frame."""
    return frame(_ENCODER.encode(message))
