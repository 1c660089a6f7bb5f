"""taskd: a durable task server, its agents and its clients in one program.

What users import (`App`, `Retry`, `current`, …) comes from `taskd.client` and is loaded on first
use, so that `import taskd` costs nothing in a process that needs only the version.
"""

__version__ = "0.1.0"
