"""What a person does on every page, with a real server, real agents, and a real browser."""

import json
from collections.abc import Iterator
from typing import cast

import pytest

from browser.conftest import Site
from browser.tab import DESKTOP, PHONE, Keys, Tab

BIG = 2**63 + 1
ONCE = {"max_attempts": 1}


@pytest.fixture(autouse=True)
def quiet(site: Site) -> Iterator[None]:
    """Whatever a test does, the browser has nothing to complain of."""
    site.tab.said_wrong()
    yield
    assert site.tab.said_wrong() == []
    assert site.tab.ran() == ([], [])


@pytest.fixture(scope="module")
def workflow(site: Site) -> str:
    """A workflow of some nodes, one of which waits for a signal."""
    (site.home.work / "flow.py").write_text(
        "from shop import app, add, echo\n"
        "with app.workflow('nightly') as wf:\n"
        "    first = echo.node(1)\n"
        "    parts = [add.node(first, n) for n in range(4)]\n"
        "    total = add.node(*parts)\n"
        "    last = echo.node(total, after=wf.signal('approve'))\n"
        "print(wf.submit().id)\n"
    )
    return site.python("flow.py")


def test_the_overview_shows_what_happens_while_it_happens(site: Site) -> None:
    """Figures, charts, their tables, queues and agents; without a reload."""
    tab = site.tab
    tab.open("/")
    tab.see("Throughput", "Time in line", "Run time", "ash", "birch", "all live")
    for number in range(20):
        site.submit("shop.thumbnail", f"{number}.png", queue="images")
    tab.wait(lambda: figure(tab, "Running") == "0" and figure(tab, "Ready") == f"{site.waiting():,}")
    tab.wait(lambda: len(tab.find(".chart canvas")) == 5)
    tab.wait(lambda: tab.run(_COLOURS) > 100)
    tab.click("As a table", "summary")
    tab.wait(lambda: tab.find("details[open] tbody tr"))
    tab.click("1 h")
    tab.wait(lambda: tab.path == "/?range=1h")
    tab.see("Throughput")


_COLOURS = """
    const canvas = document.querySelector('.chart canvas');
    const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext('2d', {willReadFrequently: true});
    copy.drawImage(canvas, 0, 0);
    const { data } = copy.getImageData(0, 0, canvas.width, canvas.height);
    let coloured = 0;
    for (let at = 0; at < data.length; at += 4) {
      if (data[at + 3] > 200 && Math.abs(data[at] - data[at + 2]) > 60) coloured += 1;
    }
    return coloured;
"""


def figure(tab: Tab, name: str) -> str:
    return str(tab.run('return document.querySelector(`[data-figure="${arguments[0]}"]`)?.textContent', name))


def test_tasks_are_found_by_a_filter_that_is_the_address(site: Site) -> None:
    """Completed as it is written, kept over a reload, and saved under a name."""
    tab = site.tab
    task_id = site.submit("shop.send", "a@example.net", queue="mail", retry=ONCE)
    site.ended(task_id)
    tab.open("/tasks")
    tab.see("shop.send")
    tab.press("/")
    tab.press(*"sta", Keys.TAB, *"dea", Keys.TAB, Keys.ENTER)
    tab.wait(lambda: tab.path == "/tasks?filter=state%3Adead")
    tab.see("shop.send", "refused the connection")
    tab.not_see("shop.thumbnail")
    tab.driver.refresh()
    tab.see("shop.send")
    assert tab.fields("Filter tasks")[0].get_attribute("value") == "state:dead"
    tab.click("Save filter")
    tab.fill("Name", "all the dead", enter=True)
    tab.open("/tasks")
    tab.click("all the dead")
    tab.wait(lambda: tab.path == "/tasks?filter=state%3Adead")


def test_a_word_that_is_not_understood_is_pointed_at(site: Site) -> None:
    """And what was shown before is not taken for its answer."""
    tab = site.tab
    tab.open("/tasks?filter=state:dead%20quue:mail")
    tab.wait(lambda: [mark.text for mark in tab.find(".fault mark")] == ["quue:mail"])
    tab.see("queue")
    assert tab.find("tbody tr") == []
    tab.fill("Filter tasks", "queue:mail", enter=True)
    tab.see("shop.send")


