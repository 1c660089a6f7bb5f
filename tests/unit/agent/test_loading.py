"""What an agent says when a module that it is to load is none."""

from pathlib import Path

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


def test_what_a_module_says_of_schedules_is_found_and_what_cannot_be_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "night_shop.py").write_text("""
from taskd import App, Every

app = App()

@app.task(schedule=Every(60))
def sweep(): ...

@app.scheduled(Every(3600))
def nightly():
    with app.workflow("nightly") as wf:
        sweep.node()
    return wf
""")
    (tmp_path / "bare_shop.py").write_text("from night_shop import app")
    (tmp_path / "broken_shop.py").write_text("""
from taskd import App, Every

app = App()

@app.scheduled(Every(3600))
def nightly(place):
    return app.workflow("nightly")
""")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    loaded = load(["bare_shop"])
    assert loaded.error == ""
    assert {source: [each.name for each in found] for source, found in loaded.schedules.items()} == {
        "bare_shop": [],
        "night_shop": ["night_shop.sweep", "nightly"],
    }, "one that is named and defines none is told, so that what it defined before is found"
    refused = load(["broken_shop"]).error
    assert refused.startswith("module 'broken_shop' says of schedules what cannot be: TypeError: nightly() missing 1")
