"""What an attempt has of the machine while it runs in a worker: which GPUs and CPUs, and how much memory it took.

Workers are used again: what is set here for one attempt is undone after it, whatever the attempt did to it.
"""

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from taskd.agent.gpus import visible_to
from taskd_protocol.resources import GPU, MEMORY, Granted

_CLEAR: Final = Path("/proc/self/clear_refs")
_RESET_PEAK: Final = "5"
_STATUS: Final = Path("/proc/self/status")


class Peak:
    """The most memory that this process has held since the attempt began."""

    def __init__(self, *, wanted: bool) -> None:
        self._is_reset = False
        if wanted:
            with contextlib.suppress(OSError):  # not permitted here: then it is not known
                _CLEAR.write_text(_RESET_PEAK)
                self._is_reset = True

    def bytes(self) -> int:
        """Return it; 0: not known."""
        if self._is_reset:
            for line in _STATUS.read_text().splitlines():
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
        return 0


@contextlib.contextmanager
def having(granted: Granted, cpus: Sequence[int]) -> Iterator[Peak]:
    """Let an attempt run with what its lease holds.

    Args:
        granted: That.
        cpus: To which it is pinned; empty: to none.
    """
    gpus = next((hold.items for hold in granted.holds if hold.name == GPU), [])
    peak = Peak(wanted=any(hold.name == MEMORY for hold in granted.holds))
    with _environment(visible_to(gpus) if gpus else {}), _pinned(cpus):
        yield peak


@contextlib.contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _pinned(cpus: Sequence[int]) -> Iterator[None]:
    """Keep all threads on certain CPUs; those that begin meanwhile inherit that, and get what the first had before."""
    if not cpus:
        yield
        return
    before = {thread: os.sched_getaffinity(thread) for thread in _threads()}
    for thread in before:
        _set_affinity(thread, cpus)
    try:
        yield
    finally:
        usual = before[os.getpid()] if os.getpid() in before else os.sched_getaffinity(0)
        for thread in _threads():
            _set_affinity(thread, before.get(thread, usual))


def _threads() -> list[int]:
    return [int(entry.name) for entry in Path("/proc/self/task").iterdir()]


def _set_affinity(thread: int, cpus: Sequence[int] | set[int]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.sched_setaffinity(thread, cpus)
