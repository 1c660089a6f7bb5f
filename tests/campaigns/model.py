"""What the core promises of tasks and agents, said once more and as simply as it can be: two dicts.

The model does not choose who gets what; it is told of each lease, and says whether it could be.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto

from taskd.core.lines import AGEING_MS
from taskd_protocol.task import DEFAULT_RETRY, Grant, TaskSpec

ENDED = frozenset({"succeeded", "dead", "cancelled"})


class Refused(Enum):
    """Why a submit is."""

    CONFLICT = auto()
    TOO_OLD = auto()


@dataclass
class ModelTask:
    """One task."""

    spec: TaskSpec
    order: int
    came_ms: int
    state: str = "ready"
    attempt: int = 0
    failures: int = 0
    crashes: int = 0
    losses: int = 0
    due_ms: int = 0
    ended_ms: int = 0
    agent: str = ""
    token: int = 0
    started: bool = False

    def rank(self) -> tuple[int, int]:
        """Where it stands in line."""
        return (self.came_ms + self.spec.delay_ms - self.spec.priority * AGEING_MS, self.order)

    def shown(self) -> tuple[object, ...]:
        """What a store must hold of it."""
        return (self.state, self.attempt, self.failures, self.crashes, self.losses)


@dataclass
class ModelAgent:
    """One agent, as the server sees it."""

    names: frozenset[str]
    connected: bool = False
    credit: int = 0
    seen_ms: int = 0
    known: bool = False
    holding: dict[int, ModelTask] = field(default_factory=dict)


class Model:
    """Everything that was promised.

    Attributes:
        wall_ms: Now; nothing steps here.
        purged: Tasks that were taken away.
        keys: What each stands for: the first task of it, and its work; none lapses while an example lives.
        fresh: Tasks that came into line since the step began: in which order within it is not promised.
    """

    def __init__(self, agents: Iterable[tuple[str, Iterable[str]]], wall_ms: int) -> None:
        self.wall_ms = wall_ms
        self.tasks: dict[bytes, ModelTask] = {}
        self.purged: set[bytes] = set()
        self.keys: dict[str, tuple[bytes, object]] = {}
        self.fresh: set[bytes] = set()
        self.agents = {name: ModelAgent(frozenset(names)) for name, names in agents}
        self._orders = 0

    # -- clients ------------------------------------------------------------------------

    def submit(self, specs: Sequence[TaskSpec]) -> list[tuple[int, bytes]] | Refused:
        """Keep what is new; tell of what is known, by id or by key."""
        existing: list[tuple[int, bytes]] = []
        keys = dict(self.keys)
        for index, spec in enumerate(specs):
            first, work = keys.get(spec.key, (b"", None))
            if spec.id in self.tasks:
                existing.append((index, spec.id))
            elif first and work != _work(spec):
                return Refused.CONFLICT
            elif first:
                existing.append((index, first))
            elif spec.id in self.purged:
                return Refused.TOO_OLD
            if spec.key:
                keys.setdefault(spec.key, (spec.id, _work(spec)))
        self.keys = keys
        known = {index for index, _ in existing}
        for index, spec in enumerate(specs):
            if index not in known:
                self._orders += 1
                task = self.tasks[spec.id] = ModelTask(spec, self._orders, self.wall_ms)
                self.fresh.add(spec.id)
                if spec.delay_ms:
                    task.state, task.due_ms = "scheduled", self.wall_ms + spec.delay_ms
        return existing

    def cancel(self, ids: Iterable[bytes]) -> list[str]:
        """End what waits; what runs is to be ended by its agent."""
        for task_id in ids:
            task = self.tasks.get(task_id)
            if task is not None and task.state in {"ready", "scheduled"}:
                self._end(task, "cancelled")
            elif task is not None and task.state == "running":
                task.state = "cancelling"
        return self._states(ids)

    def retry(self, ids: Iterable[bytes]) -> list[str]:
        """Begin anew what ended without success."""
        for task_id in ids:
            task = self.tasks.get(task_id)
            if task is not None and task.state in {"dead", "cancelled"}:
                task.failures = task.crashes = 0
                self._enter(task)
        return self._states(ids)

    def _states(self, ids: Iterable[bytes]) -> list[str]:
        return [self.tasks[task_id].state if task_id in self.tasks else "unknown" for task_id in ids]

    # -- agents -------------------------------------------------------------------------

    def connect(self, name: str, *, is_new_life: bool) -> None:
        """Take an agent in; a new life of it holds nothing of the old one's."""
        agent = self.agents[name]
        agent.connected, agent.known, agent.credit, agent.seen_ms = True, True, 0, self.wall_ms
        if is_new_life:
            self._give_up_all(agent)

    def lose_connection(self, name: str) -> None:
        """Grant nothing more; what it holds it keeps for a while."""
        agent = self.agents[name]
        agent.connected, agent.credit = False, 0
        agent.known = bool(agent.holding)

    def add_credit(self, name: str, leases: int) -> None:
        """Have room for more."""
        if self.agents[name].connected:
            self.agents[name].credit += leases

    def hear(self, name: str) -> None:
        """Know that it is alive."""
        self.agents[name].seen_ms = self.wall_ms

    def grant(self, name: str, grant: Grant) -> None:
        """Be told of a lease, which must be right."""
        agent, task = self.agents[name], self.tasks[grant.spec.id]
        assert agent.connected, "who is not there gets nothing"
        assert agent.credit > 0, "nobody gets more than there is room for"
        assert task.spec.name in agent.names
        assert task.state == "ready"
        assert (grant.spec, grant.attempt) == (task.spec, task.attempt + 1)
        assert grant.mark_start == (task.losses > 0)
        for other in self.tasks.values():
            if other.state == "ready" and other.spec.name == task.spec.name and other.spec.id not in self.fresh:
                assert other.rank() >= task.rank(), "first come, first served, within a priority"
        agent.credit -= 1
        task.state, task.agent, task.token, task.started = "running", name, grant.token, False
        task.attempt += 1
        agent.holding[grant.token] = task

    def check_placed(self) -> None:
        """Nothing waits that somebody has room for."""
        for agent in self.agents.values():
            if agent.credit:
                waiting = [each for each in self.tasks.values() if each.state == "ready"]
                assert not [each for each in waiting if each.spec.name in agent.names], "work waits beside free room"

    def start(self, name: str, token: int) -> None:
        """Note that an attempt has begun."""
        self.hear(name)
        self.agents[name].holding[token].started = True

    def report(self, name: str, token: int, outcome: str) -> None:
        """Settle an attempt as its agent says."""
        agent = self.agents[name]
        agent.seen_ms = self.wall_ms
        task = agent.holding.pop(token)
        if outcome == "succeeded":
            self._end(task, outcome)
        elif task.state == "cancelling":
            self._end(task, "cancelled")
        elif outcome in {"failed", "crashed"}:
            self._charge(task, outcome)
        else:
            self._enter(task)

    def _charge(self, task: ModelTask, outcome: str) -> None:
        retry = task.spec.retry or DEFAULT_RETRY
        task.failures += outcome == "failed"
        task.crashes += outcome == "crashed"
        if task.failures >= retry.max_attempts or task.crashes >= min(retry.crash_limit, retry.max_attempts):
            self._end(task, "dead")
        else:
            wait_ms = min(retry.base_ms * retry.factor ** (task.failures + task.crashes - 1), retry.max_ms)
            task.state, task.due_ms = "scheduled", self.wall_ms + round(wait_ms)

    def _enter(self, task: ModelTask) -> None:
        task.state = "ready"
        self.fresh.add(task.spec.id)

    def _end(self, task: ModelTask, state: str) -> None:
        task.state, task.ended_ms = state, self.wall_ms

    def _give_up_all(self, agent: ModelAgent, *, is_proven: bool = True) -> None:
        """Settle what an agent held that is gone: only what had surely begun is blamed for it.

        What is to be cancelled is not before its end is proven.
        """
        holding, agent.holding = agent.holding, {}
        for token, task in holding.items():
            if task.state == "cancelling" and not is_proven:
                agent.holding[token] = task
                continue
            if task.started and task.state != "cancelling":
                self._charge(task, "crashed")
                continue
            task.losses += 1
            if task.state == "cancelling":
                self._end(task, "cancelled")
            else:
                self._enter(task)

    # -- time ---------------------------------------------------------------------------

    def tick(self, silence_ms: int) -> None:
        """Let what is due be ready, and who is silent be lost."""
        for agent in self.agents.values():
            if agent.known and self.wall_ms - agent.seen_ms >= silence_ms:
                agent.connected, agent.credit = False, 0
                self._give_up_all(agent, is_proven=False)
                agent.known = bool(agent.holding)
        for task in self.tasks.values():
            if task.state == "scheduled" and task.due_ms <= self.wall_ms:
                self._enter(task)

    def restart(self) -> None:
        """Keep all but the connections; who holds something is waited for as long as ever."""
        for agent in self.agents.values():
            agent.connected, agent.credit = False, 0
            agent.known, agent.seen_ms = bool(agent.holding), self.wall_ms

    def forget(self, kept: Iterable[bytes], before_ms: int) -> None:
        """Be told what is still there: only what ended long ago may be gone."""
        gone = self.tasks.keys() - set(kept)
        for task_id in gone:
            task = self.tasks.pop(task_id)
            assert task.state in ENDED, f"a task is gone that was {task.state}"
            assert task.ended_ms < before_ms, "a task was taken away before its time"
            self.purged.add(task_id)

    def overdue(self, before_ms: int) -> list[ModelTask]:
        """Return what should be gone."""
        return [task for task in self.tasks.values() if task.state in ENDED and task.ended_ms < before_ms]


def _work(spec: TaskSpec) -> tuple[str, str, bytes]:
    return (spec.name, spec.queue, spec.payload)
