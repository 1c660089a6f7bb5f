"""What can be asked over HTTP, one file a resource; ``ROUTES`` are all rows there are."""

from collections.abc import Sequence
from typing import Final

from taskd.http.resources import happenings, queues
from taskd.http.routes import AnyRoute

ROUTES: Final[Sequence[AnyRoute]] = (*queues.ROUTES, *happenings.ROUTES)
