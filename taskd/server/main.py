"""The server, put together: data directory, store, core, loop, listener.

The nursery tree: the commit loop and its flusher live longest; the listener and its
sessions inside them; so that what a session is owed can still be decided when the
port is already closed.
"""

import gc
import socket
import ssl
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Protocol

import structlog
import trio

from taskd import __version__
from taskd.core.commands import StoreToken
from taskd.core.coordinator import Coordinator
from taskd.core.records import TokenRecord
from taskd.core.restore import restore
from taskd.core.working import Settings
from taskd.server import tokens
from taskd.server.addresses import Address, machine_addresses, reachable
from taskd.server.agent_role import AgentRole
from taskd.server.backups import Backups, Source
from taskd.server.certificates import Certificates, names_for, open_certificates
from taskd.server.client_role import ClientRole
from taskd.server.datadir import DataDir, open_data_dir
from taskd.server.disk import DiskWatch
from taskd.server.hub import Hub
from taskd.server.listener import open_listener
from taskd.server.loop import CommitLoop
from taskd.server.notices import Notices
from taskd.server.onlooker import Watch
from taskd.server.platform import Platform
from taskd.server.services import Services
from taskd.server.session import Role, Session
from taskd.server.starting import read_stored
from taskd.store.head import FORMAT
from taskd.store.interface import Store
from taskd.store.rocksdb import open_store
from taskd_protocol.connection_messages import Hello, PeerLimits
from taskd_protocol.errors import AuthRefused, ServerStopping, StoreCorrupt, TaskdError
from taskd_protocol.handshake import HELLO_AGENT

log = structlog.get_logger("taskd.server")

EXIT_STORE_CORRUPT = 65
"""As a store that is refused at the start: to start again, unchanged, would not help."""

EXIT_STORE_FAILED = 74

OWN_TOKEN_MS = 365 * 24 * 3600 * 1000
"""The tokens that a server writes into its own user's profile."""

OWN_TOKEN_LEFT_MS = 30 * 24 * 3600 * 1000
"""A start replaces one in the profile that has less left."""

SETTLE_SECONDS = 2.0
"""An orderly end waits so long for answers that are owed; agents that go on reporting must not keep it waiting."""

FAREWELL_SECONDS = 3.0
"""After that, sessions have so long to say goodbye, and strangers to go."""

GC_THRESHOLD = 50_000
"""Objects between two collections of the youngest generation: messages and records are freed by count and
hold no cycles, so collecting at Python's 700 finds nothing and costs a tenth of the loop's time."""

SWITCH_SECONDS = 0.0003
"""After so long the loop lets a thread run that waits for the interpreter: the one that flushes needs it for moments,
to begin and to say that it is done. At Python's 5 ms, each time anew when the loop makes a system call in between,
flushes of 2 ms were seen to take 10 to 30 beside a busy loop."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerPlan:
    """What to serve, where."""

    data_dir: Path
    listen: Address
    http: Address | None = None
    """Where the caller serves HTTP; the certificate is good for it."""
    host_names: tuple[str, ...] = ()
    tls: bool = True
    settings: Settings = field(default_factory=Settings)
    watched: bool = True
    """Keep what happens for who looks on: events and history."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """A server whose store is about to be opened, which may take a while."""

    tls_context: ssl.SSLContext
    """With the certificate of now; follows renewals."""
    host_names: tuple[str, ...]
    """What the certificate is good for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving(Opening):
    """A server that serves."""

    address: Address
    """With the real port."""
    ca_pem: str
    data_dir: Path
    tls: bool
    services: Services
    """What HTTP opens its sessions with."""
    ready: Callable[[], bool]
    """Whether commands are being decided: false once the server stops."""
    stop: Callable[[], None]
    """Begins an orderly end; ``serve`` returns when it is done."""
    wait_stopping: Callable[[], Awaitable[None]]
    """Returns when the end has begun."""
    mint: Callable[[str], Awaitable[str]]
    """Makes a durable token of a role, for the profile of the server's own user."""
    knows: Callable[[str, str], bool]
    """Whether a token has a role, and is good for some time yet: those in the profile may be another store's."""


