"""Hypothesis strategies for what travels on the wire: made from the type hints, so that a new message is covered."""

from functools import cache
from types import UnionType
from typing import get_args, get_origin, get_type_hints

import msgspec
from hypothesis import strategies as st

from taskd_protocol import messages
from taskd_protocol.connection_messages import Chunk

SERVER_GETS: list[type[msgspec.Struct]] = list(get_args(messages.ToServer))
PEER_GETS: list[type[msgspec.Struct]] = list(get_args(messages.ToPeer))
KINDS: list[type[msgspec.Struct]] = list(dict.fromkeys([*SERVER_GETS, *PEER_GETS]))

UTF8 = st.text(st.characters(codec="utf-8"), max_size=20)

_PLAIN: dict[object, st.SearchStrategy[object]] = {
    int: st.integers(-(2**63), 2**64 - 1),
    str: UTF8,
    bytes: st.binary(max_size=40),
    bool: st.booleans(),
    float: st.floats(allow_nan=False),  # NaN is equal to nothing, itself included
}


@cache
def of_type(hint: object) -> st.SearchStrategy[object]:  # noqa: PLR0911 - one a shape
    """Return values of a field's type."""
    arguments = get_args(hint)
    origin = get_origin(hint)
    if isinstance(hint, UnionType):
        return st.one_of([st.none() if argument is type(None) else of_type(argument) for argument in arguments])
    if origin is list:
        return st.lists(of_type(arguments[0]), max_size=3)
    if origin is tuple and arguments[-1] is ...:
        return st.lists(of_type(arguments[0]), max_size=3).map(tuple)
    if origin is tuple:
        return st.tuples(*map(of_type, arguments))
    if origin is dict:
        return st.dictionaries(of_type(arguments[0]), of_type(arguments[1]), max_size=3)
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return structs(hint)
    return _PLAIN[hint]


def structs(kind: type[msgspec.Struct]) -> st.SearchStrategy[msgspec.Struct]:
    """Return structs of a kind, each field anything of its type."""
    hints = get_type_hints(kind)
    return st.builds(kind, **{name: of_type(hints[name]) for name in _names(kind)})


def messages_of(kinds: list[type[msgspec.Struct]]) -> st.SearchStrategy[msgspec.Struct]:
    """Return messages of these kinds, but no chunks: those are made by a connection."""
    return st.sampled_from([kind for kind in kinds if kind is not Chunk]).flatmap(structs)


def as_array(value: object) -> object:
    """Return what travels, as the document says it: structs as arrays, with their type before if they have one."""
    if isinstance(value, msgspec.Struct):
        tag = value.__struct_config__.tag
        return [*([] if tag is None else [tag]), *[as_array(getattr(value, name)) for name in _names(type(value))]]
    if isinstance(value, (list, tuple)):
        return [as_array(item) for item in value]
    return value


def _names(kind: type[msgspec.Struct]) -> tuple[str, ...]:
    return kind.__struct_fields__
