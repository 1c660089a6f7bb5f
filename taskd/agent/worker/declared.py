"""What the modules define: ``python -m taskd.agent.worker.declared MODULE…``, for `taskd schedule sync`, `limit sync`.

Imported in a process of its own, by the interpreter that agents use, as the program that asks may have none.
The answer is one message on standard output; what the modules print goes to standard error.
"""

import os
import sys
from collections.abc import Sequence

import msgspec

from taskd.agent.worker.loading import load


def main(modules: Sequence[str]) -> None:
    """Import the modules, and tell what is in them."""
    answer = os.dup(1)
    os.dup2(2, 1)
    loaded = load(modules)
    told = msgspec.msgpack.encode(loaded.ready())
    with os.fdopen(answer, "wb") as out:
        out.write(told)


if __name__ == "__main__":
    main(sys.argv[1:])
