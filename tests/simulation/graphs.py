"""Graphs: workflows that clients submit, by chance, and how long one takes at most."""

import random
from collections.abc import Container

from simulation.bodies import ASYNC, BLOCKING, Body
from simulation.broods import new_brood
from simulation.sites import wishes
from simulation.tasks import BACKOFF_MS_MAX, QUEUES, cost_s
from taskd_protocol.limits import KEPT_RESULT_BYTES_MIN
from taskd_protocol.payload import Input, pack, pack_arguments
from taskd_protocol.task import Retry, Rules, TaskSpec
from taskd_protocol.workflow import (
    COMPENSATE,
    ENTROPY_BYTES,
    FAIL_FAST,
    FINISH,
    MAP,
    ON_FAILURE,
    ON_SUCCESS,
    SIGNAL,
    SLEEP,
    TASK,
    TRIGGERS,
    VALUE,
    WHOLE,
    Choice,
    Node,
    WorkflowSpec,
    make_workflow_id,
)

SIGNALS = ("go", "stay")
WORDS = "xy"
"""What a node gives whose result decides on others."""
ITEMS_MAX = 4
RUNS_MS = (0, 1, 10, 200, 2_000)
WAITS_MS = (200, 3_000, 15_000)


class GraphMaker:
    """Makes workflows of up to a dozen nodes."""

    def __init__(self, features: Container[str], rng: random.Random) -> None:
        self._features = features
        self._rng = rng

    def make(self, unix_ms: int) -> tuple[WorkflowSpec, list[Node]]:
        """Make a workflow, under an id of that time."""
        rng = self._rng
        nodes: list[Node] = []
        for position in range(rng.randint(2, 10)):
            nodes.append(self._node(position, nodes))
        done = [n for n, node in enumerate(nodes) if node.kind == TASK]
        if done and rng.random() < 0.4:
            nodes += [
                self._later(len(nodes) + n, target) for n, target in enumerate(rng.sample(done, min(2, len(done))))
            ]
        if rng.random() < 0.3:
            phase = rng.choice([ON_FAILURE, ON_SUCCESS])
            after = [rng.randrange(len(nodes))] if not nodes[-1].phase else []
            nodes.append(Node(f"n{len(nodes)}", TASK, self._task([]), after=after, when="all_done", phase=phase))
        spec = WorkflowSpec(
            make_workflow_id(unix_ms, rng.randbytes(ENTROPY_BYTES)),
            "graph",
            len(nodes),
            rng.choice([FINISH, FAIL_FAST]),
        )
        return spec, nodes

    def _node(self, position: int, before: list[Node]) -> Node:
        rng, name = self._rng, f"n{position}"
        parents = rng.sample(range(position), min(position, rng.choice([0, 1, 1, 2, 3])))
        split = rng.randint(0, len(parents))
        needs, after = parents[:split], parents[split:]
        when = rng.choice(TRIGGERS) if rng.random() < 0.5 else "all_succeeded"
        deciding = [parent for parent in parents if _decides(before[parent])]
        only_if = [Choice(deciding[0], pack(rng.choice(WORDS)))] if deciding and when in WHOLE else []
        lists = [number for number, parent in enumerate(needs) if _lists(before[parent])]
        kind = rng.choice([TASK] * 6 + [MAP] * 8 * bool(lists) + [VALUE, SLEEP, SIGNAL])
        may_fail = rng.random() < 0.3
        match kind:
            case "task":
                task = self._task(needs)
                return Node(name, kind, task, needs, after, when, only_if, may_fail=may_fail)
            case "map":
                over, task = rng.choice(lists), self._task(needs)
                in_flight = rng.choice([0, 1, 2])
                return Node(name, kind, task, needs, after, when, only_if, over, in_flight, may_fail)
            case "value":
                packed = pack(rng.choice([[1, 2, 3], [], "x"]))
                return Node(name, kind, None, [], parents, when, only_if, packed=packed)
            case "sleep":
                return Node(name, kind, None, [], parents, when, only_if, wait_ms=rng.choice(WAITS_MS))
            case _:
                signal, wait_ms = rng.choice(SIGNALS), rng.choice([0, *WAITS_MS])
                return Node(name, kind, None, [], parents, when, only_if, -1, 0, may_fail, "", -1, b"", signal, wait_ms)

    def _later(self, position: int, target: int) -> Node:
        """Make a node that takes another one back."""
        task = self._task([target])
        return Node(f"n{position}", TASK, task, [target], when="all_done", phase=COMPENSATE, compensates=target)

    def _task(self, needs: list[int]) -> TaskSpec:
        rng = self._rng
        end, good_from = "return", 1
        chance = rng.random()
        if chance < 0.25:
            ends = ["raise", "final", "later"] if "finals" in self._features else ["raise"]
            end, good_from = rng.choice(ends), rng.choice([2, 3, 1_000])
        elif "crashes" in self._features and chance < 0.3:
            end, good_from = "exit", rng.choice([2, 1_000])
        result_bytes = rng.choice([0, 0, 40, 3_000])
        rules = None
        if "placement" in self._features:
            result_bytes = rng.choice([result_bytes, KEPT_RESULT_BYTES_MIN])
            rules = Rules(**wishes(rng, delayed=True, once=False))  # type: ignore[arg-type]  # fields by their names
        gives = rng.choice(["", *WORDS, WORDS, *map(str, range(ITEMS_MAX + 1))])
        if result_bytes == KEPT_RESULT_BYTES_MIN:
            gives = ""
        body = Body(rng.choice(RUNS_MS), end, good_from, result_bytes, rng.random() < 0.7, gives=gives)
        if "families" in self._features and rng.random() < 0.15:
            body = body._replace(brood=new_brood(rng))
        return TaskSpec(
            b"",
            rng.choice([BLOCKING, ASYNC]),
            pack_arguments(list(body), {f"input{number}": Input(number) for number in range(len(needs))}),
            QUEUES[0] if "queues" not in self._features else rng.choice(QUEUES),
            retry=Retry(rng.randint(1, 3), base_ms=rng.choice([0, 300, 2_000]), max_ms=BACKOFF_MS_MAX),
            given=rules,
        )


def _decides(node: Node) -> bool:
    return node.kind == TASK or node.packed == pack("x")


def _lists(node: Node) -> bool:
    return node.kind in {TASK, MAP, VALUE}


def graph_cost_s(nodes: list[Node]) -> float:
    """Return how long it takes, at most, until a workflow has ended, if one of its tasks runs at a time."""
    tasks_s = [cost_s(node.task) * (ITEMS_MAX if node.kind == MAP else 1) for node in nodes if node.task is not None]
    return sum(tasks_s) + sum(node.wait_ms for node in nodes) / 1_000
