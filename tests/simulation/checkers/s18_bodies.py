"""S18: what has ended by its agent's word has ended, what may not run twice does not, and limits of time are kept."""

from typing import NamedTuple

import trio

from simulation.checkers.checker import Checker
from simulation.journal import Standing
from simulation.plan import GONE_MS
from simulation.tap import Conversation
from taskd.agent.executors.coroutine import DRAIN_S
from taskd.agent.executors.seat import SOFT_S, TERM_S
from taskd.core.lifecycle import State
from taskd_protocol.agent_messages import Ack, Nack
from taskd_protocol.messages import Message
from taskd_protocol.task import TaskSpec

GRACE_SECONDS = SOFT_S + TERM_S + DRAIN_S + 5.0
"""An attempt over its limit is gone by then: told, its worker told with TERM, its neighbours ended, and five more."""


class Running(NamedTuple):
    """An attempt that runs."""

    spec: TaskSpec
    agent: str
    since_s: float
    stood_s: float
    """Its agent had stood still for so long before it began."""


class Bodies(Checker):
    """Compares what runs, as somebody beside the machine sees it, with what is said of it."""

    promise = "S18"

    def __init__(self, *args: object) -> None:
        super().__init__(*args)  # type: ignore[arg-type]  # the one argument
        self._running: dict[int, Running] = {}
        self._tokens: dict[bytes, set[int]] = {}

    def ran(self, agent: str, task_id: bytes, attempt: int, token: int) -> None:
        spec = self.world.find_spec(task_id)
        others = self._tokens.setdefault(task_id, set())
        if others and spec.rules.exclusive:
            self.broken(f"{task_id.hex()} is exclusive, and runs under {token} and {sorted(others)}")
        others.add(token)
        stood_s = self.world.agent(agent).stood_s()
        self._running[token] = Running(spec, agent, trio.current_time(), stood_s)

    def gone(self, token: int) -> None:
        run = self._running.pop(token)
        self._tokens[run.spec.id].discard(token)
        timeout_ms = run.spec.rules.timeout_ms
        stood_s = self.world.agent(run.agent).stood_s() - run.stood_s
        ran_s = trio.current_time() - run.since_s - stood_s
        if timeout_ms and ran_s > timeout_ms / 1_000 + GRACE_SECONDS:
            self.broken(f"{run.spec.id.hex()} ran for {ran_s:.1f} s under {token}, its timeout is {timeout_ms} ms")

    def heard(self, conversation: Conversation, message: Message) -> None:
        if isinstance(message, Ack | Nack):
            reports = message.reports if isinstance(message, Ack) else message.failures
            for report in reports:
                if report.token in self._running:
                    self.broken(f"{report.id.hex()} was reported by {conversation.name} as ended, and runs")

    def moved(self, task_id: bytes, before: Standing, after: Standing) -> None:
        lease = before.lease
        runs = lease is not None and lease.token in self._running
        given_up = task_id in self.world.forced or self.world.plan.gone_ms == GONE_MS
        if runs and after.name == State.CANCELLED and not given_up:
            assert lease is not None
            self.broken(f"{task_id.hex()} is cancelled, and runs on {lease.agent} under {lease.token}")
