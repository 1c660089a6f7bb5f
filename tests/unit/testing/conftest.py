"""A fresh App for each test."""

import pytest

from unit.testing.shop import Shop


@pytest.fixture
def shop() -> Shop:
    return Shop()
