"""What goes into a debug bundle: who wants to help reads it, and finds no secret in it.

Each part is made of what is known to be harmless, then scrubbed once more. A part that cannot be made says why: the
bundle is for when things are broken.
"""

import contextlib
import importlib.metadata
import io
import json
import os
import platform
import sys
import tarfile
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from http.client import HTTPException
from pathlib import Path
from typing import IO, Annotated, Final, Literal, get_args, get_origin
from urllib.parse import urlsplit

import msgspec
import psutil

from taskd import __version__
from taskd.cli.asking import CONNECT_S, ask_http
from taskd.cli.finding import Finding
from taskd.cli.options import chosen_server
from taskd.cli.scrub import SECRET_NAME, TEXT, Scrubber
from taskd.cli.working import AgentSettings
from taskd.client.client import Client
from taskd.client.profile import Profile, profiles, resolve
from taskd.server.config import ServerConfig
from taskd.server.settings import FILE_NAME, ByteCount, Milliseconds
from taskd.store.head import FORMAT
from taskd.text import Json
from taskd_protocol.errors import TaskdError
from taskd_protocol.house_messages import AgentList, AgentPage, QueueList, QueuePage, Stats, StatsQuery

LOG_BYTES_MAX: Final = 1 << 20
"""Of the end of each log."""
METRICS_BYTES_MAX: Final = 4 << 20

_HTTP_OK: Final = 200
_LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})
_PARTS: Final = (
    *("anycorn", "click", "croniter", "cryptography", "msgpack", "msgspec", "nvidia-ml-py"),
    *("opentelemetry-sdk", "prometheus-client", "psutil", "python-multipart", "rich", "rocksdict", "starlette"),
    *("structlog", "trio"),
)
"""Packages whose versions are told."""
_NAMES: Final = frozenset({"data_dir", "host_names", "http", "listen", "loop", "queues", "modules", "name"})
"""Settings whose text is no secret."""
_FIGURES: Final = frozenset({bool, int, float, Milliseconds, ByteCount})
"""Kinds of settings that hold a number, a size or a time."""

README: Final = """What `taskd debug-bundle` found: versions, configuration, findings of the doctor, the machine, what
the server counts, its metrics, and the ends of the logs that were named.

Payloads, results, error messages, tokens, keys and what tasks print are left out, or replaced by [text] and [secret].
Names of tasks, queues, agents, machines and folders are in it, as are the words by which lines of
logs say what happened, and their fields `name` and `path`: look through it before you send it.
"""


def collect(findings: Sequence[Finding], logs: Sequence[IO[bytes]], config: Path | None) -> Iterator[tuple[str, bytes]]:
    """Give the files of a bundle: name and content.

    Args:
        findings: The doctor's.
        logs: To take the ends of.
        config: A ``taskd.toml``; None: the one in use here, if there is one.
    """
    scrubber = Scrubber(_secrets(os.environ))
    yield "README.txt", README.encode()
    documents: dict[str, Callable[[], Json]] = {
        "versions.json": _versions,
        "config.json": lambda: told_settings(config, os.environ),
        "doctor.json": lambda: [_finding(finding) for finding in findings],
        "machine.json": _machine,
        "data_dir.json": _data_dir,
        "server.json": _server,
    }
    for name, make in documents.items():
        yield name, _json(scrubber.document(_or_why_not(make)))
    yield "metrics.txt", scrubber.text(str(_or_why_not(_metrics))).encode()
    for number, log in enumerate(logs, 1):
        name = Path(log.name).name if isinstance(log.name, str) and not log.name.startswith("<") else "stdin"
        yield f"logs/{number}-{name}", scrubber.log(_tail(log)).encode()


def pack(files: Iterator[tuple[str, bytes]], top: str, now_s: int) -> tuple[bytes, list[str]]:
    """Return a ``tar.gz`` of the files below a folder, and their names."""
    packed, names = io.BytesIO(), []
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, content in files:
            entry = tarfile.TarInfo(f"{top}/{name}")
            entry.size, entry.mode, entry.mtime = len(content), 0o600, now_s
            archive.addfile(entry, io.BytesIO(content))
            names.append(name)
    return packed.getvalue(), names


def _or_why_not(make: Callable[[], Json]) -> Json:
    try:
        return make()
    except (OSError, HTTPException, TaskdError, ValueError) as error:
        return {"missing": error.message if isinstance(error, TaskdError) else f"{type(error).__name__}: {error}"}


def _secrets(environ: Mapping[str, str]) -> Iterator[str]:
    """Give the secrets that this user knows: of profiles, and of the environment."""
    with contextlib.suppress(TaskdError):
        for profile in (*profiles(), _profile()):
            yield from (profile.token, profile.agent_token)
    yield from (value for name, value in environ.items() if SECRET_NAME.search(name))
    for value in environ.values():
        if "://" in value and "@" in value:
            yield from (part for part in value.partition("://")[2].rpartition("@")[0].split(":") if part)


