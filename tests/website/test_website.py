"""The site: every system, command and public symbol has a page, figures are drawn, nothing is broken."""

import http.server
import shutil
import subprocess
import sys
import threading
import xml.etree.ElementTree as ElementTree
from functools import partial
from pathlib import Path

import pytest

import rebus
from rebus import catalog
from rebus.cli.app import VERBS
from website import api_pages, help_pages, system_pages
from website.assemble import ROOT, assemble
from website.crawl import faults
from website.equations import with_equations
from website.flow_figure import alternative, svg, with_figures

FLOW = "image → [encoder] → vectors → score\ntext → (encoder of texts) → vectors of texts → score\n"


@pytest.fixture(scope="module")
def api() -> dict[str, str]:
    return dict(api_pages.pages(ROOT / "rebus"))


def test_every_public_symbol_has_a_page(api):
    symbols = list(api_pages.symbols(ROOT / "rebus"))
    assert len(symbols) > 1000
    missing = [name for page, name in symbols if f"{{ #{name} }}" not in api[f"api/{page}.md"]]
    assert not missing
    named = {name.rpartition(".")[2] for _, name in symbols}
    assert set(rebus.__all__) <= named, set(rebus.__all__) - named


def test_signatures_and_docstrings_are_there(api):
    page = api["api/rebus.evaluate.md"]
    assert "def mcnemar(gains: int, losses: int) -> float" in page
    assert "Two-sided p of McNemar's exact test" in page
    assert "class Pair:" in page
    assert "    difference: float" in page
    assert "_blocks" not in page


def test_every_system_has_its_page():
    pages = dict(system_pages.pages(ROOT))
    for name, row in catalog.SYSTEMS.items():
        page = pages[f"systems/{name}.md"]
        assert "\n$$\n" in page, f"{name}: no equation"
        assert "\n```flow " in page, f"{name}: no figure of its data flow"
        for title in ("## When to choose it", "## In the catalogue", "## Code map"):
            assert title in page, name
        assert row.module.replace(".", "/") in page
        for card in catalog.cards():
            assert card.system != name or f"`{card.name}`" in page
    assert {path.stem for path in (ROOT / "docs" / "systems").glob("*.md")} == set(catalog.SYSTEMS)
    clip = pages["systems/clip.md"]
    assert "| 4 times as fast as predicting a bag of words" in clip
    assert "locked encoder" not in clip  # which is SigLIP's claim, in the next row
    assert "reproduce-clip.png" in clip


def test_every_command_has_its_help():
    pages = dict(help_pages.pages())
    assert set(pages) == {"commands/index.md", *(f"commands/{verb}.md" for verb in VERBS)}
    assert "## rebus data inspect" in pages["commands/data.md"]
    assert "--budget" in pages["commands/compare.md"]


def test_figures(tmp_path):
    drawn = ElementTree.fromstring(svg("A < B", FLOW))
    boxes = drawn.findall(".//{*}text")
    assert sorted(box.text for box in boxes) == sorted(
        ["image", "encoder", "vectors", "score", "text", "encoder of texts", "vectors of texts"]
    )
    kinds = [rect.get("class") for rect in drawn.findall(".//{*}rect")]
    assert kinds.count("trained") == kinds.count("frozen") == 1
    assert alternative("A", FLOW).startswith("Data flow of A: image to encoder to vectors to score; text to")
    page = with_figures(f"before\n\n```flow A < B\n{FLOW}```\n\nafter\n", tmp_path / "page.md")
    assert "![Data flow of A < B: image to encoder" in page
    assert (tmp_path / "page-a-b.svg").exists()
    long = ElementTree.fromstring(svg("long", " → ".join(f"a box with number {i}" for i in range(9))))
    assert float(long.get("width")) < 300 < float(long.get("height"))  # down the page
    with pytest.raises(ValueError, match="goes round"):
        svg("ring", "a → b → a")


def test_equations():
    text = "A $x_1$ of $5 and\n\n$$\n\\frac{a}{b}\n$$\n\n```sh\necho $HOME $$\n```\n"
    drawn = with_equations(text)
    assert drawn.count("<math") == 2
    assert "<mfrac>" in drawn
    assert "echo $HOME $$" in drawn
    assert with_equations("costs $5 or $6$") == "costs $5 or $6$"  # no equations on this page


def test_the_crawl_finds_what_is_broken(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "index.html").write_text(
        '<a href="a/">a</a><a href="a/#there">b</a><a href="https://elsewhere.org/">c</a><img src="x.png">'
        '<script src="https://cdn.example.org/x.js"></script><a href="a/#gone">d</a><a href="missing/">e</a>'
        '<link rel="preconnect" href="//fonts.example.org">'
    )
    (tmp_path / "a" / "index.html").write_text('<h2 id="there">x</h2><a href="../index.html">up</a>')
    (tmp_path / "s.css").write_text("@import url(https://fonts.example.org/f.css)")
    found = "\n".join(faults(tmp_path))
    assert found.count("\n") == 5
    for said in ("x.png, which is not there", "cdn.example.org", "#gone, which has no such place", "missing/"):
        assert said in found
    assert "fonts.example.org" in found
    assert "s.css" in found


def test_pages_are_gathered_and_links_lead_to_pages_or_files(tmp_path):
    config = assemble(tmp_path / "docs", tmp_path / "mkdocs.yml")
    text = config.read_text()
    for page in ("start.md", "systems/flamingo.md", "api/rebus.nn.md", "commands/compare.md", "course/index.md"):
        assert page in text
        assert (tmp_path / "docs" / page).exists()
    start = (tmp_path / "docs" / "index.md").read_text()
    assert "](docs/" not in start
    flamingo = (tmp_path / "docs" / "systems" / "flamingo.md").read_text()
    assert "```flow" not in flamingo
    assert "/blob/main/rebus/models/frozen_lm/" in flamingo


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The site, built without a network where that can be taken away."""
    if not Path(sys.executable).with_name("zensical").exists():
        pytest.skip("zensical is not installed (extra docs)")
    folder = tmp_path_factory.mktemp("build")
    alone = ["unshare", "--map-root-user", "--net"]
    can = shutil.which("unshare") and subprocess.run([*alone, "true"], check=False, capture_output=True).returncode == 0
    command = [*(alone if can else []), sys.executable, "-m", "website", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "No issues found" in done.stdout + done.stderr
    return folder / "site"


@pytest.mark.slow
def test_the_site_builds_strictly_without_a_network(site):
    assert faults(site) == []
    assert len(list(site.rglob("*.html"))) > 100


@pytest.mark.slow
def test_a_browser_asks_no_other_host(site):
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("no chromium on this machine")
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(site))
    handler.log_message = lambda *_: None
    foreign, failed = [], []
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server, sync_api.sync_playwright() as playwright:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        home = f"http://127.0.0.1:{server.server_port}"
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        tab = browser.new_page()
        tab.on("request", lambda r: foreign.append(r.url) if not r.url.startswith((home, "data:", "blob:")) else None)
        tab.on("response", lambda r: failed.append((r.status, r.url)) if r.status >= 400 else None)
        for page in sorted(site.rglob("index.html")):
            tab.goto(f"{home}/{page.parent.relative_to(site).as_posix()}/", wait_until="load")
        browser.close()
        server.shutdown()
    assert foreign == []
    assert failed == []
