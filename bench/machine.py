"""On what something was measured: machine, filesystem, load, commit."""

import os
import platform
import subprocess
from pathlib import Path

import psutil

HERE = Path(__file__).parent


def commit() -> str:
    """Return the commit of the tree, marked if it was changed."""
    done = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=HERE, capture_output=True, check=False)
    return done.stdout.decode().strip()


def machine(directory: Path) -> dict[str, str]:
    """Return the machine and the filesystem of a directory, which is made."""
    directory.mkdir(parents=True, exist_ok=True)
    models = [text for text in Path("/proc/cpuinfo").read_text().splitlines() if text.startswith("model name")]
    return {
        "cpu": models[0].partition(": ")[2] if models else platform.machine(),
        "cores": str(os.cpu_count()),
        "memory": f"{psutil.virtual_memory().total / 2**30:.1f} GiB",
        "system": platform.platform(),
        "python": platform.python_version(),
        "filesystem": _filesystem(directory.resolve()),
        "load_before": load(),
    }


def load() -> str:
    """Return the load of the last 1, 5 and 15 minutes."""
    return " ".join(f"{average:.2f}" for average in os.getloadavg())


def _filesystem(path: Path) -> str:
    mounts = {Path(mount.mountpoint): mount.fstype for mount in psutil.disk_partitions(all=True)}
    return next((mounts[place] for place in (path, *path.parents) if place in mounts), "unknown")
