"""The server as a program: started, known to its user, told to the service manager, stopped by a signal.

The nursery tree: the server, HTTP beside it, which answers before the store is read, and who waits for signals. The
server's end, for whatever reason, ends the others.
"""

import os
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Final

import trio

from taskd.cli import loop
from taskd.cli.exits import Exit
from taskd.cli.output import say
from taskd.client import profile as profiles
from taskd.client.profile import SCHEME, SCHEME_PLAIN, Profile
from taskd.core.webhook_records import WebhookRecord
from taskd.http.app import make_app, path_prefix
from taskd.http.door import Door
from taskd.http.serve import HttpAddress, serve_http
from taskd.server.addresses import Address
from taskd.server.config import ServerConfig
from taskd.server.lag import noting_collections, watch_lag
from taskd.server.logs import configure_logs
from taskd.server.main import Opening, ServerPlan, Serving, serve
from taskd.server.notify import Notifier, open_notifier
from taskd.server.otlp import SpanExporter
from taskd.server.platform import Platform, system_platform
from taskd.server.posting import Network, post, read_network
from taskd.server.tracing import Tracer
from taskd.text.happenings import webhook_body
from taskd_dashboard.pages import Dashboard

_EVERYWHERE: Final = frozenset({"0.0.0.0", "::"})  # noqa: S104 - compared, not bound


def run(config: ServerConfig) -> int:
    """Serve until a signal asks for the end; return the exit code.

    Raises:
        TaskdError: It cannot start, or had to stop.
    """
    configure_logs(level=config.log_level, form=config.log_form)
    loop.run(partial(_run, config, system_platform()))
    return Exit.DONE


async def _run(config: ServerConfig, platform: Platform) -> None:
    networks = [read_network(text) for text in config.webhook_networks]
    plan = ServerPlan(
        data_dir=config.data_dir,
        listen=config.listen,
        http=config.http,
        host_names=config.host_names,
        tls=config.tls,
        settings=config.settings(),
    )
    notifier = open_notifier(os.environ)
    async with trio.open_nursery() as nursery:
        # From the first moment on: who asks for the end while the log is being read is heard when that is done.
        asked = await nursery.start(_receive_signals)
        front = _Front(config, platform, nursery)
        serving = await nursery.start(_serve, nursery.cancel_scope, plan, platform, front.open)
        assert serving.services.watch is not None, "the program's server keeps what happens"
        serving.services.watch.chronicle.tells_all = config.log_level == "debug"
        nursery.start_soon(_post_webhooks, networks, serving, platform)
        if config.otlp:
            await nursery.start(_send_spans, config, serving, platform)
        http = front.let_in(serving)
        await _write_profile(serving, http, config.url_prefix)
        say(f"serving {SCHEME if serving.tls else SCHEME_PLAIN}://{serving.address} {http}")
        sys.stdout.flush()
        notifier.ready(f"serving {serving.address}")
        nursery.start_soon(notifier.keep_watchdog)
        nursery.start_soon(watch_lag, serving.services.loop.tally.lag_us, platform.clock)
        nursery.start_soon(_stop_when, asked, serving, notifier)
        with noting_collections(serving.services.loop.tally.collector_us, platform.clock):
            await trio.sleep_forever()


async def _serve(
    all_of_it: trio.CancelScope,
    plan: ServerPlan,
    platform: Platform,
    opens: Callable[[Opening], Awaitable[None]],
    *,
    task_status: trio.TaskStatus[Serving],
) -> None:
    await serve(plan, platform, opens=opens, task_status=task_status)
    all_of_it.cancel()


async def _post_webhooks(networks: Sequence[Network], serving: Serving, platform: Platform) -> None:
    """Have webhooks told of what happens."""

    async def send(hook: WebhookRecord, delivery: str, body: bytes) -> str:
        now_s = platform.clock.wall_ms() // 1000
        return await platform.offload(lambda: post(hook.url, hook.secret, delivery, now_s, body, networks))

    assert serving.services.watch is not None, "the program's server keeps what happens"
    await serving.services.watch.webhooks.run(send, webhook_body, serving.services.loop.ask)


async def _send_spans(
    config: ServerConfig, serving: Serving, platform: Platform, *, task_status: trio.TaskStatus[None]
) -> None:
    """Have spans made of what happens, and sent on."""
    services = serving.services
    dropped = services.loop.tally.dropped
    exporter = SpanExporter(config.otlp, services.software, platform.offload, dropped)
    assert services.watch is not None, "the program's server keeps what happens"
    services.watch.tracer = Tracer(services.working, config.trace_ratio, exporter.put)
    task_status.started()
    await exporter.run()


class _Front:
    """HTTP: from the moment on at which there is a certificate, and all of it once the server serves."""

    def __init__(self, config: ServerConfig, platform: Platform, nursery: trio.Nursery) -> None:
        self._config = config
        self._platform = platform
        self._nursery = nursery
        self._door: Door | None = None
        self._address: HttpAddress | None = None
        self._serving: Serving | None = None
        self._served = trio.Event()

    async def open(self, opening: Opening) -> None:
        """Say from now on that the server is alive and not ready."""
        config = self._config
        self._door = Door((*opening.host_names, config.http.host), config.url_prefix)
        tls = opening.tls_context if config.tls else None
        self._address = await self._nursery.start(
            partial(serve_http, self._door, config.http, tls, self._platform, until=self._until_stopping)
        )

    def let_in(self, serving: Serving) -> HttpAddress:
        """Serve; return where."""
        assert self._door is not None
        assert self._address is not None
        app = make_app(
            ready=serving.ready,
            hosts=(*serving.host_names, self._config.http.host),
            services=serving.services,
            data_dir=serving.data_dir,
            prefix=self._config.url_prefix,
            open_site=Dashboard,
        )
        self._serving = serving
        self._door.open(app)
        self._served.set()
        return self._address

    async def _until_stopping(self) -> None:
        await self._served.wait()
        assert self._serving is not None
        await self._serving.wait_stopping()


async def _receive_signals(*, task_status: trio.TaskStatus[trio.Event]) -> None:
    """Set the event at the first signal, and end this process at the second."""
    asked = trio.Event()
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
        task_status.started(asked)
        async for _ in signals:
            if asked.is_set():
                os._exit(Exit.INTERRUPTED)  # all that was acknowledged is on disk
            asked.set()


async def _stop_when(asked: trio.Event, serving: Serving, notifier: Notifier) -> None:
    await asked.wait()
    notifier.stopping()
    serving.stop()


async def _write_profile(serving: Serving, http: HttpAddress, prefix: str) -> None:
    """Let this user's commands, agents and programs find the server; keep the tokens that they have."""
    data_dir = str(serving.data_dir)
    before = next((known for known in profiles.profiles() if known.data_dir == data_dir), None)
    wanted = Profile(
        address=str(_reachable(serving.address)),
        token=await _kept_or_made(serving, "admin", "" if before is None else before.token),
        agent_token=await _kept_or_made(serving, "agent", "" if before is None else before.agent_token),
        ca_pem=serving.ca_pem if serving.tls else "",
        http=f"{http.scheme}://{_reachable(http.address)}{path_prefix(prefix)}",
        data_dir=data_dir,
        tls=serving.tls,
    )
    profiles.save(wanted)


async def _kept_or_made(serving: Serving, role: str, token: str) -> str:
    return token if serving.knows(role, token) else await serving.mint(role)


def _reachable(address: Address) -> Address:
    """Return an address that reaches a server which listens on all of them, from this machine."""
    if address.host not in _EVERYWHERE:
        return address
    return Address("::1" if ":" in address.host else "127.0.0.1", address.port)
