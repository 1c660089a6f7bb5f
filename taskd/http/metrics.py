"""Metrics: the server's figures in the words that Prometheus reads.

Nothing is counted here: what the commit loop has counted in plain integers is copied when somebody asks, and put into
words in a thread. Names are made of words that are fixed here; labels hold queues and agents, of which there are few.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Final, TypeVar

import psutil
import trio
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route as Page

from taskd import __version__
from taskd.core.events import ATTEMPT, RUNNING, SCHEDULED, SUBMITTED, TASK
from taskd.core.lifecycle import TERMINAL, State
from taskd.http.api import Api
from taskd.http.errors import refusal
from taskd.http.traffic import Traffic
from taskd.server.figures import AgentFigures, Figures, figures
from taskd.server.histogram import Histogram
from taskd.server.services import Services
from taskd.store.disk import read_space
from taskd_protocol.errors import TaskdError

PATH: Final = "/metrics"

TEXTS: Final = {
    "taskd_build_info": "Always 1; the label says which version runs.",
    "taskd_ready": "1 while the server takes work.",
    "taskd_tasks": "Tasks that have not ended, by queue and state.",
    "taskd_tasks_kept": "Ended tasks that are kept, by state; dead ones are dead letters.",
    "taskd_queue_oldest_seconds": "How long the longest of those first in line has waited.",
    "taskd_queue_paused": "1 while nothing of the queue is started.",
    "taskd_tasks_submitted": "Tasks that were accepted.",
    "taskd_attempts_started": "Attempts that agents were given.",
    "taskd_retries": "Attempts that failed and are followed by another one.",
    "taskd_tasks_ended": "Tasks that have ended, by how.",
    "taskd_attempts_ended": "Attempts that have ended, by how.",
    "taskd_task_wait_seconds": "How long attempts had waited in line when they began.",
    "taskd_task_run_seconds": "How long attempts ran, however they ended.",
    "taskd_agents": "Agents, by state.",
    "taskd_commit_seconds": "How long the fsyncs took that let answers go.",
    "taskd_turn_seconds": "How long turns of the commit loop took.",
    "taskd_loop_lag_seconds": "By how much the server's loop came late to a timer.",
    "taskd_collector_seconds": "How long Python's collections of garbage took, while all threads waited.",
    "taskd_loop_cpu_seconds": "Processor time of the loop, by stage.",
    "taskd_turns": "Turns of the commit loop.",
    "taskd_commits": "Fsyncs.",
    "taskd_protocol_bytes": "Bytes of clients and agents.",
    "taskd_connections": "Clients and agents that are connected.",
    "taskd_events": "What has happened to what is no task.",
    "taskd_webhook_letters": "Dead letters of webhooks that are kept.",
    "taskd_stream_drops": "What was left out for who reads a stream too slowly.",
    "taskd_undurable_batches": "Batches that are written and not yet synced.",
    "taskd_finished_bytes": "What ended tasks weigh, as retention counts it.",
    "taskd_process_cpu_seconds": "Processor time of the server.",
    "taskd_http_requests": "Requests over HTTP.",
    "taskd_http_seconds": "Time that they took in all.",
    "taskd_http_streams": "Streams that are open over HTTP.",
    "taskd_store_bytes": "Files of the data directory.",
    "taskd_disk_free_bytes": "Left on the disk of the data directory.",
    "taskd_disk_bytes": "Size of that disk.",
    "taskd_process_resident_bytes": "Memory of the server.",
    "taskd_process_open_files": "Files and sockets that it has open.",
    "taskd_agent_slots": "Attempts that the agent runs at a time.",
    "taskd_agent_leases": "Attempts that it has been given and has not reported.",
    "taskd_agent_cpu_ratio": "What its machine's CPUs are in use, 0 to 1.",
    "taskd_agent_memory_used_bytes": "Memory in use on its machine.",
    "taskd_agent_memory_bytes": "Memory that its machine has.",
}
"""Every metric, in words."""

OUTCOMES: Final = ("failed", "crashed", "lost")
NOTED: Final = (
    "agent.connected",
    "agent.implausible",
    "agent.lost",
    "agent.quarantined",
    "webhook.dead",
    "webhook.lost",
)
"""What is told from the start on, though it has not happened."""

MS: Final = 1e3
US: Final = 1e6
NS: Final = 1e9


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What the machine says of the process and its disk."""

    store_bytes: Mapping[str, int]
    """By what it is: the store's tables, its log, other files."""
    disk_free_bytes: int
    disk_total_bytes: int
    resident_bytes: int
    open_files: int


