"""Control groups: how much of the machine this process, and all that come from it, may use.

Version 2 and version 1, and both beside each other. A limit of any group above ours counts as well as our own.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

_NO_LIMIT_V1: Final = 1 << 60
"""Version 1 writes that there is no limit as a number of this order."""


class Cgroups:
    """The control groups of one process, as ``/proc`` and the mounts tell them now."""

    def __init__(self, proc: Path = Path("/proc/self")) -> None:
        """Find the groups.

        Args:
            proc: Of the process.
        """
        mounts = _mounts(_read(proc / "mountinfo"))
        self._folders: Final[dict[str, tuple[Path, Path]]] = {}  # ours and the mount, by controller; "": version 2
        for line in _read(proc / "cgroup").splitlines():
            _, controllers, path = [*line.split(":", 2), "", ""][:3]
            for controller in controllers.split(","):
                if controller in mounts:
                    root, mounted = mounts[controller]
                    below = path.removeprefix(root.rstrip("/")) if path.startswith(root) else ""
                    own = mounted / below.lstrip("/")
                    self._folders[controller] = (own if own.is_dir() else mounted), mounted

    def folder(self, controller: str) -> Path | None:
        """Return our group of a controller of version 1, or, if it is empty, of version 2; None: there is none."""
        found = self._folders.get(controller)
        return None if found is None else found[0]

    @property
    def versions(self) -> list[int]:
        """Which of the two this process is in groups of; empty: of none."""
        return [version for version, is_it in ((1, any(self._folders)), (2, "" in self._folders)) if is_it]

    def processes(self) -> int | None:
        """Return how many processes and threads there may be; None: there is no limit."""
        limits = [_number(folder / "pids.max") for controller in ("", "pids") for folder in self._above(controller)]
        return min([limit for limit in limits if limit is not None], default=None)

    def cpus(self) -> float | None:
        """Return how many CPUs may be used by time; None: there is no quota."""
        quotas = [_quota(*_read(folder / "cpu.max").split()) for folder in self._above("")]
        quotas += [
            _quota(_read(folder / "cpu.cfs_quota_us").strip(), _read(folder / "cpu.cfs_period_us").strip())
            for folder in self._above("cpu")
        ]
        return min([quota for quota in quotas if quota is not None], default=None)

    def memory(self) -> int | None:
        """Return how many bytes of memory may be used; None: there is no limit."""
        limits = [_number(folder / "memory.max") for folder in self._above("")]
        limits += [_number(folder / "memory.limit_in_bytes") for folder in self._above("memory")]
        return min([limit for limit in limits if limit is not None and limit < _NO_LIMIT_V1], default=None)

    def memory_used(self) -> int | None:
        """Return how many bytes the group with the limit uses, but for files that it may drop; None: there is none."""
        limited: list[tuple[int, int]] = []
        for controller, limit_file, used_file in (
            ("", "memory.max", "memory.current"),
            ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
        ):
            for folder in self._above(controller):
                limit, used = _number(folder / limit_file), _number(folder / used_file)
                if limit is not None and used is not None and limit < _NO_LIMIT_V1:
                    stat = _read(folder / "memory.stat")
                    limited.append((limit, max(0, used - counter(stat, "total_inactive_file", "inactive_file"))))
        return min(limited)[1] if limited else None

    def oom_kills(self) -> int:
        """Return how often the kernel has killed a process for memory in our group and below."""
        events = [_read(self._folders[each][0] / name) for each, name in _OOM_FILES.items() if each in self._folders]
        return sum([counter(text, "oom_kill") for text in events])

    def _above(self, controller: str) -> Iterator[Path]:
        """Give our group of a controller, and all above it."""
        if controller in self._folders:
            folder, mounted = self._folders[controller]
            yield folder
            while folder != mounted:
                folder = folder.parent
                yield folder


_OOM_FILES: Final = {"": "memory.events", "memory": "memory.oom_control"}


def counter(text: str, *names: str) -> int:
    """Return the number that stands behind the first of these names that is there, a line each; 0: none is."""
    values = dict(line.split(" ", 1) for line in text.splitlines() if " " in line)
    return next((int(values[name]) for name in names if values.get(name, "").strip().isdigit()), 0)


def _mounts(text: str) -> dict[str, tuple[str, Path]]:
    """Return where each controller is mounted, and which of its groups that is; ``""``: version 2."""
    found: dict[str, tuple[str, Path]] = {}
    for line in text.splitlines():
        mount, _, rest = line.partition(" - ")
        _, _, _, root, mounted, *_ = [*mount.split(" "), "", "", "", "", ""]
        kind, _, options, *_ = [*rest.split(" "), "", "", ""]
        if kind in {"cgroup", "cgroup2"}:
            for controller in [""] if kind == "cgroup2" else options.split(","):
                found.setdefault(controller, (root, Path(mounted)))
    return found


def _quota(allowed: str = "", period: str = "") -> float | None:
    return int(allowed) / int(period) if allowed.isdigit() and period.isdigit() and int(period) else None


def _number(path: Path) -> int | None:
    text = _read(path).strip()
    return int(text) if text.isdigit() else None  # "max" is no number: there is no limit


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
