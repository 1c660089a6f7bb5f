"""Cells: a control group for each worker and command, in which the kernel holds its memory to what was granted.

Where the agent's group can be divided: in version 2, if it was delegated to the agent, with the memory controller, and
nobody else is in it, as with systemd for a service with ``Delegate=memory``. Everywhere else what attempts hold is only
looked at (``footprints``), as it is here, too.

A process is in its cell from before it runs its program, since what is charged to another group stays there.
"""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from taskd.agent.cgroup import Cgroups

_OWN: Final = "taskd-agent"
"""The agent's own group: one that is divided holds no processes itself."""

_CONTROLLER: Final = "memory"


class Cell:
    """One group, which is empty until a process joins it.

    Attributes:
        path: Of its folder; whoever writes 0 to ``cgroup.procs`` there has joined it.
    """

    def __init__(self, path: Path, leave: Callable[[Path], None]) -> None:
        self.path: Final = path
        self._leave: Final = leave
        self._limit_bytes = 0

    def leave(self) -> None:
        """Be needed no more: its processes have ended, or are being killed."""
        self._leave(self.path)

    def limit(self, memory_bytes: int) -> None:
        """Have all that is in it hold no more than so many bytes together; 0: as much as it likes."""
        if memory_bytes == self._limit_bytes:
            return
        self._limit_bytes = memory_bytes
        for file, limit in (("memory.max", str(memory_bytes)), ("memory.swap.max", "0")):
            with contextlib.suppress(OSError):  # without swap there is no such file; and it is looked at all the same
                (self.path / file).write_text(limit if memory_bytes else "max")


class Cells:
    """The groups of one agent's workers and commands."""

    def __init__(self, home: Path, own: Path) -> None:
        """Begin with none; ``open_cells`` prepares what these are.

        Args:
            home: In which they are made.
            own: The agent's group in it.
        """
        self._home: Final = home
        self._own: Final = own
        self._count = 0
        self._left: list[Path] = []  # of processes that had not quite gone

    def make(self) -> Cell | None:
        """Make one; None: the kernel has no more, and what it was for runs without."""
        self._sweep()
        self._count += 1
        path = self._home / f"taskd-{self._count}"
        try:
            path.mkdir()
        except OSError:
            return None
        with contextlib.suppress(OSError):
            (path / "memory.oom.group").write_text("1")  # all of it is killed, and not one process of it
        return Cell(path, self._remove)

    def _remove(self, path: Path) -> None:
        self._left.append(path)
        self._sweep()

    def close(self) -> None:
        """Remove what is left, and put the agent back to where it was."""
        self._sweep()
        with contextlib.suppress(OSError):
            (self._home / "cgroup.subtree_control").write_text(f"-{_CONTROLLER}")
            (self._home / "cgroup.procs").write_text("0")
            self._own.rmdir()

    def _sweep(self) -> None:
        for path in self._left.copy():
            try:
                path.rmdir()
            except FileNotFoundError:
                pass
            except OSError:
                continue  # the kernel is not done with what was killed there
            self._left.remove(path)


def why_not(groups: Cgroups) -> str:
    """Return what keeps an agent that is started here from having cells; empty: nothing does."""
    home = groups.folder("")
    if home is None or _CONTROLLER not in _words(home / "cgroup.controllers"):
        return "no control group of version 2 counts memory here"
    if not os.access(home / "cgroup.subtree_control", os.W_OK):
        return "its control group is not delegated"
    if _words(home / _OWN / "cgroup.procs"):
        return "another agent divides its control group"
    others = set(_words(home / "cgroup.procs")) - {str(os.getpid())}
    return f"{len(others)} other processes are in its control group" if others else ""


def open_cells(groups: Cgroups) -> Cells | None:
    """Divide this process's group, which moves it to one of its own; None: there can be no cells."""
    home = groups.folder("")
    if home is None or why_not(groups):
        return None
    own = home / _OWN
    try:
        own.mkdir(exist_ok=True)
        (own / "cgroup.procs").write_text("0")
        (home / "cgroup.subtree_control").write_text(f"+{_CONTROLLER}")
    except OSError:
        with contextlib.suppress(OSError):
            (home / "cgroup.procs").write_text("0")
            own.rmdir()
        return None
    for left in home.glob("taskd-[0-9]*"):  # by an agent that was killed
        with contextlib.suppress(OSError):
            left.rmdir()
    return Cells(home, own)


def _words(path: Path) -> list[str]:
    try:
        return path.read_text().split()
    except OSError:
        return []
