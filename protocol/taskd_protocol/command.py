"""The call of a command: what the payload of a task named ``taskd.command`` holds.

Packed like any call, without arguments and with ``argv``, ``env`` and ``cwd`` as keyword arguments.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated

import msgspec

from taskd_protocol.errors import PayloadUnpackable
from taskd_protocol.payload import pack_arguments, unpack_arguments


class CommandCall(msgspec.Struct, frozen=True, kw_only=True):
    """One command to run."""

    argv: Annotated[list[str], msgspec.Meta(min_length=1)]
    """Program and arguments; no shell reads them."""
    env: dict[str, str] | None = None
    """Set beside what the agent's environment has; None: nothing."""
    cwd: str | None = None
    """Folder on the agent's machine; None: where the agent is."""


def pack_command(argv: Sequence[str], *, env: Mapping[str, str] | None = None, cwd: str | None = None) -> bytes:
    """Pack a command as a task's payload.

    Raises:
        PayloadUnpackable: An argument is no text that can travel; it is named.
    """
    return pack_arguments([], {"argv": list(argv), "env": None if env is None else dict(env), "cwd": cwd})


def read_command(payload: bytes) -> CommandCall:
    """Read what ``pack_command`` packed.

    Raises:
        PayloadUnpackable: It is no command; the message names the field.
    """
    args, fields = unpack_arguments(payload)
    try:
        call = msgspec.convert(fields, CommandCall)
    except msgspec.ValidationError as error:
        raise PayloadUnpackable(f"the payload is no command: {error}") from None
    words = [*call.argv, *(call.env or {}), *(call.env or {}).values(), call.cwd or ""]
    if args or not call.argv[0] or any("\0" in word for word in words):
        raise PayloadUnpackable("the payload is no command: a word is missing, or holds a NUL character")
    return call
