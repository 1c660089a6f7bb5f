"""The pytest plugin: a fixture for those who ask for it, nothing at all for those who do not."""

import os
import re
import subprocess
import sys
from pathlib import Path

PROJECT = """
from taskd import App

app = App()

@app.task(name="shop.add")
def add(a, b):
    return a + b

def test_a_task(taskd_server):
    local = taskd_server(app)
    later = add.options(delay=60).submit(1, 2)
    local.advance(60)
    assert later.state() == "succeeded"

def test_the_app_was_put_back():
    assert "_client" not in vars(app)
"""


def test_the_fixture_serves_a_users_tests(tmp_path: Path) -> None:
    """A project that has taskd installed needs no more than the fixture's name."""
    (tmp_path / "test_shop.py").write_text(PROJECT)
    assert "2 passed" in run_pytest(tmp_path)


def test_the_examples_of_the_document_are_true(tmp_path: Path) -> None:
    """Every block of docs/testing.md is a file, and together they are a user's green tests."""
    document = (Path(__file__).parents[3] / "docs" / "testing.md").read_text()
    blocks = re.findall(r"```python\n# (\S+)\n(.*?)```", document, re.DOTALL)
    for name, text in blocks:
        (tmp_path / name).write_text(text)
    assert [name for name, _ in blocks] == [
        "shop.py",
        "test_server.py",
        "test_async.py",
        "test_inline.py",
        "test_recording.py",
    ]
    assert "9 passed" in run_pytest(tmp_path)


def run_pytest(project: Path) -> str:
    """Run a user's tests with the plugin alone; return what pytest printed."""
    command = [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "taskd.testing.plugin"]
    env = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    ended = subprocess.run(command, cwd=project, env=env, capture_output=True, text=True, timeout=100, check=False)
    assert ended.returncode == 0, ended.stdout
    return ended.stdout


def test_loading_the_plugin_imports_nothing_more() -> None:
    """Pytest loads it in every project: it costs them no part of taskd, nor of what that stands on."""
    program = (
        "import sys, pytest; before = set(sys.modules); import taskd.testing.plugin;"
        "print(*sorted({name.partition('.')[0] for name in set(sys.modules) - before}));"
        "print(*sorted(name for name in sys.modules if name.startswith('taskd')))"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert ended.stdout.splitlines() == ["taskd", "taskd taskd.testing taskd.testing.plugin"]
