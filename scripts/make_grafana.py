"""Write deploy/grafana/taskd.json, a dashboard of taskd's metrics; the tests compare the file with what this makes.

Usage: python scripts/make_grafana.py [FILE]
"""

import json
import pathlib
import sys
from collections.abc import Sequence

FILE = pathlib.Path(__file__).parent.parent / "deploy" / "grafana" / "taskd.json"

COLUMNS = 24
"""A row of Grafana's grid."""

SECONDS, BYTES, RATIO, PER_SECOND, COUNT = "s", "bytes", "percentunit", "ops", "short"

HERE = '{instance=~"$instance"}'
QUEUE = '{instance=~"$instance", queue=~"$queue"}'

Query = tuple[str, str]
"""PromQL, and what its series are called."""

ROWS: Sequence[tuple[str, Sequence[tuple[str, str, Sequence[Query]]]]] = (
    (
        "Work",
        (
            (
                "Throughput",
                PER_SECOND,
                (
                    (f"sum(rate(taskd_tasks_submitted_total{QUEUE}[$__rate_interval]))", "submitted"),
                    (f"sum by (state) (rate(taskd_tasks_ended_total{QUEUE}[$__rate_interval]))", "{{state}}"),
                    (f"sum(rate(taskd_retries_total{QUEUE}[$__rate_interval]))", "retried"),
                ),
            ),
            (
                "Tasks by state",
                COUNT,
                ((f"sum by (state) (taskd_tasks{QUEUE})", "{{state}}"),),
            ),
            (
                "Waiting by queue",
                COUNT,
                ((f'sum by (queue) (taskd_tasks{QUEUE[:-1]}, state="ready"}})', "{{queue}}"),),
            ),
        ),
    ),
    (
        "Waits and run times",
        (
            *(
                (
                    title,
                    SECONDS,
                    tuple(
                        (
                            f"histogram_quantile({share}, sum by (le) (rate({name}_bucket{QUEUE}[$__rate_interval])))",
                            f"p{share * 100:.0f}",
                        )
                        for share in (0.5, 0.95, 0.99)
                    ),
                )
                for title, name in (
                    ("Wait in line", "taskd_task_wait_seconds"),
                    ("Run time", "taskd_task_run_seconds"),
                )
            ),
            (
                "First in line has waited",
                SECONDS,
                ((f"taskd_queue_oldest_seconds{QUEUE}", "{{queue}}"),),
            ),
        ),
    ),
    (
        "Failures",
        (
            (
                "Attempts by outcome",
                PER_SECOND,
                ((f"sum by (outcome) (rate(taskd_attempts_ended_total{QUEUE}[$__rate_interval]))", "{{outcome}}"),),
            ),
            (
                "Failing attempts",
                RATIO,
                ((f"taskd:failed_attempts:ratio5m{QUEUE}", "{{queue}}"),),
            ),
            (
                "Dead letters kept",
                COUNT,
                (
                    (f'taskd_tasks_kept{HERE[:-1]}, state="dead"}}', "tasks"),
                    (f"taskd_webhook_letters{HERE}", "of webhooks"),
                ),
            ),
        ),
    ),
    (
        "Agents",
        (
            ("Agents by state", COUNT, ((f"sum by (state) (taskd_agents{HERE})", "{{state}}"),)),
            (
                "Slots in use",
                COUNT,
                ((f"taskd_agent_leases{HERE}", "{{agent}}"), (f"sum(taskd_agent_slots{HERE})", "slots in all")),
            ),
            ("CPU of their machines", RATIO, ((f"taskd_agent_cpu_ratio{HERE}", "{{agent}}"),)),
            (
                "Memory of their machines",
                RATIO,
                ((f"taskd_agent_memory_used_bytes{HERE} / taskd_agent_memory_bytes{HERE}", "{{agent}}"),),
            ),
        ),
    ),
    (
        "Server",
        (
            (
                "Fsync",
                SECONDS,
                tuple(
                    (
                        f"histogram_quantile({share}, sum by (le) (rate({name}_bucket{HERE}[$__rate_interval])))",
                        f"p{share * 100:.0f}",
                    )
                    for name, share in (("taskd_commit_seconds", 0.5), ("taskd_commit_seconds", 0.99))
                ),
            ),
            (
                "Loop: late, turns, collections",
                SECONDS,
                tuple(
                    (f"histogram_quantile(0.95, sum by (le) (rate({name}_bucket{HERE}[$__rate_interval])))", word)
                    for name, word in (
                        ("taskd_loop_lag_seconds", "late, p95"),
                        ("taskd_turn_seconds", "a turn, p95"),
                        ("taskd_collector_seconds", "a collection, p95"),
                    )
                ),
            ),
            (
                "Loop: CPU by stage",
                RATIO,
                (
                    (f"sum by (stage) (rate(taskd_loop_cpu_seconds_total{HERE}[$__rate_interval]))", "{{stage}}"),
                    (f"sum(rate(taskd_process_cpu_seconds_total{HERE}[$__rate_interval]))", "the whole server"),
                ),
            ),
            (
                "Memory",
                BYTES,
                ((f"taskd_process_resident_bytes{HERE}", "{{instance}}"),),
            ),
            (
                "Store and disk",
                BYTES,
                (
                    (f"sum by (part) (taskd_store_bytes{HERE})", "{{part}}"),
                    (f"taskd_disk_free_bytes{HERE}", "free on its disk"),
                ),
            ),
            (
                "Traffic",
                "Bps",
                ((f"sum by (direction) (rate(taskd_protocol_bytes_total{HERE}[$__rate_interval]))", "{{direction}}"),),
            ),
            (
                "HTTP",
                PER_SECOND,
                ((f"sum by (status) (rate(taskd_http_requests_total{HERE}[$__rate_interval]))", "{{status}}"),),
            ),
            (
                "Who looks on",
                COUNT,
                (
                    (f"taskd_http_streams{HERE}", "streams over HTTP"),
                    (f"taskd_connections{HERE}", "clients and agents"),
                    (
                        f"sum by (stream) (increase(taskd_stream_drops_total{HERE}[$__rate_interval]))",
                        "{{stream}} dropped",
                    ),
                ),
            ),
        ),
    ),
)


