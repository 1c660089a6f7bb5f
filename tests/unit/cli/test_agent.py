"""What an agent is told of its machine, by flags, environment and file."""

from pathlib import Path

import pytest

from taskd.cli.working import AgentSettings, run
from taskd.client.profile import Profile
from taskd.server.settings import load_settings
from taskd_protocol.errors import ConfigInvalid
from unit.cli.fake_client import FakeClient, Taskd

FILE = """
[agent]
cpus = 6
memory = "24GiB"
life = "2h"
pin_cpus = true
resources = { license = 4, half = 0.5, fpga = ["a", "b"] }
labels = { zone = "a", cores = "64" }
"""


def test_what_an_agent_has_may_stand_in_the_file(tmp_path: Path) -> None:
    file = tmp_path / "taskd.toml"
    file.write_text(FILE)
    settings = load_settings(AgentSettings, "agent", flags={}, environ={}, file=file)
    assert (settings.cpus, settings.memory, settings.life, settings.pin_cpus) == (6.0, "24GiB", 7_200_000, True)
    assert settings.resources == {"license": 4, "half": 0.5, "fpga": ["a", "b"]}
    assert settings.labels == {"zone": "a", "cores": "64"}


def test_an_agent_within_a_command_is_not_told_what_the_command_holds() -> None:
    """TASKD_RESOURCES is that; what an agent has is said by flags and in the file."""
    environ = {"TASKD_RESOURCES": '{"cpu": {"amount": 1}}', "TASKD_LIFE": "90s", "TASKD_CPUS": "2.5"}
    settings = load_settings(AgentSettings, "agent", flags={"resources": {"fpga": "[a,b]"}}, environ=environ)
    assert (settings.resources, settings.life, settings.cpus) == ({"fpga": "[a,b]"}, 90_000, 2.5)
    assert load_settings(AgentSettings, "agent", flags={}, environ=environ).resources == {}


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--life", "0s"], "--life '0s' is out of range; it goes from 1ms up"),
        (["--log-rate", "63KiB"], "--log-rate '63KiB' is out of range; it goes from 64KiB to 64MiB"),
        (["--log-rate", "fast"], "--log-rate 'fast' is no size; write it as"),
        (["--log-size", "65MiB"], "--log-size '65MiB' is out of range; it goes from 1MiB to 64MiB"),
        (["--log-size", "0"], "--log-size '0' is out of range; it goes from 1MiB to 64MiB"),
        (["--cpus", "0"], "0.0 is not in the range x>=0.001"),
        (["--cpus", "nan"], "goes from 0.001 to 100,000"),
        (["--resource", "a=1", "--resource", "a=2"], "--resource says a twice, '1' and '2'; say one"),
        (["--label", "zone=a", "--label", "zone=b"], "--label says zone twice, 'a' and 'b'; say one"),
    ],
)
def test_what_an_agent_cannot_have_is_refused(taskd: Taskd, client: FakeClient, flags: list[str], told: str) -> None:
    """None at all is not all that there is, and of two values neither is lost."""
    assert client.profile is None
    ended = taskd("agent", *flags)
    assert (ended.code, told in ended.err) == (2, True), ended.err


def test_how_much_an_attempt_may_say_may_stand_in_the_file(tmp_path: Path) -> None:
    file = tmp_path / "taskd.toml"
    file.write_text('[agent]\nlog_rate = "256KiB"\nlog_size = "2MiB"\n')
    settings = load_settings(AgentSettings, "agent", flags={}, environ={"TASKD_LOG_SIZE": "3MiB"}, file=file)
    assert (settings.log_rate, settings.log_size) == (256 << 10, 3 << 20)
    assert AgentSettings().log_rate == 1 << 20


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("cpus = 0", "cpus 0 is out of range; it goes from 0.001 to 100,000"),
        ("cpus = nan", "cpus nan is out of range"),
        ("processes = 0", "processes 0 is out of range; it goes from 1 to 4,096"),
        ('life = "0s"', "life '0s' is out of range; it goes from 1ms up"),
    ],
)
def test_nothing_is_not_said_by_0(tmp_path: Path, said: str, told: str) -> None:
    """It would be taken for all that the machine has, or for ever."""
    file = tmp_path / "taskd.toml"
    file.write_text(f"[agent]\n{said}\n")
    with pytest.raises(ConfigInvalid) as refused:
        load_settings(AgentSettings, "agent", flags={}, environ={}, file=file)
    assert told in refused.value.message


@pytest.mark.parametrize(("variable", "value"), [("TASKD_CPUS", "0"), ("TASKD_LIFE", "0s"), ("TASKD_PROCESSES", "0")])
def test_nor_in_the_environment(variable: str, value: str) -> None:
    with pytest.raises(ConfigInvalid, match=f"{variable} '{value}' is out of range"):
        load_settings(AgentSettings, "agent", flags={}, environ={variable: value})


def test_an_amount_of_memory_that_is_none_is_refused_by_name() -> None:
    with pytest.raises(ConfigInvalid, match=r"--memory of '16G': the unit is unknown"):
        run(AgentSettings(memory="16G"), Profile(address="127.0.0.1:7070", token="t"))
