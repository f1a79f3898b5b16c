"""The browser of the tests: where there is none they skip, or fail where one has to be there."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

REBOUND = "rebound.example"  # a name of another site's that means this machine, in this browser


def missing(what: str) -> None:
    """Skips the test, visibly; fails it where the variable QUASINAT_BROWSER says `required`."""
    if os.environ.get("QUASINAT_BROWSER") == "required":
        pytest.fail(f"browser: no {what}, and QUASINAT_BROWSER=required")
    pytest.skip(f"browser: no {what}")


@contextmanager
def chromium() -> Iterator[Any]:
    """A Chromium of this machine, steered by playwright."""
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        missing("chromium on the PATH")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        missing("playwright")
    arguments = ["--no-sandbox", f"--host-resolver-rules=MAP {REBOUND} 127.0.0.1"]
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=path, args=arguments)
        yield browser
        browser.close()
