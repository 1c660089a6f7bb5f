"""What every session is given: the parts of the server that it works with."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Protocol

import trio

from taskd.core.commands import Answer, Command
from taskd.core.working import Working
from taskd.server.hub import Hub
from taskd.server.loading import Loader
from taskd.server.loop import CommitLoop
from taskd.server.notices import Notices
from taskd.server.platform import Offload, Platform
from taskd.store.interface import Store
from taskd_protocol.connection_messages import PeerLimits
from taskd_protocol.errors import TaskdError
from taskd_protocol.handshake import epoch_of, make_mark
from taskd_protocol.mark import Mark

if TYPE_CHECKING:
    from taskd.server.backups import Backups
    from taskd.server.certificates import CertificateFacts
    from taskd.server.onlooker import Watch


class Identity(Protocol):
    """What the server shows to peers that want to know whom they talk to: see ``Certificates``."""

    ca_pem: str
    ca_sha256: bytes

    def facts(self) -> "CertificateFacts":
        """Return the facts of the certificate that new connections are shown."""
        ...

    async def renew(self, host_names: Sequence[str], now_ms: int, offload: Offload) -> None:
        """Issue a new certificate."""
        ...


_mark = lru_cache(maxsize=1)(make_mark)
"""All that are told of one commit carry its mark: 50 submits that were durable together, say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """The running server's parts."""

    platform: Platform
    loop: CommitLoop
    hub: Hub
    certificates: Identity
    notices: Notices
    """For what peers cause that nobody knows yet."""
    mark_key: bytes
    limits: PeerLimits
    software: str
    addresses: list[str]
    """``host:port`` as it listens."""
    room_on_disk: Callable[[], TaskdError | None]
    """Why no new task can be taken, or None."""
    stop: Callable[[TaskdError], None]
    """Ends the server in good order, with the exit code of the error."""

    note_loss: Callable[[int], None] = lambda _: None
    """Has the next start know, too, that this commit was durable once and is not there."""
    backups: "Backups | None" = None
    """None: the store keeps nothing on disk."""
    watch: "Watch | None" = None
    """None: nothing is kept for who looks on."""

    @property
    def working(self) -> Working:
        """The core's working set, to be read."""
        return self.loop.coordinator.working

    @property
    def store(self) -> Store:
        """The store, to be read."""
        return self.loop.store

    @property
    def reader(self) -> Loader:
        """Reads records."""
        return self.loop.loader

    async def decide(self, command: Command) -> Answer:
        """Have the core decide; return its answer when that is durable.

        Raises:
            TaskdError: It refuses.
        """
        done = trio.Event()
        answers: list[Answer | TaskdError] = []

        def respond(answer: Answer | TaskdError) -> None:
            answers.append(answer)
            done.set()

        self.loop.ask(command, respond)
        await done.wait()
        [answer] = answers
        if isinstance(answer, TaskdError):
            raise answer
        return answer

    def mark(self) -> Mark:
        """Return the mark of the newest durable commit."""
        sequence = self.store.durable_sequence
        return _mark(self.mark_key, self.store.lineage, sequence, epoch_of(sequence, self.working.lives))
