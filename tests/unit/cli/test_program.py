import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from taskd import __version__
from taskd.agent import warden
from taskd.cli import main, program
from taskd.cli.lazy import Later
from taskd.program import PARENT_VARIABLE
from taskd_protocol.errors import DataDirInUse
from unit.cli.fake_client import FakeClient, Taskd


def test_help_lists_every_command_with_its_own_words(taskd: Taskd) -> None:
    """What is shown before a command is imported is what the command says of itself."""
    shown = taskd("--help").out
    for later in program.COMMANDS:
        command = later.load()
        assert command.get_short_help_str(100) == later.short_help
        assert f"{later.name:<10}" in shown


def test_help_imports_nothing_that_it_does_not_need() -> None:
    """`taskd --help` answers at once."""
    code = "import sys; from taskd.cli import program; program.run(['--help']); print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    heavy = {"rich", "cryptography", "trio", "rocksdict", "starlette", "msgspec", "structlog", "psutil", "asyncio"}
    assert heavy.isdisjoint(modules)
    assert "click" in modules


def test_a_server_imports_nothing_that_only_paints() -> None:
    """It is up sooner, and smaller."""
    script = """
import sys
from taskd.cli.lazy import import_structlog
import_structlog()
from taskd.cli import serving
print(*({"rich", "pygments"} & set(sys.modules)))
import rich.console
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_version(taskd: Taskd) -> None:
    assert taskd("--version").out == f"taskd {__version__}\n"


def test_no_words_show_the_help_as_a_mistake(taskd: Taskd) -> None:
    ended = taskd()
    assert ended.code == 2
    assert "Commands:" in ended.err


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["fly"], "taskd: No such command 'fly'; see taskd --help"),
        (["task", "fly"], "taskd: No such command 'fly'; see taskd task --help"),
        (["task", "show"], "taskd: Missing argument 'ID'; see taskd task show --help"),
        (["token", "create"], "taskd: Missing option '--role'"),
        (["submit", "f", "[1"], "taskd: Invalid value for '[JSON-ARGS]': no JSON"),
        (["submit", "f", "7"], "taskd: Invalid value for '[JSON-ARGS]': neither a list nor an object"),
        (["submit", "f", "--delay", "soon"], "taskd: Invalid value for '--delay': 'soon' is no duration"),
        (["run", "--env", "X", "--", "true"], "taskd: Invalid value for '--env': 'X' has no name and value"),
    ],
)
def test_wrong_words_are_two_and_one_line(words: list[str], complaint: str, taskd: Taskd) -> None:
    """The line says what is wrong, and where to read what is right."""
    ended = taskd(*words)
    assert (ended.code, ended.out) == (2, "")
    assert ended.complaint.startswith(complaint)


def test_no_server_known(taskd: Taskd) -> None:
    """Who never started a server is told how."""
    ended = taskd("task", "ls")
    assert ended.code == 2
    assert "taskd dev" in ended.complaint


def test_an_error_is_one_line_and_its_exit_code(taskd: Taskd, client: FakeClient) -> None:
    client.replies = [DataDirInUse("in use\nby another;   stop it")]
    ended = taskd("queue", "ls")
    assert (ended.code, ended.out) == (73, "")
    assert ended.complaint == "taskd: in use by another; stop it"
    assert client.closed


def test_ctrl_c_is_130(taskd: Taskd, client: FakeClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(client, "call", interrupt)
    assert taskd("queue", "ls").code == 130


@pytest.mark.parametrize("words", [["--context", "other", "queue", "ls"], ["queue", "ls", "--context", "other"]])
def test_a_context_is_named_before_or_after_the_command(words: list[str], taskd: Taskd, client: FakeClient) -> None:
    ended = taskd(*words)
    assert ended.code == 2
    assert "no profile 'other'" in ended.complaint
    assert not client.asked


def test_a_reader_that_leaves_is_no_error(tmp_path: Path) -> None:
    """`taskd … | head` ends quietly."""
    read, write = os.pipe()
    os.close(read)
    env = {**os.environ, "XDG_CONFIG_HOME": str(tmp_path)}
    ended = subprocess.run(
        [sys.executable, "-m", "taskd", "completion", "bash"],
        stdout=write,
        stderr=subprocess.PIPE,
        env=env,
        check=False,
    )
    os.close(write)
    assert (ended.returncode, ended.stderr) == (141, b"")


def test_every_option_has_help() -> None:
    """`--help` explains everything that can be typed."""
    pending: list[click.Command] = [program.root]
    while pending:
        command = pending.pop()
        assert command.help or isinstance(command, Later)
        for option in command.params:
            assert not isinstance(option, click.Option) or option.help, (command.name, option.name)
        if isinstance(command, click.Group):
            pending += [one.load() if isinstance(one, Later) else one for one in command.commands.values()]


def test_the_one_file_program_becomes_a_warden_by_the_agents_word() -> None:
    """The entry point looks for the word before it imports anything."""
    assert main.WARDEN == warden.ARGUMENT


def test_a_child_whose_parent_is_gone_ends_at_once() -> None:
    """What `taskd dev` starts never outlives it, even when it dies first."""
    environment = {**os.environ, PARENT_VARIABLE: "1"}
    ended = subprocess.run(
        [sys.executable, "-m", "taskd", "--version"], env=environment, capture_output=True, check=False
    )
    assert (ended.returncode, ended.stdout) == (1, b"")


def test_the_parents_number_is_not_passed_on() -> None:
    """A process that a child of ours starts has another parent."""
    code = (
        "import os, sys; from taskd.cli import main, program; from taskd.program import PARENT_VARIABLE;"
        "program.run = lambda _: sys.exit(PARENT_VARIABLE in os.environ); main.main([])"
    )
    environment = {**os.environ, PARENT_VARIABLE: str(os.getpid())}
    assert subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode == 0