class DiskStore(Store, Source, Protocol):
    """A store as a server of its own has it."""

    def note_loss(self, sequence: int) -> None:
        """Have the next start refuse a store that has not come so far.

        Raises:
            OSError: That cannot be written down.
        """


class _Ending:
    """How the server is asked to end, and why."""

    def __init__(self) -> None:
        self.asked = trio.Event()
        self.why: TaskdError | None = None

    def __call__(self, why: TaskdError | None = None) -> None:
        self.why = self.why or why
        self.asked.set()


async def serve(
    plan: ServerPlan,
    platform: Platform,
    *,
    opens: Callable[[Opening], Awaitable[None]] | None = None,
    task_status: trio.TaskStatus[Serving] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until ``Serving.stop`` is called; all that was acknowledged is on disk whenever this ends, however.

    Args:
        plan: What to serve, where.
        platform: The machine.
        opens: Awaited before the store is opened; the loop goes on meanwhile, but for what RocksDB itself does.
        task_status: Told what serves.

    Raises:
        TaskdError: It cannot start, or had to stop; the code tells the exit code.
    """
    data_dir = open_data_dir(plan.data_dir, platform.token_bytes)
    if data_dir.volatile:
        log.warning("data_dir_in_memory", data_dir=str(data_dir.root), loses="everything, when the machine restarts")
    try:
        hosts = [address.host for address in (plan.listen, plan.http) if address is not None]
        names = names_for(hosts, socket.gethostname(), machine_addresses(), plan.host_names)
        certificates = open_certificates(data_dir.root, names, platform.clock.wall_ms(), platform.issue)
        if opens is not None:
            await opens(Opening(tls_context=certificates.context, host_names=certificates.facts().host_names))
        store = await platform.offload(
            partial(
                open_store,
                data_dir.store,
                offload=platform.offload,
                flush=platform.flush,
                new_lineage=platform.token_bytes(16),
                on_migration=lambda older: log.info("migrating_store", stored=older, to=FORMAT),
            )
        )
        gc.freeze()  # uncollected: to look through all that was imported takes a seventh of a start
        gc.set_threshold(GC_THRESHOLD)
        sys.setswitchinterval(SWITCH_SECONDS)
        try:
            await serve_store(plan, platform, data_dir, certificates, store, task_status=task_status)
        finally:
            with trio.CancelScope(shield=True):  # as long as the disk takes
                await store.close()
    finally:
        data_dir.close()


async def serve_store(
    plan: ServerPlan,
    platform: Platform,
    data_dir: DataDir,
    certificates: Certificates,
    store: DiskStore,
    *,
    task_status: trio.TaskStatus[Serving] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve over a store that is open, and the caller's to close; touches nothing of the machine but ``platform``.

    Raises:
        TaskdError: It cannot start, or had to stop.
    """
    hub = Hub()
    ending = _Ending()
    coordinator = Coordinator(plan.settings, platform.rng)
    loop = CommitLoop(
        coordinator=coordinator,
        store=store,
        clock=platform.clock,
        deliver=hub.deliver,
        fail=partial(_exit_at_once, platform),
        flusher=platform.flusher,
        ears=platform.ears,
    )
    restore(coordinator.working, await read_stored(store), loop.now())
    watch = Watch(store, coordinator.working, loop.tally, platform.rng, hub.hosts)
    if plan.watched:
        await watch.open(loop.now())
        loop.onlooker = watch
    listener = await open_listener(plan.listen, certificates.context if plan.tls else None, platform)
    disk = DiskWatch(data_dir.root, platform)
    loop.is_disk_full = lambda: disk.refusal() is not None
    software = f"taskd {__version__}"
    backups = Backups(store, data_dir.root, platform, software)
    services = Services(
        platform=platform,
        loop=loop,
        hub=hub,
        certificates=certificates,
        notices=Notices(platform.clock),
        mark_key=data_dir.mark_key,
        limits=PeerLimits(
            payload_bytes_max=plan.settings.payload_bytes_max,
            heartbeat_ms=plan.settings.heartbeat_ms,
            heartbeats_missed=plan.settings.heartbeats_missed,
        ),
        software=software,
        addresses=[str(address) for address in reachable(listener.address)],
        room_on_disk=disk.refusal,
        stop=ending,
        note_loss=partial(_note_loss, store),
        backups=backups,
        watch=watch if plan.watched else None,
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(loop.run)
        await loop.until_durable()  # the epoch, before the first lease
        nursery.start_soon(backups.run)
        if plan.watched:
            nursery.start_soon(watch.bus.run)
        async with trio.open_nursery() as sessions:
            await sessions.start(listener.serve, partial(_serve_connection, services))
            task_status.started(
                Serving(
                    address=listener.address,
                    ca_pem=certificates.ca_pem,
                    data_dir=data_dir.root,
                    tls=plan.tls,
                    tls_context=certificates.context,
                    host_names=certificates.facts().host_names,
                    services=services,
                    ready=lambda: not ending.asked.is_set(),
                    stop=ending,
                    wait_stopping=ending.asked.wait,
                    mint=partial(_mint, services),
                    knows=partial(_knows, services),
                )
            )
            log.info(
                "serving", address=str(listener.address), data_dir=str(data_dir.root), epoch=services.working.epoch
            )
            await ending.asked.wait()
            listener.close()
            loop.refuse_submits()
            with trio.move_on_after(SETTLE_SECONDS):
                await loop.until_settled()
            hub.end_all(ServerStopping("the server is stopping; reconnect when it is back", retry_after_ms=500))
            sessions.cancel_scope.deadline = trio.current_time() + FAREWELL_SECONDS
        await loop.until_durable()
        nursery.cancel_scope.cancel()
    log.info("stopped")
    if ending.why is not None:
        raise ending.why


async def _serve_connection(
    services: Services, stream: trio.abc.Stream, peer_address: str, authenticated: Callable[[], None]
) -> None:
    await Session(services, stream, peer_address).run(authenticated, _make_role)


def _make_role(session: Session, hello: Hello) -> Role:
    return AgentRole(session, hello) if hello.role == HELLO_AGENT else ClientRole(session)


def _note_loss(store: DiskStore, sequence: int) -> None:
    try:
        store.note_loss(sequence)
    except OSError as error:  # the next peer that knows better stops the next server
        log.warning("loss_not_noted", reason=error.strerror or str(error))


async def _mint(services: Services, role: str) -> str:
    platform = services.platform
    minted = tokens.mint(role, platform.token_bytes(tokens.ENTROPY_BYTES))
    now_ms = platform.clock.wall_ms()
    record = TokenRecord(role, minted.secret_sha256, "made by the server", now_ms, now_ms + OWN_TOKEN_MS)
    await services.decide(StoreToken(minted.key_id, record))
    return minted.text


def _knows(services: Services, role: str, text: str) -> bool:
    try:
        shown = tokens.parse(text)
    except AuthRefused:
        return False
    record = services.working.tokens.get(shown.key_id)
    if record is None or record.role != role or not tokens.secret_matches(shown, record.secret_sha256):
        return False
    return not record.revoked and record.expires_at_ms > services.platform.clock.wall_ms() + OWN_TOKEN_LEFT_MS


def _exit_at_once(platform: Platform, failure: TaskdError) -> None:
    """End the process: what the disk holds is unknown, so that nothing may be told or written any more."""
    log.critical("store_failed", code=failure.code, reason=failure.message)
    platform.exit(EXIT_STORE_CORRUPT if isinstance(failure, StoreCorrupt) else EXIT_STORE_FAILED)
