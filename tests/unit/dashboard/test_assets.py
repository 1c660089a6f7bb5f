"""The page's files: few, light, whole, and nothing in them that the policy forbids or that reads text as markup."""

import hashlib
import re
from pathlib import Path

import pytest

import taskd_dashboard
from taskd_dashboard.assets import load_assets

STATIC = Path(taskd_dashboard.__file__).with_name("static")
OURS = sorted(
    path for path in STATIC.rglob("*") if path.suffix in {".js", ".css", ".html"} and "vendor" not in path.parts
)
WEIGHT_BYTES_MAX = 250_000
"""Of all that is served, uncompressed."""


def test_the_page_is_light() -> None:
    """All files together, also those that only some pages load."""
    assets = load_assets()
    weight = len(assets.document) + sum(len(asset.content) for asset in assets.by_path.values())
    assert weight <= WEIGHT_BYTES_MAX, f"{weight:,} bytes"


def test_a_files_path_changes_with_any_file() -> None:
    """So that a browser may keep what lies under it for ever."""
    assets = load_assets()
    assert re.fullmatch("[0-9a-f]{16}", assets.digest)
    assert f"/below/static/{assets.digest}/js/main.js".encode() in assets.document_at("/below").content
    assert b"{static}" not in assets.document_at("").content


@pytest.mark.parametrize("path", OURS, ids=lambda path: str(path.relative_to(STATIC)))
def test_no_file_reads_text_as_markup_or_runs_it(path: Path) -> None:
    """Nor asks for anything from elsewhere, nor has a style where the policy does not let it."""
    text = path.read_text()
    forbidden = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|javascript:|srcdoc"
    assert not re.findall(forbidden, text)
    assert not re.findall(r"""setAttribute\(\s*["']style|\sstyle="|\son\w+="|<style|@import""", text)
    assert {word for word in re.findall(r"https?://[^\s\"'`)]+", text) if "w3.org" not in word} == set()


def test_every_module_that_is_asked_for_is_there() -> None:
    """There is no build step that would tell."""
    for path in OURS:
        for asked in re.findall(r"""(?:from|import)\s+"(\.[^"]+)";""", path.read_text()):
            assert (path.parent / asked).resolve().is_file(), f"{path.name} asks for {asked}"


def test_files_are_sent_line_by_line() -> None:
    """Lighter than they are written, with each line where it was; so no text in them may go over lines."""
    for path in OURS:
        if path.suffix != ".html":
            text, sent = path.read_text(), load_assets().by_path[str(path.relative_to(STATIC))].content.decode()
            assert text.count("\n") == sent.count("\n")
            assert all(line.count("`") % 2 == 0 for line in text.splitlines()), path.name
            for line, kept in zip(text.splitlines(), sent.splitlines(), strict=True):
                same = kept == line.lstrip() if path.suffix == ".js" else "".join(kept.split()) == "".join(line.split())
                assert same or (kept == "" and line.lstrip().startswith(("//", "/*"))), line


def test_what_is_others_is_as_they_made_it() -> None:
    """Each file with its version, its licence, and the digest of what its makers published."""
    told = (STATIC / "vendor/README.md").read_text()
    rows = re.findall(r"^\| `([\w.]+)` \| \S+ [\d.]+ \| \w+ \| `(\w{64})` \|$", told, re.MULTILINE)
    here = {path.name for path in (STATIC / "vendor").iterdir()} - {"README.md", "uPlot.LICENSE", "dagre.LICENSE"}
    assert {name for name, _ in rows} == here
    for name, digest in rows:
        assert hashlib.sha256((STATIC / "vendor" / name).read_bytes()).hexdigest() == digest, name
