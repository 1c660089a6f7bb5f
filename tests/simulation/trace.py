"""The trace: all that happened, as one number; two runs of a seed have the same."""

import hashlib
from collections.abc import Callable

import trio


class Trace:
    """Takes note of everything that one machine can see of another.

    Attributes:
        count: Of things noted.
    """

    def __init__(self, tell: Callable[[str], None] | None = None) -> None:
        """Begin.

        Args:
            tell: Told each as a line, for people who look for what went wrong.
        """
        self.count = 0
        self._tell = tell
        self._hash = hashlib.blake2b(digest_size=16)

    def add(self, *what: object) -> None:
        """Note something that happens now."""
        self.count += 1
        self._hash.update(repr((trio.current_time(), what)).encode())
        self.say(*what)

    def add_bytes(self, way: str, number: int, data: bytes) -> None:
        """Note bytes that pass a connection now."""
        self.count += 1
        self._hash.update(b"%r %s %d %d " % (trio.current_time(), way.encode(), number, len(data)))
        self._hash.update(data)

    def say(self, *what: object) -> None:
        """Tell people something that was noted in another form."""
        if self._tell is not None:
            self._tell(f"{trio.current_time():12.6f} {' '.join(map(str, what))}")

    def digest(self) -> str:
        """Return the number so far."""
        return self._hash.hexdigest()
