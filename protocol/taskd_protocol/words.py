"""Words: what a reason is called for people. Programs compare its code."""

import datetime as dt
from collections.abc import Callable
from typing import Final

from taskd_protocol.explanation import Obstacle, Place, Reason, Reasons, Waited, Wishes
from taskd_protocol.resources import MEMORY, ONE

_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_UNITS: Final = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")


def reason_text(reason: Reason) -> str:
    """Return what is waited for, as one line that can follow "waits for"."""
    word = _WORDS.get(reason.code)
    if word is None:  # of a newer server
        return f"{reason.code} {reason.subject}".rstrip()
    return word if isinstance(word, str) else word(reason)


def obstacle_text(reason: Reason) -> str:
    """Return what rules one agent out, as one line that can follow its name."""
    if reason.code in {Obstacle.RESOURCE, Obstacle.PRESSURE, Obstacle.TOTAL}:
        return reason_text(reason)
    word = _OF_AN_AGENT.get(reason.code)
    return reason_text(reason) if word is None else word.format(subject=reason.subject)


def place_text(place: Place) -> str:
    """Return where a task stands in its line."""
    ahead = f"{place.ahead:,} of {place.ready:,} tasks in its line come first"
    if not place.is_exact:
        ahead = f"about {ahead} ({place.ahead_min:,} at least; beyond them, as if submits had come evenly)"
    elif not place.ahead:
        ahead = f"the first of {place.ready:,} in its line" if place.ready > 1 else "the only one in its line"
    if place.lines_before:
        ahead += f"; {place.lines_before:,} other line{'s' if place.lines_before > 1 else ''} may come before"
    return ahead


def wish_text(agent: str, wish: str) -> str:
    """Return on which agent a task would find what, if that has room."""
    word = _WISHES.get(wish)
    return f"agent {agent}" if word is None else f"agent {agent}: {word}"


def waited_text(waited: list[Waited]) -> str:
    """Return how long was waited for what, the longest first; what reads alike is told once."""
    told: dict[str, int] = {}
    for each in waited:
        told[_short(each)] = told.get(_short(each), 0) + each.ms
    return ", ".join(f"{duration_text(ms)} for {what}" for what, ms in sorted(told.items(), key=lambda one: -one[1]))


def amount_text(name: str, amount: int) -> str:
    """Return an amount of a resource."""
    if name != MEMORY:
        return f"{amount / ONE:g}"
    size, unit = float(amount), 0
    while size >= 1024 and unit < len(_UNITS) - 1:  # noqa: PLR2004 - of the next unit
        size, unit = size / 1024, unit + 1
    return f"{size:.3g} {_UNITS[unit]}" if size < 100 else f"{size:.0f} {_UNITS[unit]}"  # noqa: PLR2004 - three figures


def duration_text(ms: int) -> str:
    """Return a length of time, to two figures that matter."""
    seconds = ms / 1000
    if seconds < 100:  # noqa: PLR2004 - beyond it minutes are read more easily
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"  # noqa: PLR2004 - two figures
    minutes, hours = seconds / 60, seconds / 3600
    if minutes < 100:  # noqa: PLR2004 - likewise
        return f"{minutes:.0f} min"
    return f"{hours:.0f} h" if hours < 48 else f"{hours / 24:.0f} days"  # noqa: PLR2004 - two days


def _short(waited: Waited) -> str:
    if waited.code in {Obstacle.RESOURCE, Obstacle.PRESSURE, Obstacle.TOTAL}:
        return waited.subject
    short = _SHORT.get(waited.code)
    return reason_text(Reason(waited.code, waited.subject)) if short is None else short.format(subject=waited.subject)


def _resource(reason: Reason) -> str:
    name, wants, free, total = reason.subject, reason.wants, reason.free, reason.total
    asked = amount_text(name, wants) if wants else "all of it"
    if reason.code == Obstacle.TOTAL:
        has = f"there is {amount_text(name, total)}" if total else "there is none"
        has = f"{has}, not enough of that kind or name" if total >= wants > 0 else has
        return f"{name}: needs {asked}, {has}"
    left = f"{amount_text(name, free)} free of {amount_text(name, total)}"
    if 0 < wants <= free:
        left = f"{left}, in parts or of a kind that do not fit"
    pressed = ": others use its machine" if reason.code == Obstacle.PRESSURE else ""
    return f"{name}: needs {asked}, {left}{pressed}"


def _pressure(reason: Reason) -> str:
    return _resource(reason) if reason.subject else "an agent whose machine others leave alone"


def _nodes(reason: Reason) -> str:
    if reason.total == 1:
        return f"the node before it: {_some(reason)}"
    return f"{reason.count:,} of the {reason.total:,} nodes before it: {_some(reason)}"


def _children(reason: Reason) -> str:
    if not reason.named:
        return f"the {reason.total:,} tasks that it has spawned"
    return f"{reason.count:,} of the {reason.total:,} tasks that it has spawned: {_some(reason)}"


