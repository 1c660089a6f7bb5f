"""What an agent says when a module that it is to load is none."""

import pytest

from taskd.agent.worker.loading import load


@pytest.mark.parametrize(
    ("name", "meant"),
    [("nothere.py", "nothere"), ("./nothere", "nothere"), ("app/jobs.py", "app.jobs"), ("nothere:app", "nothere")],
)
def test_a_file_in_a_modules_place_is_told_how_to_write_it(name: str, meant: str) -> None:
    assert load([name]).error == f"{name!r} is no name of a module: write it as an import does, such as {meant}"


def test_a_module_that_is_not_there_is_named() -> None:
    loaded = load(["nothere"])
    assert loaded.error == "module 'nothere' failed to import: ModuleNotFoundError: No module named 'nothere'"
