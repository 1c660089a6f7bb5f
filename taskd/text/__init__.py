"""How the state reads: JSON documents of what the server tells, and the language in which tasks are asked for.

The command line, HTTP and the page say and read the same. Knows messages, and neither terminals nor requests.
"""

from collections.abc import Sequence

Json = None | bool | int | float | str | Sequence["Json"] | dict[str, "Json"]
