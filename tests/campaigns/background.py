"""Plays the first cases of campaigns beside the other tests, which wait most of their time, and each other."""

import os
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from threading import Lock

import pytest

from campaigns.catalogue import CAMPAIGNS
from campaigns.report import ROOT

GOALS = tomllib.loads((ROOT / "scripts" / "goal.toml").read_text(encoding="utf-8"))

Played = subprocess.CompletedProcess[str]


def campaign_of(item: pytest.Item) -> str | None:
    """Return the campaign that a test waits for; None for every other test."""
    test, _, name = item.name.removesuffix("]").partition("[")
    return name if test == "test_no_promise_is_broken" else None


class Background:
    """Two lanes: campaigns that measure time, and those that only take it, which make way for everything else."""

    def __init__(self, names: Iterable[str]) -> None:
        self._lock = Lock()
        self._running: set[subprocess.Popen[str]] = set()
        self._is_over = False
        self._lanes = [ThreadPoolExecutor(1), ThreadPoolExecutor(1)]
        self._played = {name: self._lanes[CAMPAIGNS[name].is_timed].submit(self._play, name) for name in names}

    def wait(self, name: str) -> Played:
        """Return how a campaign ended."""
        return self._played[name].result()

    def close(self) -> None:
        """End what still runs."""
        with self._lock:
            self._is_over = True
            for process in self._running:
                process.send_signal(signal.SIGINT)
        for lane in self._lanes:
            lane.shutdown(cancel_futures=True)

    def _play(self, name: str) -> Played:
        """Play the first cases of one, in a process of its own, which may be forked, stopped and measured."""
        cases = GOALS[name]["cases"]["test"]
        words = [
            sys.executable,
            "-m",
            "campaigns",
            name,
            "--from",
            "0",
            "--to",
            str(cases - 1),
            "--anew",
            "--at-once",
            "1",
        ]
        if not CAMPAIGNS[name].is_timed:
            words = ["nice", "-n", "19", *words]
        env = {**os.environ, "PYTHONPATH": str(ROOT / "tests")}
        with self._lock:
            if self._is_over:
                raise RuntimeError("the tests are over")
            process = subprocess.Popen(words, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            self._running.add(process)
        stdout, stderr = process.communicate()
        with self._lock:
            self._running.remove(process)
        return subprocess.CompletedProcess(words, process.returncode, stdout, stderr)
