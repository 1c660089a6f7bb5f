"""Rules for labels of agents as people write them: ``zone=a``, ``cores >= 8``, ``disk in ssd,nvme``, ``spot absent``.

One grammar for programs, the command line and files.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from taskd_protocol.errors import BadRequest
from taskd_protocol.resources import LabelRule, Preference

if TYPE_CHECKING:
    Labels = Mapping[str, str | Sequence[str]] | Sequence[str]
    """Values that labels must have, by label; or rules as text."""
    Prefers = Mapping[str, int] | Sequence[str]
    """Weights by rule; or rules of weight 1."""
else:
    Labels = dict[str, str | list[str]] | list[str]  # as data, in files
    Prefers = dict[str, int] | list[str]

_RULE: Final = re.compile(
    r"\s*(?P<label>[^\s=!<>]+)\s*"
    r"(?:(?P<operator><=|>=|!=|==?|<|>)\s*(?P<value>\S.*?)"
    r"|(?<=\s)(?P<word>not\s+in|in)\s+(?P<values>\S.*?)"
    r"|(?<=\s)(?P<bare>exists|absent))\s*",
    re.DOTALL,
)


def read_rule(text: str) -> LabelRule:
    """Return the rule that a text is.

    Raises:
        BadRequest: It is none.
    """
    found = _RULE.fullmatch(text)
    if found is None:
        raise BadRequest(
            f"{text[:60]!r} is no rule for a label; write it as zone=a, cores>=8, 'zone in a,b' or 'spot absent'"
        )
    label, operator = found["label"], found["operator"]
    if operator is not None:
        return LabelRule(label, "=" if operator == "==" else operator, [found["value"]])
    if found["bare"] is not None:
        return LabelRule(label, found["bare"])
    values = [value.strip() for value in found["values"].split(",")]
    return LabelRule(label, "not in" if found["word"].startswith("not") else "in", sorted({*values} - {""}))


def read_labels(labels: Labels) -> list[LabelRule]:
    """Return the rules that are meant, in an order that does not depend on how they were written.

    Raises:
        BadRequest: One is none.
    """
    if isinstance(labels, Mapping):
        rules = [_equals(label, value) for label, value in labels.items()]
    else:
        rules = [read_rule(rule) for rule in labels]
    return sorted(rules, key=_order)


def read_prefers(prefers: Prefers) -> list[Preference]:
    """Return the preferences that are meant, in an order that does not depend on how they were written.

    Raises:
        BadRequest: One is none.
    """
    weights: Iterable[tuple[str, int]] = prefers.items() if isinstance(prefers, Mapping) else ((p, 1) for p in prefers)
    made = [Preference(read_rule(rule), weight) for rule, weight in weights]
    return sorted(made, key=lambda preference: (_order(preference.rule), preference.weight))


def _equals(label: str, value: str | Sequence[str]) -> LabelRule:
    return LabelRule(label, "=", [value]) if isinstance(value, str) else LabelRule(label, "in", sorted({*value}))


def _order(rule: LabelRule) -> tuple[str, str, list[str]]:
    return rule.label, rule.operator, rule.values
