"""Errors: stable codes, both ways over the wire."""

import re

import pytest

from taskd_protocol import errors
from taskd_protocol.errors import TaskdError, error_codes, error_from_code


def test_codes_are_dotted_words() -> None:
    """Every code is lower-case words with dots, and only its own class has it."""
    codes = error_codes()
    assert len(codes) > 30
    for code, kind in codes.items():
        assert re.fullmatch(r"[a-z_]+(\.[a-z_]+)?", code)
        assert kind.code == code
        assert kind.__doc__


def test_no_class_without_a_code() -> None:
    """Every error of the module is in the table."""
    named = {
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, TaskdError) and not kind.__name__.startswith("_")
    }
    assert named - {TaskdError} == set(error_codes().values())


@pytest.mark.parametrize("code", sorted(error_codes()))
def test_known_codes_come_back_as_their_class(code: str) -> None:
    """What a peer told becomes the error that it was, with the class's own flag."""
    error = error_from_code(code, "why", retryable=not error_codes()[code].retryable, retry_after_ms=250)
    assert type(error) is error_codes()[code]
    assert (error.message, str(error), error.retry_after_ms) == ("why", "why", 250)
    assert error.retryable == error_codes()[code].retryable


def test_unknown_codes_keep_their_flags() -> None:
    """A newer peer's code is no known class, and still says whether to try again."""
    error = error_from_code("moon.full", "wait for dawn", retryable=True, retry_after_ms=9)
    assert type(error) is TaskdError
    assert (error.code, error.retryable, error.retry_after_ms, error.message) == ("moon.full", True, 9, "wait for dawn")
    assert TaskdError.code == "error"
    assert TaskdError.retryable is False


def test_task_codes_are_apart() -> None:
    """A failed attempt's code is never a request's."""
    coded = {value for name, value in vars(errors.TaskCodes).items() if name.isupper()}
    assert len(coded) > 5
    assert not coded & set(error_codes())
