"""What users import from `taskd`: all of it is there, and every failure can be caught by its name."""

import pytest

import taskd
import taskd.client
from taskd_protocol import errors


@pytest.mark.parametrize("name", sorted(set(taskd.__all__) - {"__version__"}))
def test_every_name_is_there(name: str) -> None:
    assert getattr(taskd, name) is getattr(taskd.client, name)


def test_the_failures_that_callers_meet_are_named() -> None:
    assert taskd.TimedOut is errors.TimedOut
    assert issubclass(taskd.TaskFailed, taskd.TaskdError)
