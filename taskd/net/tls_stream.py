"""A TLS stream on trio that takes what has come in one piece and sends what is given in one call.

``trio.SSLStream`` gives one record of 16 KiB at a time, each through the scheduler. For small
messages as for batches of 256 KiB this one was measured to save a third to a half of the CPU time
that TLS costs the receiver or sender. Otherwise it behaves like one that is ``https_compatible``:
the end of the transport is the end of the stream, as every message has its length in front.

Invariants:
- Reading never waits on writing: what TLS itself wants to answer rides with the next send.
- After an error, or a send that was cancelled halfway, nothing goes out any more.
- What a send without waiting has left over goes out before anything else does.

One task may receive while another sends.
"""

import contextlib
import ssl
from typing import Final

import trio

from taskd.net import sockets

READ_BYTES: Final = 256 * 1024
"""What one receive takes from the kernel at most: about one outbox of the other side."""
_RECORD_BYTES: Final = 16 * 1024
"""More than one record is never read at once, whatever is asked for."""
_CLOSE_SECONDS: Final = 1.0
"""How long a goodbye may wait for a peer that does not read."""
_ALERT_SECONDS: Final = 1.0
"""How long telling a peer why its handshake failed may take."""


class TlsStream(trio.abc.Stream):
    """A TLS connection, on either side, over another stream.

    Attributes:
        transport: The stream below; closed with this one.
    """

    def __init__(
        self,
        transport: trio.abc.Stream,
        context: ssl.SSLContext,
        *,
        server_side: bool = False,
        server_hostname: str | None = None,
    ) -> None:
        self.transport = transport
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._ssl = context.wrap_bio(self._incoming, self._outgoing, server_side, server_hostname)
        self._shaken = False
        self._broken = False
        self._sending = False
        self._ended = False
        self._may_hold_more = False  # decrypted or whole records wait: look there before asking the transport

    def version(self) -> str | None:
        """Return the TLS version agreed on, such as ``TLSv1.3``; None before the handshake."""
        return self._ssl.version()

    async def do_handshake(self) -> None:
        """Agree on keys and check certificates; once done, calling it again does nothing.

        Raises:
            trio.BrokenResourceError: The other side speaks no TLS, or no version or certificate that is
                accepted here; its ``__cause__`` is the ``ssl.SSLError``.
        """
        while not self._shaken:
            try:
                self._ssl.do_handshake()
                self._shaken = True
            except ssl.SSLWantReadError:
                pass
            except ssl.SSLError as error:
                self._broken = True
                await self._send_alert()
                raise trio.BrokenResourceError("TLS handshake failed") from error
            await self._flush()
            if not self._shaken and not self._feed(await self._receive_below()):
                self._broken = True
                raise trio.BrokenResourceError("connection closed during the TLS handshake")

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Return all that has come, up to ``max_bytes``; empty at the end of the stream.

        Raises:
            trio.BrokenResourceError: The connection broke, or the bytes are not what the peer sent.
            trio.ClosedResourceError: This side was closed.
        """
        if not self._shaken:
            await self.do_handshake()
        limit = READ_BYTES if max_bytes is None else max_bytes
        while not self._ended:
            if self._may_hold_more:
                data = self._decrypt(limit)
                if data:
                    return data
            else:
                self._feed(await self._receive_below())
        return b""

    def receive_nowait(self) -> bytes | None:
        """Return all that has come, ``READ_BYTES`` and a record at most; None: nothing whole; empty: the stream's end.

        After the handshake only. Nothing that has come is kept back, so to wait for the transport is enough.

        Raises:
            trio.BrokenResourceError: The connection broke, or the bytes are not what the peer sent.
            trio.ClosedResourceError: This side was closed.
        """
        assert self._shaken, "no handshake yet"
        assert isinstance(self.transport, trio.SocketStream), "nothing else is read without waiting"
        if not self._may_hold_more and not self._ended:
            came = sockets.receive_nowait(self.transport, READ_BYTES)
            if came is None:
                return None
            self._feed(came)
        if self._may_hold_more:
            data = self._decrypt(2 * READ_BYTES)
            if data:
                return data
        return b"" if self._ended else None

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Encrypt and send; returns when the transport has taken everything: at once, if it can.

        Raises:
            trio.BrokenResourceError: The connection broke, or a send before this one was cut short.
            trio.BusyResourceError: Another task is sending.
            trio.ClosedResourceError: This side was closed.
        """
        if not self._shaken:
            await self.do_handshake()
        self._encrypt(data)
        await self._flush()

    def send_nowait(self, data: bytes) -> bool:
        """Encrypt, and send what the transport takes at once; the rest goes before the next send.

        After the handshake only.

        Returns:
            Nothing is left to be sent.

        Raises:
            trio.BrokenResourceError: The connection broke, or a send before this one was cut short.
            trio.BusyResourceError: Another task is sending.
            trio.ClosedResourceError: This side was closed.
        """
        assert self._shaken, "no handshake yet"
        self._encrypt(data)
        if not isinstance(self.transport, trio.SocketStream):
            return False
        ready = self._outgoing.read()
        try:
            sent = sockets.send_nowait(self.transport, ready)
        except BaseException:
            self._broken = True
            raise
        if sent == len(ready):
            return True
        self._outgoing.write(memoryview(ready)[sent:])  # it was read to its end, so this stays first
        return False

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until the transport may take more."""
        await self.transport.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        """Say goodbye if that can be done at once or nearly so, and close the transport in any case."""
        try:
            if self._shaken and not self._broken and not self._sending:
                self._broken = True
                with contextlib.suppress(ssl.SSLError):  # it says goodbye, then wants to read the other's
                    self._ssl.unwrap()
                with trio.move_on_after(_CLOSE_SECONDS), contextlib.suppress(trio.BrokenResourceError):
                    await self._flush()
        finally:
            await self.transport.aclose()

    def _encrypt(self, data: bytes | bytearray | memoryview) -> None:
        """Put ciphertext behind what waits to be sent."""
        if self._broken:  # first: it may be saying goodbye at this moment
            raise trio.BrokenResourceError("the TLS stream broke before, or is being closed")
        if self._sending:
            raise trio.BusyResourceError("another task is sending on this stream")
        if data:
            try:
                self._ssl.write(data)
            except ssl.SSLError as error:
                self._broken = True
                raise trio.BrokenResourceError("TLS refused to write") from error

    def _feed(self, data: bytes | bytearray) -> bool:
        """Take ciphertext; False at its end."""
        if not data:
            self._ended = True
            return False
        self._incoming.write(data)
        self._may_hold_more = True
        return True

    def _decrypt(self, limit: int) -> bytes:
        """Return what can be read without waiting, up to ``limit`` bytes."""
        pieces: list[bytes] = []
        taken = 0
        read = self._ssl.read
        try:
            while taken < limit:
                piece = read(min(_RECORD_BYTES, limit - taken))
                if not piece:  # the peer said goodbye: what may follow does not count
                    self._ended = True
                    break
                pieces.append(piece)
                taken += len(piece)
                if not (self._incoming.pending or self._ssl.pending()):  # instead of an error that says so: 5 us
                    self._may_hold_more = False
                    break
        except ssl.SSLWantReadError:
            self._may_hold_more = False
        except ssl.SSLError as error:
            self._broken = True
            raise trio.BrokenResourceError("TLS records are damaged") from error
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def _receive_below(self) -> bytes | bytearray:
        if isinstance(self.transport, trio.SocketStream):
            return await sockets.receive_some(self.transport, READ_BYTES)
        return await self.transport.receive_some()

    async def _flush(self) -> None:
        """Send what TLS has ready."""
        data = self._outgoing.read()
        if not data:
            return
        self._sending = True
        try:
            if isinstance(self.transport, trio.SocketStream):
                await sockets.send_all(self.transport, data)
            else:
                await self.transport.send_all(data)
        except BaseException:
            self._broken = True
            raise
        finally:
            self._sending = False

    async def _send_alert(self) -> None:
        """Tell the peer why, if it listens."""
        with trio.move_on_after(_ALERT_SECONDS), contextlib.suppress(trio.BrokenResourceError):
            await self._flush()