def panel(
    number: int, title: str, unit: str, queries: Sequence[Query], at: tuple[int, int, int, int]
) -> dict[str, object]:
    """Return one chart."""
    x, y, width, height = at
    return {
        "id": number,
        "type": "timeseries",
        "title": title,
        "datasource": {"type": "prometheus", "uid": "${datasource}"},
        "gridPos": {"x": x, "y": y, "w": width, "h": height},
        "fieldConfig": {"defaults": {"unit": unit, "min": 0, "custom": {"fillOpacity": 8}}, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
        "targets": [
            {"refId": chr(ord("A") + index), "expr": expr, "legendFormat": legend}
            for index, (expr, legend) in enumerate(queries)
        ],
    }


def variable(name: str, metric: str) -> dict[str, object]:
    """Return what a viewer chooses from: the values of a label."""
    query = f"label_values({metric}, {name})"
    return {
        "name": name,
        "type": "query",
        "datasource": {"type": "prometheus", "uid": "${datasource}"},
        "query": {"query": query, "refId": name},
        "includeAll": True,
        "multi": True,
        "refresh": 2,
        "sort": 1,
        "current": {"text": ["All"], "value": ["$__all"]},
    }


def dashboard() -> dict[str, object]:
    """Return the whole document."""
    panels: list[dict[str, object]] = []
    y, height = 0, 8
    for title, charts in ROWS:
        grid = {"x": 0, "y": y, "w": COLUMNS, "h": 1}
        panels.append({"id": len(panels) + 1, "type": "row", "title": title, "gridPos": grid, "panels": []})
        y += 1
        across = min(len(charts), 4)
        width = COLUMNS // across
        for index, (name, unit, queries) in enumerate(charts):
            at = (index % across * width, y + index // across * height, width, height)
            panels.append(panel(len(panels) + 1, name, unit, queries, at))
        y += -(-len(charts) // across) * height
    return {
        "uid": "taskd",
        "title": "taskd",
        "tags": ["taskd"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "15s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {
            "list": [
                {"name": "datasource", "type": "datasource", "query": "prometheus"},
                variable("instance", "taskd_build_info"),
                variable("queue", "taskd_tasks"),
            ]
        },
        "panels": panels,
    }


def main() -> None:
    """Write it."""
    file = pathlib.Path(sys.argv[1]) if sys.argv[1:] else FILE
    file.write_text(json.dumps(dashboard(), indent=2) + "\n")


if __name__ == "__main__":
    main()
