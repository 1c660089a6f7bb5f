from pathlib import Path

import pytest

from taskd.agent import host


def test_the_host_is_measured() -> None:
    stats = host.host_stats()
    assert 0 <= stats.cpu_percent <= 100
    assert stats.load1 >= 0
    assert 0 < stats.memory_used <= stats.memory_total


def test_the_limit_of_the_cgroup_stands_for_the_hosts_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("1000000\n")
    (tmp_path / "memory.current").write_text("250000\n")
    monkeypatch.setattr(host, "_own_cgroup", lambda: tmp_path)
    stats = host.host_stats()
    assert (stats.memory_used, stats.memory_total) == (250_000, 1_000_000)
    (tmp_path / "memory.max").write_text("max\n")
    assert host.host_stats().memory_total > 1_000_000


def test_a_kill_for_memory_is_counted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(host, "_own_cgroup", lambda: tmp_path)
    before = host.oom_kills()
    (tmp_path / "memory.events").write_text("low 0\nhigh 0\nmax 9\noom 3\noom_kill 2\noom_group_kill 0\n")
    assert host.oom_kills() == before + 2
