"""A lost end of the history is found, whatever has come since; what is there is never taken for lost."""

import random
from dataclasses import dataclass, field

import pytest

from taskd.core.commands import Now
from taskd.core.records import EpochRecord
from taskd.core.restore import Stored, restore
from taskd.core.working import Settings, Working
from taskd_protocol.errors import ServerRolledBack
from taskd_protocol.handshake import check_mark, epoch_of, make_mark
from taskd_protocol.mark import Mark

KEY = bytes(range(32))
LINEAGE = b"l" * 16


@dataclass
class History:
    """A store's commits, as far as marks are concerned.

    Attributes:
        states: After each commit: its mark, and the epoch record that is stored then.
    """

    states: list[tuple[Mark, EpochRecord]] = field(default_factory=list)
    second: int = 1_000

    def start(self, commits: int) -> None:
        """Begin another life of the server, with so many commits after its first."""
        self.second += 5
        w = Working(Settings(), random.Random(0))
        epoch = self.states[-1][1] if self.states else None
        stored = Stored(
            counters=None, epoch=epoch, tokens=[], lines=[], leases=[], newest_id=b"", sequence=len(self.states)
        )
        restore(w, stored, Now(0, self.second * 1_000))
        [(_, _, record)] = w.mutations
        assert isinstance(record, EpochRecord)
        for _ in range(1 + commits):
            self.states.append((make_mark(KEY, LINEAGE, len(self.states) + 1, record.epoch), record))

    def believes(self, mark: Mark) -> bool:
        """Tell whether the server of now takes the mark for one of what it holds."""
        try:
            check_mark(KEY, mark, LINEAGE, len(self.states), self.states[-1][1].lives)
        except ServerRolledBack:
            return False
        return True


@pytest.mark.parametrize("seed", range(300))
def test_a_lost_commit_is_found_whatever_came_since(seed: int) -> None:
    """One commit, or whole starts of the server; seen at once, or after other starts that nobody was told of."""
    rng = random.Random(seed)
    history = History()
    for _ in range(rng.randint(1, 6)):
        history.start(rng.randint(0, 8))
    kept = rng.randint(1, len(history.states))
    lost = [mark for mark, _ in history.states[kept:]]
    del history.states[kept:]
    for _ in range(rng.randint(1, 3)):
        history.start(rng.randint(0, 20))
    assert [mark for mark, _ in history.states if not history.believes(mark)] == []
    assert [mark for mark in lost if history.believes(mark)] == []


def test_a_start_that_was_lost_before_its_first_commit_is_not_missed() -> None:
    """Whom it welcomed meanwhile was told of commits of the start before, and is welcome to the next one."""
    history = History()
    history.start(3)
    held = len(history.states)
    history.start(0)
    lives = history.states[-1][1].lives
    told = make_mark(KEY, LINEAGE, held, epoch_of(held, lives))
    del history.states[held:]
    history.start(0)
    assert history.believes(told)
    assert [epoch_of(sequence, lives) for sequence in (0, 1, held, held + 1)] == [
        0,
        lives[0][0],
        *[e for e, _ in lives],
    ]