def _versions() -> Json:
    packages: dict[str, Json] = {}
    for name in _PARTS:
        try:
            packages[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            packages[name] = None
    return {
        "taskd": __version__,
        "frozen": bool(getattr(sys, "frozen", False)),
        "store_format": FORMAT,
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "system": platform.platform(),
        "libc": " ".join(platform.libc_ver()),
        "packages": packages,
    }


def told_settings(config: Path | None, environ: Mapping[str, str]) -> Json:
    """Return what file and environment set: the values of what taskd has and no secret can be in, else the name."""
    path = config or Path(environ.get("TASKD_CONFIG") or FILE_NAME)
    sections: dict[str, Json] = {}
    if path.is_file():
        document = tomllib.loads(path.read_text(encoding="utf-8"))
        sections = {name: _section(name, value) for name, value in document.items()}
    kinds = _kinds(AgentSettings) | _kinds(ServerConfig)
    variables: dict[str, Json] = {}
    for name, value in sorted(environ.items()):
        if name.startswith("TASKD_"):
            key = name.removeprefix("TASKD_").lower()
            variables[name] = _setting(key, value, kinds.get(key))
    return {"file": str(path) if sections else None, "settings": sections, "environment": variables}


def _section(name: str, said: object) -> Json:
    kinds = {"server": _kinds(ServerConfig), "agent": _kinds(AgentSettings)}.get(name, {})
    if not isinstance(said, dict):
        return TEXT
    return {str(key): _setting(str(key), value, kinds.get(str(key))) for key, value in said.items()}


def _kinds(settings: type[msgspec.Struct]) -> dict[str, object]:
    """Return what each setting holds, by the name that people write."""
    return {field.encode_name: field.type for field in msgspec.structs.fields(settings)}


def _setting(name: str, value: object, kind: object) -> Json:
    """Return what a setting is set to; where taskd has none of that name (``kind`` is None), it may be anything."""
    while get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    if get_origin(kind) is Literal:
        return value if isinstance(value, str) and value in get_args(kind) else TEXT
    if kind in _FIGURES:
        if isinstance(value, bool | int | float) or (isinstance(value, str) and _is_amount(value)):
            return value
        return TEXT
    if kind is not None and name in _NAMES:
        return [str(each) for each in value] if isinstance(value, list) else str(value)
    return TEXT


def _is_amount(text: str) -> bool:
    return len(text) <= _AMOUNT_CHARS_MAX and text[:1].isdigit() and text.rstrip("hkmgtwsdiKMGTB").isdigit()


_AMOUNT_CHARS_MAX: Final = 12


def _finding(finding: Finding) -> Json:
    return {
        "name": finding.name,
        "status": finding.status,
        "message": finding.message,
        "advice": finding.advice or None,
        "code": None if finding.error is None else finding.error.code,
    }


def _machine() -> Json:
    memory, swap = psutil.virtual_memory(), psutil.swap_memory()
    processes: list[Json] = [
        {"pid": process.pid, "rss": process.memory_info().rss, "threads": process.num_threads()}
        for process in psutil.process_iter(["name"])
        if process.info["name"] == "taskd"
    ]
    return {
        "cpus": os.cpu_count(),
        "usable_cpus": len(os.sched_getaffinity(0)),
        "load": list(os.getloadavg()),
        "memory_total": memory.total,
        "memory_available": memory.available,
        "swap_used": swap.used,
        "taskd_processes": processes,
    }


def _profile() -> Profile:
    url, context = chosen_server()
    return resolve(url, name=context)


def _data_dir() -> Json:
    """Return how much lies where in the data directory, by kind of file; nothing is read."""
    root = Path(_profile().data_dir)
    if not root.name:
        return {"missing": "the server is on another machine"}
    count: Counter[str] = Counter()
    weight: Counter[str] = Counter()
    for folder, _, names in os.walk(root):
        for name in names:
            kind = str(Path(folder).relative_to(root) / f"*{Path(name).suffix}")
            count[kind] += 1
            weight[kind] += (Path(folder) / name).lstat().st_size
    usage = psutil.disk_usage(str(root))
    return {
        "path": str(root),
        "disk_total": usage.total,
        "disk_free": usage.free,
        "files": {kind: {"count": count[kind], "bytes": weight[kind]} for kind in sorted(count)},
    }


def _server() -> Json:
    """Return what the server counts, its queues and its agents, without what users gave them but names."""
    with closing(Client(_profile())) as client:
        client.connect(CONNECT_S)
        stats = client.call(StatsQuery(0), Stats)
        queues = client.call(QueueList(0), QueuePage).queues
        agents = client.call(AgentList(0), AgentPage).agents
    return {
        "tasks": dict(stats.tasks),
        "stages_ns": dict(stats.stages_ns),
        "counts": dict(stats.counts),
        "cpu_ns": stats.cpu_ns,
        "queues": [msgspec.to_builtins(msgspec.structs.asdict(queue)) for queue in queues],
        "agents": [
            {
                "name": agent.name,
                "state": agent.state,
                "slots": agent.slots,
                "running": agent.running,
                "software": agent.software,
                "task_names": list(agent.task_names),
                "queues": list(agent.queues),
                "labels": sorted(agent.labels),
                "host": msgspec.to_builtins(msgspec.structs.asdict(agent.host)),
            }
            for agent in agents
        ],
    }


def _metrics() -> Json:
    """Return the server's metrics, as its HTTP port shows them."""
    profile = _profile()
    if not profile.http:
        return "no HTTP port is known\n"
    url = urlsplit(profile.http)
    safe = url.scheme == "https" or url.hostname in _LOOPBACK
    headers = {"authorization": f"Bearer {profile.token}"} if safe else {}
    status, body = ask_http(profile, "GET", "/metrics", headers)
    if status != _HTTP_OK:
        return f"/metrics answered {status}\n"
    return body[:METRICS_BYTES_MAX].decode(errors="replace")


def _tail(log: IO[bytes]) -> str:
    """Return the last whole lines of a log."""
    if log.seekable():
        size = log.seek(0, os.SEEK_END)
        log.seek(max(0, size - LOG_BYTES_MAX))
        text = log.read()
    else:
        text, size = b"", 0
        while piece := log.read(1 << 16):
            size += len(piece)
            text = (text + piece)[-LOG_BYTES_MAX:]
    if size > LOG_BYTES_MAX:
        text = text.partition(b"\n")[2]
    return text.decode(errors="replace")


def _json(document: Json) -> bytes:
    return json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False).encode() + b"\n"