def test_keys_move_through_the_list(site: Site) -> None:
    """As they do in Oban: down, select, open, away."""
    tab = site.tab
    for name in "ab":
        site.submit("shop.thumbnail", name, queue="keys")
    tab.open("/tasks?filter=queue:keys")
    tab.see("shop.thumbnail")
    tab.press("j", "j", "k", "x")
    tab.see("1 selected")
    tab.press(Keys.ENTER)
    tab.wait(lambda: "/tasks/0" in tab.path)
    tab.press("g", "q")
    tab.wait(lambda: tab.path == "/queues")
    tab.press("?")
    tab.see("Next, previous row")
    tab.press(Keys.ESCAPE)
    tab.not_see("Next, previous row")


def test_some_are_retried_and_all_that_fit_are_after_a_count(site: Site) -> None:
    """The dialog says how many it would be; what was cancelled in it is not done."""
    tab = site.tab
    ids = [site.submit("shop.send", f"{number}@example.net", queue="bulk", retry=ONCE) for number in range(3)]
    for task_id in ids:
        assert site.ended(task_id)["state"] == "dead"
    tab.open("/tasks?filter=queue:bulk%20state:dead")
    tab.wait(lambda: len(tab.find("tbody tr")) == 3)
    tab.click_first("tbody input[type=checkbox]")
    tab.see("1 selected")
    tab.click("Retry")
    tab.click("Retry 1")
    tab.wait(lambda: sorted(int(str(attempt(site, each))) for each in ids) == [1, 1, 2])
    assert [site.ended(each)["state"] for each in ids] == ["dead"] * 3  # the one that was tried again, too
    tab.click("Purge…")
    tab.see("Purge 3 tasks?")
    tab.click("Cancel")
    assert site.ask("GET", "/api/v1/tasks/count?filter=queue:bulk")["count"] == 3
    tab.click("Retry…")
    tab.click("Retry 3")
    tab.see("3 tasks changed")
    tab.wait(lambda: sorted(int(str(attempt(site, each))) for each in ids) == [2, 2, 3])


def attempt(site: Site, task_id: str) -> object:
    return site.ask("GET", f"/api/v1/tasks/{task_id}")["attempt"]


def test_a_page_of_many_goes_on(site: Site) -> None:
    """Older and newer, fifty at a time."""
    tab = site.tab
    site.ask(
        "POST",
        "/api/v1/tasks/batch",
        {"tasks": [{"name": "shop.echo", "args": [n], "queue": "many"} for n in range(120)]},
    )
    tab.open("/tasks?filter=queue:many")
    tab.wait(lambda: len(tab.find("tbody tr")) == 50)
    first = tab.first_link("tbody tr a")
    tab.click("Older")
    tab.wait(lambda: "cursor=" in tab.path and tab.find("tbody tr a")[0].get_attribute("href") != first)
    tab.click("Older")
    tab.wait(lambda: len(tab.find("tbody tr")) == 20)
    tab.click("Newest")
    tab.wait(lambda: tab.find("tbody tr a")[0].get_attribute("href") == first)


def test_a_task_tells_all_and_loses_no_digit(site: Site) -> None:
    """Arguments and result as text, its attempts, its trace; the buttons copy."""
    tab = site.tab
    task_id = site.submit("shop.echo", {"number": BIG, "word": "<b>bold</b>"})
    shown = site.ended(task_id)
    tab.open(f"/tasks/{task_id}")
    tab.see("Timeline", "Attempt 1", str(BIG), "<b>bold</b>", str(shown["trace_id"]), "Succeeded")
    tab.wait(lambda: tab.text.count(str(BIG)) == 2)
    tab.click("Copy the id")
    tab.see("Copied")


def test_where_there_is_no_page_a_link_leads_home(site: Site) -> None:
    """Also to who comes from outside, by an address that was mistyped."""
    tab = site.tab
    for path in ("/nope", "/nope/at/all", "/tasks//x/y"):
        tab.open(path)
        tab.see("There is no such page.")
    tab.click("To the overview")
    tab.see("Throughput")


@pytest.mark.parametrize("path", ["/tasks/nope", "/workflows/nope"])
def test_what_is_no_id_says_so_and_loses_no_connection(site: Site, path: str) -> None:
    """What comes next is live again."""
    tab = site.tab
    tab.open(path)
    tab.see("Try again", "Live")
    tab.click("Try again")
    assert "Connection lost" not in tab.text
    tab.click("Queues")
    tab.see("Live")
    tab.wait(lambda: tab.path == "/queues")


def test_what_failed_says_why_and_is_tried_again(site: Site) -> None:
    """With the traceback, of each attempt."""
    tab = site.tab
    task_id = site.submit("shop.send", "b@example.net", retry=ONCE)
    site.ended(task_id)
    tab.open(f"/tasks/{task_id}")
    tab.see("ConnectionError", "Traceback", "Dead: no attempt is left")
    tab.click("Retry")
    tab.see("Attempt 2", "Attempt 1")


