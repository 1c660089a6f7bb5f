"""One trace, from a program over the server to the task's own code, at a real OTLP receiver in this process."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from e2e.house import House, house, wait_until

MODULE = """
import logging
import os
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from taskd import App

provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(endpoint=os.environ["COLLECTOR"])))
trace.set_tracer_provider(provider)
tracer = trace.get_tracer("shop")
app = App()

@app.task
def child(a):
    return a

@app.task
def add(a, b):
    with tracer.start_as_current_span("adding"):
        logging.getLogger("shop").info("adding %s", a)
        child.submit(a).result(timeout=30)
        return a + b

@app.task
async def wait_for(a):
    with tracer.start_as_current_span("waiting"):
        return a
"""

PROGRAM = """
import shop

with shop.tracer.start_as_current_span("asking") as span:
    handle = shop.add.submit(1, 2)
    assert handle.result(timeout=30) == 3
    assert shop.wait_for.submit(1).result(timeout=30) == 1
shop.provider.force_flush()
print(handle.id, f"{span.get_span_context().trace_id:032x}")
"""


class Receiver:
    """Takes spans as a collector does."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                assert self.path == "/v1/traces"
                request = ExportTraceServiceRequest.FromString(body)
                receiver.spans += [
                    span
                    for resource in request.resource_spans
                    for scope in resource.scope_spans
                    for span in scope.spans
                ]
                answer = ExportTraceServiceResponse().SerializeToString()
                self.send_response(200)
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/v1/traces"
        self._thread = threading.Thread(target=self.server.serve_forever)
        self._thread.start()

    def named(self, name: str) -> list[Span]:
        return [span for span in list(self.spans) if span.name == name]

    def close(self) -> None:
        if not self._thread.is_alive():
            return
        self.server.shutdown()
        self._thread.join()
        self.server.server_close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()


@pytest.fixture
def home(tmp_path: Path, receiver: Receiver) -> Iterator[House]:
    """A user who has a module that makes spans of its own."""
    with house(tmp_path / "home") as made:
        made.env["COLLECTOR"] = receiver.url
        (made.work / "shop.py").write_text(MODULE)
        (made.work / "program.py").write_text(PROGRAM)
        yield made


def attributes(span: Span) -> dict[str, str]:
    return {each.key: each.value.string_value for each in span.attributes}


def test_a_trace_goes_from_the_program_to_the_tasks_own_spans(home: House, receiver: Receiver) -> None:
    """One id: in the program's span, the server's, the task's own, the API, and what the task has logged."""
    home.serve("--otlp", receiver.url, "--trace-ratio", "1")
    home.start("agent", "shop", "--name", "a1", "--processes", "2")
    wait_until(lambda: home.agents().get("a1", {}).get("state") == "live")
    program = subprocess.run(
        [sys.executable, "program.py"],
        cwd=home.work,
        env=home.env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert program.returncode == 0, program.stderr
    task_id, trace_id = program.stdout.split()
    names = {"taskd.submit", "taskd.queue", "taskd.place", "taskd.commit", "taskd.attempt"}
    wait_until(lambda: all(len(receiver.named(name)) == 3 for name in names))
    [asking], [adding], [waiting] = receiver.named("asking"), receiver.named("adding"), receiver.named("waiting")
    assert {span.trace_id.hex() for span in receiver.spans} == {trace_id}
    mine = {span.name: span for span in receiver.spans if attributes(span).get("taskd.task.id") == task_id}
    assert mine.keys() == names
    assert mine["taskd.submit"].parent_span_id == asking.span_id
    assert mine["taskd.attempt"].parent_span_id == mine["taskd.submit"].span_id
    assert adding.parent_span_id == mine["taskd.attempt"].span_id
    [child] = [s for s in receiver.named("taskd.submit") if attributes(s)["taskd.task.name"] == "shop.child"]
    assert child.parent_span_id == adding.span_id
    assert waiting.parent_span_id in {span.span_id for span in receiver.named("taskd.attempt")}
    shown = home.task(task_id)
    assert shown["trace_id"] == trace_id
    logged = json.loads(home.ask("task", "logs", task_id, "--json").splitlines()[0])
    assert trace_id in json.dumps(logged)


def test_a_collector_that_is_away_costs_spans_alone(home: House, receiver: Receiver) -> None:
    receiver.close()
    home.serve("--otlp", receiver.url, "--trace-ratio", "1")
    home.start("agent", "shop", "--name", "a1", "--processes", "1")
    wait_until(lambda: home.agents().get("a1", {}).get("state") == "live")
    assert home.ask("submit", "shop.child", "[5]", "--wait") == "5"


def test_a_share_that_is_none_is_refused(home: House) -> None:
    refused = home.run("server", "--trace-ratio", "2")
    assert refused.returncode == 2
    assert "--trace-ratio" in refused.stderr
