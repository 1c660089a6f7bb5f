"""Beanstalkd: one call at a time through its Python client, or pipelined by hand.

python -m peers.adapters.beanstalkd      is a worker
"""

import json
import socket
from collections.abc import Sequence
from contextlib import suppress
from time import monotonic, sleep

import greenstalk

from peers import bodies
from peers.interface import Adapter, Argv, Broker, Place, python

WINDOW = 100
"""Requests under way at once, when pipelined."""


class Peer(Adapter):
    """Beanstalkd."""

    packages = ("greenstalk",)
    modes = {
        "fast": "one call at a time; no binlog, its default",
        "durable": "one call at a time; binlog with an fsync for each write (-f 0)",
        "pipelined": "a hundred requests under way at once, by hand; no binlog",
        "pipelined durable": "a hundred requests under way at once, by hand; binlog with an fsync for each write",
    }
    durable = ("durable", "pipelined durable")
    differs = "A queue alone: no results, retries with backoff, or records. The client asks until the queue is empty."

    def broker(self) -> Broker:
        argv = ["beanstalkd", "-l", "127.0.0.1", "-p", str(self.place.port)]
        if self.place.mode in self.durable:
            argv += ["-b", self.place.directory, "-f", "0"]
        return Broker(argv, ["beanstalkd", "-v"])

    def workers(self) -> list[Argv]:
        return [python("peers.adapters.beanstalkd")] * self.place.workers

    def open(self) -> None:
        self.client = greenstalk.Client(("127.0.0.1", self.place.port))

    def submit_many(self, body: str, values: Sequence[int]) -> list[object]:
        if "pipelined" not in self.place.mode:
            return [self.submit(body, value) for value in values]
        with socket.create_connection(("127.0.0.1", self.place.port)) as wire, wire.makefile("rb") as answers:
            made: list[object] = []
            for start in range(0, len(values), WINDOW):
                jobs = [_pack(body, value).encode() for value in values[start : start + WINDOW]]
                wire.sendall(b"".join(b"put 0 0 60 %d\r\n%s\r\n" % (len(job), job) for job in jobs))
                made += [_number(answers.readline(), b"INSERTED") for _ in jobs]
            return made

    def submit(self, body: str, value: int) -> object:
        return self.client.put(_pack(body, value))

    def submitter(self) -> Adapter:
        own = Peer(self.place)  # its connection cannot be shared
        own.open()
        return own

    def results(self, handles: Sequence[object], within_s: float) -> None:
        if len(handles) == 1:
            self._until_gone(handles[0], within_s)
            return
        until = monotonic() + within_s
        while any(self.client.stats_tube("default")[f"current-jobs-{state}"] for state in ("ready", "reserved")):
            if monotonic() > until:
                raise TimeoutError
            sleep(0.002)

    def _until_gone(self, job_id: object, within_s: float) -> None:
        until = monotonic() + within_s
        with suppress(greenstalk.NotFoundError):
            while True:
                self.client.stats_job(job_id)
                if monotonic() > until:
                    raise TimeoutError

    def close(self) -> None:
        self.client.close()


def _pack(body: str, value: int) -> str:
    return json.dumps([body, value])


def _number(line: bytes, wanted: bytes) -> int:
    word, _, number = line.partition(b" ")
    assert word == wanted, line
    return int(number.split()[0])


def _work(place: Place) -> None:
    """Reserve, run, delete."""
    client = greenstalk.Client(("127.0.0.1", place.port))
    while True:
        job = client.reserve()
        body, value = json.loads(job.body)
        getattr(bodies, body)(value)
        client.delete(job)


def _work_pipelined(place: Place) -> None:
    """Keep reserves under way; delete what has run, and reserve as many again."""
    with socket.create_connection(("127.0.0.1", place.port)) as wire, wire.makefile("rb") as answers:
        wire.sendall(b"reserve\r\n" * 1)
        while True:
            line = answers.readline()
            if not line:
                return
            word, *rest = line.split()
            assert word == b"RESERVED", line
            jobs = [_read_job(answers, rest)]
            # Whatever more is there at once, up to a window: a reserve that must not wait.
            wire.sendall(b"reserve-with-timeout 0\r\n" * WINDOW)
            for _ in range(WINDOW):
                word, *rest = answers.readline().split()
                if word == b"RESERVED":
                    jobs.append(_read_job(answers, rest))
            for _, (body, value) in jobs:
                getattr(bodies, body)(value)
            wire.sendall(b"".join(b"delete %d\r\n" % number for number, _ in jobs) + b"reserve\r\n")
            for _ in jobs:
                answers.readline()


def _read_job(answers: object, rest: list[bytes]) -> tuple[int, tuple[str, int]]:
    number, size = map(int, rest)
    return number, json.loads(answers.read(size + 2)[:-2])


if __name__ == "__main__":
    here = Place.here()
    (_work_pipelined if "pipelined" in here.mode else _work)(here)