def test_a_task_is_cancelled_while_it_runs(site: Site) -> None:
    """After a question; the page follows without a reload."""
    tab = site.tab
    task_id = site.submit("shop.nap", 300)
    tab.open(f"/tasks/{task_id}")
    tab.see("running")
    tab.click("Cancel")
    tab.see("Cancel this task?")
    tab.click("Cancel the task")
    tab.wait(lambda: [chip.text for chip in tab.find(".head .chip")] == ["cancelled"])


def test_what_a_task_says_is_read_while_it_says_it(site: Site) -> None:
    """Live, to its end; colours of terminals are left out, and all of it is there again after a reload."""
    tab = site.tab
    heard = site.home.work / "heard"
    task_id = site.submit("shop.talk", str(heard))
    tab.open(f"/tasks/{task_id}")
    tab.see("line 1 in red", "WARNING shop: line 1", "following")
    heard.touch()
    tab.see("line of the end", "emitted", "Succeeded")
    assert "\x1b" not in tab.text
    assert "[31m" not in tab.text
    tab.driver.refresh()
    tab.see("line 0 in red", "line of the end")
    tab.not_see("following")
    assert tab.text.count("line 1 in red") == 1


def test_what_is_to_run_later_runs_now(site: Site) -> None:
    """When somebody says so; the result is there without a reload."""
    tab = site.tab
    task_id = site.submit("shop.echo", "at last", delay_ms=3_600_000)
    tab.open(f"/tasks/{task_id}")
    tab.see("scheduled")
    tab.click("Run now")
    tab.see("Succeeded", "at last", "Its wait is over")


def test_what_waits_says_why(site: Site) -> None:
    """In the words of `taskd task explain`."""
    task_id = site.submit("elsewhere.task")
    site.tab.open(f"/tasks/{task_id}")
    site.tab.see("Why it is where it is", "No agent that is connected could ever run it.")


@pytest.mark.parametrize(
    "path", ["/tasks/01a2282d-b39c-7abd-aef1-72ee898dd09b", "/dead/00ff00ff", "/schedules/none", "/agents/none"]
)
def test_what_is_not_there_is_not_here(site: Site, path: str) -> None:
    """A page that says so, and a way on."""
    site.tab.open(path)
    site.tab.see("Not here")
    site.tab.click("Queues")
    site.tab.wait(lambda: site.tab.path == "/queues")


def test_a_workflow_is_drawn_and_goes_on_by_a_signal(site: Site, workflow: str) -> None:
    """The graph's nodes are links, reached by keyboard too."""
    tab = site.tab
    tab.open("/workflows")
    tab.click("nightly")
    tab.wait(lambda: tab.path == f"/workflows/{workflow}")
    tab.wait(lambda: len(tab.find(".dag a.node")) == 8)
    tab.wait(lambda: len(tab.find(".gantt rect")) >= 6)
    tab.click("Signal")
    tab.fill("Value", '"yes"', enter=True)
    tab.wait(lambda: [chip.text for chip in tab.find(".head .chip")] == ["succeeded"])
    node = tab.find(".dag a.node")[0]
    tab.run("arguments[0].focus()", node)
    tab.press(Keys.ENTER)
    tab.wait(lambda: tab.path.startswith("/tasks/"))


def test_a_large_workflow_is_drawn_by_groups(site: Site) -> None:
    """Above five hundred nodes those of one name are one; a group leads to its nodes."""
    tab = site.tab
    (site.home.work / "large.py").write_text(
        "from shop import app, add, echo\n"
        "with app.workflow('large') as wf:\n"
        "    first = echo.node(1, name='fetch')\n"
        "    parts = [add.node(first, n, name=f'part-{n}') for n in range(600)]\n"
        "    last = add.node(1, name='total', after=parts)\n"
        "print(wf.submit().id)\n"
    )
    tab.open(f"/workflows/{site.python('large.py')}")
    tab.see("602 nodes in 3 groups by name.")
    tab.wait(
        lambda: (
            [node.text.splitlines()[0].strip() for node in tab.find(".dag a.node")]
            == ["fetch", "part \N{MULTIPLICATION SIGN} 600", "total"]
        )
    )
    tab.find(".dag a.node")[1].click()
    tab.wait(lambda: tab.path.endswith("?node=part"))
    tab.see("Only part", "500 more nodes fit.")
    tab.wait(lambda: [chip.text for chip in tab.find(".head .chip")] == ["succeeded"], within_s=60)


