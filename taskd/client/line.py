"""What operations need of a way to a server.

Apart from the ``Link``, which is one in earnest: sockets and TLS take long to import, and a worker that submits
nothing needs neither.
"""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Protocol

from taskd.client.ends import Awaited, Watch
from taskd.client.promise import Following, Looking, Request, Signal

if TYPE_CHECKING:
    from taskd.client.profile import Profile
    from taskd.client.session import Session


class Line(Protocol):
    """What operations need of a way to a server; a ``Link`` in earnest."""

    profile: "Profile"

    @property
    def session(self) -> "Session | None":
        """The session, for reading its plain attributes; None: not started."""
        ...

    def ask(self, request: Request) -> None:
        """Have a request sent; its signal fires when it is answered."""
        ...

    def ask_and_flush(self, request: Request) -> Signal:
        """Have a request sent; the signal returned fires when it is on its way."""
        ...

    def give_up(self, request: Request) -> None:
        """Forget a request."""
        ...

    def take_more(self, following: Following | Looking) -> None:
        """Have the next page of output sent."""
        ...

    def watch(self, wanted: Sequence[Awaited], targets: Sequence[Awaited], watch: Watch) -> None:
        """Have the ends of all these sent here, and the watch told of those of ``targets``, known ones too."""
        ...

    def unwatch(self, targets: Iterable[Awaited], watch: Watch) -> None:
        """Tell the watch no more."""
        ...

    def close(self) -> None:
        """Hang up; whoever waits is told."""
        ...