def look_at_machine(root: Path) -> Machine:
    """Ask the system; some milliseconds, for a thread."""
    sizes = {"tables": 0, "log": 0, "other": 0}
    for folder, _, names in os.walk(root):
        for name in names:
            part = {".sst": "tables", ".log": "log"}.get(Path(name).suffix, "other")
            try:
                sizes[part] += (Path(folder) / name).stat().st_size
            except OSError:  # the store has put it away meanwhile
                continue
    space, process = read_space(root), psutil.Process()
    with process.oneshot():
        return Machine(
            store_bytes=sizes,
            disk_free_bytes=space.free_bytes,
            disk_total_bytes=space.total_bytes,
            resident_bytes=process.memory_info().rss,
            open_files=process.num_fds(),
        )


class Metrics:
    """Answers scrapes."""

    def __init__(self, services: Services, root: Path, traffic: Traffic, *, ready: Callable[[], bool]) -> None:
        """Join the parts.

        Args:
            services: Of the server.
            root: Its data directory.
            traffic: What was asked over HTTP.
            ready: Whether the server takes work.
        """
        self._services = services
        self._root = root
        self._traffic = traffic
        self._ready = ready

    async def scrape(self, accept: str) -> tuple[bytes, str]:
        """Return the figures of now, once they are durable, and their content type.

        Args:
            accept: The header of who asks: OpenMetrics, or the older text.
        """
        services = self._services
        clock = services.platform.clock
        now = figures(services.loop, services.hub, services.loop.now(), clock.cpu_ns())
        traffic, ready = self._traffic.copy(), self._ready()
        await services.loop.until_durable()

        def render() -> tuple[bytes, str]:
            encode, content_type = choose_encoder(accept)
            registry = CollectorRegistry(auto_describe=False)
            registry.register(
                _Once([*_of_server(now, ready=ready), *_of_http(traffic), *_of_machine(look_at_machine(self._root))])
            )
            return encode(registry), content_type

        return await services.platform.offload(render)


def metrics_page(api: Api, root: Path, ready: Callable[[], bool]) -> Page:
    """Return the page that Prometheus reads; any token that may look on will do."""
    metrics = Metrics(api.services, root, api.traffic, ready=ready)

    async def scrape(request: Request) -> Response:
        """The server's figures, for Prometheus."""
        began_s = trio.current_time()
        try:
            api.who(request)
            text, content_type = await metrics.scrape(request.headers.get("accept", ""))
            answer = Response(text, headers={"content-type": content_type})
        except TaskdError as why:
            answer = refusal(why)
        api.traffic.counts["GET", PATH, answer.status_code] += 1
        api.traffic.seconds["GET", PATH] += trio.current_time() - began_s
        return answer

    return Page(PATH, scrape)


class _Once(Collector):
    """Hands over what was made already."""

    def __init__(self, made: Iterable[Metric]) -> None:
        self._made = made

    def collect(self) -> Iterable[Metric]:
        """Return it."""
        return self._made


def _of_server(f: Figures, *, ready: bool) -> Iterator[Metric]:
    yield _gauge("taskd_build_info", {(__version__,): 1}, "version")
    yield _gauge("taskd_ready", {(): int(ready)})
    yield from _of_queues(f)
    yield from _of_agents(f)
    yield from _of_loop(f)


def _of_queues(f: Figures) -> Iterator[Metric]:
    queues = f.queues

    def moved(name: str, what: str) -> Metric:
        return _counter(name, {(name,): q.moved.get(what, 0) for name, q in queues.items()}, "queue")

    def by_word(prefix: str) -> dict[tuple[str, str], int]:
        return {
            (name, what.removeprefix(prefix)): count
            for name, q in queues.items()
            for what, count in sorted(q.moved.items())
            if what.startswith(prefix)
        }

    standing = {
        (name, str(state)): q.states.get(str(state), 0)
        for name, q in queues.items()
        for state in State
        if state not in TERMINAL
    }
    yield _gauge("taskd_tasks", standing, "queue", "state")
    kept = {(state,): count for state, count in f.ended.items()}
    yield _gauge("taskd_tasks_kept", kept, "state")
    oldest = {(name,): q.oldest_ms / MS for name, q in queues.items()}
    yield _gauge("taskd_queue_oldest_seconds", oldest, "queue")
    paused = {(name,): int(q.paused) for name, q in queues.items()}
    yield _gauge("taskd_queue_paused", paused, "queue")
    yield moved("taskd_tasks_submitted", SUBMITTED)
    yield moved("taskd_attempts_started", RUNNING)
    yield moved("taskd_retries", SCHEDULED)
    # None is left out that has not happened yet: a rate shows the first one only if there was a 0 before it.
    none = {(name, str(state)): 0 for name in queues for state in sorted(TERMINAL)}
    ended = none | {(name, state): count for (name, state), count in by_word(TASK).items() if state in TERMINAL}
    yield _counter("taskd_tasks_ended", ended, "queue", "state")
    succeeded = {at: count for at, count in ended.items() if at[1] == State.SUCCEEDED}
    none = {(name, outcome): 0 for name in queues for outcome in OUTCOMES}
    yield _counter("taskd_attempts_ended", none | by_word(ATTEMPT) | succeeded, "queue", "outcome")
    waits = {(name,): q.waits_ms for name, q in queues.items()}
    yield _histogram("taskd_task_wait_seconds", waits, MS, "queue")
    runs = {(name,): q.runs_ms for name, q in queues.items()}
    yield _histogram("taskd_task_run_seconds", runs, MS, "queue")


