"""Metrics, as Prometheus reads them: what the server did is what it says."""

from pathlib import Path

import pytest
import trio
from prometheus_client.parser import text_string_to_metric_families

from harness.server import Server, leased, report
from taskd.http.metrics import TEXTS, Metrics
from taskd.http.traffic import Traffic
from taskd.server.tally import OTHER, QUEUES_MAX
from taskd_protocol.agent_messages import Ack, Nack, Recorded
from taskd_protocol.task import Failure, FailureReport, Retry

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]
HOSTILE = 'a"b\\c{}=,é'


async def scrape(server: Server, root: Path, traffic: Traffic | None = None) -> Samples:
    metrics = Metrics(server.services, root, traffic or Traffic(), ready=lambda: True)
    text, content_type = await metrics.scrape("text/plain")
    assert content_type.startswith("text/plain")
    families = list(text_string_to_metric_families(text.decode()))
    assert {family.name for family in families} == set(TEXTS)
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


def value(samples: Samples, name: str, **labels: str) -> float:
    return samples[name, tuple(sorted(labels.items()))]


async def test_tasks_are_counted_from_submit_to_end(server: Server, tmp_path: Path) -> None:
    client, agent = await server.client(), await server.agent(credit=2)
    await server.submit(client, 5, queue="images", retry=Retry(3, base_ms=60_000))
    done, failed = await leased(agent, 2)
    await agent.send(Ack([report(done)]))
    await agent.take(Recorded)
    failure = Failure("task.raised", "boom", "builtins.ValueError", "Traceback", None)
    nack = FailureReport(failed.token, failed.spec.id, failed.attempt, "failed", failure, 1)
    await agent.send(Nack([nack]))
    await agent.take(Recorded)
    samples = await scrape(server, tmp_path)
    states = {"ready": 3, "scheduled": 1, "running": 0, "blocked": 0, "cancelling": 0}
    for state, count in states.items():
        assert value(samples, "taskd_tasks", queue="images", state=state) == count
    assert value(samples, "taskd_tasks_submitted_total", queue="images") == 5
    assert value(samples, "taskd_attempts_started_total", queue="images") == 2
    assert value(samples, "taskd_attempts_ended_total", queue="images", outcome="succeeded") == 1
    assert value(samples, "taskd_attempts_ended_total", queue="images", outcome="failed") == 1
    assert value(samples, "taskd_retries_total", queue="images") == 1
    assert value(samples, "taskd_tasks_ended_total", queue="images", state="succeeded") == 1
    assert value(samples, "taskd_tasks_kept", state="succeeded") == 1
    assert value(samples, "taskd_task_wait_seconds_count", queue="images") == 2
    assert value(samples, "taskd_task_run_seconds_count", queue="images") == 2
    assert value(samples, "taskd_agents", state="live") == 1
    assert value(samples, "taskd_agent_leases", agent="a1") == 0
    assert value(samples, "taskd_events_total", event="agent.connected") == 1
    assert value(samples, "taskd_undurable_batches") == 0
    assert value(samples, "taskd_connections") == 2
    assert value(samples, "taskd_commit_seconds_count") > 3


async def test_the_oldest_that_waits_is_told(server: Server, tmp_path: Path) -> None:
    client = await server.client()
    await server.submit(client, 1, queue="images")
    await trio.sleep(90)
    await server.submit(client, 1, queue="images")
    samples = await scrape(server, tmp_path)
    assert value(samples, "taskd_queue_oldest_seconds", queue="images") >= 90


async def test_a_name_is_a_name_whatever_stands_in_it(server: Server, tmp_path: Path) -> None:
    await server.submit(await server.client(), 1, queue=HOSTILE)
    samples = await scrape(server, tmp_path)
    assert value(samples, "taskd_tasks_submitted_total", queue=HOSTILE) == 1


async def test_many_queues_are_few_series(server: Server, tmp_path: Path) -> None:
    """What no row is kept of is counted with the others, and nothing is left out."""
    client = await server.client()
    few = len(await scrape(server, tmp_path))
    for number in range(QUEUES_MAX * 3):
        await server.submit(client, 2, queue=f"q{number}")
    samples = await scrape(server, tmp_path)
    queues = {dict(labels)["queue"] for name, labels in samples if name == "taskd_tasks_submitted_total"}
    assert len(queues) == QUEUES_MAX + 1
    assert value(samples, "taskd_tasks", queue=OTHER, state="ready") == QUEUES_MAX * 4
    assert sum(v for (name, _), v in samples.items() if name == "taskd_tasks_submitted_total") == QUEUES_MAX * 6
    assert len(samples) < few + QUEUES_MAX * 60


@pytest.mark.parametrize("first", [True, False])
async def test_a_queue_called_as_the_others_hides_none_of_them(server: Server, tmp_path: Path, *, first: bool) -> None:
    client = await server.client()
    if first:
        await server.submit(client, 3, queue=OTHER)
    for number in range(QUEUES_MAX + 20):
        await server.submit(client, 1, queue=f"q{number}")
    if not first:
        await server.submit(client, 3, queue=OTHER)
    samples = await scrape(server, tmp_path)
    for name in ("taskd_tasks", "taskd_tasks_submitted_total"):
        assert sum(v for (told, _), v in samples.items() if told == name) == QUEUES_MAX + 23
    assert value(samples, "taskd_tasks", queue=OTHER, state="ready") == 23


async def test_requests_and_files_are_counted(server: Server, tmp_path: Path) -> None:
    (tmp_path / "1.sst").write_bytes(bytes(300))
    (tmp_path / "2.log").write_bytes(bytes(20))
    traffic = Traffic()
    traffic.counts["GET", "/tasks/{id}", 200] += 3
    traffic.streams = 2
    samples = await scrape(server, tmp_path, traffic)
    assert value(samples, "taskd_http_requests_total", method="GET", path="/tasks/{id}", status="200") == 3
    assert value(samples, "taskd_http_streams") == 2
    assert value(samples, "taskd_store_bytes", part="tables") == 300
    assert value(samples, "taskd_store_bytes", part="log") == 20


@pytest.mark.parametrize("accept", ["application/openmetrics-text; version=1.0.0", "text/plain"])
async def test_who_asks_chooses_the_form(server: Server, tmp_path: Path, accept: str) -> None:
    metrics = Metrics(server.services, tmp_path, Traffic(), ready=lambda: False)
    text, content_type = await metrics.scrape(accept)
    assert content_type.partition(";")[0] == accept.partition(";")[0]
    assert text.endswith(b"# EOF\n") == accept.startswith("application/openmetrics")
    assert b"taskd_ready 0.0" in text
