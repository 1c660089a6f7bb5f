"""What the end-to-end tests run is what pip installed: the checkout if editable, else the wheel."""

import json
import sysconfig
from importlib.metadata import distribution, entry_points
from pathlib import Path
from urllib.parse import urlsplit

import taskd
import taskd_protocol


def test_the_packages_under_test_are_the_installed_ones() -> None:
    """A wheel's tests never fall back on the checkout that they lie in."""
    origin = json.loads(distribution("taskd").read_text("direct_url.json") or "{}")
    if origin.get("dir_info", {}).get("editable"):
        home = Path(urlsplit(origin["url"]).path)
    else:
        home = Path(sysconfig.get_path("platlib"))
    for package in (taskd, taskd_protocol):
        assert Path(package.__file__ or "").is_relative_to(home)


def test_version_of_the_package_is_that_of_the_distribution() -> None:
    """`taskd.__version__` and what pip shows are one number."""
    assert taskd.__version__ == distribution("taskd").version


def test_pytest_finds_the_plugin() -> None:
    """The distribution names it, so that a user's tests have the fixture without a word."""
    (found,) = entry_points(group="pytest11", name="taskd")
    assert found.value == "taskd.testing.plugin"
