"""Submits that come together are decided together, and nobody can tell."""

import random

import pytest
import trio

from harness.server import Server
from taskd.core.commands import Command, Now, SubmitTasks
from taskd.core.coordinator import Coordinator
from taskd.core.working import Settings
from taskd.server import merging
from taskd.server.certificates import Certificates
from taskd.server.intake import Request
from taskd_protocol.connection_messages import Error
from taskd_protocol.ids import make_task_ids
from taskd_protocol.messages import Accepted, Submit
from taskd_protocol.task import Rules, TaskSpec

NOW = Now(1, 1_764_000_000_000)


@pytest.fixture
async def server(nursery: trio.Nursery, ca: Certificates) -> Server:
    return await Server(nursery, ca).start()


def specs(count: int, *, queue: str = "default", key: str = "", rules: Rules | None = None) -> list[TaskSpec]:
    ids = make_task_ids(count, NOW.wall_ms, random.Random(len(queue + key)).randbytes(count * 10))
    return [TaskSpec(task_id, "job", b"", queue, key=key, given=rules) for task_id in ids]


def request(command: Command) -> Request:
    return Request(command, lambda _: None, 1)


def test_those_of_one_client_that_follow_each_other_are_together() -> None:
    def submit(owner: str, some: list[TaskSpec]) -> Request:
        return request(SubmitTasks(owner, some))

    plain = [submit("a", [spec]) for spec in specs(3)]
    other = submit("b", specs(1))
    large = submit("a", specs(merging.FEW + 1))
    keyed = submit("a", specs(1, key="k"))
    ruled = submit("a", specs(1, rules=Rules(ttl_ms=1)))
    given = [*plain[:2], other, plain[2], large, keyed, ruled, *plain]
    assert list(merging.together(given)) == [plain[:2], [other], [plain[2]], [large], [keyed], [ruled], plain]


def test_what_is_decided_together_is_what_is_decided_apart() -> None:
    """The same records, in one batch; each is answered for itself."""
    some = [*specs(4), *specs(3, queue="other"), *specs(2)[:1]]
    random.Random(3).shuffle(some)
    unlike = {spec.id: spec for spec in some}
    requests = [request(SubmitTasks("a", [spec])) for spec in unlike.values()]

    def decided(*, together: bool) -> dict[tuple[bytes, bytes], object]:
        coordinator = Coordinator(Settings(), random.Random(1))
        if together:
            found = merging.decide(coordinator, requests, NOW)
            assert found is not None
            assert found.fresh == len(requests)
            assert len(found.answered) == len(requests)
        else:
            for each in requests:
                coordinator.apply(each.command, NOW)
        return {(prefix, key): record for prefix, key, record in coordinator.take_turn(NOW).mutations}

    assert decided(together=True) == decided(together=False)


async def test_who_is_refused_is_refused_alone(server: Server) -> None:
    """And who sends the same again is told so, in the same turn."""
    client = await server.client()
    first, second = server.specs(), server.specs()
    twice = server.specs()[0]
    await client.send(Submit(1, first), Submit(2, [twice, twice]), Submit(3, first), Submit(4, second))
    answers = {}
    for _ in range(3):
        accepted = await client.take(Accepted)
        answers[accepted.request_id] = accepted.existing
    assert answers == {1: [], 3: [(0, first[0].id)], 4: []}
    assert (await client.take(Error)).request_id == 2
    assert server.working.counters.by_queue == {"default": {"ready": 2}}


async def test_a_resend_finds_its_task_among_others(server: Server) -> None:
    """Its place in the answer is the one in its own submit."""
    client = await server.client()
    known = server.specs()
    await client.send(Submit(1, known))
    await client.take(Accepted)
    await client.send(Submit(2, server.specs()), Submit(3, [*server.specs(), *known]), Submit(4, server.specs()))
    answers = {}
    for _ in range(3):
        accepted = await client.take(Accepted)
        answers[accepted.request_id] = accepted.existing
    assert answers == {2: [], 3: [(1, known[0].id)], 4: []}
