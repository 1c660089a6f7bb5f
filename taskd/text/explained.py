"""Why a task is where it is, as a JSON document: see ``documents``."""

import msgspec

from taskd.text.documents import ErrorDocument, error_document
from taskd.text.values import iso
from taskd_protocol.explanation import Explanation, Reason
from taskd_protocol.ids import format_task_id
from taskd_protocol.words import obstacle_text, reason_text


class ReasonDocument(msgspec.Struct):
    """What is waited for."""

    code: str
    subject: str | None
    text: str
    wants: int | None
    free: int | None
    total: int | None
    count: int | None
    until: str | None
    named: list[str]


class ObstacleDocument(msgspec.Struct):
    """What rules out an agent."""

    agent: str
    never: bool
    code: str
    subject: str | None
    text: str
    wants: int | None
    free: int | None
    total: int | None
    count: int | None
    until: str | None
    named: list[str]


class PlaceDocument(msgspec.Struct):
    """Where in line it is."""

    ahead: int
    exact: bool
    ahead_at_least: int
    ready: int
    lines_before: int


class HoldDocument(msgspec.Struct):
    """What it holds of a resource."""

    name: str
    amount: int
    items: list[str]


class RatherDocument(msgspec.Struct, rename={"for_": "for"}):
    """Where it would rather run."""

    agent: str
    for_: str


class SpanDocument(msgspec.Struct):
    """How long it waited for one thing."""

    code: str
    subject: str | None
    ms: int


class WaitedDocument(msgspec.Struct, rename={"for_": "for"}):
    """What an attempt waited for."""

    attempt: int
    for_: list[SpanDocument]


class ExplanationDocument(msgspec.Struct):
    """Why a task, or a node of a workflow, is where it is."""

    id: str
    name: str
    queue: str | None
    state: str
    attempt: int
    waits_for: ReasonDocument | None
    place: PlaceDocument | None
    starts_in_s: float | None
    granted_per_minute: float
    impossible: bool
    kept_free: str | None
    rather: RatherDocument | None
    """The agent that it waits for a while, to go where it rather runs."""
    agents: list[ObstacleDocument]
    other_agents: dict[str, int]
    agent: str | None
    holds: list[HoldDocument] | None
    started_at: str | None
    finished_at: str | None
    error: ErrorDocument | None
    waited: list[WaitedDocument]


def explanation_document(told: Explanation) -> ExplanationDocument:
    """Return an explanation."""
    place = told.place
    return ExplanationDocument(
        id=format_task_id(told.id),
        name=told.name,
        queue=told.queue or None,
        state=told.state,
        attempt=told.attempt,
        waits_for=None if told.reason is None else _reason_document(told.reason),
        place=None
        if place is None
        else PlaceDocument(place.ahead, place.is_exact, place.ahead_min, place.ready, place.lines_before),
        starts_in_s=None if told.starts_in_ms < 0 else told.starts_in_ms / 1000,
        granted_per_minute=round(told.per_minute, 3),
        impossible=told.impossible,
        kept_free=told.kept_free or None,
        rather=RatherDocument(told.rather, told.rather_for) if told.rather else None,
        agents=[
            ObstacleDocument(
                agent=each.agent,
                never=each.never,
                **(msgspec.structs.asdict(_reason_document(each.reason)) | {"text": obstacle_text(each.reason)}),
            )
            for each in told.agents
        ],
        other_agents=dict(told.others),
        agent=told.agent or None,
        holds=None
        if told.holds is None
        else [HoldDocument(hold.name, hold.amount, hold.items) for hold in told.holds.holds],
        started_at=iso(told.started_at_ms or None),
        finished_at=iso(told.finished_at_ms or None),
        error=None if told.failure is None else error_document(told.failure),
        waited=[
            WaitedDocument(each.attempt, [SpanDocument(one.code, one.subject or None, one.ms) for one in each.waited])
            for each in told.waited
        ],
    )


def _reason_document(reason: Reason) -> ReasonDocument:
    return ReasonDocument(
        code=reason.code,
        subject=reason.subject or None,
        text=reason_text(reason),
        wants=reason.wants or None,
        free=reason.free if reason.total else None,
        total=reason.total or None,
        count=reason.count or None,
        until=iso(reason.until_ms or None),
        named=reason.named,
    )
