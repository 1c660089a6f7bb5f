"""Rates as people write them."""

import pytest

from taskd.client.rates import rate_text, read_rate
from taskd_protocol.errors import BadRequest


@pytest.mark.parametrize(
    ("text", "rate"),
    [("100/s", (100, 1_000)), ("10/m", (10, 60_000)), ("5/2h", (5, 7_200_000)), ("1 / d", (1, 86_400_000))],
)
def test_a_rate_is_read_as_it_is_written(text: str, rate: tuple[int, int]) -> None:
    assert read_rate(text) == rate
    assert rate_text(*rate) == text.replace(" ", "")


@pytest.mark.parametrize("text", ["", "100", "0/s", "-1/s", "1/0s", "1/w", "1.5/s", "9999999999/s"])
def test_what_is_no_rate_is_told_how_one_is_written(text: str) -> None:
    with pytest.raises(BadRequest, match="100/s, 10/m or 5/2h"):
        read_rate(text)
