"""What users write of resources, labels and placement comes to one form; what makes no sense is refused in a line."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskd import App, Resources
from taskd.client.amounts import UNITS, read_bytes
from taskd.client.labels import read_labels, read_prefers, read_rule
from taskd.client.options import Options, Placing
from taskd.client.resources import Held, held, read_requests
from taskd_protocol import limits
from taskd_protocol.errors import BadRequest
from taskd_protocol.resources import (
    ALL,
    LEARNED,
    Granted,
    Hold,
    LabelRule,
    Need,
    Preference,
    Request,
    Where,
    check_where,
)
from unit.client.fake_server import FakeServer


def needs(resources: Resources) -> list[Need]:
    [request] = read_requests(resources)
    return request.needs


@pytest.mark.parametrize(
    ("resources", "wanted"),
    [
        (Resources(cpu=2), [Need("cpu", 2_000)]),
        (Resources(cpu=0.5, memory="1GiB"), [Need("cpu", 500), Need("memory", 1 << 30)]),
        (Resources(memory="1.5 gb"), [Need("cpu", 1_000), Need("memory", 1_500_000_000)]),
        (Resources(cpu=0, memory=1 << 20), [Need("memory", 1 << 20)]),
        (Resources(memory="auto", cpu="all"), [Need("cpu", ALL), Need("memory", LEARNED)]),
        (Resources(memory="all", cpu=0), [Need("memory", ALL)]),
        (Resources(cpu=0, gpu=1), [Need("gpu", 1_000)]),
        (Resources(cpu=0, gpu=0.25), [Need("gpu", 250)]),
        (Resources(cpu=0, gpu="2"), [Need("gpu", 2_000)]),
        (Resources(cpu=0, gpu="a100"), [Need("gpu", 1_000, "a100")]),
        (Resources(cpu=0, gpu="a100:2"), [Need("gpu", 2_000, "a100")]),
        (Resources(cpu=0, gpu=["1", 0]), [Need("gpu", 2_000, "", ["0", "1"])]),
        (Resources(cpu=0, gpu="[1, 0]"), [Need("gpu", 2_000, "", ["0", "1"])]),
        (Resources(cpu=0, gpu="all"), [Need("gpu", ALL)]),
        (Resources(cpu=0, license=3, fpga="u250"), [Need("fpga", 1_000, "u250"), Need("license", 3_000)]),
    ],
)
def test_amounts_become_whole_numbers_in_the_order_of_the_names(resources: Resources, wanted: list[Need]) -> None:
    assert needs(resources) == wanted
    check_where(Where([Request(needs(resources))]))


WRONG: list[tuple[dict[str, float | str | list[str | int]], str]] = [
    ({"cpu": 0}, "ask for nothing"),
    ({"cpu": -1}, "goes from 0.001"),
    ({"cpu": 0.0004}, "goes from 0.001"),
    ({"cpu": float("nan")}, "goes from 0.001"),
    ({"cpu": float("inf")}, "goes from 0.001"),
    ({"cpu": 10**400}, "is no number"),
    ({"cpu": True}, "is no number"),
    ({"cpu": "many"}, "is no number; write it as cpu=2"),
    ({"cpu": ["0"]}, "is no number"),
    ({"memory": "1G"}, "unit is unknown; use B, KB"),
    ({"memory": "-1GiB"}, "no amount; write it with a unit"),
    ({"memory": 4}, 'write it with a unit, as memory="512MiB"'),
    ({"memory": "4"}, 'write it with a unit, as memory="512MiB"'),
    ({"memory": 10**30}, "out of range"),
    ({"memory": "9" * 5_000}, "no amount"),
    ({"memory": "9000000TiB"}, "out of range"),
    ({"memory": 1.5}, "no whole number of bytes"),
    ({"memory": ["0"]}, "no whole number of bytes"),
    ({"gpu": []}, "names no items"),
    ({"gpu": ["0", "0"]}, "an item twice; name each once"),
    ({"gpu": "[0,0]"}, "an item twice; name each once"),
    ({"gpu": "a b"}, "is no number"),
    ({"license": 0}, "goes from 0.001"),
]


def test_what_makes_no_sense_is_refused_in_one_line() -> None:
    for wrong, told in WRONG:
        with pytest.raises(BadRequest) as refusal:
            Resources(**wrong)  # type: ignore[arg-type]  # as a user may
        assert told in refusal.value.message
        assert "\n" not in refusal.value.message
        assert len(refusal.value.message) < 200


def test_one_that_names_nothing_is_what_a_task_has_without() -> None:
    assert needs(Resources()) == [Need("cpu", 1_000)]


@given(st.text(max_size=30))
def test_any_text_is_an_amount_or_refused(text: str) -> None:
    with suppress(BadRequest):
        assert limits.AMOUNT_MAX >= read_bytes(text) >= 1 << 20


@given(st.integers(1, 1_000), st.sampled_from(sorted(UNITS)))
def test_units_are_what_they_say(count: int, unit: str) -> None:
    if count * UNITS[unit] >= 1 << 20:
        assert read_bytes(f"{count}{unit}") == read_bytes(f"{count} {unit.lower()}") == count * UNITS[unit]


def test_alternatives_stand_in_the_order_said() -> None:
    either = Resources(cpu=8) | Resources(gpu=1) | Resources(cpu=4, memory="64GiB")
    assert [[need.name for need in request.needs] for request in read_requests(either)] == [
        ["cpu"],
        ["cpu", "gpu"],
        ["cpu", "memory"],
    ]
    assert either != Resources(gpu=1) | Resources(cpu=8)
    assert repr(Resources(cpu=8) | Resources(gpu="a100")) == "Resources(cpu=8) | Resources(gpu='a100')"
    with pytest.raises(TypeError, match="unsupported operand"):
        Resources(cpu=8) | 4  # type: ignore[operator]  # as a user may


def test_equal_wishes_are_equal_however_they_are_written() -> None:
    assert Resources(cpu=2, memory="1GiB") == Resources(memory=1 << 30, cpu="2.0")
    assert hash(Resources(cpu=2, memory="1GiB")) == hash(Resources(memory="1024MiB", cpu=2))
    assert read_labels({"b": ["y", "x"], "a": "1"}) == read_labels(["a = 1", "b in x , y"])
    assert read_prefers({"b=1": 3, "a=1": 1}) == read_prefers({"a=1": 1, "b=1": 3})


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("zone=a", LabelRule("zone", "=", ["a"])),
        ("zone == a", LabelRule("zone", "=", ["a"])),
        (" zone != a b ", LabelRule("zone", "!=", ["a b"])),
        ("cores>=8", LabelRule("cores", ">=", ["8"])),
        ("cores < 8.5", LabelRule("cores", "<", ["8.5"])),
        ("disk in ssd, nvme", LabelRule("disk", "in", ["nvme", "ssd"])),
        ("disk not  in hdd", LabelRule("disk", "not in", ["hdd"])),
        ("taskd.version exists", LabelRule("taskd.version", "exists")),
        ("spot absent", LabelRule("spot", "absent")),
        ("inner=in", LabelRule("inner", "=", ["in"])),
    ],
)
def test_a_rule_is_written_as_it_is_said(text: str, rule: LabelRule) -> None:
    assert read_rule(text) == rule
    check_where(Where(labels=[rule]))


@pytest.mark.parametrize("text", ["", "zone", "zone=", "=a", "zone in", "zonein a", "zone is a", "a b=c"])
def test_what_is_no_rule_is_refused(text: str) -> None:
    with pytest.raises(BadRequest, match="no rule for a label; write it as zone=a"):
        read_rule(text)


def test_a_decorator_refuses_what_is_wrong_where_it_stands() -> None:
    wrong: list[tuple[Placing, str]] = [
        (Placing(labels={"zone": 3}), "labels"),  # type: ignore[dict-item]  # as a user may
        (Placing(labels=[3]), "labels"),  # type: ignore[list-item]
        (Placing(labels=["cores>=many"]), "no number"),
        (Placing(prefers={"zone=a": 101}), "from -100 to 100"),
        (Placing(prefers={"zone=a": 0.5}), "prefers"),  # type: ignore[dict-item]
        (Placing(resources=3), "resources"),  # type: ignore[typeddict-item]
        (Placing(resources=Resources(gpu=1.5)), "a part of one, or whole ones"),
        (Placing(min_life=-1), "out of range"),
        (Placing(apart="\n"), "not allowed"),
        (Placing(pack=1), "pack"),  # type: ignore[typeddict-item]
    ]
    app = App()
    for placing, told in wrong:
        with pytest.raises(BadRequest, match=told):
            app.task(name="x.y", **placing)(len)


def test_everything_travels_and_options_change_a_part(app: App, server: FakeServer) -> None:
    @app.task(
        resources=Resources(cpu=2, memory="1GiB"),
        labels={"zone": "a"},
        prefers={"disk=ssd": 5},
        version="7",
        apart="db",
        spread="rack",
        pack=True,
        min_life=3600,
    )
    def work() -> None: ...

    work.submit()
    work.options(labels=["cores>=8"], version="", exclusive_host=True, prefers=(), resources=Resources(gpu=1)).submit()
    first, second = [spec.rules.where for spec in server.tasks.values()]
    assert first == Where(
        requests=[Request([Need("cpu", 2_000), Need("memory", 1 << 30)])],
        labels=[LabelRule("taskd.version", "=", ["7"]), LabelRule("zone", "=", ["a"])],
        prefers=[Preference(LabelRule("disk", "=", ["ssd"]), 5)],
        life_ms=3_600_000,
        apart="db",
        spread="rack",
        pack=True,
    )
    assert second == Where(
        requests=[Request([Need("cpu", 1_000), Need("gpu", 1_000)])],
        labels=[LabelRule("cores", ">=", ["8"])],
        life_ms=3_600_000,
        exclusive_host=True,
        apart="db",
        spread="rack",
        pack=True,
    )


def test_a_coroutine_asks_for_no_cpu_unless_it_says_so(app: App, server: FakeServer) -> None:
    """It waits most of the time: hundreds may hold one worker."""

    @app.task(resources=Resources(memory="64MiB"))
    async def waits() -> None: ...

    waits.submit()
    waits.options(priority=1).submit()
    waits.options(resources=Resources(cpu=1, memory="64MiB")).submit()
    wheres = [spec.rules.where for spec in server.tasks.values()]
    assert [where and [need.name for need in where.requests[0].needs] for where in wheres] == [
        ["memory"],
        ["memory"],
        ["cpu", "memory"],
    ]


def test_a_task_that_says_nothing_sends_nothing(app: App, server: FakeServer) -> None:
    @app.task
    def plain() -> None: ...

    plain.submit()
    assert next(iter(server.tasks.values())).given is None


def test_a_file_may_say_it_as_data() -> None:
    one = Options(resources={"cpu": 2, "memory": "1GiB"}).where()  # type: ignore[arg-type]  # as a file has it
    assert one == Options(resources=Resources(cpu=2, memory="1GiB")).where()


def test_what_is_held_is_told_in_users_units() -> None:
    granted = Granted([Hold("cpu", 1_500), Hold("memory", 1 << 30), Hold("gpu", 500, ["0"])])
    assert held(granted) == {"cpu": Held(1.5), "memory": Held(1 << 30), "gpu": Held(0.5, ("0",))}
    assert held(None) == {}
