"""What a task says of limits and of order reaches the server as it was meant, or is refused where it is written."""

import pytest

from taskd import App, Limit, Resources
from taskd.client.options import Options
from taskd_protocol import limiting as wire
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
        (Options(fair_key="\n"), "fair_key"),
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


def app_of() -> App:
    return App("taskd://127.0.0.1:1")


def test_keys_are_made_of_a_calls_arguments() -> None:
    """By place, by name, or by the function's own default; in a map, a node and a schedule as in a submit."""
    app = app_of()

    @app.task(name="charge", limits=[Limit(key="customer:{customer}/{{{region}}}"), Limit("gpu")])
    def charge(customer: int, *, region: str = "eu") -> int:
        return customer + len(region)

    for spec in (
        charge.work([7], {}),
        charge.node_task((7,), {}),
        charge.options(priority=3).work([], {"customer": 7}),
    ):
        assert spec.rules.limits == [Use("charge", "customer:7/{eu}"), Use("gpu")]
    assert charge.work([7], {"region": "us"}).rules.limits[0].key == "customer:7/{us}"


@pytest.mark.parametrize(
    "key", ["{customer.__class__}", "{customer!r}", "{customer:>9}", "{0}", "{}", "{customer", "}", "{a[0]}"]
)
def test_a_template_names_arguments_and_nothing_else(key: str) -> None:
    with pytest.raises(BadRequest, match="argument's name alone"):
        app_of().task(name="charge", limits=[Limit(key=key)])(lambda customer: customer)


@pytest.mark.parametrize("key", ["{custmer}", "{more}", "{names}"])
def test_a_template_that_names_no_argument_is_refused_where_it_is_written(key: str) -> None:
    def charge(customer: str, *more: str, **names: str) -> None: ...

    with pytest.raises(BadRequest, match="no argument of its function"):
        app_of().task(name="charge", limits=[Limit(key=key)])(charge)


@pytest.mark.parametrize("value", [None, True, 1.5, ["a"], {"a": 1}, b"a"])
def test_a_key_is_made_of_text_and_whole_numbers(value: object) -> None:
    task = app_of().task(name="charge", limits=[Limit(key="{customer}")])(lambda customer: customer)
    with pytest.raises(BadRequest, match="made of customer, which is a"):
        task.work([value], {})


@pytest.mark.parametrize("value", ["x" * 300, "a\nb"])
def test_a_key_that_is_none_is_refused(value: str) -> None:
    task = app_of().task(name="charge", limits=[Limit(key="{customer}")])(lambda customer: customer)
    with pytest.raises(BadRequest, match="limit key of task 'charge'"):
        task.work([value], {})


def test_a_key_of_a_submit_is_text_whatever_stands_in_it() -> None:
    task = app_of().task(name="charge", limits=[Limit(key="{customer}")])(lambda customer: customer)
    spec = task.options(limits=[Limit("card", key="{customer.__class__}")]).work(["a"], {})
    assert spec.rules.limits == [Use("card", "{customer.__class__}")]


def test_what_code_says_of_limits_is_kept_by_task() -> None:
    app = app_of()
    app.task(
        name="charge", concurrency=5, rate="100/s", limits=[Limit(key="{c}", concurrency=2, rate="10/m", burst=3)]
    )(lambda c: c)
    app.task(name="refund", limits=[Limit("charge", key="{c}", concurrency=2, rate="10/m", burst=3), Limit("gpu")])(
        lambda c: c
    )
    app.task(name="list", batch=10, concurrency=1)(lambda cs: cs)
    assert app.limits == {
        "charge": [wire.Limit("task:charge", 5, 100, 1_000), wire.Limit("charge", 2, 10, 60_000, 3)],
        "refund": [wire.Limit("charge", 2, 10, 60_000, 3)],
        "list": [wire.Limit("task:list", 1)],
    }


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({"concurrency": -1}, "a limit's concurrency goes from 1 to 1,000,000, not -1"),
        ({"concurrency": 1.5}, "no whole number"),
        ({"rate": "often"}, "write it as 100/s"),
        ({"rate": 5}, 'write it as "100/s"'),
        ({"burst": 5}, "limits nothing"),
        ({"limits": [Limit("card", key=5)]}, "key of a limit of task 'charge' is 5, and no text"),  # type: ignore[arg-type]
        ({"limits": [Limit(key="{c}", burst=5)]}, "limits nothing"),
        ({"limits": [Limit("queue:q", concurrency=5)]}, "by itself"),
        ({"limits": [Limit("card", concurrency=3)]}, "two tasks say different things of limit 'card'"),
    ],
)
def test_a_limit_that_is_none_is_refused_where_it_is_written(said: dict[str, object], told: str) -> None:
    app = app_of()
    app.task(name="first", limits=[Limit("card", concurrency=2)])(lambda c: c)
    with pytest.raises(BadRequest, match=told):
        app.task(name="charge", **said)(lambda c: c)  # type: ignore[call-overload]


def test_a_submit_does_not_say_how_much_there_is() -> None:
    task = app_of().task(name="charge")(lambda c: c)
    with pytest.raises(BadRequest, match=r"is for @app\.task"):
        task.options(limits=[Limit("card", concurrency=2)])


def test_a_submit_of_a_batch_task_asks_for_nothing_of_its_own() -> None:
    def many(numbers: list[int]) -> list[int]:
        return numbers

    task = app_of().task(name="many", batch=10)(many)
    with pytest.raises(BadRequest, match="batch of task 'many' does not go with resources"):
        task.options(resources=Resources(cpu=2))
