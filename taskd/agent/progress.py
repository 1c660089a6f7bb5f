"""Progress: what running attempts told of how far they have come, until the server has it for the next ones.

Invariants:
- Of an attempt the latest is kept until its report is recorded, and sent again on a new connection.
- Each goes out at most once a look, and before the attempt's report.

Pure: knows neither clocks nor connections.
"""

from collections.abc import Callable, Container

from taskd_protocol.agent_messages import Checkpoints
from taskd_protocol.task import Checkpoint

MESSAGE_BYTES = 192 * 1024
"""Details in one CHECKPOINTS: a frame, with room for the envelopes."""


class Progress:
    """Of all attempts of the agent."""

    def __init__(self) -> None:
        self._latest: dict[int, Checkpoint] = {}
        self._untold: set[int] = set()  # newer than what was sent
        self._due: dict[int, None] = {}

    def __bool__(self) -> bool:
        """Somebody should ``look``."""
        return bool(self._latest)

    @property
    def has_news(self) -> bool:
        """There is something to send."""
        return bool(self._due)

    def tell(self, checkpoint: Checkpoint) -> None:
        """Keep what an attempt told, in place of what it told before."""
        self._latest[checkpoint.token] = checkpoint
        self._untold.add(checkpoint.token)

    def hurry(self, token: int) -> None:
        """Have it sent now: the attempt has ended."""
        if token in self._untold:
            self._untold.discard(token)
            self._due[token] = None

    def look(self, is_held: Callable[[int], bool], unrecorded: Container[int]) -> None:
        """Have sent what is new; forget attempts that are over."""
        for token in [token for token in self._latest if not is_held(token) and token not in unrecorded]:
            del self._latest[token]
        self._due.update(dict.fromkeys(sorted(self._untold)))
        self._untold.clear()

    def connect(self) -> None:
        """Have everything sent again: what came of it on the connection before is not known."""
        self._due = dict.fromkeys(self._latest)
        self._untold.clear()

    def messages(self) -> list[Checkpoints]:
        """Take what is to be sent now."""
        messages: list[Checkpoints] = []
        size = MESSAGE_BYTES
        for token in self._due:
            checkpoint = self._latest.get(token)
            if checkpoint is None:
                continue
            if size + len(checkpoint.details) > MESSAGE_BYTES:
                messages.append(Checkpoints([]))
                size = 0
            messages[-1].checkpoints.append(checkpoint)
            size += len(checkpoint.details)
        self._due.clear()
        return messages
