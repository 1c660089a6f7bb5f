"""Gearman, spoken to by hand: its Python clients are of another age.

python -m peers.adapters.gearman      is a worker
"""

import socket
import struct
from collections.abc import Iterator, Sequence

from peers import bodies
from peers.interface import Adapter, Argv, Broker, Place, python

WINDOW = 500
"""Jobs submitted at once: their answers come back while more are sent."""
CAN_DO, PRE_SLEEP, NOOP, SUBMIT, CREATED, GRAB, NO_JOB, ASSIGN = 1, 4, 6, 7, 8, 9, 10, 11
COMPLETE, SUBMIT_BACKGROUND = 13, 18
BODIES = ("noop", "burn", "told")


class Wire:
    """One connection: packets out and in."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.file = self.socket.makefile("rb", 1 << 16)

    def send(self, packets: Sequence[bytes]) -> None:
        """Send packets in one go."""
        self.socket.sendall(b"".join(packets))

    def read(self) -> tuple[int, list[bytes]]:
        """Return the next packet's kind and parts."""
        head = self.file.read(12)
        if len(head) < 12:  # noqa: PLR2004 - of a header
            raise ConnectionError("gearmand hung up")
        _, kind, size = struct.unpack(">4sII", head)
        return kind, self.file.read(size).split(b"\0")


def packet(kind: int, *parts: bytes) -> bytes:
    """Return a request."""
    data = b"\0".join(parts)
    return struct.pack(">4sII", b"\0REQ", kind, len(data)) + data


class Peer(Adapter):
    """Gearman."""

    modes = {"fast": "foreground jobs, up to 500 under way, by hand; queue in memory, its default"}
    durable = ()
    differs = (
        "A job that is waited for lives in memory alone, on both sides. Background jobs can be kept in a database, but"
        " have no results; they are what is submitted for memory and the kill."
    )

    def broker(self) -> Broker:
        argv = ["gearmand", "--listen", "127.0.0.1", "--port", str(self.place.port), "--log-file", "stderr"]
        return Broker(argv, ["gearmand", "--version"])

    def workers(self) -> list[Argv]:
        return [python("peers.adapters.gearman")] * self.place.workers

    def open(self) -> None:
        self.wire = Wire(self.place.port)
        self.ended: dict[bytes, int] = {}

    def submit_many(self, body: str, values: Sequence[int]) -> list[object]:
        kind = SUBMIT if self.place.workers else SUBMIT_BACKGROUND
        handles: list[object] = []
        for start in range(0, len(values), WINDOW):
            chunk = values[start : start + WINDOW]
            self.wire.send([packet(kind, body.encode(), b"", str(value).encode()) for value in chunk])
            handles += self._created(len(chunk))
        return handles

    def submit(self, body: str, value: int) -> object:
        kind = SUBMIT_BACKGROUND if body == "told" else SUBMIT
        self.wire.send([packet(kind, body.encode(), b"", str(value).encode())])
        return next(self._created(1))

    def _created(self, count: int) -> Iterator[object]:
        while count:
            kind, parts = self.wire.read()
            if kind == CREATED:
                count -= 1
                yield parts[0]
            elif kind == COMPLETE:
                self.ended[parts[0]] = int(parts[1])

    def submitter(self) -> Adapter:
        own = Peer(self.place)  # its connection cannot be shared
        own.open()
        return own

    def results(self, handles: Sequence[object], within_s: float) -> list[int]:
        self.wire.socket.settimeout(within_s)
        while not all(handle in self.ended for handle in handles):
            for _ in range(max(1, len(handles) - len(self.ended))):
                kind, parts = self.wire.read()
                if kind == COMPLETE:
                    self.ended[parts[0]] = int(parts[1])
        return [self.ended.pop(handle) for handle in handles]


def _work(place: Place) -> None:
    """Grab a job, run it, say so, and grab the next in one go; sleep when there is none."""
    wire = Wire(place.port)
    wire.send([*(packet(CAN_DO, body.encode()) for body in BODIES), packet(GRAB)])
    while True:
        kind, parts = wire.read()
        if kind == ASSIGN:
            handle, body, value = parts
            result = getattr(bodies, body.decode())(int(value))
            wire.send([packet(COMPLETE, handle, str(result).encode()), packet(GRAB)])
        elif kind == NO_JOB:
            wire.send([packet(PRE_SLEEP)])
        elif kind == NOOP:
            wire.send([packet(GRAB)])


if __name__ == "__main__":
    _work(Place.here())
