"""Commit marks, kept beside the profiles: so the next process, too, finds a server that was rolled back.

One small file a profile, ``marks/NAME.json``: the newest mark that any process of this user was
given. A server that comes from a URL has no profile, and its marks are not kept.

Invariants:
- A mark is replaced by a higher one of its lineage, or by one of another lineage: the server was restored.
- What cannot be kept is no failure of whoever was told it.
"""

import contextlib
from pathlib import Path
from typing import Final

import msgspec

from taskd.client.profile import Profile, config_dir, write_whole
from taskd_protocol.errors import ConfigInvalid
from taskd_protocol.handshake import newest_mark
from taskd_protocol.mark import Mark

KEEP_EVERY_S: Final = 5.0
"""Between two writes of one process; the last mark is written at its end."""


class MarkKeeper:
    """One process's hand on the mark of one profile's server."""

    def __init__(self, profile: Profile) -> None:
        self._name = profile.name
        self._kept: Mark | None = None
        self._next_s = 0.0

    def read(self) -> Mark | None:
        """Return the newest mark that is kept, None when there is none that can be read."""
        stored: Mark | None = None
        if self._name:
            with contextlib.suppress(OSError, ConfigInvalid, msgspec.DecodeError):
                self._kept = stored = msgspec.json.decode(self._path().read_bytes(), type=Mark)
        return stored

    def keep(self, mark: Mark | None, now_s: float) -> None:
        """Keep a mark, if it was not so lately that one was kept.

        Args:
            mark: The newest that the process was given.
            now_s: Of a clock that never steps.
        """
        if mark is not self._kept and now_s >= self._next_s:
            self._next_s = now_s + KEEP_EVERY_S
            self.keep_last(mark)

    def keep_last(self, mark: Mark | None) -> None:
        """Keep a mark now: no later one will come."""
        if mark is None or not self._name or mark is self._kept:
            return
        if newest_mark(self.read(), mark) is mark:  # another process may have been told of a later one
            with contextlib.suppress(ConfigInvalid):
                write_whole(self._path(), msgspec.json.encode(mark) + b"\n")
        self._kept = mark

    def _path(self) -> Path:
        return config_dir() / "marks" / f"{self._name}.json"
