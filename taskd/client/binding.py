"""Arguments of a call: checked against the function's signature and packed, at the caller.

So a wrong call fails where it is written, not on an agent an hour later.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import ParamSpec

from taskd_protocol.errors import PayloadTooLarge, PayloadUnpackable
from taskd_protocol.payload import pack, pack_arguments

P = ParamSpec("P")

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class Binder:
    """Checks and packs calls of one function."""

    def __init__(self, function: Callable[P, object], name: str) -> None:
        self._name = name
        self._signature = inspect.signature(function)
        parameters = self._signature.parameters.values()
        positional = [p for p in parameters if p.kind in _POSITIONAL]
        by_name_only = any(p.kind is p.KEYWORD_ONLY and p.default is p.empty for p in parameters)
        # of a call without keywords it is enough to count its arguments
        self._count_min = sum(p.default is p.empty for p in positional)
        self._count_max = -1 if by_name_only else len(positional)
        if any(p.kind is p.VAR_POSITIONAL for p in parameters) and not by_name_only:
            self._count_max = 1 << 62

    def takes(self, name: str) -> bool:
        """Tell whether the function may be given an argument by that name."""
        parameters = self._signature.parameters
        by_name = name in parameters and parameters[name].kind not in {
            inspect.Parameter.POSITIONAL_ONLY,
            inspect.Parameter.VAR_POSITIONAL,
        }
        return by_name or any(p.kind is p.VAR_KEYWORD for p in parameters.values())

    def has(self, name: str) -> bool:
        """Tell whether the function has an argument of that name, which is one value."""
        parameter = self._signature.parameters.get(name)
        return parameter is not None and parameter.kind not in {parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD}

    def arguments(self, args: Sequence[object], kwargs: Mapping[str, object]) -> Mapping[str, object]:
        """Return the arguments of a call that was checked, by name, with the function's own defaults."""
        bound = self._bind(args, kwargs)
        bound.apply_defaults()
        return bound.arguments

    def check(self, args: Sequence[object], kwargs: Mapping[str, object]) -> None:
        """Refuse a call that the function would refuse.

        Raises:
            TypeError: As the function itself would say it.
        """
        if kwargs or not self._count_min <= len(args) <= self._count_max:
            self._bind(args, kwargs)

    def pack(self, args: Sequence[object], kwargs: Mapping[str, object]) -> bytes:
        """Pack a call that was checked.

        Raises:
            PayloadUnpackable: An argument cannot be carried; it is named.
        """
        try:
            return pack_arguments(args, kwargs)
        except PayloadUnpackable as error:
            raise self._named(args, kwargs, error) from None

    def check_size(self, payload: bytes, bytes_max: int) -> None:
        """Refuse packed arguments that the server would refuse.

        Raises:
            PayloadTooLarge: They are over its limit.
        """
        if len(payload) > bytes_max:
            raise PayloadTooLarge(
                f"the arguments of {self._name} are {len(payload)} bytes packed, the limit is {bytes_max}:"
                " store the data elsewhere and pass a reference"
            )

    def _bind(self, args: Sequence[object], kwargs: Mapping[str, object]) -> inspect.BoundArguments:
        try:
            return self._signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{self._name}() {error}") from None

    def _named(
        self, args: Sequence[object], kwargs: Mapping[str, object], error: PayloadUnpackable
    ) -> PayloadUnpackable:
        for label, value in self._labelled(self._bind(args, kwargs)):
            try:
                pack(value)
            except PayloadUnpackable as reason:
                return PayloadUnpackable(f"argument {label} of {self._name} cannot be packed: {reason.message}")
        return error

    def _labelled(self, bound: inspect.BoundArguments) -> Iterator[tuple[str, object]]:
        for name, value in bound.arguments.items():
            kind = self._signature.parameters[name].kind
            if kind is inspect.Parameter.VAR_POSITIONAL:
                yield from ((f"{name}[{index}]", one) for index, one in enumerate(value))
            elif kind is inspect.Parameter.VAR_KEYWORD:
                yield from value.items()
            else:
                yield name, value
