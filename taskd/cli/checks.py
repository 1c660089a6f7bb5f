"""What `taskd doctor` looks at. Each check gives findings and never raises for what it finds."""

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
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from taskd.agent.cgroup import Cgroups
from taskd.agent.link import MEASURE_MS
from taskd.agent.supplies import find_machine
from taskd.cli.options import chosen_server
from taskd.client.client import Client
from taskd.client.clock import mono_s
from taskd.client.profile import Profile, config_dir, resolve
from taskd.server.clock import SystemClock
from taskd_protocol.access_messages import CertQuery, CertView
from taskd_protocol.errors import TaskdError
from taskd_protocol.house_messages import AgentList, AgentPage
from taskd_protocol.resources import ONE

CONNECT_S: Final = 5.0
FILES_MIN: Final = 4_096
"""Open files: a connection each, and what the store keeps open."""
FSYNC_TRIES: Final = 20
FSYNC_MS_MAX: Final = 10.0
"""Every acknowledged submit waits for one; a disk that takes longer sets the pace of everything."""
CLOCK_MS_MAX: Final = 2_000
CERTIFICATE_DAYS_MIN: Final = 30
"""A server that starts renews one that has less left: who sees less has a server that has run for long."""
FREE_SHARE_MIN: Final = 0.05
FREE_BYTES_MIN: Final = 1024**3
"""The server refuses new tasks below 5 % of its disk, or 1 GiB if that is less."""

_SHOWN: Final = 5
"""Agents that are named."""
_DAY_MS: Final = 24 * 3600 * 1000

Status = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the doctor's report."""

    name: str
    status: Status
    message: str
    advice: str = ""
    error: TaskdError | None = None
    """Of a failure that has one: it tells the exit code."""


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
        yield from _server(client)


def _python() -> Finding:
    # A Python that is too old never comes so far: taskd cannot be installed for it.
    return Finding("python", "ok", f"{platform.python_version()} at {sys.executable}")


def _limits() -> Iterator[Finding]:
    machine, groups = find_machine(), Cgroups()
    where = "this machine" if groups.cpus() is None and groups.memory() is None else "this control group"
    gpus = f", and GPUs {', '.join(f'{gpu.number} ({gpu.kind})' for gpu in machine.gpus)}" if machine.gpus else ""
    had = f"{machine.cpus / ONE:g} CPUs and {machine.memory_bytes >> 20:,} MiB of memory{gpus}"
    yield Finding("resources", "ok", f"{where} has {had}")
    yield Finding("task memory", "ok", f"looked at every {MEASURE_MS / 1000:g} s, of each task that was granted some")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= FILES_MIN:
        yield Finding("open files", "ok", f"{'any number' if soft == resource.RLIM_INFINITY else f'{soft:,}'} allowed")
    else:
        advice = f"`ulimit -n {FILES_MIN}` before a server that many connect to"
        if hard != resource.RLIM_INFINITY and hard < FILES_MIN:
            advice = f"raise the hard limit of {hard:,} too, in limits.conf or LimitNOFILE="
        yield Finding("open files", "warn", f"{soft:,} allowed", advice)


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
    told = f"{root}, {usage.free >> 20:,} MiB free"
    if usage.free < min(usage.total * FREE_SHARE_MIN, FREE_BYTES_MIN):
        yield Finding("data", "fail", told, "the server takes no new tasks: free some space")
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


def _server(client: Client) -> Iterator[Finding]:
    """Check whether the server is there, what it shows, and who works for it."""
    try:
        client.connect(CONNECT_S)
        yield Finding("server", "ok", f"{client.profile.address} is there and knows the token")
        yield from _clock(client)
        if client.profile.tls:
            yield _certificate(client)
        yield _agents(client)
    except TaskdError as error:
        yield Finding("server", "fail", error.message, error=error)


def _clock(client: Client) -> Iterator[Finding]:
    session = client.link.session
    if session is None or session.clock_offset_ms is None:
        return
    behind_ms = round(mono_s() * 1000 + session.clock_offset_ms - SystemClock().wall_ms())
    told = f"{abs(behind_ms):,} ms {'behind' if behind_ms > 0 else 'ahead of'} the server's"
    if abs(behind_ms) <= CLOCK_MS_MAX:
        yield Finding("clock", "ok", told)
    else:
        yield Finding("clock", "warn", told, "have both machines follow a time server")


def _certificate(client: Client) -> Finding:
    view = client.call(CertQuery(0), CertView)
    days = (view.not_after_ms - SystemClock().wall_ms()) // _DAY_MS
    if days >= CERTIFICATE_DAYS_MIN:
        return Finding("certificate", "ok", f"good for {days} days, for {', '.join(view.host_names)}")
    return Finding("certificate", "warn", f"good for {days} days", "renew it with: taskd cert renew")


def _agents(client: Client) -> Finding:
    agents = client.call(AgentList(0), AgentPage).agents
    live = [agent.name for agent in agents if agent.state == "live"]
    barred = [agent.name for agent in agents if agent.state == "quarantined"]
    if barred:
        told = f"in quarantine, since they failed all they took: {', '.join(barred[:_SHOWN])}"
        return Finding("agents", "warn", told, "see their errors in taskd dead ls; then: taskd agents resume NAME")
    if not live:
        return Finding("agents", "warn", "none is there, so no task runs", "start one with: taskd agent MODULE")
    return Finding("agents", "ok", f"{len(live)}: {', '.join(live[:_SHOWN])}{', …' if len(live) > _SHOWN else ''}")
