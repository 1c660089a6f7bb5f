"""Framing: bytes into frames, whatever way they were cut up, and back.

A frame is a 4-byte big-endian length and so many bytes of body. Nothing is
allocated from a claimed length: a frame over the limit is refused when its
header has come, before its body.
"""

import struct

from taskd_protocol.errors import FrameTooLarge, ProtocolViolation
from taskd_protocol.limits import FRAME_BYTES_MAX, FRAME_HEADER_BYTES

_LENGTH = struct.Struct(">I").unpack_from


class FrameDecoder:
    """Collects bytes and gives back whole frames' bodies.

    Attributes:
        frame_bytes_max: Largest body accepted; raised once a peer is known.
    """

    def __init__(self, frame_bytes_max: int = FRAME_BYTES_MAX) -> None:
        self.frame_bytes_max = frame_bytes_max
        self._buffer = bytearray()
        self._wanted = FRAME_HEADER_BYTES  # buffered bytes that tell something new: a header, or the frame whole

    @property
    def pending_bytes(self) -> int:
        """Bytes of a frame that is not whole yet."""
        return len(self._buffer)

    def feed(self, data: bytes) -> list[bytes]:
        """Take what came in; return the bodies that are whole now.

        Raises:
            FrameTooLarge: A header claims more than ``frame_bytes_max``.
            ProtocolViolation: A header claims an empty body.
        """
        buffer = self._buffer
        if buffer:
            # The rest of a frame in many pieces is only collected: each byte is copied once more, not once a piece.
            buffer += data
            if len(buffer) < self._wanted:
                return []
            data = bytes(buffer)
            buffer.clear()
        frames: list[bytes] = []
        start, end = 0, len(data)
        self._wanted = FRAME_HEADER_BYTES
        while end - start >= FRAME_HEADER_BYTES:
            (length,) = _LENGTH(data, start)
            if length > self.frame_bytes_max:
                raise FrameTooLarge(f"a frame claims {length} bytes; the limit is {self.frame_bytes_max}")
            if length == 0:
                raise ProtocolViolation("a frame claims no bytes; every frame holds one message")
            body = start + FRAME_HEADER_BYTES
            if end - body < length:
                self._wanted = FRAME_HEADER_BYTES + length
                break
            start = body + length
            frames.append(data[body:start])
        if start < end:
            buffer += data[start:]
        return frames


def frame(body: bytes) -> bytes:
    """Put the length before the body."""
    return len(body).to_bytes(FRAME_HEADER_BYTES, "big") + body