def _of_agents(f: Figures) -> Iterator[Metric]:
    states = {(state,): f.agents_by_state.get(state, 0) for state in sorted({"live", "lost", *f.agents_by_state})}
    yield _gauge("taskd_agents", states, "state")
    told: tuple[tuple[str, Callable[[AgentFigures], float]], ...] = (
        ("taskd_agent_slots", lambda a: a.slots),
        ("taskd_agent_leases", lambda a: a.leases),
        ("taskd_agent_cpu_ratio", lambda a: a.host.cpu_percent / 100),
        ("taskd_agent_memory_used_bytes", lambda a: a.host.memory_used),
        ("taskd_agent_memory_bytes", lambda a: a.host.memory_total),
    )
    for name, value in told:
        yield _gauge(name, {(agent,): value(a) for agent, a in f.agents.items()}, "agent")


def _of_loop(f: Figures) -> Iterator[Metric]:
    yield _histogram("taskd_commit_seconds", {(): f.flush_us}, US)
    yield _histogram("taskd_turn_seconds", {(): f.turn_us}, US)
    yield _histogram("taskd_loop_lag_seconds", {(): f.lag_us}, US)
    yield _histogram("taskd_collector_seconds", {(): f.collector_us}, US)
    stages = {(stage,): spent / NS for stage, spent in f.stages_ns.items()}
    yield _counter("taskd_loop_cpu_seconds", stages, "stage")
    yield _counter("taskd_turns", {(): f.counts["turns"]})
    yield _counter("taskd_commits", {(): f.counts["flushes"]})
    traffic = {("in",): f.counts["bytes_in"], ("out",): f.counts["bytes_out"]}
    yield _counter("taskd_protocol_bytes", traffic, "direction")
    yield _gauge("taskd_connections", {(): f.connections})
    happened = {(what,): f.noted.get(what, 0) for what in sorted({*NOTED, *f.noted})}
    yield _counter("taskd_events", happened, "event")
    yield _gauge("taskd_webhook_letters", {(): f.letters})
    dropped = {(stream,): count for stream, count in f.dropped.items()}
    yield _counter("taskd_stream_drops", dropped, "stream")
    yield _gauge("taskd_undurable_batches", {(): f.staged - f.durable})
    yield _gauge("taskd_finished_bytes", {(): f.finished_bytes})
    yield _counter("taskd_process_cpu_seconds", {(): f.cpu_ns / NS})


def _of_http(traffic: Traffic) -> Iterator[Metric]:
    asked = {(method, path, str(status)): count for (method, path, status), count in traffic.counts.items()}
    yield _counter("taskd_http_requests", asked, "method", "path", "status")
    spent = dict(traffic.seconds.items())
    yield _counter("taskd_http_seconds", spent, "method", "path")
    yield _gauge("taskd_http_streams", {(): traffic.streams})


def _of_machine(machine: Machine) -> Iterator[Metric]:
    parts = {(part,): size for part, size in machine.store_bytes.items()}
    yield _gauge("taskd_store_bytes", parts, "part")
    yield _gauge("taskd_disk_free_bytes", {(): machine.disk_free_bytes})
    yield _gauge("taskd_disk_bytes", {(): machine.disk_total_bytes})
    yield _gauge("taskd_process_resident_bytes", {(): machine.resident_bytes})
    yield _gauge("taskd_process_open_files", {(): machine.open_files})


Labels = TypeVar("Labels", bound=tuple[str, ...])


def _gauge(name: str, values: Mapping[Labels, float], *labels: str) -> Metric:
    made = GaugeMetricFamily(name, TEXTS[name], labels=labels)
    for at, value in values.items():
        made.add_metric(at, value)
    return made


def _counter(name: str, values: Mapping[Labels, float], *labels: str) -> Metric:
    made = CounterMetricFamily(name, TEXTS[name], labels=labels)
    for at, value in values.items():
        made.add_metric(at, value)
    return made


def _histogram(name: str, values: Mapping[Labels, Histogram], unit: float, *labels: str) -> Metric:
    made = HistogramMetricFamily(name, TEXTS[name], labels=labels)
    for at, histogram in values.items():
        bounds = [str(bound / unit) for bound in histogram.bounds] + ["+Inf"]
        made.add_metric(at, list(zip(bounds, accumulate(histogram.counts), strict=True)), histogram.total / unit)
    return made
