"""A server's core over an empty disk."""

import pytest

from harness.core import Shell


@pytest.fixture
def shell() -> Shell:
    return Shell()
