"""A tab of the distribution's Chromium, and what a person does in it: reads, clicks, types."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, TypeVar, cast

from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException, WebDriverException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement

from e2e.house import wait_until

T = TypeVar("T")

CHROMIUM: Final = "/usr/bin/chromium"
DRIVER: Final = "/usr/bin/chromedriver"
AXE: Final = Path(__file__).with_name("axe") / "axe.min.js"
PATIENCE_S: Final = 15.0

DESKTOP: Final = (1360, 900)
PHONE: Final = (375, 812)

_WATCH: Final = """
    window.__run = [];
    window.__csp = [];
    window.alert = window.prompt = window.confirm = (said) => { window.__run.push(String(said)); };
    const note = (e) => window.__csp.push(`${e.violatedDirective} ${e.blockedURI}`);
    document.addEventListener('securitypolicyviolation', note);
    window.__drawn = 0;
    const drawn = new MutationObserver(() => {
      if (!document.querySelector('#main h1, form h1') || document.querySelector('#main .skeleton')) return;
      drawn.disconnect();
      requestAnimationFrame(() => setTimeout(() => { window.__drawn = performance.now(); }));
    });
    drawn.observe(document, {subtree: true, childList: true});
"""
"""Before anything of a page: what runs though it is text calls ``alert``, what the policy stops is told, and when the
page first shows what it is about."""

_NAMED: Final = """
    const [selector, name] = arguments;
    const said = (e) => (e.getAttribute('aria-label') || e.textContent).replace(/\\s+/g, ' ').trim();
    const shown = (e) => e.getClientRects().length > 0;
    const top = [...document.querySelectorAll('dialog[open]')].pop() || document;
    return [...top.querySelectorAll(selector)].filter((e) => shown(e) && said(e) === name);
"""


_AXE: Final = """
    const done = arguments[0];
    window.axe.run(document, {resultTypes: ['violations']}).then((told) => {
      const serious = told.violations.filter((v) => ['serious', 'critical'].includes(v.impact));
      const where = (node) => `${node.target} ${node.failureSummary}`;
      done(serious.map((v) => `${v.id}: ${v.nodes.slice(0, 3).map(where).join(' | ')}`));
    });
