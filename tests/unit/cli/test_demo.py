import sys
import textwrap
from pathlib import Path, PurePath

import pytest

from taskd.cli.demo import story
from taskd.cli.demo.measure import Measured, measure
from taskd.cli.demo.report import make_report, module_name, source_files
from taskd_protocol.payload import pack, unpack
from unit.cli.fake_client import Taskd


def measured(tmp_path: Path, source: str) -> Measured:
    path = tmp_path / "module.py"
    path.write_text(textwrap.dedent(source))
    return measure(str(path))


def test_a_file_is_measured(tmp_path: Path) -> None:
    """Branches belong to the innermost function around them."""
    found = measured(
        tmp_path,
        """\
        import os, sys
        from . import sibling
        from ..far import thing

        class Thing:
            def first(self, x):
                if x and x > 1 or x < 0:
                    return [y for y in x]

                async def inner():
                    while True:
                        assert x
                return inner

        VALUE = 1 if os else 2
        """,
    )
    assert (found["lines"], found["functions"], found["classes"]) == (15, 2, 1)
    assert found["branches"] == 7
    assert found["imports"] == [".", "..far", "os", "sys"]
    assert found["longest"] == {"name": "first", "line": 6, "lines": 8, "branches": 4}
    assert found["most_branched"] == found["longest"]
    assert "unreadable" not in found


@pytest.mark.parametrize(("source", "lines"), [("", 0), ("\n", 1), ("x = 1", 1), ("x = 1\ny = 2\n", 2)])
def test_lines_are_counted_as_editors_do(source: str, lines: int, tmp_path: Path) -> None:
    found = measured(tmp_path, source)
    assert found["lines"] == lines
    assert found["longest"] is None


@pytest.mark.parametrize("source", [b"print 'two'\n", b"# coding: nosuch\n", b"x = '\xff'\n", b"\x00"])
def test_what_is_no_python_is_told_and_counted(source: bytes, tmp_path: Path) -> None:
    """A library has such files on purpose; they are no failure."""
    path = tmp_path / "bad.py"
    path.write_bytes(source)
    found = measure(str(path))
    assert found["unreadable"]
    assert found["functions"] == 0


def test_a_measure_travels(tmp_path: Path) -> None:
    found = measured(tmp_path, "def f(): pass\n")
    assert unpack(pack(found)) == found


def test_every_kind_of_branch_is_one(tmp_path: Path) -> None:
    """The table names nodes that there are, and each counts."""
    found = measured(
        tmp_path,
        """\
        async def f(x):
            async for _ in x: pass
            for _ in x: pass
            try: pass
            except E: pass
            match x:
                case 1: pass
        """,
    )
    assert found["branches"] == 4


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/lib/json/__init__.py", "json"),
        ("/lib/json/decoder.py", "json.decoder"),
        ("/lib/os.py", "os"),
        ("/lib/__init__.py", "__init__"),
    ],
)
def test_modules_are_named_as_they_are_imported(path: str, name: str) -> None:
    assert module_name(PurePath("/lib"), path) == name


def test_what_others_installed_is_left_out(tmp_path: Path) -> None:
    for name in ["b.py", "a/c.py", "a/c.txt", "site-packages/x.py", "a/__pycache__/c.py"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert source_files(tmp_path) == [tmp_path / "a/c.py", tmp_path / "b.py"]


def test_the_report_ranks(tmp_path: Path) -> None:
    """Largest, most tangled and most imported modules are on top; tests are counted and not ranked."""
    many = "\n".join(f"def f{n}(x):\n    return x if x else {n}" for n in range(10))
    sources = {
        "hub.py": "x = 1\n" * 50,
        "tangle.py": f"import hub\n{many}",
        "pkg/__init__.py": "from . import inner\n",
        "pkg/inner.py": "from .. import hub\nfrom . import other\nimport hub\n",
        "test/test_hub.py": "import hub\n" * 100,
        "broken.py": "def\n",
    }
    for name, source in sources.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(source)
    report = make_report(tmp_path, [measure(str(path)) for path in source_files(tmp_path)])
    largest, tangled, longest, hubs = report.tables
    assert largest.rows[0] == ("hub", "50", "0", "0")
    assert tangled.rows == [("tangle", "1.0", "f0: 1")]
    assert longest.rows[0][0].startswith("tangle:")
    assert hubs.rows[0] == ("hub", "2", "0")
    assert "6 files" in report.totals[0]
    assert "1 of its tests" in report.totals[0]
    assert "broken" in report.totals[2]


def test_the_library_of_an_interpreter_is_found() -> None:
    assert (story.library_of(sys.executable) / "os.py").is_file()


def test_an_interpreter_that_is_none(taskd: Taskd) -> None:
    ended = taskd("demo", "--python", "/nosuch/python")
    assert ended.code == 2
    assert "/nosuch/python" in ended.complaint


def test_a_folder_without_python(taskd: Taskd, tmp_path: Path) -> None:
    ended = taskd("demo", "--directory", str(tmp_path))
    assert ended.code == 2
    assert "no Python files" in ended.complaint
