"""Limits that code says: of its tasks' names, and of keys that are made of a call's arguments.

A key template is text with names of arguments in braces: ``customer:{customer_id}``. It is filled in where a call is
submitted; nothing else is looked up, and no format of Python's is known: what is submitted can make no other key than
the one that its argument's text gives. Only what a decorator says is a template; a key of ``options()`` is text.
"""

import string
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from taskd.client.binding import Binder
from taskd.client.options import Limit, Options
from taskd.client.rates import read_rate
from taskd_protocol import limiting
from taskd_protocol.errors import BadRequest
from taskd_protocol.limiting import TASK_PREFIX, check_limit
from taskd_protocol.task import Use, check_name

_Piece = tuple[str, str]
"""Text, and the argument that follows it; empty: none."""

KEY_TYPES: Final = (str, int)


class Keys:
    """The limits of a task whose keys are made of its calls' arguments."""

    def __init__(self, limits: Sequence[Limit], binder: Binder, name: str) -> None:
        """Read the templates.

        Raises:
            BadRequest: One is none, or names no argument of the function.
        """
        self._name = name
        self._limits = limits
        self._binder = binder
        self._pieces = [_pieces(each.key, name) for each in limits]
        for pieces in self._pieces:
            for _, argument in pieces:
                if argument and not binder.has(argument):
                    raise BadRequest(
                        f"a limit's key of task {name!r} names {{{argument}}}, no argument of its function"
                    )

    def uses(self, args: Sequence[object], kwargs: Mapping[str, object]) -> list[Use]:
        """Return what a call takes, which was checked.

        Raises:
            BadRequest: An argument that a key is made of is no text and no whole number, or the key is too long.
        """
        values = self._binder.arguments(args, kwargs)
        return [
            Use(limit.name or self._name, self._key(pieces, values), limit.weight)
            for limit, pieces in zip(self._limits, self._pieces, strict=True)
        ]

    def _key(self, pieces: Sequence[_Piece], values: Mapping[str, object]) -> str:
        key = "".join(
            [text + (self._text(argument, values[argument]) if argument else "") for text, argument in pieces]
        )
        if key:
            check_name(f"limit key of task {self._name!r}", key)
        return key

    def _text(self, argument: str, value: object) -> str:
        if not isinstance(value, KEY_TYPES) or isinstance(value, bool):
            raise BadRequest(
                f"a limit's key of task {self._name!r} is made of {argument}, which is a {type(value).__name__}:"
                " give it text or a whole number"
            )
        return str(value)


def keys_of(options: Options, binder: Binder, name: str) -> Keys | None:
    """Return a task's limits whose keys are to be filled in; None: there are none, or keys are plain text.

    Raises:
        BadRequest: A key is no template.
    """
    for each in options.limits:
        if not isinstance(each.key, str):  # as it was written
            raise BadRequest(f"key of a limit of task {name!r} is {each.key!r:.40}, and no text: write str(…)")
    if not any("{" in each.key or "}" in each.key for each in options.limits):
        return None
    return Keys(options.limits, binder, name)


def refuse_declaring(limits: Sequence[Limit], name: str) -> None:
    """Refuse a submit that says how much there may be: that holds for all, and is for the task to say.

    Raises:
        BadRequest: It does.
    """
    if any(each.concurrency or each.rate or each.burst for each in limits):
        raise BadRequest(
            f"options() of task {name!r} says how much of a limit there is: that is for @app.task(limits=…) to say"
        )


class Bound(NamedTuple):
    """What a decorator says of all tasks of the name."""

    concurrency: int = 0
    rate: str = ""
    burst: int = 0


UNBOUND: Final = Bound()


def limits_said(name: str, options: Options, bound: Bound) -> list[limiting.Limit]:
    """Return the limits that a task's decorator sets, as the server is told.

    Raises:
        BadRequest: One is out of range, or limits nothing.
    """
    made: list[limiting.Limit] = []
    if bound != UNBOUND:
        made.append(_limit(TASK_PREFIX + name, *bound))
    made += [
        _limit(each.name or name, each.concurrency, each.rate, each.burst)
        for each in options.limits
        if each.concurrency or each.rate or each.burst
    ]
    for limit in made:
        check_limit(limit)
    return made


def check_agreed(made: Sequence[limiting.Limit], others: Sequence[limiting.Limit]) -> None:
    """Refuse what says otherwise of a limit than another task does.

    Raises:
        BadRequest: It is named.
    """
    known = {limit.name: limit for limit in others}
    for limit in made:
        if known.setdefault(limit.name, limit) != limit:
            raise BadRequest(f"two tasks say different things of limit {limit.name!r}: say it once")


def _limit(name: str, concurrency: object, rate: object, burst: object) -> limiting.Limit:
    for what, amount in (("concurrency", concurrency), ("burst", burst)):
        if isinstance(amount, bool) or not isinstance(amount, int):
            raise BadRequest(f"{what} of limit {name!r} is {amount!r:.40}, and no whole number")
    if not isinstance(rate, str):
        raise BadRequest(f'rate of limit {name!r} is {rate!r:.40}; write it as "100/s", "10/m" or "5/2h"')
    assert isinstance(concurrency, int)
    assert isinstance(burst, int)
    tokens, period_ms = read_rate(rate) if rate else (0, 0)
    return limiting.Limit(name, concurrency, tokens, period_ms, burst)


def _pieces(key: str, name: str) -> list[_Piece]:
    wanted = (
        f"a limit's key of task {name!r} is {key[:40]!r}; write an argument's name alone in braces, as {{customer_id}}"
    )
    try:
        parsed = list(string.Formatter().parse(key))
    except ValueError:
        raise BadRequest(wanted) from None
    for _, argument, form, conversion in parsed:
        if argument is not None and (not argument.isidentifier() or form or conversion):
            raise BadRequest(wanted)
    return [(text, argument or "") for text, argument, _, _ in parsed]