def test_a_queue_is_paused_weighed_and_limited(site: Site) -> None:
    """And goes on."""
    tab = site.tab
    tab.open("/queues?queue=parked")
    site.ask("POST", "/api/v1/queues/parked/pause", {})
    tab.see("paused")
    task_id = site.submit("shop.echo", 1, queue="parked")
    tab.click("Weight")
    tab.fill("Tasks it is granted", "3", enter=True)
    tab.see("parked has weight 3")
    tab.click("Limit")
    tab.fill("At most running", "2", enter=True)
    tab.see("0 of 2 running")
    tab.click("Resume")
    assert site.ended(task_id)["state"] == "succeeded"
    tab.click("Pause")
    tab.see("paused")
    tab.click("Resume")
    tab.not_see("paused")


def test_an_agent_is_drained_and_works_again(site: Site) -> None:
    """Its own page shows what runs there."""
    tab = site.tab
    task_id = site.submit("shop.nap", 300)
    agent = tab.wait(lambda: site.ask("GET", f"/api/v1/tasks/{task_id}")["agent"])
    tab.open(f"/agents/{agent}")
    tab.see("Runs now", "shop.nap", "zone=a", "Memory")
    tab.click("Drain")
    tab.click("Drain")
    tab.see("draining")
    site.ask("POST", f"/api/v1/tasks/{task_id}/cancel", {})
    tab.see("drained")
    tab.open("/agents")
    tab.see("drained")
    tab.click("Resume")
    tab.not_see("drained")
    tab.wait(lambda: site.live() >= {"ash", "birch"})


def test_agents_lines_are_there_at_once(site: Site) -> None:
    """What the server has kept, before this tab has seen anything."""
    tab = site.tab
    tab.wait(lambda: len(cast("list[int]", site.ask("GET", "/api/v1/overview/agents")["at_ms"])) >= 2, within_s=40)
    for path, lines in (("/agents", "td svg.spark"), ("/agents/ash", ".tile svg.spark")):
        tab.open(path)
        tab.see("ash", "Live")
        tab.driver.refresh()
        tab.wait(lambda: tab.find("#main h1"))
        assert len(tab.find(lines)) >= 3, path


def test_a_schedule_tells_its_times_and_runs_now(site: Site) -> None:
    """In words; who defines it is said."""
    tab = site.tab
    tab.open("/schedules")
    tab.see("shop.report", "Monday to Friday at 06:30")
    tab.click("shop.report")
    tab.wait(lambda: len(tab.find(".timeline li")) == 5)
    tab.see("defined in code by", "shop")
    tab.click("Run now")
    tab.see("triggered", "succeeded")
    tab.click("Pause")
    tab.see("It is paused.")
    tab.click("Resume")
    tab.wait(lambda: len(tab.find(".timeline li")) == 5)


def test_the_dead_are_grouped_and_tried_again(site: Site) -> None:
    """By what they died of."""
    tab = site.tab
    site.ended(site.submit("shop.send", "c@example.net", retry=ONCE))
    tab.wait(
        lambda: site.count("name:shop.send state:dead") == site.count("name:shop.send"), "what was tried again ends"
    )
    tab.open("/dead")
    tab.see("builtins.ConnectionError", "smtp.example.net refused the connection")
    tab.click("builtins.ConnectionError")
    tab.see("The newest", "shop.send")
    before = site.count("name:shop.send")
    tab.click("Retry all…")
    tab.see(f"Retry {before} tasks?")
    tab.click(f"Retry {before}")
    tab.see(f"{before} tasks changed")


def test_colours_follow_the_reader(site: Site) -> None:
    """The system's, until something else is chosen; that stays."""
    tab = site.tab
    tab.open("/")
    tab.see("Overview")
    light = tab.run("return getComputedStyle(document.body).backgroundColor")
    tab.click("dark colours")
    dark = tab.run("return getComputedStyle(document.body).backgroundColor")
    assert dark != light
    tab.driver.refresh()
    tab.see("Overview")
    assert tab.run("return getComputedStyle(document.body).backgroundColor") == dark
    tab.click("light colours")


def test_updates_are_paused_and_go_on(site: Site) -> None:
    """While they are, nothing is asked for."""
    tab = site.tab
    tab.open("/tasks?filter=queue:quiet")
    tab.see("fits.", "Live")
    tab.press("p")
    tab.see("Live updates are paused.")
    paused_ms = tab.run("return performance.now()")
    site.ended(site.submit("shop.echo", 1, queue="quiet"))
    tab.wait(lambda: tab.run("return performance.now()") > paused_ms + 2_000)
    since = "return performance.getEntriesByType('resource').filter((each) => each.startTime > arguments[0]).length"
    assert tab.run(since, paused_ms) == 0
    tab.see("fits.")
    tab.click("Go on")
    tab.see("shop.echo")


