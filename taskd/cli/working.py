"""The agent as a program: its server found or joined, its settings put together, its end told."""

import hashlib
import ssl
from functools import partial
from typing import Annotated, Final

import msgspec

from taskd.agent.agent import run_agent
from taskd.agent.config import CPUS_MAX, PROCESSES_MAX, AgentConfig
from taskd.agent.join import join
from taskd.agent.metering import RATE_BYTES_PER_S
from taskd.cli import loop
from taskd.cli.exits import Exit
from taskd.client import profile as profiles
from taskd.client.amounts import read_bytes
from taskd.client.profile import Profile
from taskd.server.logs import Form, Level, configure_logs
from taskd.server.settings import ByteCount, Milliseconds
from taskd_protocol.errors import BadRequest, ConfigInvalid
from taskd_protocol.join import parse_join_code
from taskd_protocol.limits import LOG_BYTES_PER_ATTEMPT_MAX

_KIB: Final = 1 << 10
_MIB: Final = 1 << 20

_Processes = Annotated[int, msgspec.Meta(ge=1, le=PROCESSES_MAX, description=f"it goes from 1 to {PROCESSES_MAX:,}")]
_Cpus = Annotated[float, msgspec.Meta(ge=0.001, le=CPUS_MAX, description=f"it goes from 0.001 to {CPUS_MAX:,}")]
_LogRate = Annotated[ByteCount, msgspec.Meta(ge=64 * _KIB, le=64 * _MIB, description="it goes from 64KiB to 64MiB")]
_LogSize = Annotated[
    ByteCount, msgspec.Meta(ge=_MIB, le=LOG_BYTES_PER_ATTEMPT_MAX, description="it goes from 1MiB to 64MiB")
]
_Life = Annotated[Milliseconds, msgspec.Meta(ge=1, description="it goes from 1ms up")]


class AgentSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What may be said of an agent; the section ``agent`` of taskd.toml. 0 is what was not said, and cannot be said."""

    modules: tuple[str, ...] = ()
    name: str = ""
    processes: _Processes = 0
    concurrency: int = 100
    queues: tuple[str, ...] = ()
    labels: dict[str, str] = {}
    cpus: _Cpus = 0.0
    memory: str = ""
    resources: dict[str, float | str | list[str]] = {}
    life: _Life = Milliseconds(0)
    pin_cpus: bool = False
    log_rate: _LogRate = ByteCount(RATE_BYTES_PER_S)
    log_size: _LogSize = ByteCount(LOG_BYTES_PER_ATTEMPT_MAX)
    code_version: str = ""
    python: str = ""
    loop: str = "asyncio"
    log_level: Level = "info"
    log_form: Form = "auto"


def find_server(url: str | None, context: str | None) -> Profile:
    """Return the server that was named, or the one that is known here.

    Raises:
        ConfigInvalid: There is none.
    """
    server = profiles.resolve(url, name=context)
    return msgspec.structs.replace(server, token=server.agent_token or server.token)


def find_client(url: str | None, context: str | None) -> Profile | None:
    """Return the same server with a client's token; None: only an agent's is known here, or it is not known which."""
    server = profiles.resolve(url, name=context)
    return server if server.agent_token else None


def join_server(code: str) -> Profile:
    """Join the server that made the code and remember it; with a code that was used here before, return that server.

    So an agent that is started again with the words of its first start comes back.

    Raises:
        TaskdError: The code is not whole, or spent, or its server cannot be reached.
    """
    wanted = parse_join_code(code)
    for known in profiles.profiles():
        if not known.data_dir and known.address in wanted.addresses and _ca_sha256(known) == wanted.ca_sha256:
            return known
    return profiles.save(loop.run(partial(join, code)))


def run(settings: AgentSettings, server: Profile, client: Profile | None = None) -> int:
    """Run the agent until it is asked to go; return the exit code.

    Raises:
        TaskdError: It cannot start, or the server refuses it.
    """
    try:
        memory_bytes = read_bytes(settings.memory) if settings.memory else 0
    except BadRequest as error:
        raise ConfigInvalid(f"--{error.message}") from None
    configure_logs(level=settings.log_level, form=settings.log_form)
    config = AgentConfig(
        server=server,
        modules=settings.modules,
        name=settings.name,
        processes=settings.processes,
        concurrency=settings.concurrency,
        queues=settings.queues,
        labels=settings.labels,
        cpus=settings.cpus,
        memory_bytes=memory_bytes,
        resources=settings.resources,
        life_ms=settings.life,
        pin_cpus=settings.pin_cpus,
        log_rate_bytes=settings.log_rate,
        log_bytes=settings.log_size,
        code_version=settings.code_version,
        python=settings.python,
        loop=settings.loop,
        client=client,
        tells_all=settings.log_level == "debug",
    )
    loop.run(partial(run_agent, config))
    return Exit.DONE


def _ca_sha256(profile: Profile) -> bytes:
    try:
        return hashlib.sha256(ssl.PEM_cert_to_DER_cert(profile.ca_pem)).digest()
    except ValueError:
        return b""
