"""A headless Chromium: what a page looks like where it is read."""

from __future__ import annotations

import base64
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.webdriver.chrome.service import Service

PHONE_PX, DESKTOP_PX = 390, 1280
"""Widths of a telephone and of a desktop window."""

_ARGUMENTS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
)


@dataclass(frozen=True)
class Browser:
    """One window."""

    driver: webdriver.Chrome

    def open(self, page: Path, width_px: int) -> None:
        """Load a page at a width, with every part of it unfolded."""
        metrics = {"width": width_px, "height": 900, "deviceScaleFactor": 1, "mobile": width_px < 600}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        self.driver.get(page.as_uri())
        self.run("document.querySelectorAll('details').forEach(each => { each.open = true; })")

    def run(self, script: str) -> Any:
        """What a script returns in the page."""
        return self.driver.execute_script(script)

    def console(self) -> list[str]:
        """What the console has said since the last call."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def screenshot(self) -> bytes:
        """The whole page as PNG."""
        found = self.driver.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True})
        return base64.b64decode(found["data"])


def programs() -> tuple[str, str] | None:
    """Chromium and its driver, where both are installed."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    return (chromium, driver) if chromium and driver else None


@contextmanager
def open_browser(chromium: str, driver: str, folder: Path) -> Iterator[Browser]:
    """A browser whose profile is a new folder."""
    options = webdriver.ChromeOptions()
    for argument in (*_ARGUMENTS, f"--user-data-dir={folder}"):
        options.add_argument(argument)
    options.binary_location = chromium
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    chrome = webdriver.Chrome(options=options, service=Service(driver))
    try:
        chrome.set_page_load_timeout(120)
        yield Browser(chrome)
    finally:
        chrome.quit()


def problems(browser: Browser, page: Path, width_px: int) -> list[str]:
    """What keeps somebody from reading a page at a width; empty if nothing does."""
    browser.console()
    browser.open(page, width_px)
    found = [f"console: {line}" for line in browser.console()]
    images = browser.run(
        "return [...document.images].map(each => [each.naturalWidth, each.complete, each.alt])"
    )
    found += [f"not drawn: {alt}" for width, complete, alt in images if not (width and complete)]
    whole, window = browser.run(
        "const root = document.documentElement; return [root.scrollWidth, root.clientWidth]"
    )
    if whole > window:
        found.append(f"the page is {whole} pixels wide in a window of {window}")
    # What scrolls in a box of its own may be wider; the box itself may not.
    beyond = browser.run(
        """return [...document.querySelectorAll('main *')]
             .filter(each => !each.parentElement.closest('.scroll, pre'))
             .filter(each => each.getBoundingClientRect().right > document.documentElement.clientWidth + 1)
             .map(each => each.tagName + ' ' + each.textContent.trim().slice(0, 40))"""
    )
    return found + [f"beyond the edge: {each}" for each in beyond]
