"""What the Huey consumer imports: a task that does nothing, on the Redis that the benchmark started."""

import os

from huey import RedisHuey  # type: ignore[import-untyped]

huey = RedisHuey("bench", port=int(os.environ["BENCH_REDIS_PORT"]))


@huey.task()  # type: ignore[untyped-decorator]
def noop(value: int) -> int:
    """Be the body of a task."""
    return value
