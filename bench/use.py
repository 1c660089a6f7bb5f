"""What a run used: cores by role, the loop, fsyncs, collections of garbage, bytes. What a knee is explained by.

From the scheduler's own count (``measure.cpu_ns``) and from what the server tells at ``/metrics``, before and after.
"""

import urllib.request
from collections import defaultdict
from collections.abc import Mapping
from time import perf_counter_ns

import measure
from prometheus_client.parser import text_string_to_metric_families

from taskd.client.profile import resolve

LOOP = "taskd"
"""The name of the server's first thread."""

Samples = Mapping[str, float]
"""By metric; of one with a label, by metric and label's value: ``taskd_loop_cpu_seconds_total decide``."""


class Use:
    """Looks at a cluster when it is made, and again when asked."""

    def __init__(self, pids: measure.Pids) -> None:
        """Look.

        Args:
            pids: By role; the first of ``server`` is the server.
        """
        self._pids = pids
        self._server = pids["server"][0]
        self._samples = scrape()
        self._threads = measure.cpu_of_threads(self._server)
        self._cpu = measure.cpu_ns(pids)
        self._began = perf_counter_ns()

    def told(self, tasks: int, ended: int) -> measure.Facts:
        """Return what was used for so many tasks.

        Args:
            tasks: All that went through the server since.
            ended: When they had, by ``perf_counter_ns``; all that was used since counts.
        """
        cpu = measure.cpu_ns(self._pids)
        threads = measure.cpu_of_threads(self._server) - self._threads
        now = scrape()
        ns = ended - self._began
        seconds = ns / 1e9
        grown = {name: value - self._samples.get(name, 0.0) for name, value in now.items()}
        return {
            "cores": {role: (spent - self._cpu[role]) / ns for role, spent in cpu.items()},
            "loop": threads[LOOP] / ns,
            "loop_us": threads[LOOP] / tasks / 1e3,
            "store_us": sum(spent for name, spent in threads.items() if name.startswith("rocksdb")) / tasks / 1e3,
            "stages_us": {
                name.rpartition(" ")[2]: spent / tasks * 1e6
                for name, spent in grown.items()
                if name.startswith("taskd_loop_cpu_seconds_total ")
            },
            "tasks_per_turn": tasks / max(1.0, grown["taskd_turns_total"]),
            "turn_p99_ms": 1e3 * _quantile(grown, "taskd_turn_seconds_bucket ", 0.99),
            "fsyncs_per_1000": 1e3 * grown["taskd_commits_total"] / tasks,
            "fsync_ms": 1e3 * grown["taskd_commit_seconds_sum"] / max(1.0, grown["taskd_commit_seconds_count"]),
            "fsync_share": grown["taskd_commit_seconds_sum"] / seconds,
            "collector_share": grown["taskd_collector_seconds_sum"] / seconds,
            "bytes_each": (grown["taskd_protocol_bytes_total in"] + grown["taskd_protocol_bytes_total out"]) / tasks,
            "rss_mib": now["taskd_process_resident_bytes"] / 2**20,
        }


def scrape() -> Samples:
    """Return what the server tells; of a metric with several labels the sum for the first of them."""
    profile = resolve(None)
    request = urllib.request.Request(  # noqa: S310 - the address is in the server's own profile
        f"{profile.http}/metrics", headers={"Authorization": f"Bearer {profile.token}"}
    )
    with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
        text = answer.read().decode()
    found: dict[str, float] = defaultdict(float)
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found[" ".join([sample.name, *list(sample.labels.values())[:1]])] += sample.value
    return found


def _quantile(grown: Samples, prefix: str, share: float) -> float:
    """Return a bound that so many of those counted do not exceed; of what is over all bounds, the last."""
    buckets = sorted(
        (float(name.rpartition(" ")[2]), count) for name, count in grown.items() if name.startswith(prefix)
    )
    wanted = share * buckets[-1][1]
    finite = [bound for bound, count in buckets if bound != float("inf") and count >= wanted]
    return finite[0] if finite else buckets[-2][0]
