"""The issuer: a process that makes certificates, and ends.

Neither the CA's key nor the library that works with it, 9 MiB, is ever in a server's memory.
"""

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from taskd.program import ISSUER, bound_environment, program
from taskd_protocol.errors import ConfigInvalid


class Issue(Protocol):
    """Puts a new certificate into a data directory."""

    def __call__(self, root: Path, host_names: Sequence[str], now_ms: int, /) -> None:
        """Write ``server.pem``, and what is missing of ``ca.pem`` and ``ca.key`` before it. Blocks.

        Args:
            root: The data directory, ours alone.
            host_names: Names and addresses that the certificate is good for.
            now_ms: When its year begins: UTC milliseconds.

        Raises:
            ConfigInvalid: A name is none; or the CA's key is missing, or another's.
        """
        ...


def issue_apart(root: Path, host_names: Sequence[str], now_ms: int) -> None:
    """See ``Issue``."""
    done = subprocess.run(  # noqa: S603 - our own program
        program([ISSUER, str(root), str(now_ms), *host_names]),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=bound_environment(),
        process_group=0,
        check=False,
    )
    if done.returncode:
        said = done.stderr.decode(errors="replace").splitlines()
        raise ConfigInvalid(said[-1] if said else f"no certificate was made: its process ended with {done.returncode}")
