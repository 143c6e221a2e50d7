"""The page in a browser, as the tests drive it."""

import re
import shutil

import pytest

from tests.serve.conftest import file_of, image_of

expect = pytest.importorskip("playwright.sync_api").expect
expect.set_options(timeout=60_000)

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_browser = pytest.mark.skipif(BROWSER is None, reason="there is no Chromium: apt-get install chromium")
IMAGE = image_of(20_003)


def give(page, image=IMAGE, name="scene.png"):
    page.set_input_files("#file", {"name": name, "mimeType": "image/png", "buffer": file_of(image)})
    expect(page.locator("#panes img").first).to_be_visible()


def choose(page, task, model=None, other=None):
    if model is not None:
        page.select_option("#model", model)
    page.locator(f"#tasks input[value={task}]").check(force=True)
    if other is not None:
        page.select_option("#other", other)


def ask(page, text=None):
    """Gives what the page says in the end."""
    if text is not None:
        page.fill("#text", text)
    page.click("#go")
    return answered(page)


def answered(page):
    expect(page.locator("#status")).to_contain_text(re.compile(r"in \d+\.\d+ s"))
    expect(page.locator("#results")).to_have_attribute("aria-busy", "false")
    return page.locator("#status").inner_text()
