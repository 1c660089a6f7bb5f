"""Join codes: all that an agent on another machine needs in order to join, as one word to copy.

``taskd-join-`` and the unpadded base64url of the msgpack array ``[addresses, ca_sha256, secret]``.
"""

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from taskd_protocol.errors import InvitationRefused

PREFIX = "taskd-join-"
CA_SHA256_BYTES = 32

_FIELDS = msgspec.msgpack.Decoder(tuple[list[str], bytes, str])


@dataclass(frozen=True, slots=True)
class JoinCode:
    """What a join code says."""

    addresses: tuple[str, ...]
    """``HOST:PORT``, best first; at least one."""
    ca_sha256: bytes
    """Of the CA certificate in DER: the server that shows another is not the inviting one."""
    secret: str
    """Good for one agent, for some minutes."""

    def __repr__(self) -> str:
        """Leave the secret out."""
        return f"JoinCode({self.addresses!r})"


def format_join_code(addresses: Sequence[str], ca_sha256: bytes, secret: str) -> str:
    """Return the code; no whitespace, quotes or characters that a shell would change."""
    packed = msgspec.msgpack.encode((list(addresses), ca_sha256, secret))
    return PREFIX + base64.urlsafe_b64encode(packed).decode().rstrip("=")


def parse_join_code(text: str) -> JoinCode:
    """Read a code as people paste it.

    Raises:
        InvitationRefused: It is none, or not whole.
    """
    prefix, encoded = "".join(text.split()).partition(PREFIX)[1:]
    try:
        packed = base64.b64decode(encoded + "=" * (-len(encoded) % 4), altchars=b"-_", validate=True)
        addresses, ca_sha256, secret = _FIELDS.decode(packed)
    except (ValueError, binascii.Error, msgspec.DecodeError):
        raise InvitationRefused(_NOT_WHOLE) from None
    if not prefix or not addresses or len(ca_sha256) != CA_SHA256_BYTES or not secret:
        raise InvitationRefused(_NOT_WHOLE)
    return JoinCode(tuple(addresses), ca_sha256, secret)


_NOT_WHOLE = "the join code is not whole: copy all of what `taskd agents invite` printed, from taskd-join- to its end"
