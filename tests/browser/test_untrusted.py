"""Text that would run if it were taken for markup, in every field that users fill; and what another site may try."""

import json
from functools import partial
from urllib.parse import quote

import pytest

from browser.conftest import Site
from browser.corpus import CORPUS
from browser.tab import Tab
from e2e.house import wait_until

NAMES = [text.replace("\t", " ")[:200] for text in CORPUS]
MODULE = """
from taskd import App, Cron, Retry, current
import logging

app = App()

@app.task(name="<img src=x onerror=alert(1)>", queue="hostile")
def echo(value):
    return value

@app.task(name="<svg onload=alert(1)>", queue="hostile", retry=Retry(max_attempts=1))
def fail(text):
    for line in text.splitlines():
        print(line)
        logging.getLogger(line[:60]).warning(line)
    raise type(text[:100], (Exception,), {})(text)

for number, text in enumerate(CORPUS[:30]):
    app.schedule(text, Cron("0 0 1 1 *"), echo, [text])
"""


_POINT_AT_ALL = """
    const over = () => new MouseEvent('mouseover', {bubbles: true});
    for (const each of document.querySelectorAll('#main *')) each.dispatchEvent(over());
"""
_CHANGE = """
    const [path, done] = arguments;
    fetch(path, {method: 'POST', headers: {'content-type': 'application/json'}, body: '{}'}).then(async (answer) =>
      done([answer.status, (await answer.json()).error.code]));
"""
_PRESS_ALL = """
    const [at, id, done] = arguments;
    (async () => {
      const { csrf } = await (await fetch(at + '/session')).json();
      const headers = {'content-type': 'application/json', 'x-csrf-token': csrf};
      const orders = ['queues/looked-at/pause', 'agents/ash/drain', 'schedules/shop.report/trigger', 'tokens'];
      const answers = [];
      for (const path of [`tasks/${id}/cancel`, ...orders]) {
        const body = path === 'tokens' ? '{"role": "admin"}' : '{}';
        answers.push((await fetch(`${at}/api/v1/${path}`, {method: 'POST', headers, body})).status);
      }
      done(answers);
    })();
"""


@pytest.fixture(scope="module")
def filled(site: Site) -> Site:
    """A site where every text of the corpus stands wherever one can be put."""
    home = site.home
    (home.work / "hostile.py").write_text(f"CORPUS = {NAMES!r}\n{MODULE}")
    home.start("agent", "hostile", "--name", NAMES[4], "--processes", "1", "--label", f"zone={NAMES[4]}")
    wait_until(lambda: NAMES[4] in home.agents())
    tasks = [{"name": text, "queue": text, "args": [text], "kwargs": {text: text}, "key": text} for text in NAMES]
    site.ask("POST", "/api/v1/tasks/batch", {"tasks": tasks[:100]})
    site.ask("POST", "/api/v1/tasks/batch", {"tasks": tasks[100:]})
    for text in NAMES[:40]:
        site.ask("POST", "/api/v1/tokens", {"role": "viewer", "label": text})
    (home.work / "flow.py").write_text(
        f"from hostile import app, echo\nCORPUS = {NAMES!r}\n"
        "with app.workflow(CORPUS[4]) as wf:\n"
        "    for text in CORPUS[:60]:\n"
        "        echo.node(text, name=text)\n"
        "    last = echo.node(1, after=wf.signal(CORPUS[8]))\n"
        "print(wf.submit().id)\n"
    )
    return site


def is_past(tab: Tab, link: str) -> bool:
    """Whether the list begins with another task now."""
    return tab.first_link("tbody td.first a") != link


