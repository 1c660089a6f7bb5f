"""What a debug bundle tells of settings: those of taskd's own that hold no secret, and of others the names."""

import json
from pathlib import Path

from taskd.cli.bundle import told_settings
from taskd.cli.scrub import TEXT

SETTINGS = """
password = "4242421111"

[server]
heartbeat = "4s"
retention_size = "4GiB"
trace_ratio = 0.5
log_level = "info"
log_form = "4242425555"
host_names = ["a.example"]
api_token = 4242422222
payload_max = "16MiB-4242426666"

[agent]
cpus = 2
name = "box"
labels = { pin = "4242423333" }
resources = { licence = 4242427777 }

[webhook]
webhook_secret = "4242424444s"
codes = [4242428888]
"""


def test_no_value_of_an_unknown_setting_is_told(tmp_path: Path) -> None:
    config = tmp_path / "taskd.toml"
    config.write_text(SETTINGS)
    environ = {"TASKD_HEARTBEAT": "5s", "TASKD_SECRET": "4242429999", "PIN": "4242420000"}
    told = told_settings(config, environ)
    assert isinstance(told, dict)
    assert "424242" not in json.dumps(told)
    assert told["environment"] == {"TASKD_HEARTBEAT": "5s", "TASKD_SECRET": TEXT}
    assert told["settings"] == {
        "password": TEXT,
        "server": {
            "heartbeat": "4s",
            "retention_size": "4GiB",
            "trace_ratio": 0.5,
            "log_level": "info",
            "log_form": TEXT,
            "host_names": ["a.example"],
            "api_token": TEXT,
            "payload_max": TEXT,
        },
        "agent": {"cpus": 2, "name": "box", "labels": TEXT, "resources": TEXT},
        "webhook": {"webhook_secret": TEXT, "codes": TEXT},
    }
