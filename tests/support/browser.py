"""A headless browser for tests of pages: the system's Chromium, driven by playwright. Skips where either is absent."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip


@contextmanager
def open_browser() -> Iterator[Callable[..., Any]]:
    """Yields ``new_page(**options)``, which opens a playwright ``Page`` in a context of its own.

    ``options`` are those of playwright's ``new_context`` (viewport, color_scheme, ...). A page has an attribute
    ``problems``: console errors, uncaught exceptions and dialogs so far, as strings.
    """
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    executable = shutil.which("chromium")
    if executable is None:
        pytest.skip("no chromium on the PATH")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=executable, args=ARGUMENTS)

        def new_page(**options: Any) -> Any:
            page = browser.new_context(**options).new_page()
            page.problems = []

            def dialog(box: Any) -> None:
                page.problems.append(f"dialog: {box.message}")
                box.dismiss()

            def console(message: Any) -> None:
                if message.type == "error":
                    page.problems.append(f"console: {message.text}")

            page.on("console", console)
            page.on("pageerror", lambda error: page.problems.append(f"exception: {error}"))
            page.on("dialog", dialog)
            return page

        try:
            yield new_page
        finally:
            browser.close()