def whole(tab: Tab, path: str, *words: str) -> None:
    """Open a page, have it drawn whole, and look for what must not have happened."""
    tab.open(path)
    tab.wait(lambda: not tab.find(".skeleton") and tab.find("h1, .empty"))
    tab.see(*words)
    tab.run("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    tab.run(_POINT_AT_ALL)
    assert tab.ran() == ([], []), path
    assert tab.find("#main script, #main iframe, #main object, #main embed, #main [onerror], #main [onload]") == [], (
        path
    )
    assert [
        link for link in tab.run("return [...document.links].map((a) => a.protocol)") if link not in {"http:", "https:"}
    ] == [], path


def test_no_text_runs_anywhere(filled: Site) -> None:
    """Names of tasks, queues, agents, labels, keys, schedules, workflows, nodes; arguments, results, errors, output."""
    site, tab = filled, filled.tab
    result = site.submit("<img src=x onerror=alert(1)>", list(NAMES), queue="hostile")
    failed = site.submit("<svg onload=alert(1)>", "\n".join(NAMES), queue="hostile", retry={"max_attempts": 1})
    assert site.ended(result)["state"] == "succeeded"
    assert site.ended(failed)["state"] == "dead"
    flow = site.python("flow.py")
    whole(tab, "/")
    names: set[str] = set()
    whole(tab, f"/tasks?filter={quote('since:1h')}")
    while not names.issuperset(NAMES):
        names.update(tab.run("return [...document.querySelectorAll('tbody td.first a')].map((a) => a.title)"))
        assert tab.ran() == ([], [])
        if not names.issuperset(NAMES):
            oldest = tab.first_link("tbody td.first a")
            tab.click("Older")
            tab.wait(partial(is_past, tab, oldest))
    whole(tab, "/queues", NAMES[0][:30])
    assert len(tab.find("tbody tr")) >= len(NAMES) - 2  # two names are those of tasks that an agent has: they ran
    whole(tab, f"/tasks/{result}", *(text for text in NAMES if '"' not in text and "\\" not in text))
    whole(tab, f"/tasks/{failed}", NAMES[0], NAMES[-1][:60])
    waiting = site.ask("GET", "/api/v1/tasks?filter=state:ready&limit=3")["tasks"]
    assert isinstance(waiting, list)
    for task in waiting:
        whole(tab, f"/tasks/{task['id']}", str(task["name"]))
    whole(tab, "/agents", NAMES[4])
    tab.click(NAMES[4])
    tab.see("Runs now", "zone=")
    assert tab.ran() == ([], [])
    whole(tab, "/schedules")
    assert len(tab.find("tbody tr")) >= 30
    tab.click(tab.find("tbody td.first a")[0].text)
    tab.see("Next firings")
    assert tab.ran() == ([], [])
    whole(tab, "/workflows", NAMES[4])
    whole(tab, f"/workflows/{flow}", NAMES[4])
    tab.wait(lambda: len(tab.find(".dag a.node")) >= 60)
    tab.wait(lambda: len(tab.find(".gantt rect")) >= 30)
    assert tab.ran() == ([], [])
    whole(tab, "/dead", NAMES[0][:30])
    tab.click_first("tbody td.first a")
    tab.see("The newest")
    assert tab.ran() == ([], [])
    assert tab.said_wrong() == []


@pytest.mark.parametrize("text", CORPUS[::10])
def test_no_address_runs(filled: Site, text: str) -> None:
    """What stands in a link somebody else sent is shown, or refused, as text."""
    tab, said = filled.tab, quote(text, safe="")
    for path in (f"/tasks?filter={said}", f"/queues?queue={said}", f"/workflows?name={said}", f"/agents/{said}"):
        tab.open(path)
        tab.wait(lambda: not tab.find(".skeleton") and tab.find("#main > *"))
        assert tab.ran() == ([], []), path
    tab.said_wrong()


def test_a_foreign_name_is_refused(site: Site) -> None:
    """As after a rebound DNS name; the page says no more than that."""
    site.tab.driver.get(site.at.replace("127.0.0.1", "attacker.localhost"))
    site.tab.see("does not go by that name")
    assert not site.tab.find("#app")


def test_another_sites_page_changes_nothing(site: Site) -> None:
    """With the cookie that the browser has: neither a form nor a script of it gets through."""
    tab = site.tab
    site.log_in("operator")
    tab.driver.get("data:text/html,<title>elsewhere</title>")
    tab.run(
        "const form = document.createElement('form'); form.method = 'POST'; form.action = arguments[0];"
        "document.body.append(form); form.submit();",
        f"{site.at}/api/v1/queues/attacked/pause",
    )
    tab.see("another site")
    queues = site.ask("GET", "/api/v1/queues")["queues"]
    assert "attacked" not in json.dumps(queues)


def test_a_change_without_the_pages_token_is_refused(site: Site) -> None:
    """Also from our own origin: who can have a request sent does not know it."""
    tab = site.tab
    site.log_in("operator")
    status = tab.driver.execute_async_script(_CHANGE, f"{site.at}/api/v1/queues/attacked/pause")
    assert status == [403, "http.csrf"]


def test_who_may_only_look_is_shown_so_and_refused(site: Site) -> None:
    """The buttons are off, and the server refuses whoever presses them all the same."""
    tab = site.tab
    task_id = site.submit("shop.echo", 1, queue="looked-at", delay_ms=3_600_000)
    site.log_in("viewer")
    tab.open(f"/tasks/{task_id}")
    tab.see("scheduled")
    [cancel] = tab.named("button", "Cancel")
    assert cancel.get_attribute("disabled")
    tab.open("/tasks")
    tab.see("shop.echo")
    assert tab.find("input[type=checkbox]") == []
    told = tab.driver.execute_async_script(_PRESS_ALL, site.at, task_id)
    assert told == [403] * 5
    assert site.ask("GET", f"/api/v1/tasks/{task_id}")["state"] == "scheduled"
    site.log_in()


def test_a_login_link_works_once(site: Site) -> None:
    """And its code is in the address no longer than the page takes to read it."""
    tab = site.tab
    link = site.link("operator")
    tab.driver.delete_all_cookies()
    tab.open("/queues")
    tab.see("Log in", "Token")
    tab.follow(link)
    tab.see("Overview", "operator")
    assert "#" not in tab.driver.current_url
    tab.driver.delete_all_cookies()
    tab.follow(link)
    tab.see("Log in", "Token")
    assert "#" not in tab.driver.current_url


def test_a_token_is_asked_for_and_a_wrong_one_refused(site: Site) -> None:
    """By hand, as where there is no link."""
    tab = site.tab
    tab.driver.delete_all_cookies()
    tab.open("/agents")
    tab.fill("Token", "nonsense", enter=True)
    tab.see("the token is unknown")
    tab.fill("Token", site.home.profile()["token"], enter=True)
    tab.see("ash", "birch")
    tab.click("Log out")
    tab.see("Log in")
    tab.driver.refresh()
    tab.see("Log in")
    site.log_in()
