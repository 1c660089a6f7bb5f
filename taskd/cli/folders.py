"""Where things of this user lie when no option says so."""

from pathlib import Path

from taskd.client.profile import user_dir


def state_dir() -> Path:
    """Return the folder for data that taskd makes by itself; it may not exist.

    Raises:
        ConfigInvalid: This user has no home.
    """
    return user_dir("XDG_STATE_HOME", "~/.local/state") / "taskd"