def paths(site: Site, workflow: str) -> dict[str, str]:
    dead = site.ask("GET", "/api/v1/dead")["groups"]
    tasks = site.ask("GET", "/api/v1/tasks?limit=1&filter=name:shop.send")["tasks"]
    done = site.submit("shop.echo", 1)
    site.ended(done)
    assert isinstance(dead, list)
    assert isinstance(tasks, list)
    return {
        **{name: f"/{name}" for name in ("tasks", "workflows", "queues", "agents", "schedules", "dead", "login")},
        "overview": "/",
        "refused": "/tasks?filter=quue:x",
        "task": f"/tasks/{tasks[0]['id']}",
        "succeeded": f"/tasks/{done}",
        "workflow": f"/workflows/{workflow}",
        "agent": "/agents/ash",
        "schedule": "/schedules/shop.report",
        "group": f"/dead/{dead[0]['group']}",
        "gone": "/tasks/none",
    }


def test_a_chart_shows_a_value_that_has_no_neighbour(site: Site) -> None:
    """One value, to which no line leads, is a dot: all that is known of a day that has just begun."""
    tab = site.tab
    tab.open("/")
    tab.see("Throughput")
    tab.run("""
        const main = [...document.querySelectorAll('script[type=module]')].find((each) => each.src.includes('main'));
        import(new URL('charts.js', main.src).href).then(({ Chart }) => {
          const chart = window.__chart = new Chart('one', ['only']);
          document.body.append(chart.box);
          chart.set([{ at_ms: Date.now(), span_ms: 300000 }], () => [1]);
        });
    """)
    drawn = """
        const canvas = window.__chart.box.querySelector('canvas');
        const pixels = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
        let coloured = 0;
        for (let at = 0; at < pixels.length; at += 4) {
          const [red, green, blue, opaque] = pixels.slice(at, at + 4);
          coloured += opaque > 200 && Math.max(red, green, blue) - Math.min(red, green, blue) > 80;
        }
        return coloured;
    """
    tab.wait(lambda: tab.run(drawn) > 4, "a dot")
    tab.run("window.__chart.close()")


_HIDDEN = """
    const around = [...document.querySelectorAll('.scroll > table')].map((table) => table.parentNode);
    return around.map((each) => each.scrollWidth - each.clientWidth);
"""


def test_long_names_stay_in_their_place(site: Site) -> None:
    """Of tasks, queues and errors, on a phone as on a desk: nothing makes a page wider than its screen."""
    tab, queue = site.tab, "queue" * 40
    task_id = site.submit("a." + "long" * 50, "word", queue=queue, retry=ONCE)
    assert site.ended(task_id)["state"] == "dead"
    site.submit("elsewhere.x", queue=queue)
    for path in (f"/tasks/{task_id}", "/tasks", "/queues", "/dead", "/"):
        for size in (PHONE, DESKTOP):
            tab.size(size)
            tab.open(path)
            tab.wait(lambda: tab.find("#main h1") and not tab.find(".skeleton"))
            tab.wait(lambda: not any([tab.overflow(), *tab.run(_HIDDEN)]), f"{path} to fit {size}")


def test_every_page_can_be_used_by_everybody(site: Site, workflow: str) -> None:
    """Axe finds nothing serious, in either colours; at the width of a phone nothing is cut off."""
    tab = site.tab
    site.ended(site.submit("shop.send", "d@example.net", retry=ONCE))
    found: dict[str, object] = {}
    for name, path in paths(site, workflow).items():
        tab.open(path)
        tab.wait(lambda: not tab.find(".skeleton") and tab.find("h1, .empty"))
        for colours in ("light", "dark"):
            tab.run("document.documentElement.dataset.theme = arguments[0]", colours)
            found[f"{name}, {colours}"] = tab.violations()
        tab.size(PHONE)
        found[f"{name}, on a phone"] = [tab.overflow(), *tab.violations()]
        tab.size(DESKTOP)
    assert {name: what for name, what in found.items() if what not in ([], [0])} == {}


def test_nothing_is_left_to_be_written(site: Site) -> None:
    """The page keeps its choices, and no token, in the browser."""
    kept = json.dumps(site.tab.run("return {...localStorage, ...sessionStorage}"))
    assert "taskd_" not in kept
    assert site.tab.run("return document.cookie") == ""
