"""What `taskd doctor` looks at: this machine here, the server in ``server_checks``.

Each check gives findings and never raises for what it finds.
"""

import os
import platform
import resource
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Final

from taskd.agent.cells import why_not
from taskd.agent.cgroup import Cgroups
from taskd.agent.link import MEASURE_MS
from taskd.agent.supplies import find_machine
from taskd.cli import server_checks
from taskd.cli.finding import Finding
from taskd.cli.options import chosen_server
from taskd.client.client import Client
from taskd.client.profile import Profile, config_dir, resolve
from taskd.server.datadir import NETWORK, VOLATILE, filesystem_of
from taskd_protocol.errors import TaskdError
from taskd_protocol.resources import ONE

FILES_MIN: Final = 4_096
"""Open files: a connection each, and what the store keeps open."""
PROCESSES_MIN: Final = 512
"""With threads: an agent starts a worker for each of its slots, and each of these has some."""
FSYNC_TRIES: Final = 20
FSYNC_MS_MAX: Final = 10.0
"""Every acknowledged submit waits for one; a disk that takes longer sets the pace of everything."""
FREE_SHARE_MIN: Final = 0.05
FREE_BYTES_MIN: Final = 1024**3
"""The server refuses new tasks below 5 % of its disk, or 1 GiB if that is less."""


def examine() -> Iterator[Finding]:
    """Check this machine, then the way to the server that the options name."""
    yield _python()
    yield from _limits()
    url, context = chosen_server()
    try:
        profile = resolve(url, name=context)
    except TaskdError as error:
        yield Finding("profile", "fail", error.message, error=error)
        return
    yield _profile(profile)
    if profile.data_dir:
        yield from _data_dir(Path(profile.data_dir))
    with closing(Client(profile)) as client:
        yield from server_checks.examine(client)


def _python() -> Finding:
    # A Python that is too old never comes so far: taskd cannot be installed for it.
    return Finding("python", "ok", f"{platform.python_version()} at {sys.executable}")


def _limits() -> Iterator[Finding]:
    machine, groups = find_machine(), Cgroups()
    where = "this machine" if groups.cpus() is None and groups.memory() is None else "this control group"
    gpus = f", and GPUs {', '.join(f'{gpu.number} ({gpu.kind})' for gpu in machine.gpus)}" if machine.gpus else ""
    had = f"{machine.cpus / ONE:g} CPUs and {machine.memory_bytes >> 20:,} MiB of memory{gpus}"
    yield Finding("resources", "ok", f"{where} has {had}")
    yield _task_memory(groups)
    yield _groups(groups)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= FILES_MIN:
        yield Finding("open files", "ok", f"{'any number' if soft == resource.RLIM_INFINITY else f'{soft:,}'} allowed")
    else:
        advice = f"`ulimit -n {FILES_MIN}` before a server that many connect to"
        if hard != resource.RLIM_INFINITY and hard < FILES_MIN:
            advice = f"raise the hard limit of {hard:,} too, in limits.conf or LimitNOFILE="
        yield Finding("open files", "warn", f"{soft:,} allowed", advice)
    yield _processes(groups)


def _task_memory(groups: Cgroups) -> Finding:
    """Tell who holds tasks to the memory that they were granted, of an agent that is started as this program is."""
    looked_at = f"looked at every {MEASURE_MS / 1000:g} s, of each task that was granted some"
    reason = why_not(groups)
    if not reason:
        return Finding("task memory", "ok", f"held to what was granted by the kernel, and {looked_at}")
    return Finding("task memory", "ok", f"{looked_at}; not held by the kernel, as {reason}")


def _groups(groups: Cgroups) -> Finding:
    if not groups.versions:
        return Finding("cgroups", "ok", "none are mounted: nothing but the machine itself limits what runs here")
    told = " and ".join(str(version) for version in groups.versions)
    return Finding("cgroups", "ok", f"version {told}: their limits count")


def _processes(groups: Cgroups) -> Finding:
    soft, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    limits = [limit for limit in (soft, groups.processes()) if limit is not None and limit != resource.RLIM_INFINITY]
    told = f"{min(limits):,} allowed, with threads" if limits else "any number allowed"
    if not limits or min(limits) >= PROCESSES_MIN:
        return Finding("processes", "ok", told)
    return Finding("processes", "warn", told, "raise `ulimit -u`, TasksMax= of the service, or pids.max of the group")


def _profile(profile: Profile) -> Finding:
    if not profile.name:
        return Finding("profile", "ok", f"{profile.address}, from a URL")
    path = config_dir() / "profiles" / f"{profile.name}.json"
    told = f"{profile.name}, {profile.address}"
    if path.stat().st_mode & 0o077:
        return Finding("profile", "warn", told, f"others may read its token: chmod 600 {path}")
    return Finding("profile", "ok", told)


def _data_dir(root: Path) -> Iterator[Finding]:
    """Check the data directory of a server on this machine."""
    try:
        usage = shutil.disk_usage(root)
    except OSError as error:
        yield Finding("data", "warn", f"{root}: {error.strerror}", "its server made another, or ran as another user")
        return
    kind = filesystem_of(root)
    told = f"{root}{f' on {kind}' if kind else ''}, {usage.free >> 20:,} MiB free"
    if kind in NETWORK:
        yield Finding("data", "fail", told, "locks and syncs cannot be trusted there: move it to a local disk")
    elif usage.free < min(usage.total * FREE_SHARE_MIN, FREE_BYTES_MIN):
        yield Finding("data", "fail", told, "the server takes no new tasks: free some space")
    elif kind in VOLATILE:
        yield Finding("data", "warn", told, "what it holds is gone with the machine's next start: use a disk")
    else:
        yield Finding("data", "ok", told)
    try:
        sync_ms = _fsync_ms(root)
    except OSError as error:
        yield Finding("fsync", "warn", f"cannot be measured in {root}: {error.strerror}", "run it as the server's user")
        return
    slow = sync_ms > FSYNC_MS_MAX
    advice = "each submit waits for one: put the data directory on a faster disk" if slow else ""
    yield Finding("fsync", "warn" if slow else "ok", f"{sync_ms:.2f} ms, the median of {FSYNC_TRIES}", advice)


def _fsync_ms(root: Path) -> float:
    """Return the median of some fsyncs of a small write, in milliseconds."""
    took_ms = []
    with tempfile.TemporaryFile(dir=root) as file:  # without a name, where the filesystem can: nothing to tidy up
        for _ in range(FSYNC_TRIES):
            file.write(bytes(4096))
            began_ns = time.perf_counter_ns()
            file.flush()
            os.fsync(file.fileno())
            took_ms.append((time.perf_counter_ns() - began_ns) / 1e6)
    return statistics.median(took_ms)
