"""The page at other places than its own root on loopback: below a prefix, and by TLS at the machine's address."""

from collections.abc import Callable, Iterator

import pytest

from browser.conftest import Site, open_site
from browser.tab import Tab
from e2e.house import house
from taskd.server.addresses import machine_addresses


@pytest.fixture(params=["prefix", "tls"])
def placed(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, browser: Callable[[str], Tab]
) -> Iterator[Site]:
    """A site that is not where it is by default."""
    at = next(address for address in machine_addresses() if ":" not in address and not address.startswith("127."))
    words = {"prefix": ("--url-prefix", "/ops/taskd/"), "tls": ("--http", f"{at}:0")}[request.param]
    with house(tmp_path_factory.mktemp("placed")) as home:
        yield open_site(home, browser, *words)


def test_it_is_all_there(placed: Site) -> None:
    """Files, login, links, live updates and changes; and back by the browser's own button."""
    tab = placed.tab
    tab.driver.get(tab.at)
    tab.driver.delete_all_cookies()  # of other servers here: a browser has one jar for all ports
    tab.driver.get(placed.home.ask("dashboard"))
    tab.see("Throughput", "admin")
    assert tab.at.endswith("/ops/taskd") or tab.at.startswith("https://")
    [cookie] = tab.driver.get_cookies()
    assert cookie["httpOnly"]
    assert cookie["sameSite"] == "Strict"
    assert cookie["secure"] == tab.at.startswith("https://") == cookie["name"].startswith("__Host-")
    tab.click("Tasks")
    tab.wait(lambda: tab.path == "/tasks")
    placed.ended(placed.submit("shop.echo", 1, queue="placed"))
    tab.see("shop.echo")
    tab.click("shop.echo")
    tab.see("Succeeded")
    tab.click("placed")
    tab.wait(lambda: tab.path == "/tasks?filter=queue%3Aplaced")
    tab.driver.back()
    tab.see("Succeeded")
    tab.open("/queues")
    placed.ask("POST", "/api/v1/queues/placed/pause", {})
    tab.see("paused")
    tab.click("Resume")
    tab.not_see("paused")
    assert tab.ran() == ([], [])
    assert tab.said_wrong() == []
