import json
from pathlib import Path

from taskd.client.profile import Profile, save
from taskd_protocol.house_messages import QueuePage
from unit.cli.fake_client import TOKEN, FakeClient, Taskd


def test_contexts_are_listed_and_chosen(taskd: Taskd, tmp_path: Path) -> None:
    """The first server is chosen by itself; another only when somebody says so."""
    assert taskd("context", "ls").out.startswith("no server is known here yet")
    save(Profile(address="127.0.0.1:7070", token=TOKEN, data_dir=str(tmp_path)))
    save(Profile(address="10.0.0.2:7070", token=TOKEN, http="https://10.0.0.2:7071"))
    first, second = json.loads(taskd("context", "ls", "--json").out)
    assert (first["name"], first["current"], first["address"]) == ("10.0.0.2", False, "10.0.0.2:7070")
    assert (second["name"], second["current"], second["data_dir"]) == ("default", True, str(tmp_path))
    assert taskd("context", "use", "10.0.0.2").out == "10.0.0.2 10.0.0.2:7070\n"
    assert taskd("context", "ls").out.splitlines()[1].split() == ["*", "10.0.0.2", "10.0.0.2:7070", "-"]


def test_no_listing_shows_a_token(taskd: Taskd, client: FakeClient) -> None:
    assert client.profile is None
    assert TOKEN not in taskd("context", "ls").out + taskd("context", "ls", "--json").out


def test_a_context_that_is_not_known(taskd: Taskd) -> None:
    ended = taskd("context", "use", "moon")
    assert ended.code == 2
    assert "moon" in ended.complaint


def test_a_context_chooses_the_server(taskd: Taskd, client: FakeClient) -> None:
    save(Profile(address="10.0.0.2:7070", token=TOKEN))
    client.replies = [QueuePage(0, [])]
    taskd("--context", "10.0.0.2", "queue", "ls")
    assert client.profile is not None
    assert client.profile.address == "10.0.0.2:7070"


def test_a_url_counts_for_more_than_a_context(taskd: Taskd, client: FakeClient) -> None:
    client.replies = [QueuePage(0, [])]
    taskd("queue", "ls", "--context", "moon", "--url", f"taskd://{TOKEN}@h:1")
    assert client.profile is not None
    assert client.profile.address == "h:1"
