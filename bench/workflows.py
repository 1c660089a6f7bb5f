"""Workflows under measurement: the real server, two real agents, this process the client; see ``cases``.

    python bench/workflows.py dag|chain|map|restart [--nodes N]

dag      A layered graph of no-op tasks, beside as many plain ones: CPU of all processes for each.
chain    No-op tasks, each after the one before: milliseconds a hop.
map      One task for each item of a list that a task returns: how much memory the server takes meanwhile.
restart  Workflows of four nodes, half done when the server is killed: seconds until all have ended.
"""

import argparse
import json
import os
import signal
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter_ns

import cases
import measure
import psutil

LAYER = 1000
"""Nodes of one layer; each comes after two of the layer before."""
SECONDS_MAX = 300
RSS_EVERY = 50
"""Children between two looks at the server's memory."""
HALF_DONE = 1_000


def dag(directory: Path, count: int) -> measure.Facts:
    """Measure a layered graph, and as many plain tasks before it and after it."""
    with cases.cluster(directory, tls=True) as running:
        import bench_tasks as t  # noqa: PLC0415 - looks for the profile

        def plain() -> None:
            for handle in t.noop.map(range(count)):
                handle.result(timeout=SECONDS_MAX)

        def graph() -> None:
            with t.app.workflow("layers") as wf:
                before: list[object] = []
                for start in range(0, count, LAYER):
                    layer = [
                        t.first.node(i, after=[before[i], before[(i + 1) % LAYER]] if before else [])
                        for i in range(min(LAYER, count - start))
                    ]
                    before = list(layer)
            assert wf.submit().wait(timeout=SECONDS_MAX) == "succeeded"

        spent: dict[str, list[dict[str, float]]] = {"plain": [], "graph": []}
        for _ in range(3):
            spent["plain"].append(_cpu_us(running, plain, count))
            spent["graph"].append(_cpu_us(running, graph, count))
        t.app.close()
    facts: measure.Facts = {"nodes": count}
    for what, rounds in spent.items():
        for role in rounds[0]:
            facts[f"{what}_{role}_us"] = round(statistics.median(each[role] for each in rounds), 2)
    facts["loop_ratio"] = facts["graph_loop_us"] / facts["plain_loop_us"]
    return facts


def chain(directory: Path, count: int) -> measure.Facts:
    """Measure hops from the starts of neighbours, as the server keeps them, and the whole."""
    with cases.cluster(directory, tls=True):
        import bench_tasks as t  # noqa: PLC0415 - looks for the profile

        with t.app.workflow("chain") as wf:
            ref = t.noop.node(0)
            for _ in range(count - 1):
                ref = t.noop.node(ref)
        began = perf_counter_ns()
        run = wf.submit()
        assert run.wait(timeout=SECONDS_MAX) == "succeeded"
        seconds = (perf_counter_ns() - began) / 1e9
        t.app.close()
    return {"nodes": count, "seconds": seconds, "ms_per_hop_mean": seconds * 1e3 / count}


def spread(directory: Path, count: int) -> measure.Facts:
    """Watch the server's memory while it maps."""
    with cases.cluster(directory, tls=True) as running:
        import bench_tasks as t  # noqa: PLC0415 - looks for the profile

        server = psutil.Process(running.servers[-1].pid)
        with t.app.workflow("warm") as wf:
            t.noop.node.map(t.numbers.node(1_000))
        wf.submit().wait(timeout=SECONDS_MAX)
        before = most = server.memory_info().rss
        with t.app.workflow("many") as wf:
            t.noop.node.map(t.numbers.node(count))
        began = perf_counter_ns()
        run = wf.submit()
        while run.state() == "running":
            most = max(most, server.memory_info().rss)
        seconds = (perf_counter_ns() - began) / 1e9
        assert run.state() == "succeeded"
        t.app.close()
    return {"children": count, "seconds": seconds, "server_rss_growth_mb": (most - before) / 1e6}


def restart(directory: Path, count: int) -> measure.Facts:
    """Kill the server with workflows half done; each node leaves word of each time that it ran."""
    with cases.cluster(directory, tls=True) as running:
        import bench_tasks as t  # noqa: PLC0415 - looks for the profile

        runs = []
        for number in range(count):
            with t.app.workflow("half") as wf:
                ref = t.told.node(str(directory), number)
                go = wf.signal("go", after=[ref])
                t.told.node(str(directory), number + count, after=[go])
            runs.append(wf.submit())
        for run in runs:
            run.result("told", timeout=SECONDS_MAX)
        running.servers[-1].send_signal(signal.SIGKILL)
        running.servers[-1].wait()
        began = perf_counter_ns()
        running.start_server()
        for run in runs:
            run.signal("go")
        states = [run.wait(timeout=SECONDS_MAX) for run in runs]
        seconds = (perf_counter_ns() - began) / 1e9
        assert set(states) == {"succeeded"}
        t.app.close()
    ran = [line for path in directory.glob("told-*") for line in path.read_text().split()]
    assert len(set(ran)) == 2 * count
    return {"workflows": count, "seconds": seconds, "run_again": len(ran) - len(set(ran))}


def _cpu_us(running: cases.Cluster, work: Callable[[], None], count: int) -> dict[str, float]:
    """Return what each role spent on a task, and of that the loop: what scheduling itself costs."""
    pids, stages = running.pids(), cases.stats().stages_ns
    before = measure.cpu_ns(pids)
    work()
    after, stages_after = measure.cpu_ns(pids), cases.stats().stages_ns
    spent = {role: (after[role] - before[role]) / count / 1e3 for role in after}
    by_stage = {stage: (stages_after[stage] - stages[stage]) / count / 1e3 for stage in stages}
    return {**spent, **by_stage, "loop": sum(by_stage.values())}


CASES = {"dag": (dag, 10_000), "chain": (chain, 1_000), "map": (spread, 100_000), "restart": (restart, HALF_DONE)}


def main() -> None:
    """Run one case; print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("case", choices=CASES)
    parser.add_argument("--nodes", type=int)
    asked = parser.parse_args()
    run, usual = CASES[asked.case]
    with tempfile.TemporaryDirectory(prefix="taskd-bench-") as directory:
        facts = run(Path(directory), asked.nodes or usual)
    print(json.dumps({"case": asked.case, "cpus": os.cpu_count(), **facts}))


if __name__ == "__main__":
    main()