"""


class Tab:
    """One tab.

    Attributes:
        driver: Selenium's.
        at: Where the server's pages begin.
    """

    def __init__(self, driver: webdriver.Chrome, at: str) -> None:
        self.driver = driver
        self.at = at

    # -- going, reading -----------------------------------------------------------------------

    def open(self, path: str) -> None:
        """Load a page anew."""
        self.driver.get(self.at + path)

    def follow(self, link: str) -> None:
        """Load a link that differs from what is open by its last part alone, too: that alone would load nothing."""
        self.driver.get("about:blank")
        self.open(link)

    @property
    def path(self) -> str:
        """What the address says, below the server."""
        return self.driver.current_url.removeprefix(self.at)

    @property
    def text(self) -> str:
        """All that is to be read."""
        return str(self.run("return document.body.innerText"))

    def see(self, *words: str, within_s: float = PATIENCE_S) -> None:
        """Wait until all of this is to be read."""
        self.wait(lambda: all(word in self.text for word in words), f"{words} to be read", within_s)

    def not_see(self, *words: str, within_s: float = PATIENCE_S) -> None:
        """Wait until none of this is to be read."""
        self.wait(lambda: not any(word in self.text for word in words), f"none of {words}", within_s)

    def wait(self, condition: Callable[[], T], what: str = "", within_s: float = PATIENCE_S) -> T:
        """Return what the condition returns once that is true."""

        def met() -> T | None:
            try:
                return condition()
            except (StaleElementReferenceException, WebDriverException, IndexError):
                return None  # it is not there yet, or was drawn anew meanwhile

        try:
            return cast("T", wait_until(met, within_s))
        except AssertionError:
            msg = f"not within {within_s} s: {what}; at {self.path}; {self.said_wrong()}; {self.text[:2000]}"
            raise AssertionError(msg) from None

    def run(self, script: str, *arguments: object) -> Any:  # type: ignore[explicit-any]  # noqa: ANN401 - a script says what it returns
        """Run a script as the developer's console would."""
        return self.driver.execute_script(script, *arguments)

    # -- doing --------------------------------------------------------------------------------

    def named(self, selector: str, name: str) -> list[WebElement]:
        """Return what is shown of this kind under this name; in the dialog, if one is open."""
        return cast("list[WebElement]", self.run(_NAMED, selector, name))

    def click(self, name: str, selector: str = "button, a, summary") -> None:
        """Click on what has this name."""

        def clicked() -> bool:
            found = self.named(selector, name)
            if not found or found[0].get_attribute("disabled"):
                return False
            self.run("arguments[0].scrollIntoView({block: 'center'})", found[0])
            found[0].click()
            return True

        self.wait(clicked, f"{name!r} to click on")

    def first_link(self, css: str) -> str:
        """Return where the first of what a selector finds leads, once there is one."""
        return self.wait(lambda: self.find(css)[0].get_attribute("href") or "", f"{css} to be there")

    def click_first(self, css: str) -> None:
        """Click on the first of what a selector finds, once there is one."""

        def clicked() -> bool:
            self.find(css)[0].click()
            return True

        self.wait(clicked, f"{css} to click on")

    def fill(self, name: str, text: str, *, enter: bool = False) -> None:
        """Write into the field of this name, in place of what is there."""

        def filled() -> bool:
            found = self.fields(name)
            if not found:
                return False
            found[0].send_keys(Keys.CONTROL, "a")
            found[0].send_keys(text or Keys.DELETE)
            if enter:
                found[0].send_keys(Keys.ENTER)
            return True

        self.wait(filled, f"a field {name!r}")

    def fields(self, name: str) -> list[WebElement]:
        """Return the fields that are labelled so."""
        script = """
            const top = [...document.querySelectorAll('dialog[open]')].pop() || document;
            return [...top.querySelectorAll('input, textarea, select')].filter((e) => {
              const label = e.getAttribute('aria-label') || (e.labels && e.labels[0] && e.labels[0].textContent) || '';
              return label.trim().startsWith(arguments[0]) && e.getClientRects().length > 0;
            });
        """
        return cast("list[WebElement]", self.run(script, name))

    def press(self, *keys: str) -> None:
        """Press keys, one after another, wherever the focus is."""
        for key in keys:
            self.driver.switch_to.active_element.send_keys(key)

    def find(self, css: str) -> list[WebElement]:
        """Return what a selector finds."""
        return self.driver.find_elements(By.CSS_SELECTOR, css)

    # -- judging ------------------------------------------------------------------------------

    def said_wrong(self) -> list[str]:
        """Return what the browser has complained of, other than answers that refuse."""
        logged = cast("list[dict[str, str]]", self.driver.get_log("browser"))  # type: ignore[no-untyped-call]
        return [entry["message"] for entry in logged if "Failed to load resource" not in entry["message"]]

    def ran(self) -> tuple[list[str], list[str]]:
        """Return what ran though it is text, and what the policy stopped."""
        return self.run("return window.__run"), self.run("return window.__csp")

    def violations(self) -> list[str]:
        """Return what axe finds serious or critical."""
        self.run(AXE.read_text() + "; window.axe = axe;")
        return cast("list[str]", self.driver.execute_async_script(_AXE))

    def overflow(self) -> int:
        """Return by how many pixels the page is wider than what is seen of it."""
        return int(self.run("return document.documentElement.scrollWidth - document.documentElement.clientWidth"))

    def size(self, size: tuple[int, int]) -> None:
        """Be a screen of this size."""
        width, height = size
        told: dict[str, object] = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.command("Emulation.setDeviceMetricsOverride", told)

    def command(self, name: str, told: dict[str, object]) -> Any:  # type: ignore[explicit-any]  # noqa: ANN401 - of the protocol of its tools
        """Ask the browser's own tools."""
        return self.driver.execute_cdp_cmd(name, told)


@contextlib.contextmanager
def chromium(profile: Path) -> Iterator[webdriver.Chrome]:
    """Start the distribution's Chromium, without a screen; nothing of it is left at the end."""
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    words = ["--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--hide-scrollbars"]
    words += [
        "--ignore-certificate-errors",
        f"--user-data-dir={profile}",
        "--no-first-run",
        "--disable-background-networking",
    ]
    for word in words:
        options.add_argument(word)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    try:
        driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": _WATCH})
        driver.set_script_timeout(60)
        yield driver
    finally:
        driver.quit()


__all__ = ["DESKTOP", "PHONE", "Keys", "Tab", "chromium"]
