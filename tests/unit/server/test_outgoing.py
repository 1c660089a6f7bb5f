"""Outgoing: what is told in one go is written once, in order, by those concerned, and by readers however slow."""

from pathlib import Path

import trio

from harness.peer import Peer, hello
from taskd.server.outgoing import WRITES_MAX, Outgoing
from taskd_protocol.agent_messages import Lease, LeaseCredit, Offer, Offered
from taskd_protocol.connection_messages import Welcome
from taskd_protocol.messages import Accepted, Submit
from taskd_protocol.task import Pool, TaskSpec
from unit.server.test_main import Running, running, specs

TASKS = 120
PAYLOAD_BYTES = 100_000
"""In all more than a loopback's buffers hold, and less than an outbox may."""


class Box:
    """An outbox that says what was done to it."""

    def __init__(self, said: list[str], name: str) -> None:
        self._said = said
        self._name = name

    def write_now(self) -> None:
        self._said.append(f"{self._name} writes")

    def wake_writer(self) -> None:
        self._said.append(f"{self._name} wakes")


def test_who_is_told_twice_writes_once_and_what_follows_goes_first() -> None:
    said: list[str] = []
    outgoing, first, second = Outgoing(), Box(said, "first"), Box(said, "second")
    outgoing.hold()
    for who in (first, second, first):
        outgoing.note(who)
    assert said == []
    outgoing.let_go()
    assert said == ["second writes", "first writes"]
    outgoing.note(first)
    assert said[2:] == ["first wakes"], "nothing is held: its writer comes to it"


def test_a_release_to_very_many_leaves_most_to_their_writers() -> None:
    said: list[str] = []
    outgoing = Outgoing()
    outgoing.hold()
    for number in range(WRITES_MAX + 2):
        outgoing.note(Box(said, str(number)))
    outgoing.let_go()
    assert said[WRITES_MAX - 1 :] == ["2 writes", "1 wakes", "0 wakes"]


async def silent_agent(server: Running) -> Peer:
    """An agent over TLS that reads only when it is told to."""
    peer = await server.peer("agent", says_hello=False, reads=False)
    await peer.send(hello("agent", await server.serving.mint("agent"), "a1", bytes(16)))
    await hear(peer, Welcome)
    await peer.send(Offer([Pool("process", 8, ["m.f"])]))
    await hear(peer, Offered)
    await peer.send(LeaseCredit(0, TASKS))
    return peer


async def hear(peer: Peer, kind: type[object], count: int = 1) -> None:
    """Read until so many messages of a kind have come."""
    with trio.fail_after(10):  # sooner than the server says something else: it gives a silent agent up
        while sum(isinstance(message, kind) for message in peer.inbox) < count:
            data = await peer.stream.receive_some()
            assert data, "the server hung up"
            peer.hear(peer.wire.receive(bytes(data)))


async def test_what_the_kernel_does_not_take_at_once_comes_later_whole_and_in_order(tmp_path: Path) -> None:
    """An agent that does not read for a while is leased megabytes; others are served meanwhile."""
    async with running(tmp_path / "data") as server:
        agent, client = await silent_agent(server), await server.client()
        sent: list[TaskSpec] = []
        for number, spec in enumerate(specs(TASKS), 1):
            large = TaskSpec(spec.id, spec.name, number.to_bytes(4, "big") * (PAYLOAD_BYTES // 4))
            await client.ask(Submit(number, [large]), Accepted)
            sent.append(large)
        await hear(agent, Lease, TASKS)
        got = [grant.spec for message in agent.inbox if isinstance(message, Lease) for grant in message.grants]
        assert got == sent
        await agent.close()
