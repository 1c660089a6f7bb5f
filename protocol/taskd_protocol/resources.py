"""Resources: what a task asks of the machine that runs it, what an agent has, and what one lease holds of it.

Amounts are whole numbers: thousandths of a CPU, of a GPU, or of one of what a user calls a resource; bytes of memory.
"""

from collections.abc import Iterable, Sequence

import msgspec

from taskd_protocol import limits
from taskd_protocol.errors import BadRequest

CPU = "cpu"
MEMORY = "memory"
GPU = "gpu"

ONE = 1_000
"""One CPU, GPU or item: half of one is 500."""

ALL = 0
"""As an amount that is asked for: all that the agent has."""
LEARNED = -1
"""As an amount of memory: what attempts of the same task have come to need; see ``taskd.core.learned``."""

OPERATORS = ("=", "!=", "in", "not in", "exists", "absent", "<", "<=", ">", ">=")
"""The last four compare numbers, and hold for no label that is none."""
_NUMERIC = frozenset(OPERATORS[6:])


class Need(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """How much of one resource."""

    name: str
    """``cpu``, ``memory``, ``gpu``, or as the agent calls it."""
    amount: int
    """See the module; ``ALL`` and ``LEARNED`` are no amounts."""
    kind: str = ""
    """Only items of this kind, as of GPUs; empty: of any."""
    items: list[str] = []
    """These, whole; ``amount`` is theirs. Empty: any."""


class Request(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What is asked for together, each resource once."""

    needs: list[Need]


class LabelRule(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What an agent's label is to be."""

    label: str
    operator: str
    """One of ``OPERATORS``."""
    values: list[str] = []
    """One, but for ``in`` and ``not in``: any number; and ``exists`` and ``absent``: none."""


class Preference(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Which agents are better than others, if there is a choice."""

    rule: LabelRule
    weight: int = 1
    """-100 to 100; below 0: rather not there."""


class Where(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Which agents may run a task, and what it holds there. Tasks of one name that say the same wait in one line."""

    requests: list[Request] = []
    """Alternatives, the best first; empty: one slot of an agent, as everything has."""
    labels: list[LabelRule] = []
    """All must hold. ``taskd.agent``, ``taskd.host``, ``taskd.version``, ``taskd.python`` and ``taskd.arch`` are always
    there, by the agent itself."""
    prefers: list[Preference] = []
    life_ms: int = 0
    """The agent's machine must have so long left; 0: any."""
    exclusive_host: bool = False
    """Nothing else runs on the agent meanwhile."""
    apart: str = ""
    """No two tasks that say the same here run on one agent; empty: as it comes."""
    spread: str = ""
    """A label: over its values the tasks are spread evenly, as far as there is a choice; empty: none."""
    pack: bool = False
    """The fullest agent that has room first; False: the emptiest."""


class Supply(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What an agent has of one resource."""

    name: str
    amount: int
    items: list[str] = []
    """Names of what can be told apart, such as GPUs: ``amount`` is a thousand for each. Empty: it is all alike."""
    kinds: list[str] = []
    """Of each item; empty: none is known."""


class Hold(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What a lease holds of one resource."""

    name: str
    amount: int
    items: list[str] = []
    """Which; of a single one perhaps a part only."""


class Granted(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What a lease holds while it lasts."""

    holds: list[Hold]
    alternative: int = 0
    """Which of the requests it is that was met."""
    exclusive_host: bool = False
    """All of the agent is its own."""


def check_where(where: Where) -> None:
    """Refuse what no agent could be compared with.

    Raises:
        BadRequest: A field is out of its range; it is named.
    """
    if len(where.requests) > limits.REQUESTS_MAX:
        raise BadRequest(f"{len(where.requests)} alternatives; a task names at most {limits.REQUESTS_MAX}")
    for request in where.requests:
        _check_request(request)
    if len(where.labels) + len(where.prefers) > limits.LABELS_MAX:
        raise BadRequest(f"a task has at most {limits.LABELS_MAX} rules and preferences of labels")
    for rule in where.labels:
        _check_rule(rule)
    for preference in where.prefers:
        _check_rule(preference.rule)
        if not -limits.WEIGHT_MAX <= preference.weight <= limits.WEIGHT_MAX:
            raise BadRequest(f"a preference of weight {preference.weight}; it goes from -100 to 100")
    if not 0 <= where.life_ms <= limits.DELAY_MS_MAX:
        raise BadRequest(f"life of {where.life_ms} ms is out of range; it goes from 0, for any, to ten years")
    for what, text in (("apart", where.apart), ("spread", where.spread)):
        if text:
            _check_text(what, text)


def check_supplies(supplies: Sequence[Supply]) -> list[Supply]:
    """Return what an agent says it has, without what makes no sense: absurd amounts are cut down, doubles left out."""
    sound: dict[str, Supply] = {}
    for supply in supplies[: limits.RESOURCES_MAX]:
        if not _is_text(supply.name) or supply.name in sound or supply.amount <= 0:
            continue
        items = list(dict.fromkeys(item for item in supply.items if _is_text(item)))[: limits.RESOURCE_ITEMS_MAX]
        if supply.items:
            kinds = supply.kinds if len(supply.kinds) == len(supply.items) == len(items) else []
            sound[supply.name] = Supply(supply.name, ONE * len(items), items, kinds)
        else:
            sound[supply.name] = Supply(supply.name, min(supply.amount, limits.AMOUNT_MAX))
    return list(sound.values())


def holds_for(rule: LabelRule, labels: dict[str, str]) -> bool:
    """Tell whether an agent's labels obey a rule."""
    value = labels.get(rule.label)
    match rule.operator:
        case "exists":
            return value is not None
        case "absent":
            return value is None
        case "=" | "in":
            return value in rule.values
        case "!=" | "not in":
            return value not in rule.values
        case operator:
            return value is not None and _compares(operator, value, rule.values[0])


def _compares(operator: str, value: str, bound: str) -> bool:
    try:
        has, wanted = float(value), float(bound)
    except ValueError:
        return False
    match operator:
        case "<":
            return has < wanted
        case "<=":
            return has <= wanted
        case ">":
            return has > wanted
        case _:
            return has >= wanted


def _check_request(request: Request) -> None:
    if not request.needs:
        raise BadRequest("an alternative that asks for nothing; leave it out")
    if len(request.needs) > limits.RESOURCES_MAX:
        raise BadRequest(f"a task names at most {limits.RESOURCES_MAX} resources")
    _check_once("resource", [need.name for need in request.needs])
    for need in request.needs:
        _check_text("resource", need.name)
        if need.amount == LEARNED and need.name != MEMORY:
            raise BadRequest(f"only memory is learned; say how much of {need.name[:64]!r}")
        if not LEARNED <= need.amount <= limits.AMOUNT_MAX:
            raise BadRequest(f"{need.amount} of {need.name[:64]!r} is out of range; it goes from 1 to 2**60")
        if need.kind:
            _check_text("kind", need.kind)
        _check_items(need)


def _check_items(need: Need) -> None:
    if len(need.items) > limits.RESOURCE_ITEMS_MAX:
        raise BadRequest(f"a task names at most {limits.RESOURCE_ITEMS_MAX} items of one resource")
    _check_once("item", need.items)
    for item in need.items:
        _check_text("item", item)
    if need.items and need.amount != ONE * len(need.items):
        raise BadRequest(f"{need.amount} of {len(need.items)} items of {need.name[:64]!r}: they are taken whole")
    if need.name == GPU and need.amount > ONE and need.amount % ONE:
        raise BadRequest(f"{need.amount / ONE:g} GPUs: a part of one, or whole ones")


def _check_rule(rule: LabelRule) -> None:
    _check_text("label", rule.label)
    if rule.operator not in OPERATORS:
        raise BadRequest(f"operator {rule.operator[:16]!r} is unknown; use one of {' '.join(OPERATORS)}")
    count = len(rule.values)
    if rule.operator in {"exists", "absent"}:
        fits = not count
    elif rule.operator in {"in", "not in"}:
        fits = 0 < count <= limits.LABELS_MAX
    else:
        fits = count == 1
    if not fits:
        raise BadRequest(f"label {rule.label[:64]!r} {rule.operator} {count} values: that is no comparison")
    for value in rule.values:
        _check_text("value of a label", value)
    if rule.operator in _NUMERIC:
        try:
            float(rule.values[0])
        except ValueError:
            raise BadRequest(f"label {rule.label[:64]!r} {rule.operator} {rule.values[0][:64]!r}: no number") from None


def _check_once(what: str, names: Iterable[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise BadRequest(f"{what} {name[:64]!r} stands twice in one request")
        seen.add(name)


def _check_text(what: str, text: str) -> None:
    if not _is_text(text):
        raise BadRequest(f"{what} {text[:64]!r} is not allowed; use 1 to {limits.NAME_CHARS_MAX} printable characters")


def _is_text(text: str) -> bool:
    return 0 < len(text) <= limits.NAME_CHARS_MAX and text.isprintable()
