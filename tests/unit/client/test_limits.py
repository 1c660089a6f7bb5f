"""What a task says of limits and of order reaches the server as it was meant, or is refused where it is written."""

import pytest

from taskd import App, Limit
from taskd.client.options import Options
from taskd_protocol.errors import BadRequest
from taskd_protocol.task import Rules, Use


def test_limits_and_a_fifo_key_travel_with_the_task() -> None:
    options = Options(limits=(Limit("stripe", key="acme", weight=2), Limit("gpu")), fifo_key="order/7")
    given = options.template("m.f").given
    assert given == Rules(limits=[Use("stripe", "acme", 2), Use("gpu")], fifo_key="order/7")
    assert Options().template("m.f").given is None


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (Options(limits=[Limit("queue:images")]), "by itself"),
        (Options(limits=[Limit("a")] * 2), "twice"),
        (Options(limits=[Limit("a", weight=-1)]), "out of range"),
        (Options(limits=["stripe"]), "limits"),  # type: ignore[list-item]
        (Options(fifo_key="k", delay=1.0), "breaks the order"),
        (Options(fifo_key="k", fair_key="acme"), "fair_key shares"),
        (Options(limits=[Limit("stripe")], fair_key="acme"), "fair_key shares"),
    ],
)
def test_what_cannot_be_is_refused(options: Options, told: str) -> None:
    with pytest.raises(BadRequest, match=told):
        options.template("m.f")


def test_a_submit_says_its_own_key() -> None:
    app = App("taskd://127.0.0.1:1")

    @app.task(name="ship", limits=[Limit("trucks")])
    def ship(order: str) -> str:
        return order

    spec = ship.options(fifo_key="acme").work(["7"], {})
    assert spec.given == Rules(limits=[Use("trucks")], fifo_key="acme")
