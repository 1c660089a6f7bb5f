"""What can be asked over HTTP, one file a resource; ``ROUTES`` are all rows there are."""

from collections.abc import Sequence
from typing import Final

from taskd.http.resources import (
    access,
    agents,
    dead,
    happenings,
    jobs,
    limits,
    logs,
    queues,
    schedules,
    server,
    tasks,
    webhooks,
    workflows,
)
from taskd.http.routes import AnyRoute

ROUTES: Final[Sequence[AnyRoute]] = (
    *tasks.ROUTES,
    *logs.ROUTES,
    *jobs.ROUTES,
    *dead.ROUTES,
    *workflows.ROUTES,
    *schedules.ROUTES,
    *queues.ROUTES,
    *limits.ROUTES,
    *agents.ROUTES,
    *access.ROUTES,
    *server.ROUTES,
    *happenings.ROUTES,
    *webhooks.ROUTES,
)
