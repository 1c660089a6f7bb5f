import os
import subprocess
import sys
from pathlib import Path

import pytest

from unit.cli.fake_client import Taskd


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_gets_a_script_of_its_own(shell: str, taskd: Taskd) -> None:
    ended = taskd("completion", shell)
    assert ended.code == 0
    assert f"{shell}_complete" in ended.out


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("taskd que", ["queue"]),
        ("taskd task ", ["cancel", "explain", "jobs", "logs", "ls", "retry", "run-now", "show", "wait"]),
        ("taskd workflow re", ["rerun", "resume"]),
        ("taskd workflow graph --format s", ["svg"]),
        ("taskd token create --role v", ["viewer"]),
        ("taskd task ls --state d", ["dead"]),
    ],
)
def test_bash_completes(line: str, expected: list[str], tmp_path: Path) -> None:
    """In a real bash, from the script that `taskd completion bash` prints."""
    program = tmp_path / "taskd"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m taskd "$@"\n')
    program.chmod(0o755)
    words = line.split(" ")
    array = " ".join(f'"{word}"' for word in words)
    script = f"""
        eval "$(taskd completion bash)"
        COMP_WORDS=({array}) COMP_CWORD={len(words) - 1}
        _taskd_completion taskd
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    ended = subprocess.run(
        ["bash", "--norc", "-c", script], env=environment, capture_output=True, text=True, check=True
    )
    assert ended.stdout.split() == expected
