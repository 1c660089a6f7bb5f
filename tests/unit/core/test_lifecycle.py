"""The table of states, and that what the core does is in it."""

import random

import pytest

from harness.fsck import check_disk
from harness.world import World, random_step, shrink
from protocol_document import DOCUMENT
from taskd.core.lifecycle import RETRIABLE, TERMINAL, TRANSITIONS, State, lifecycle_mermaid

RERUN = "its workflow runs it again, at a person's word"


def reachable(start: State | None) -> set[State]:
    """Return the states that may follow, in any number of steps."""
    found: set[State] = set()
    ahead = list(TRANSITIONS[start])
    while ahead:
        state = ahead.pop()
        if state not in found:
            found.add(state)
            ahead += TRANSITIONS[state]
    return found


def test_every_state_can_be_reached_and_ends() -> None:
    assert reachable(None) == set(State)
    by_a_person = {"retry", RERUN}
    assert {state for state in State if by_a_person.issuperset(TRANSITIONS[state].values())} == TERMINAL
    assert {state for state in State if "retry" in TRANSITIONS[state].values()} == RETRIABLE
    assert all(reachable(state) & TERMINAL for state in State if state not in TERMINAL)


def test_the_picture_shows_the_table() -> None:
    picture = lifecycle_mermaid().splitlines()
    assert picture[0] == "stateDiagram-v2"
    assert "    [*] --> ready: submit" in picture
    assert "    dead --> [*]" in picture
    assert "\n".join(["```mermaid", *picture, "```"]) in DOCUMENT.read_text()
    assert len(picture) == 1 + sum(map(len, TRANSITIONS.values())) + len(TERMINAL)


@pytest.mark.parametrize("seed", range(3))
def test_tasks_go_only_where_the_table_leads(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    shrink(monkeypatch)
    rng, world = random.Random(1_000 + seed), World(seed)
    before: dict[bytes, State] = {}
    for _ in range(150):
        random_step(world, rng)
        after = check_disk(world.shell.disk)
        for task_id, state in before.items():
            assert (
                task_id not in after
                or after[task_id] == state
                or (state in RETRIABLE and after[task_id] in reachable(state))
            )
        if not world.shell.staged_count:  # what is not durable, a crash may undo
            before = {task_id: state for task_id, state in after.items() if state in TERMINAL}
