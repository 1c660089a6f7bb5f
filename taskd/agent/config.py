"""What an agent is told to be."""

import math
import shutil
import socket
import sys
from dataclasses import dataclass, field

from taskd.agent.metering import RATE_BYTES_PER_S
from taskd.agent.supplies import Pool, usable_cpus
from taskd.client.profile import Profile
from taskd_protocol.errors import BadRequest, ConfigInvalid
from taskd_protocol.limits import LOG_BYTES_PER_ATTEMPT_MAX
from taskd_protocol.resources import ONE
from taskd_protocol.task import check_name

PROCESSES_MAX = 4_096
CONCURRENCY_MAX = 100_000
CPUS_MAX = 100_000
OWN_LABELS = "taskd."
"""What labels begin with that the agent itself says."""
LOOPS = ("asyncio", "trio")

DRAIN_S = 30.0
"""How long what runs may go on after the first SIGTERM; what is left then is killed and run elsewhere."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentConfig:
    """One agent's configuration.

    Attributes:
        server: Address, CA and token.
        modules: Imported by the workers; the tasks in them are what the agent offers. None: commands only.
        name: What people call it; one live agent of a name. Empty: the host's name.
        processes: Worker processes, and commands at the same time. 0: one for each CPU.
        concurrency: Coroutines at the same time.
        queues: Only tasks of these; empty: of all.
        labels: For placement and people.
        cpus: What it offers of the machine's CPUs; 0: all that it may use.
        memory_bytes: What it offers of the machine's memory; 0: all that it may use.
        resources: What else it has, by name.
        life_ms: The machine is there for so long from the agent's start; 0: no end is known.
        pin_cpus: Attempts that hold whole CPUs run on these alone.
        log_rate_bytes: One attempt may say a second; what is more is left out.
        log_bytes: And in all.
        code_version: Of what the modules hold; empty: as their App says.
        python: Interpreter that runs the workers; empty: this one, ``python3`` for the frozen program.
        loop: Event loop for coroutines: ``asyncio`` or ``trio``.
        client: The same server with a client's token, to make the schedules known that the code defines; None: nobody
            does that here.
        tells_all: Its log tells of every attempt.
        drain_s: Grace for what runs when the agent is asked to go, in seconds.
    """

    server: Profile
    modules: tuple[str, ...] = ()
    name: str = ""
    processes: int = 0
    concurrency: int = 100
    queues: tuple[str, ...] = ()
    labels: dict[str, str] = field(default_factory=dict)
    cpus: float = 0.0
    memory_bytes: int = 0
    resources: dict[str, Pool] = field(default_factory=dict)
    life_ms: int = 0
    pin_cpus: bool = False
    log_rate_bytes: int = RATE_BYTES_PER_S
    log_bytes: int = LOG_BYTES_PER_ATTEMPT_MAX
    code_version: str = ""
    python: str = ""
    loop: str = "asyncio"
    client: Profile | None = None
    tells_all: bool = False
    drain_s: float = DRAIN_S

    @property
    def agent_name(self) -> str:
        """The name, or the host's."""
        return self.name or socket.gethostname()

    @property
    def slots(self) -> int:
        """Worker processes."""
        return self.processes or math.ceil(self.cpus or usable_cpus() / ONE)

    def check(self) -> None:
        """Refuse what makes no sense.

        Raises:
            ConfigInvalid: The setting is named.
        """
        if not 0 <= self.processes <= PROCESSES_MAX:
            raise ConfigInvalid(f"--processes {self.processes} is out of range; it goes from 1 to {PROCESSES_MAX}")
        if not 1 <= self.concurrency <= CONCURRENCY_MAX:
            raise ConfigInvalid(
                f"--concurrency {self.concurrency} is out of range; it goes from 1 to {CONCURRENCY_MAX}"
            )
        if self.loop not in LOOPS:
            raise ConfigInvalid(f"--loop {self.loop!r} is unknown; use asyncio or trio")
        if not 0 <= self.cpus <= CPUS_MAX:
            raise ConfigInvalid(f"--cpus {self.cpus:g} is out of range; it goes from 0.001 to {CPUS_MAX:,}")
        own = next((label for label in self.labels if label.startswith(OWN_LABELS)), None)
        if own is not None:
            raise ConfigInvalid(f"--label {own}: labels that begin with {OWN_LABELS} are said by the agent itself")
        try:
            check_name("agent name", self.agent_name)
            for queue in self.queues:
                check_name("queue", queue)
        except BadRequest as error:
            raise ConfigInvalid(error.message) from None

    def worker_argv(self) -> list[str]:
        """Return what starts a worker.

        Raises:
            ConfigInvalid: The interpreter cannot be found.
        """
        return [find_python(self.python), "-m", "taskd.agent.worker", *self.modules]


def find_python(wanted: str) -> str:
    """Return the interpreter that imports users' modules.

    Args:
        wanted: Name or path; empty: this one, ``python3`` for the frozen program.

    Raises:
        ConfigInvalid: It cannot be found.
    """
    frozen = bool(getattr(sys, "frozen", False))
    name = wanted or ("python3" if frozen else sys.executable)
    found = shutil.which(name)
    if found is None:
        raise ConfigInvalid(f"no Python at {name!r} to run the workers: name one that has taskd with --python")
    return found
