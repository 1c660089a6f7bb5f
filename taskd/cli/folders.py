"""Where things of this user lie when no option says so."""

import os
from pathlib import Path


def state_dir() -> Path:
    """Return the folder for data that taskd makes by itself; it may not exist."""
    root = os.environ.get("XDG_STATE_HOME", "")
    if not Path(root).is_absolute():  # the specification says to pass over a relative one
        root = os.path.expanduser("~/.local/state")  # noqa: PTH111 - Path.expanduser raises where there is no home
    return Path(root) / "taskd"
