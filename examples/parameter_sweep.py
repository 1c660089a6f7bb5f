"""A parameter sweep: 10,000 settings tried, a bounded number at a time, and the best of them.

Which decay and which frequency explain a series of measurements best? Each setting is a task; the server keeps what
each came to, so that a sweep that was cut short goes on where it was, and how far it is can be asked at any time.

    taskd dev parameter_sweep                   # in this folder: a server, and an agent that has these tasks
    python parameter_sweep.py                   # in another terminal: prints the workflow's id, then how it goes
    python parameter_sweep.py ID                # follows it again, from anywhere
"""

import math
import sys

from taskd import App, TimedOut, Workflow, WorkflowRun

app = App()

IN_FLIGHT = 500
"""Tasks of the sweep that others have to share the agents with, at most."""

Setting = dict[str, float]


def model(decay: float, frequency: float, second: float) -> float:
    """Return how far the spring is out."""
    return math.exp(-decay * second) * math.cos(frequency * second)


MEASURED = [(second / 200, model(0.73, 1.7, second / 200)) for second in range(2_000)]
"""Here they are made up."""


def grid(steps: int) -> list[Setting]:
    """Return ``steps`` times ``steps`` settings: decays below 1, frequencies between 1 and 2."""
    shares = [step / steps for step in range(steps)]
    return [{"decay": decay, "frequency": 1 + share} for decay in shares for share in shares]


@app.task
def attempt(setting: Setting) -> Setting:
    """Return a setting with its loss: how far the model is off with it, squared, over all measurements."""
    off = [model(setting["decay"], setting["frequency"], second) - value for second, value in MEASURED]
    return {**setting, "loss": math.fsum(each * each for each in off)}


@app.task
def best(attempts: list[Setting]) -> Setting:
    """Return the one that explains the measurements best."""
    return min(attempts, key=lambda tried: tried["loss"])


def sweep(steps: int = 100) -> Workflow:
    """Return the graph: two nodes, of which one is a task for each setting."""
    with app.workflow("parameter-sweep") as wf:
        attempts = attempt.node.map(grid(steps), in_flight=IN_FLIGHT, name="attempts")
        best.node(attempts)
    return wf


def follow(run: WorkflowRun) -> None:
    """Print the best setting so far each second, until there is no better one to come."""
    while True:
        try:
            run.wait(timeout=1)
        except TimedOut:
            items = run.partial("attempts")
            tried = [item.value for item in items if isinstance(item.value, dict)]
            if tried:
                print(f"{len(tried)} of {len(items)} tried, best so far {best(tried)}", flush=True)
        else:
            print(f"best of all {run.result('best')}")
            return


def main() -> None:
    """Start a sweep, or follow the one whose id is given."""
    run = app.workflow_run(sys.argv[1]) if sys.argv[1:] else sweep().submit()
    print(run.id, flush=True)
    follow(run)


if __name__ == "__main__":
    main()
