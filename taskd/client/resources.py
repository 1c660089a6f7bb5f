"""What a task asks of the machine that runs it, as users write it, and what an attempt holds.

Equal wishes come to equal bytes, however they were written: tasks that say the same wait in one line.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

import msgspec

from taskd.client.amounts import read_bytes, read_count
from taskd_protocol.errors import BadRequest
from taskd_protocol.resources import ALL, CPU, GPU, LEARNED, MEMORY, ONE, Granted, Need, Request

if TYPE_CHECKING:
    Amount: TypeAlias = float | str | Sequence[str | int]
else:
    Amount = int | float | str | list[str | int]  # as data, in files

WHOLE: Final = "all"
AUTO: Final = "auto"

_KIND: Final = re.compile(r"([^:\[\],\s]+)(?::(\d{1,7}))?")


class Resources:
    """What a task needs, and holds while an attempt runs. ``Resources(cpu=8) | Resources(gpu=1)``: either, best first.

    Attributes:
        alternatives: What was said, each as amounts by name.
    """

    __slots__ = ("alternatives",)

    def __init__(
        self,
        *,
        cpu: Amount | None = None,
        memory: int | str | None = None,
        gpu: Amount | None = None,
        **others: Amount,
    ) -> None:
        """Say what is needed together.

        Args:
            cpu: CPUs: ``2``, ``0.5``, or ``"all"`` of the agent; 0: none. Not said: 1, of ``async def`` tasks none.
            memory: Bytes, or text with a unit, ``"1.5GiB"``: what the attempt may take at most. ``"auto"``: what
                attempts of the task have come to need.
            gpu: ``1``, a part of one, ``0.5``, a kind, ``"h100"``, two of it, ``"h100:2"``, ``"all"``, or certain ones,
                ``["0", "1"]``.
            others: Whatever agents offer by ``--resource``: as ``gpu``.

        Raises:
            BadRequest: An amount is none; it is named.
        """
        said = {CPU: cpu, MEMORY: memory, GPU: gpu, **others}
        wanted = {name: amount for name, amount in said.items() if amount is not None}
        self.alternatives: tuple[Mapping[str, Amount], ...] = (wanted,)
        read_request(self.alternatives[0], cpu_default=ONE)

    def __or__(self, other: "Resources") -> "Resources":
        """Return that either will do, this one rather."""
        if not isinstance(other, Resources):
            return NotImplemented
        made = Resources.__new__(Resources)
        made.alternatives = (*self.alternatives, *other.alternatives)
        return made

    def __eq__(self, other: object) -> bool:
        """Compare what is asked for."""
        return isinstance(other, Resources) and read_requests(self) == read_requests(other)

    def __hash__(self) -> int:
        """Follow ``__eq__``."""
        return hash(str(read_requests(self)))

    def __repr__(self) -> str:
        """Show it as it may be written."""
        return " | ".join(
            f"Resources({', '.join(f'{k}={v!r}' for k, v in each.items())})" for each in self.alternatives
        )


Alternatives: TypeAlias = Resources | Mapping[str, Amount] | Sequence[Mapping[str, Amount]]
"""As users say it, or as a file has it."""


def read_requests(wanted: Alternatives | None, *, cpu_default: int = ONE) -> list[Request]:
    """Return what is asked for, as the server is told.

    Args:
        wanted: What was said.
        cpu_default: Thousandths of a CPU, where nothing was said of it.

    Raises:
        BadRequest: An amount is none; it is named.
    """
    if wanted is None:
        return []
    if isinstance(wanted, Resources):
        wanted = wanted.alternatives
    several = [wanted] if isinstance(wanted, Mapping) else wanted
    return [read_request(each, cpu_default=cpu_default) for each in several]


def read_request(said: Mapping[str, Amount], *, cpu_default: int) -> Request:
    """Return one alternative, its resources in the order of their names.

    Raises:
        BadRequest: An amount is none; it is named.
    """
    amounts: dict[str, Amount] = dict(said)
    if amounts.get(CPU) in (0, "0"):
        del amounts[CPU]
    elif CPU not in amounts and cpu_default:
        amounts[CPU] = cpu_default / ONE
    if not amounts:
        raise BadRequest("resources that ask for nothing; leave them out")
    return Request([_need(name, amounts[name]) for name in sorted(amounts)])


def _need(name: str, amount: Amount) -> Need:
    if name == MEMORY:
        return Need(name, {AUTO: LEARNED, WHOLE: ALL}[amount] if amount in (AUTO, WHOLE) else read_bytes(amount))
    if name == CPU:
        return Need(name, ALL if amount == WHOLE else read_count(amount, name))
    if isinstance(amount, str) and amount.startswith("[") and amount.endswith("]"):
        amount = [item.strip() for item in amount[1:-1].split(",")]
    if isinstance(amount, str):
        if amount == WHOLE:
            return Need(name, ALL)
        found = _KIND.fullmatch(amount)
        if found is not None and not _is_number(amount):
            return Need(name, read_count(found[2] or 1, name), found[1])
    elif isinstance(amount, Sequence):
        return _items(name, amount)
    return Need(name, read_count(amount, name))


def _items(name: str, items: Iterable[str | int]) -> Need:
    names = sorted(str(item) for item in items)
    if not names:
        raise BadRequest(f"{name} names no items; leave it out, or say which: {name}=['0']")
    if len({*names}) < len(names):
        raise BadRequest(f"{name} names an item twice; name each once, or say how many: {name}={len(names)}")
    return Need(name, ONE * len(names), "", names)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


class Held(NamedTuple):
    """What an attempt holds of one resource."""

    amount: float
    """CPUs, GPUs, items; of memory: bytes."""
    items: tuple[str, ...] = ()
    """Which, where they can be told apart; of a single one perhaps a part."""


def in_json(granted: Granted) -> str:
    """Return what a lease holds as a command is told: by name ``amount``, and ``items`` that can be told apart."""
    told = {
        name: {"amount": each.amount, "items": list(each.items)} if each.items else {"amount": each.amount}
        for name, each in held(granted).items()
    }
    return msgspec.json.encode(told).decode()


def held(granted: Granted | None) -> dict[str, Held]:
    """Return what a lease holds, in users' units; empty: a slot, and nothing else."""
    holds = [] if granted is None else granted.holds
    return {
        hold.name: Held(hold.amount if hold.name == MEMORY else hold.amount / ONE, tuple(hold.items)) for hold in holds
    }
