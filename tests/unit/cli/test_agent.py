"""What an agent is told of its machine, by flags, environment and file."""

from pathlib import Path

import pytest

from taskd.cli.working import AgentSettings, run
from taskd.client.profile import Profile
from taskd.server.settings import load_settings
from taskd_protocol.errors import ConfigInvalid

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


def test_an_amount_of_memory_that_is_none_is_refused_by_name() -> None:
    with pytest.raises(ConfigInvalid, match=r"--memory of '16G': the unit is unknown"):
        run(AgentSettings(memory="16G"), Profile(address="127.0.0.1:7070", token="t"))
