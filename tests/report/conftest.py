"""What tests of reports share: a browser."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.report.browser import Browser, open_browser, programs


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """One headless Chromium for the session."""
    found = programs()
    if found is None:
        pytest.skip("chromium or chromedriver is not installed: make install-browser")
    with open_browser(*found, tmp_path_factory.mktemp("browser")) as opened:
        yield opened
