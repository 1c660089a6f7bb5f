import math
import socket
import sys

import pytest

from taskd.agent.config import AgentConfig
from taskd.agent.supplies import usable_cpus
from taskd.client.profile import Profile
from taskd_protocol.errors import ConfigInvalid

SERVER = Profile(address="127.0.0.1:7070", token="t")


def test_what_is_not_said_is_taken_from_the_machine() -> None:
    config = AgentConfig(server=SERVER)
    config.check()
    assert config.agent_name == socket.gethostname()
    assert config.slots == math.ceil(usable_cpus() / 1_000)
    assert AgentConfig(server=SERVER, cpus=2.5).slots == 3
    assert config.worker_argv()[0] == sys.executable


@pytest.mark.parametrize(
    ("config", "named"),
    [
        (AgentConfig(server=SERVER, processes=-1), "--processes"),
        (AgentConfig(server=SERVER, processes=10**9), "--processes"),
        (AgentConfig(server=SERVER, concurrency=0), "--concurrency"),
        (AgentConfig(server=SERVER, loop="curio"), "--loop"),
        (AgentConfig(server=SERVER, name="x\n"), "agent name"),
        (AgentConfig(server=SERVER, queues=("",)), "queue"),
        (AgentConfig(server=SERVER, cpus=-1), "--cpus"),
        (AgentConfig(server=SERVER, labels={"taskd.host": "x"}), "--label taskd.host"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(config: AgentConfig, named: str) -> None:
    with pytest.raises(ConfigInvalid, match=named):
        config.check()


def test_an_interpreter_that_is_not_there_is_refused_by_name() -> None:
    with pytest.raises(ConfigInvalid, match=r"/no/python.*--python"):
        AgentConfig(server=SERVER, python="/no/python").worker_argv()


def test_the_frozen_program_runs_workers_by_the_users_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    argv = AgentConfig(server=SERVER, modules=("a.b", "c")).worker_argv()
    assert argv[0].endswith("python3")
    assert argv[1:] == ["-m", "taskd.agent.worker", "a.b", "c"]
