"""What the rounds amount to: figures with their spread, the bars that they are held against, tables for people."""

from collections.abc import Mapping, Sequence

import measure
import msgspec

Figures = dict[str, dict[str, float]]
"""By name: median, min and max over the rounds."""

BARS = (
    ("taskd processes: share of floor", "at least", 0.5),
    ("taskd async: share of floor", "at least", 0.5),
    ("taskd processes: cpu_us total", "at most", 80.0),
    ("taskd async: cpu_us total", "at most", 60.0),
    ("taskd processes: loop_us", "at most", 20.0),
    ("taskd async: loop_us", "at most", 20.0),
    ("taskd processes: times huey", "at least", 6.0),
    ("taskd async: times huey", "at least", 9.0),
    ("taskd roundtrip: share of allowed p50", "at most", 1.0),
    ("taskd restart: first_body_s", "at most", 2.0),
    ("taskd mixed: times_ideal", "at most", 1.1),
)
"""What was promised: figure, direction, value."""


class Bar(msgspec.Struct):
    """A promise and what was measured."""

    figure: str
    median: float
    bar: str
    met: bool


class Document(msgspec.Struct, kw_only=True):
    """All of one run, as it is written down."""

    date: str
    """ISO 8601, UTC."""
    commit: str
    machine: dict[str, str]
    rounds: dict[str, list[measure.Facts]]
    """What each run of each case measured."""
    left_out: dict[str, str]
    """Cases that could not run here, and why."""
    figures: Figures
    bars: list[Bar]
    against_baseline: dict[str, float] = {}
    """Each figure with a bar as a share of the baseline's, above 1 being better."""


KEEP = 0.9
"""No later work may push a figure of the baseline below this share of it (or a cost above its inverse)."""

ROLES = ("server", "agents", "workers", "client")


def figures(rounds: Mapping[str, Sequence[measure.Facts]]) -> Figures:
    """Take the median and spread of each number, and of the ratios within each round."""
    found: Figures = {}
    for case, runs in rounds.items():
        for name in _numbers(runs[0]):
            found[f"{case}: {name}"] = measure.spread([_numbers(facts)[name] for facts in runs])
    for case, to, name in (
        ("taskd processes", "floor processes", "share of floor"),
        ("taskd async", "floor async", "share of floor"),
        ("taskd processes plain", "floor processes plain", "share of floor"),
        ("taskd processes", "huey redis", "times huey"),
        ("taskd async", "huey redis", "times huey"),
        ("taskd processes", "taskd processes plain", "share of plain"),
        ("floor processes", "floor processes plain", "share of plain"),
    ):
        if case in rounds and to in rounds:
            pairs = zip(rounds[case], rounds[to], strict=True)
            ratios = [_numbers(ours)["tasks_per_s"] / _numbers(theirs)["tasks_per_s"] for ours, theirs in pairs]
            found[f"{case}: {name}"] = measure.spread(ratios)
    if trips := rounds.get("taskd roundtrip"):
        shares = [_numbers(facts)["p50_ms"] / _numbers(facts)["allowed_p50_ms"] for facts in trips]
        found["taskd roundtrip: share of allowed p50"] = measure.spread(shares)
    return found


def _numbers(facts: measure.Facts) -> dict[str, float]:
    """Return the numbers of one run, nested ones as ``outer inner``."""
    numbers: dict[str, float] = {}
    for name, value in facts.items():
        if isinstance(value, dict):
            numbers |= {f"{name} {inner}": float(number) for inner, number in value.items()}
        elif isinstance(value, int | float) and not isinstance(value, bool):
            numbers[name] = float(value)
    return numbers


def bars(found: Figures) -> list[Bar]:
    """Hold the medians against what was promised, as far as they were measured."""
    held = []
    for name, direction, value in BARS:
        if name in found:
            median = found[name]["median"]
            met = median >= value if direction == "at least" else median <= value
            held.append(Bar(name, median, f"{direction} {value:g}", met))
    return held


def against(found: Figures, baseline: Figures) -> dict[str, float]:
    """Return each figure with a bar as a share of the baseline's, above 1 being better."""
    shares: dict[str, float] = {}
    for name, direction, _ in BARS:
        if name in found and name in baseline:
            now, then = found[name]["median"], baseline[name]["median"]
            shares[name] = now / then if direction == "at least" else then / now
    return shares


def tables(document: Document) -> str:
    """Return the figures for people."""
    found = document.figures
    roles = "".join(f"{role:>9}" for role in ROLES)
    lines = [
        f"taskd {document.commit}, {document.date}",
        ", ".join(f"{name} {value}" for name, value in document.machine.items()),
        "",
        f"{'':22}{'tasks/s':>9}{'spread':>18}{'of floor':>10}{'CPU us/task':>13}{roles}",
    ]
    cases = [name.partition(": ")[0] for name in found if name.endswith(": tasks_per_s")]
    lines += [_throughput(found, case) for case in cases]
    lines += [f"{name:22}not measured: {why}" for name, why in document.left_out.items()]
    lines += ["", *_stages(found, cases), "", *_others(found)]
    if document.bars:
        lines += ["", f"{'promised':42}{'median':>10}  bar"]
    for bar in document.bars:
        lines.append(f"{bar.figure:42}{bar.median:>10.3g}  {bar.bar:16} {'met' if bar.met else 'MISSED'}")
    for name, share in document.against_baseline.items():
        lines.append(f"{name:42}{share:>10.2f}  of the baseline  {'' if share >= KEEP else 'BELOW'}")
    return "\n".join(lines)


def _throughput(found: Figures, case: str) -> str:
    rate = found[f"{case}: tasks_per_s"]
    share = found.get(f"{case}: share of floor")
    cells = [
        f"{case:22}",
        f"{rate['median']:>9,.0f}",
        f"{rate['min']:>9,.0f}-{rate['max']:<8,.0f}",
        f"{share['median']:>10.0%}" if share else f"{'':10}",
        *(
            f"{found[f'{case}: cpu_us {role}']['median']:>{13 if role == 'total' else 9}.1f}"
            for role in ("total", *ROLES)
        ),
    ]
    return "".join(cells)


def _stages(found: Figures, cases: Sequence[str]) -> list[str]:
    lines = [f"{'the loop, us per task':22}{'all':>9}  by stage"]
    for case in cases:
        prefix = f"{case}: stages_us "
        stages = {
            name.removeprefix(prefix): spent["median"] for name, spent in found.items() if name.startswith(prefix)
        }
        if stages:
            told = "  ".join(f"{stage} {spent:.2f}" for stage, spent in stages.items())
            lines.append(f"{case:22}{sum(stages.values()):>9.1f}  {told}")
    return lines


def _others(found: Figures) -> list[str]:
    return [
        f"{name:42}{spent['median']:>10.3g}  ({spent['min']:.3g} to {spent['max']:.3g})"
        for name, spent in found.items()
        if name.startswith(("taskd roundtrip", "taskd restart", "taskd mixed"))
        or name.endswith("share of plain")
        or "fsync_p50" in name
    ]
