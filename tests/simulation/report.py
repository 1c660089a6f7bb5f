"""The report of a campaign, as ``build/reports`` keeps it."""

import json
import subprocess
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from simulation.world import Result

ROOT = Path(__file__).parent.parent.parent


@dataclass(slots=True, kw_only=True)
class Report:
    """What came of many runs."""

    seeds: list[int] = field(default_factory=list)
    sim_seconds: float = 0.0
    ops: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    reached: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)
    """Each with the line that plays it again."""
    wall_s: float = 0.0
    cpu_s: float = 0.0

    def add(self, result: Result) -> None:
        """Take in one run."""
        self.seeds.append(result.seed)
        self.sim_seconds += result.seconds
        self.ops += result.ops
        self.faults.update(result.faults)
        self.reached.update(result.reached)
        self.violations += [f"{found} | make simulate SEED={result.seed}" for found in result.violations]

    @property
    def hours_per_cpu_hour(self) -> float:
        """Simulated hours of a cluster for each hour of processor time."""
        return self.sim_seconds / self.cpu_s if self.cpu_s else 0.0

    def write(self, path: Path) -> None:
        """Write it as JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        content = {
            "commit": _commit(),
            "seeds": self.seeds,
            "sim_seconds": round(self.sim_seconds, 3),
            "ops": self.ops,
            "faults": dict(sorted(self.faults.items())),
            "reached": dict(sorted(self.reached.items())),
            "violations": self.violations,
            "wall_s": round(self.wall_s, 3),
            "cpu_s": round(self.cpu_s, 3),
            "hours_per_cpu_hour": round(self.hours_per_cpu_hour, 1),
        }
        path.write_text(json.dumps(content, indent=2) + "\n")

    def summary(self) -> str:
        """Return what people want to know."""
        hours = self.sim_seconds / 3_600
        lines = [
            f"{len(self.seeds)} seeds, {hours:.2f} simulated hours, {self.ops:,} messages, {self.wall_s:.1f} s",
            f"{self.hours_per_cpu_hour:.0f} cluster-hours per CPU-hour",
        ]
        return "\n".join([*lines, *self.violations])


def _commit() -> str:
    found = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    return found.stdout.strip()
