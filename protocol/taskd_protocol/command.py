"""The call of a command: what the payload of a task named ``taskd.command`` holds.

Packed like any call, without arguments and with ``argv``, ``env`` and ``cwd`` as keyword arguments. In a workflow a
word of ``argv``, a value of ``env``, or ``cwd`` may be an input: text or a number, which becomes the word.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated

import msgspec

from taskd_protocol.errors import PayloadUnpackable
from taskd_protocol.payload import Input, pack_arguments, unpack, unpack_arguments


class CommandCall(msgspec.Struct, frozen=True, kw_only=True):
    """One command to run."""

    argv: Annotated[list[str], msgspec.Meta(min_length=1)]
    """Program and arguments; no shell reads them."""
    env: dict[str, str] | None = None
    """Set beside what the agent's environment has; None: nothing."""
    cwd: str | None = None
    """Folder on the agent's machine; None: where the agent is."""


Word = str | Input


def pack_command(argv: Sequence[Word], *, env: Mapping[str, Word] | None = None, cwd: Word | None = None) -> bytes:
    """Pack a command as a task's payload.

    Raises:
        PayloadUnpackable: An argument is no text that can travel; it is named.
    """
    return pack_arguments([], {"argv": list(argv), "env": None if env is None else dict(env), "cwd": cwd})


def read_command(payload: bytes, inputs: Sequence[bytes] = ()) -> CommandCall:
    """Read what ``pack_command`` packed.

    Args:
        payload: Of the task.
        inputs: Packed; each becomes the word in whose place the ``Input`` of its number stands.

    Raises:
        PayloadUnpackable: It is no command, the message names the field; or an input is no word.
    """
    args, fields = unpack_arguments(payload)
    if inputs:
        fields = {name: _with_words(value, inputs) for name, value in fields.items()}
    try:
        call = msgspec.convert(fields, CommandCall)
    except msgspec.ValidationError as error:
        raise PayloadUnpackable(f"the payload is no command: {error}") from None
    words = [*call.argv, *(call.env or {}), *(call.env or {}).values(), call.cwd or ""]
    if args or not call.argv[0] or any("\0" in word for word in words):
        raise PayloadUnpackable("the payload is no command: a word is missing, or holds a NUL character")
    return call


def _with_words(value: object, inputs: Sequence[bytes]) -> object:
    """Put inputs in their places: a field, or items of it."""
    match value:
        case Input(number):
            return _word(number, inputs)
        case list():
            return [_word(each.number, inputs) if isinstance(each, Input) else each for each in value]
        case dict():
            return {key: _word(each.number, inputs) if isinstance(each, Input) else each for key, each in value.items()}
        case _:
            return value


def _word(number: int, inputs: Sequence[bytes]) -> str:
    if not 0 <= number < len(inputs):
        raise PayloadUnpackable(f"the command wants input {number}, and was given {len(inputs)}")
    value = unpack(inputs[number])
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    raise PayloadUnpackable(
        f"input {number} of a command is a value of type {type(value).__name__}: a word is made of text or a number;"
        " have a task before it make one"
    )
