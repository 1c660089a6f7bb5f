"""Drafts: workflows of which not all nodes have come, in memory alone; a client sends them again after a lost server.

Invariants:
- Nobody's draft is forgotten for another's: one too many is refused, and one of which nothing comes is forgotten.
"""

from typing import TYPE_CHECKING, Final

from taskd.core.commands import Now
from taskd.core.flows import Plan
from taskd.core.working import Working
from taskd_protocol.errors import ServerBusy, SubmitConflict
from taskd_protocol.ids import format_task_id
from taskd_protocol.workflow import WorkflowSpec

if TYPE_CHECKING:
    import msgspec

DRAFTS_MAX: Final = 16
"""At a time: each may come to 64 MiB."""

OWN_MAX: Final = 8
"""Of one token: however many its programs submit, there is room for others."""

IDLE_MS: Final = 60_000
"""After so long without more of it a draft is forgotten: a client sends one part on the answer to another, and begins
anew if it was away for long."""

RETRY_MS: Final = 500
"""What one too many is told to wait: a draft of 100 parts is whole within that, if its client is near."""


class Draft:
    """A workflow of which not all nodes have come.

    Attributes:
        plan: Of those that have.
        names: Of them.
        phases: Of those that have one.
        starts: Where each part of it begins.
        heard_mono_ms: When the last of them came.
    """

    def __init__(self, spec: WorkflowSpec, owner: str) -> None:
        self.spec = spec
        self.owner = owner
        self.plan = Plan()
        self.packed: list[msgspec.Raw] = []
        self.packed_bytes = 0
        self.names: dict[str, None] = {}
        self.phases: dict[int, str] = {}
        self.starts: list[int] = []
        self.heard_mono_ms = 0


def check_begin(w: Working, spec: WorkflowSpec, owner: str, *, whole: bool) -> None:
    """Refuse the first part of a workflow, or all of it.

    Raises:
        SubmitConflict: Its id is another owner's.
        ServerBusy: There are too many.
    """
    known = w.drafts.get(spec.id)
    if known is not None and known.owner != owner:
        raise SubmitConflict(f"workflow id {format_task_id(spec.id)} belongs to another workflow; make a new one")
    if known is not None or whole:
        return
    own = sum(draft.owner == owner for draft in w.drafts.values())
    if own >= OWN_MAX or len(w.drafts) >= DRAFTS_MAX:
        raise ServerBusy(
            f"{len(w.drafts)} workflows are on their way here in parts, {own} of them of this token; {DRAFTS_MAX} may"
            f" be, and {OWN_MAX} of one: submit this one when one of them is whole",
            retry_after_ms=RETRY_MS,
        )


def tick(w: Working, now: Now) -> None:
    """Forget drafts of which nothing has come for long."""
    for workflow in [i for i, draft in w.drafts.items() if now.mono_ms - draft.heard_mono_ms >= IDLE_MS]:
        del w.drafts[workflow]
