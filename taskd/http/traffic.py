"""Traffic: what was asked over HTTP since the start, by route, so that its size is bounded."""

from collections import Counter, defaultdict


class Traffic:
    """Counts requests.

    Attributes:
        counts: By method, path as its route writes it, and status.
        seconds: In all, by method and path.
        streams: Open now.
    """

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, str, int]] = Counter()
        self.seconds: defaultdict[tuple[str, str], float] = defaultdict(float)
        self.streams = 0

    def copy(self) -> "Traffic":
        """Return one that goes on by itself."""
        same = Traffic()
        same.counts, same.seconds, same.streams = self.counts.copy(), self.seconds.copy(), self.streams
        return same
