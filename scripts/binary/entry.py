"""Where the frozen program starts: makes its environment the user's again, then is the command line.

What the bootloader set for itself must not reach the processes that an agent starts: a user's
Python under our `LD_LIBRARY_PATH` would load our libraries instead of its own.
"""

import fcntl
import os
import sys
from pathlib import Path

from taskd.cli.main import main

for name in [name for name in os.environ if name.startswith("_PYI_")]:
    del os.environ[name]
users_path = os.environ.pop("LD_LIBRARY_PATH_ORIG", None)
os.environ.pop("LD_LIBRARY_PATH", None)
if users_path is not None:
    os.environ["LD_LIBRARY_PATH"] = users_path

# systemd-tmpfiles leaves a locked directory alone: a server unpacked under /tmp keeps its files while it
# runs. The lock ends with the process; the descriptor is not inherited.
fcntl.flock(os.open(Path(sys.executable).parent, os.O_RDONLY), fcntl.LOCK_SH)

main()