def _some(reason: Reason) -> str:
    more = reason.count - len(reason.named)
    return ", ".join(reason.named) + (f" and {more:,} more" if more > 0 else "")


def _until(what: str) -> Callable[[Reason], str]:
    def tell(reason: Reason) -> str:
        text = what.format(subject=reason.subject, count=reason.count)
        return f"{text}: until {_instant(reason.until_ms)}" if reason.until_ms else text

    return tell


def _instant(unix_ms: int) -> str:
    return (_EPOCH + dt.timedelta(milliseconds=unix_ms)).isoformat(" ", "seconds").replace("+00:00", "Z")


def _about(text: str) -> Callable[[Reason], str]:
    return lambda reason: text.format(subject=reason.subject, count=reason.count)


_WORDS: Final[dict[str, str | Callable[[Reason], str]]] = {
    Obstacle.ABSENT: "an agent: those that could run it are not connected",
    Obstacle.QUEUE: _about("an agent that serves queue {subject}"),
    Obstacle.NAME: _about("an agent that has a task named {subject}"),
    Obstacle.LABEL: _about("an agent with the label {subject}"),
    Obstacle.TOTAL: _resource,
    Obstacle.QUARANTINED: "an agent: those that could run it are in quarantine (taskd agents resume NAME)",
    Obstacle.DRAINING: "an agent: those that could run it are drained, or about to stop",
    Obstacle.LIFE: "an agent whose machine has so long left",
    Obstacle.TAKEN: "the end of a task that has an agent for itself",
    Obstacle.NOT_EMPTY: "an agent that runs nothing else",
    Obstacle.APART: _about("an agent that runs no other task apart as {subject}"),
    Obstacle.RESOURCE: _resource,
    Obstacle.PRESSURE: _pressure,
    Obstacle.BUSY: "a slot: every agent that could run it is busy",
    Obstacle.LADEN: "an agent that holds fewer bytes of arguments",
    Obstacle.HELD: "an agent: what could run it is kept free for another task",
    Reasons.NODES: _nodes,
    Reasons.CHILDREN: _children,
    Reasons.PHASE: _about("all other nodes to have ended: it is of the phase {subject}"),
    Reasons.SIGNAL: _until("the signal {subject}"),
    Reasons.TURN: "its workflow to begin it, which it is about to",
    Reasons.UNREADABLE: _about("its workflow, which cannot be read: {subject}"),
    Reasons.DELAY: _until("its time"),
    Reasons.BACKOFF: _until("its next attempt, after {count} that failed"),
    Reasons.SLEEP: _until("its time"),
    Reasons.READING: "its line, which is being read from disk",
    Reasons.AHEAD: _about("the {count:,} tasks before it in its line"),
    Reasons.PAUSED: _about("queue {subject}, which is paused (taskd queue resume {subject})"),
    Reasons.CONCURRENCY: _about("limit {subject}: {count:,} run, and no more may at a time"),
    Reasons.KEY: _about("a place of limit {subject}"),
    Reasons.FIFO: _about("the end of the task before it, of fifo_key {subject}"),
    Reasons.RATE: _until("limit {subject}: as many have begun as may in a time"),
    Reasons.NO_AGENT: "an agent: none is connected (taskd agent MODULE)",
    Reasons.PLACING: "nothing: it is about to be placed",
    Reasons.PROOF: _about("agent {subject} to prove that its work is gone"),
    Reasons.AWAY: _about(
        "agent {subject}, which is not connected, to prove that its work is gone; if that is gone for good:"
        " taskd task cancel --force ID"
    ),
}
"""What a task waits for; of an agent's obstacle, when no agent is nearer."""

_OF_AN_AGENT: Final[dict[str, str]] = {
    Obstacle.ABSENT: "is not connected",
    Obstacle.QUEUE: "does not serve queue {subject}",
    Obstacle.NAME: "has no task named {subject}",
    Obstacle.LABEL: "does not have the label {subject}",
    Obstacle.QUARANTINED: "is in quarantine",
    Obstacle.DRAINING: "is drained, or about to stop",
    Obstacle.LIFE: "its machine goes too soon",
    Obstacle.TAKEN: "a task has it for itself",
    Obstacle.NOT_EMPTY: "runs something",
    Obstacle.APART: "runs another task apart as {subject}",
    Obstacle.BUSY: "is busy",
    Obstacle.LADEN: "holds as many bytes of arguments as it may",
    Obstacle.HELD: "is kept free for another task",
    Reasons.PLACING: "has room",
}
"""What rules one agent out."""

_WISHES: Final[dict[str, str]] = {
    Wishes.STICKY: "the last task of its sticky word ran there",
    Wishes.INPUTS: "inputs of it were made there",
}

_SHORT: Final[dict[str, str]] = {
    Obstacle.BUSY: "a slot",
    Reasons.NO_AGENT: "an agent to connect",
    Reasons.PAUSED: "a paused queue",
    Reasons.CONCURRENCY: "limit {subject}",
    Reasons.RATE: "the rate of limit {subject}",
}
"""What was waited for, where that is shorter, or would tell of the present."""
