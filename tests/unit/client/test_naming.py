"""What a task is called: as the agent that imports its module would call it."""

import subprocess
import sys
from pathlib import Path

import pytest

from taskd.client.naming import task_name

SCRIPT = """
from taskd import App
app = App()

@app.task
def work(): ...

if __name__ == "__main__":
    print(work.name)
"""


def run(cwd: Path, *argv: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *argv], cwd=cwd, input=stdin, capture_output=True, text=True, check=False, timeout=60
    )


def project(tmp_path: Path, file: str) -> Path:
    path = tmp_path / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(SCRIPT)
    return tmp_path


def test_a_modules_function_is_module_and_name() -> None:
    class Inner:
        @staticmethod
        def method() -> None: ...

    assert task_name(task_name) == "taskd.client.naming.task_name"
    assert task_name(Inner.method).endswith("Inner.method")


@pytest.mark.parametrize(
    ("file", "argv", "name"),
    [
        ("tasks.py", ["tasks.py"], "tasks.work"),
        ("app/tasks.py", ["app/tasks.py"], "app.tasks.work"),
        ("app/tasks.py", ["-m", "app.tasks"], "app.tasks.work"),
        ("app/__main__.py", ["-m", "app"], "app.__main__.work"),
    ],
)
def test_a_script_is_named_by_the_module_that_an_agent_would_import(
    tmp_path: Path, file: str, argv: list[str], name: str
) -> None:
    done = run(project(tmp_path, file), *argv)
    assert (done.stdout, done.stderr) == (f"{name}\n", "")


def test_a_script_elsewhere_is_named_relative_to_its_folder(tmp_path: Path) -> None:
    project(tmp_path, "there/tasks.py")
    (tmp_path / "here").mkdir()
    done = run(tmp_path / "here", str(tmp_path / "there" / "tasks.py"))
    assert (done.stdout, done.stderr) == ("tasks.work\n", "")


def test_a_script_that_cannot_be_imported_is_refused_with_the_reason(tmp_path: Path) -> None:
    done = run(project(tmp_path, "my-tasks.py"), "my-tasks.py")
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert "my-tasks.py run as __main__" in last
    assert "name=" in last


@pytest.mark.parametrize("argv", [["-"], ["-c", SCRIPT]])
def test_a_program_without_a_file_is_refused_with_the_reason(tmp_path: Path, argv: list[str]) -> None:
    done = run(tmp_path, *argv, stdin=SCRIPT)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert "interactive __main__" in last
    assert "name=" in last


def test_a_name_that_was_given_needs_no_module(tmp_path: Path) -> None:
    named = SCRIPT.replace("@app.task", '@app.task(name="jobs.work")')
    assert run(tmp_path, "-c", named).stdout == "jobs.work\n"


def test_a_child_of_multiprocessing_finds_the_same_name(tmp_path: Path) -> None:
    """With the start method spawn a child knows its parent's script under another name."""
    (tmp_path / "tasks.py").write_text("""
import multiprocessing
from taskd import App
app = App()

@app.task
def work(): ...

def name_of(task): return task.name

if __name__ == "__main__":
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        print(pool.apply(name_of, (work,)))
""")
    done = run(tmp_path, "tasks.py")
    assert (done.stdout, done.stderr) == ("tasks.work\n", "")
