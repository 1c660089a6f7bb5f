"""Explanations: why a task is where it is, as its submitter sees it."""

from dataclasses import dataclass

from taskd_protocol import explanation as told
from taskd_protocol.ids import format_task_id
from taskd_protocol.words import (
    amount_text,
    duration_text,
    obstacle_text,
    place_text,
    reason_text,
    waited_text,
    wish_text,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentObstacle:
    """The first thing that rules one agent out."""

    agent: str
    code: str
    """A stable word, such as ``agent.resource`` or ``agent.label``."""
    subject: str
    """What it is about, such as ``memory``; empty: the agent as a whole."""
    text: str
    never: bool
    """As the agent is, it could not run the task even if it were idle."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Why a task is where it is; ``str()`` of it is for people."""

    state: str
    code: str
    """The first thing that it waits for: a stable word such as ``agent.resource`` or ``time.delay``; empty: it does not
    wait."""
    subject: str
    """What that is about, such as ``memory``."""
    text: str
    """The same in words; empty: it does not wait."""
    agents: list[AgentObstacle]
    """Of a task in line: the agents that are nearest to running it, at most 32."""
    ahead: int | None
    """Tasks of its line before it; None: it is in no line."""
    is_ahead_exact: bool
    """Else it is an estimate."""
    starts_in: float | None
    """Seconds, estimated from how fast its line has moved of late; None: unknown."""
    impossible: bool
    """No agent that is connected could ever run it."""
    kept_free: str
    """The agent that is kept free for it; empty: none."""
    rather: str
    """The agent that it goes to if that has room, for what it would find there; empty: none."""
    agent: str
    """Who runs it or ran it last; empty: nobody yet."""
    waited: dict[int, list[tuple[str, str, float]]]
    """By attempt, what it had waited for: code, subject, seconds; the longest first."""
    told: told.Explanation
    """All that the server has said."""

    def __str__(self) -> str:
        """Return the lines of `taskd task explain`, but for the agents."""
        return "\n".join(f"{label:<10} {text}" for label, text in lines_of(self.told))


def explanation_of(said: told.Explanation) -> Explanation:
    """Return an explanation that the server gave."""
    reason, place = said.reason, said.place
    return Explanation(
        state=said.state,
        code="" if reason is None else reason.code,
        subject="" if reason is None else reason.subject,
        text="" if reason is None else reason_text(reason),
        agents=[
            AgentObstacle(
                agent=each.agent,
                code=each.reason.code,
                subject=each.reason.subject,
                text=obstacle_text(each.reason),
                never=each.never,
            )
            for each in said.agents
        ],
        ahead=None if place is None else place.ahead,
        is_ahead_exact=place is not None and place.is_exact,
        starts_in=None if said.starts_in_ms < 0 else said.starts_in_ms / 1000,
        impossible=said.impossible,
        kept_free=said.kept_free,
        rather=said.rather,
        agent=said.agent,
        waited={each.attempt: [(one.code, one.subject, one.ms / 1000) for one in each.waited] for each in said.waited},
        told=said,
    )


def lines_of(said: told.Explanation) -> list[tuple[str, str]]:
    """Return what is to be said of a task for people, each with its label."""
    lines = [("id", format_task_id(said.id)), ("name", said.name), ("queue", said.queue), ("state", said.state)]
    if said.reason is not None:
        lines.append(("waits for", reason_text(said.reason)))
    if said.place is not None:
        lines += [("place", place_text(said.place)), ("starts", _start_text(said))]
    if said.kept_free:
        lines.append(("kept free", f"agent {said.kept_free} is kept free for it"))
    if said.rather:
        lines.append(("rather on", wish_text(said.rather, said.rather_for)))
    if said.impossible:
        lines.append(("warning", "no agent that is connected could ever run it"))
    if said.holds is not None:
        lines.append(("holds", _holds_text(said)))
    lines += [(f"attempt {each.attempt}", f"waited {waited_text(each.waited)}") for each in said.waited]
    if said.failure is not None:
        failure = said.failure
        what = f"{failure.type}: {failure.message}" if failure.type else failure.message
        lines.append(("error", f"{what} ({failure.code})"))
    return [(label, text) for label, text in lines if text]


def _start_text(said: told.Explanation) -> str:
    if said.impossible:
        return ""
    if said.starts_in_ms < 0:
        return "unknown: nothing of its line was granted of late"
    pace = f"{said.per_minute:.2g}" if said.per_minute < 10 else f"{said.per_minute:,.0f}"  # noqa: PLR2004 - two figures
    if said.by_rate:
        return f"in about {duration_text(said.starts_in_ms)}, as {pace} a minute may begin"
    return f"in about {duration_text(said.starts_in_ms)}, as {pace} a minute of its line were granted of late"


def _holds_text(said: told.Explanation) -> str:
    assert said.holds is not None
    if said.holds.exclusive_host:
        return f"all of agent {said.agent}"
    return ", ".join(
        f"{hold.name} {amount_text(hold.name, hold.amount)}{_items_text(hold.items)}" for hold in said.holds.holds
    )


def _items_text(items: list[str]) -> str:
    return f" ({', '.join(items)})" if items else ""
