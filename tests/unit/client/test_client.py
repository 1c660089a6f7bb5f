"""The client underneath: any request, submits by hand, waiting by id, output as it comes."""

from collections.abc import Iterator

import pytest

from taskd.client.client import CHUNK_BYTES, Client, cut
from taskd.client.profile import Profile
from taskd_protocol.errors import BadRequest, TaskUnknown, TimedOut, UnexpectedMessage, UnknownKind
from taskd_protocol.house_messages import AgentList, AgentPage, QueueList, QueuePage
from taskd_protocol.ids import task_id_unix_ms
from taskd_protocol.messages import Follow, LogEntry, TaskQuery, TaskViews
from taskd_protocol.payload import pack_arguments
from taskd_protocol.task import TaskSpec
from unit.client.faces import Face
from unit.client.fake_server import SERVER_TIME_MS, TOKEN, FakeServer


@pytest.fixture
def client(server: FakeServer) -> Iterator[Client]:
    made = Client(Profile(address=server.address, token=TOKEN, tls=False))
    yield made
    made.close()


def specs(client: Client, count: int, size: int = 0) -> list[TaskSpec]:
    payload = pack_arguments([bytes(size)], {})
    return [TaskSpec(task_id, "m.f", payload) for task_id in client.make_ids(count)]


def test_a_request_is_answered_by_its_reply(server: FakeServer, client: Client, face: Face) -> None:
    async def scenario() -> None:
        page = await face.call(client, "call", QueueList(0), QueuePage)
        assert isinstance(page, QueuePage)
        ids = await face.call(client, "submit", specs(client, 1))
        views = await face.call(client, "call", TaskQuery(0, [*server.tasks, bytes(16)]), TaskViews)
        assert isinstance(views, TaskViews)
        assert [view and view.id for view in views.views] == [*ids, None]  # type: ignore[misc]  # a list, as the next line tells
        assert isinstance(ids, list)

    face.run(scenario())


def test_a_request_that_the_server_does_not_know_says_so(client: Client) -> None:
    with pytest.raises(UnknownKind):
        client.call(AgentList(0), AgentPage)


def test_a_reply_of_another_kind_is_not_taken_for_the_right_one(client: Client) -> None:
    with pytest.raises(UnexpectedMessage, match="AgentPage was due, QueuePage came"):
        client.call(QueueList(0), AgentPage)


def test_ids_rise_and_bear_the_servers_time(client: Client) -> None:
    ids = client.make_ids(100)
    assert ids == sorted(ids)
    assert abs(task_id_unix_ms(ids[0]) - SERVER_TIME_MS) < 60_000


def test_many_tasks_are_submitted_in_chunks_and_waited_for_together(server: FakeServer, client: Client) -> None:
    tasks = specs(client, 2500)
    assert client.submit(tasks) == [spec.id for spec in tasks]
    assert [len(submit.tasks) for submit in server.submits()] == [1000, 1000, 500]
    outcomes = client.wait([spec.id for spec in reversed(tasks)], timeout=20)
    assert [outcome.id for outcome in outcomes] == [spec.id for spec in reversed(tasks)]
    assert {outcome.state for outcome in outcomes} == {"succeeded"}


def test_the_id_of_a_known_key_is_that_of_its_first_task(client: Client) -> None:
    ids = client.make_ids(1003)
    payload = pack_arguments([1], {})
    tasks = [TaskSpec(task_id, "m.f", payload, key="k" if index >= 1001 else "") for index, task_id in enumerate(ids)]
    assert client.submit(tasks) == [*ids[:1002], ids[1001]]


def test_a_spec_out_of_range_is_refused_before_it_is_sent(server: FakeServer, client: Client) -> None:
    with pytest.raises(BadRequest, match="priority"):
        client.submit([TaskSpec(client.make_ids(1)[0], "m.f", priority=1000)])
    assert server.submits() == []


def test_waiting_for_what_is_not_stored_ends_as_unknown(client: Client) -> None:
    [outcome] = client.wait([bytes(16)], timeout=20)
    assert outcome.state == "unknown"


def test_waiting_for_one_task_twice_gives_it_twice(client: Client) -> None:
    [task_id] = client.submit(specs(client, 1))
    assert len(client.wait([task_id, task_id], timeout=20)) == 2


def test_waiting_ends_with_its_time(server: FakeServer, client: Client) -> None:
    server.run = lambda _spec: None
    with pytest.raises(TimedOut, match=r"0\.01 s"):
        client.wait(client.submit(specs(client, 1)), timeout=0.01)


def test_output_is_read_to_its_end(server: FakeServer, client: Client) -> None:
    entries = [LogEntry(index, 1, 1, 0, b"line %d\n" % index) for index in range(7)]
    server.log = [entries[:3], entries[3:4], entries[4:]]
    [task_id] = client.submit(specs(client, 1))
    assert list(client.follow(task_id)) == entries
    assert list(client.follow(task_id, sequence=5)) == entries[5:]


def test_output_of_what_is_not_stored_is_refused(client: Client) -> None:
    with pytest.raises(TaskUnknown):
        list(client.follow(bytes(16)))


def test_output_goes_on_after_a_lost_connection(server: FakeServer, client: Client) -> None:
    entries = [LogEntry(index, 1, 1, 0, b"x") for index in range(6)]
    server.log = [[entry] for entry in entries]
    [task_id] = client.submit(specs(client, 1))
    seen: list[LogEntry] = []
    for entry in client.follow(task_id, timeout=20):
        seen.append(entry)
        if entry.sequence in {1, 4}:
            server.cut()
    assert seen == entries


def test_output_that_stops_coming_is_given_up_when_asked(server: FakeServer, client: Client) -> None:
    server.intercept = lambda _peer, message: isinstance(message, Follow)  # the task is silent
    [task_id] = client.submit(specs(client, 1))
    with pytest.raises(TimedOut):
        next(client.follow(task_id, timeout=0.01))


def test_a_bulk_submit_is_cut_by_tasks_and_by_bytes() -> None:
    def sizes(payloads: list[int], tasks_max: int) -> list[int]:
        tasks = [TaskSpec(bytes(16), "m.f", bytes(size)) for size in payloads]
        pieces = list(cut(tasks, tasks_max))
        assert [spec for piece in pieces for spec in piece] == tasks
        return [len(piece) for piece in pieces]

    assert sizes([], 10) == []
    assert sizes([0] * 25, 10) == [10, 10, 5]
    assert sizes([CHUNK_BYTES // 2] * 5, 10) == [2, 2, 1]
    assert sizes([CHUNK_BYTES * 3, 1, CHUNK_BYTES * 3], 10) == [1, 1, 1]
