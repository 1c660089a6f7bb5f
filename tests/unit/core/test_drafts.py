"""Drafts: workflows that come in parts, many at a time."""

import pytest

from harness.core import Shell
from taskd.core.drafts import DRAFTS_MAX, IDLE_MS, OWN_MAX
from taskd.core.workflow_commands import NodesTaken, SubmitWorkflow
from taskd_protocol.errors import BadRequest, ServerBusy, SubmitConflict
from taskd_protocol.task import TaskSpec
from taskd_protocol.workflow import Node, WorkflowSpec, make_workflow_id

NODES = [Node(f"n{n}", task=TaskSpec(b"", "m.f")) for n in range(3)]


class Sender:
    """A client that sends a workflow of three nodes, one at a time."""

    def __init__(self, shell: Shell, owner: str = "client") -> None:
        self.shell = shell
        self.owner = owner
        self.spec = WorkflowSpec(make_workflow_id(shell.wall_ms, shell.ids.randbytes(5)), "w", len(NODES))

    def send(self, first: int, count: int = 1) -> None:
        part = SubmitWorkflow(self.owner, self.spec, first, NODES[first : first + count])
        assert self.shell.do(part) == NodesTaken(first + count)


def test_one_too_many_of_a_token_is_refused_and_none_is_forgotten(shell: Shell) -> None:
    senders = [Sender(shell) for _ in range(OWN_MAX)]
    for sender in senders:
        sender.send(0)
    late, other = Sender(shell), Sender(shell, "another")
    with pytest.raises(ServerBusy, match=f"{OWN_MAX} of one") as refused:
        late.send(0)
    assert refused.value.retryable
    assert refused.value.retry_after_ms
    other.send(0)
    for sender in (other, *senders):
        sender.send(1)
        sender.send(2)
    late.send(0)
    assert len(shell.working.flows) == OWN_MAX + 1


def test_one_too_many_of_all_is_refused_and_what_comes_whole_is_not(shell: Shell) -> None:
    for number in range(DRAFTS_MAX):
        Sender(shell, f"token-{number}").send(0)
    with pytest.raises(ServerBusy, match=f"{DRAFTS_MAX} workflows are on their way"):
        Sender(shell, "another").send(0)
    Sender(shell, "another").send(0, 3)
    assert len(shell.working.drafts) == DRAFTS_MAX


def test_a_draft_of_which_nothing_comes_is_forgotten(shell: Shell) -> None:
    slow, gone = Sender(shell), Sender(shell)
    slow.send(0)
    gone.send(0)
    shell.pass_ms(IDLE_MS - 1)
    slow.send(1)
    shell.pass_ms(1)
    shell.coordinator.tick(shell.now)
    assert list(shell.working.drafts) == [slow.spec.id]
    with pytest.raises(BadRequest, match="send it from the first on"):
        gone.send(1)
    gone.send(0)
    slow.send(2)


@pytest.mark.parametrize("count", [1, 3])
def test_a_draft_is_not_begun_anew_by_another_token(shell: Shell, count: int) -> None:
    sender, thief = Sender(shell), Sender(shell, "thief")
    thief.spec = sender.spec
    sender.send(0)
    with pytest.raises(SubmitConflict):
        thief.send(0, count)
    sender.send(1)
    sender.send(2)


def test_a_draft_is_begun_anew_by_its_own(shell: Shell) -> None:
    senders = [Sender(shell) for _ in range(OWN_MAX)]
    for sender in senders:
        sender.send(0, 2)
    senders[0].send(0)
    senders[0].send(1)
    senders[0].send(2)
