"""What `taskd doctor` asks of the server: is it there, who works for it, and does anything wait in vain.

Each check gives findings; what the server refuses ends them, with a finding too.
"""

import datetime as dt
import http.client
from collections.abc import Iterator
from typing import Final

from cryptography import x509

from taskd.cli.asking import CONNECT_S, ask_http
from taskd.cli.finding import Finding
from taskd.client.client import Client
from taskd.client.clock import mono_s
from taskd.client.profile import Profile
from taskd.server.clock import SystemClock
from taskd_protocol.access_messages import CertQuery, CertView
from taskd_protocol.errors import TaskdError
from taskd_protocol.house_messages import AgentList, AgentPage, QueueList, QueuePage
from taskd_protocol.limits import PAGE_ROWS_MAX
from taskd_protocol.messages import TaskExplain, TaskExplained, TaskList, TaskPage
from taskd_protocol.words import obstacle_text

CLOCK_MS_MAX: Final = 2_000
CERTIFICATE_DAYS_MIN: Final = 30
"""A server that starts renews one that has less left: who sees less has a server that has run for long."""
EXPLAINED_MAX: Final = 20
"""Names of tasks that are ready, of each of which one is explained."""

_SHOWN: Final = 5
"""Agents, names and queues that are named."""
_DAY_MS: Final = 24 * 3600 * 1000
_HTTP_OK: Final = 200


def examine(client: Client) -> Iterator[Finding]:
    """Check the way to the server, then what it shows."""
    try:
        client.connect(CONNECT_S)
        software = "" if client.link.session is None else client.link.session.server_software
        told = f"{software or 'a server'} is there at {client.profile.address} and knows the token"
        yield Finding("server", "ok", told)
        yield from _clock(client)
        if client.profile.tls:
            yield _certificate(client)
        yield _agents(client)
        yield _queues(client)
        yield _waiting(client)
    except TaskdError as error:
        yield Finding("server", "fail", error.message, error=error)
    if client.profile.ca_pem:
        yield _authority(client.profile)
    if client.profile.http:
        yield reach_http(client.profile)


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


def _authority(profile: Profile) -> Finding:
    """Tell how long the CA of the profile is good: no peer can connect after that."""
    try:
        ends = min(ca.not_valid_after_utc for ca in x509.load_pem_x509_certificates(profile.ca_pem.encode()))
    except ValueError:
        return Finding("CA", "fail", "the profile's CA is no certificate", "have the server write its profile again")
    days = (ends - dt.datetime.fromtimestamp(SystemClock().wall_ms() / 1000, dt.UTC)).days
    if days >= CERTIFICATE_DAYS_MIN:
        return Finding("CA", "ok", f"good for {days:,} days")
    return Finding("CA", "warn", f"good for {days} days", "make a new one, and give every peer its new profile")


def _agents(client: Client) -> Finding:
    agents = client.call(AgentList(0), AgentPage).agents
    live = [agent.name for agent in agents if agent.state == "live"]
    barred = [agent.name for agent in agents if agent.state == "quarantined"]
    if barred:
        told = f"in quarantine, since they failed all they took: {', '.join(barred[:_SHOWN])}"
        return Finding("agents", "warn", told, "see their errors in taskd dead ls; then: taskd agents resume NAME")
    if not live:
        return Finding("agents", "warn", "none is there, so no task runs", "start one with: taskd agent MODULE")
    return Finding("agents", "ok", f"{len(live)}: {_some(live)}")


def _queues(client: Client) -> Finding:
    queues = client.call(QueueList(0), QueuePage).queues
    paused = [f"{queue.name} ({queue.ready:,} wait)" for queue in queues if queue.paused]
    draining = [queue.name for queue in queues if queue.draining]
    if paused:
        return Finding("queues", "warn", f"paused: {_some(paused)}", "go on with: taskd queue resume NAME")
    if draining:
        return Finding("queues", "warn", f"take nothing new: {_some(draining)}", "end it with: taskd queue resume NAME")
    return Finding("queues", "ok", f"{sum(queue.ready for queue in queues):,} tasks are ready")


def _waiting(client: Client) -> Finding:
    """Tell what is ready and could run on no agent that is connected, by one task of each name and queue."""
    page = client.call(TaskList(0, "ready", limit=PAGE_ROWS_MAX), TaskPage)
    first = {(view.name, view.queue): view.id for view in reversed(page.views)}
    in_vain: list[str] = []
    for (name, _), task_id in list(first.items())[:EXPLAINED_MAX]:
        told = client.call(TaskExplain(0, task_id), TaskExplained).explanation
        if told is not None and told.impossible:
            nearest = f" ({told.agents[0].agent} {obstacle_text(told.agents[0].reason)})" if told.agents else ""
            in_vain.append(f"{name}{nearest}")
    if in_vain:
        return Finding("waiting", "warn", f"no agent can run: {_some(in_vain)}", "see: taskd task explain ID")
    return Finding("waiting", "ok", "nothing that is ready waits for an agent of another kind")


def reach_http(profile: Profile) -> Finding:
    """Ask for the server's health by HTTP."""
    try:
        status = {path: ask_http(profile, "GET", path)[0] for path in ("/healthz", "/readyz")}
    except (OSError, http.client.HTTPException) as error:
        return Finding("http", "warn", f"{profile.http} does not answer: {error}", "nothing but HTTP needs it")
    if status["/healthz"] != _HTTP_OK:
        return Finding("http", "warn", f"{profile.http} answers {status['/healthz']}", "is another program there?")
    if status["/readyz"] != _HTTP_OK:
        return Finding("http", "warn", f"{profile.http} is alive and not ready", "it starts, or stops: ask again")
    return Finding("http", "ok", f"{profile.http} is ready")


def _some(words: list[str]) -> str:
    return f"{', '.join(words[:_SHOWN])}{', …' if len(words) > _SHOWN else ''}"
