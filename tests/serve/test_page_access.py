"""The page for everybody: a screen reader, a keyboard, a small screen, a dark room, and who is made dizzy by motion."""

from pathlib import Path

import pytest

from tests.serve.browsing import answered, ask, choose, expect, give, needs_browser
from tests.serve.conftest import DETECTOR, ENCODER, GENERATIVE

pytestmark = needs_browser

# What the focus is on, and whether one sees it: an outline of the element or of what stands for it.
FOCUSED = """() => {
  const on = document.activeElement;
  const seen = [on, on.closest(".button"), on.nextElementSibling].filter(Boolean).map((one) => getComputedStyle(one));
  const visible = seen.some((style) => style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2);
  return [on.id || on.value || on.className || on.tagName, visible];
}"""


def tabbed(page, wanted, most=40):
    """Tab until the focus is there; each place on the way shows that it has it."""
    for _ in range(most):
        page.keyboard.press("Tab")
        name, visible = page.evaluate(FOCUSED)
        assert visible or name == "BODY", f"the focus on {name} is not visible"
        if name == wanted:
            return
    raise AssertionError(f"no Tab leads to {wanted}")


def test_all_by_keyboard(opened):
    page = opened(viewport={"width": 1280, "height": 800})
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the question")).to_be_focused()
    tabbed(page, "file")
    tabbed(page, "example")
    page.keyboard.press("Enter")
    expect(page.locator("#panes img")).to_be_visible()
    tabbed(page, "caption")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#tasks input[value=ask]")).to_be_checked()
    page.keyboard.press("ArrowRight")
    tabbed(page, "model")
    tabbed(page, "other")
    page.keyboard.press("v")  # the first that begins so: vild/scenes
    expect(page.locator("#other")).to_have_value(DETECTOR)
    tabbed(page, "text")
    page.keyboard.type("blue square, yellow circle")
    page.keyboard.press("Enter")
    answered(page)
    tabbed(page, "threshold")
    page.keyboard.press("Home")
    tabbed(page, "row")
    expect(page.locator(".frame.one .box.on")).to_have_count(1)
    page.keyboard.press("Space")
    expect(page.locator(".row[aria-pressed=true]")).to_have_count(1)


@pytest.mark.parametrize("width", [320, 390, 1280])
def test_nothing_is_wider_than_the_screen(opened, width):
    page = opened(viewport={"width": width, "height": 700}, has_touch=width < 500, color_scheme="dark")
    give(page, name="a-name-without-any-place-to-break-it-" * 4 + ".png")

    def over():
        return page.evaluate("() => document.documentElement.scrollWidth - document.documentElement.clientWidth")

    assert over() == 0
    for task, model, other, text in (
        ("detect", GENERATIVE, DETECTOR, "blue square, yellow circle"),
        ("classify", ENCODER, GENERATIVE, "blue square, " + "averylonglabel" * 9),
        ("search", None, None, "red circle"),
    ):
        choose(page, task, model, other)
        if task == "search":
            page.locator("summary").click()
        ask(page, text)
        assert over() == 0, task


@pytest.mark.parametrize(
    "scheme, width",
    [
        ("light", 1280),
        ("dark", 390),
        pytest.param("light", 390, marks=pytest.mark.slow),
        pytest.param("dark", 1280, marks=pytest.mark.slow),
    ],
)
def test_nothing_serious_stands_in_the_way(opened, scheme, width):
    axe = Path(pytest.importorskip("axe_playwright_python").__file__).with_name("axe.min.js").read_text()
    page = opened(viewport={"width": width, "height": 800}, color_scheme=scheme, bypass_csp=True)  # or axe is kept out
    page.evaluate(axe)

    def check(where):
        found = page.evaluate("() => axe.run({ resultTypes: ['violations'] })")["violations"]
        grave = [one for one in found if one["impact"] in ("serious", "critical")]
        assert not grave, (where, [(one["id"], [node["html"] for node in one["nodes"]][:3]) for one in grave])

    check("empty")
    give(page)
    choose(page, "ask", GENERATIVE)
    ask(page, "what is left of the blue square?")
    check("ask")
    choose(page, "detect", other=DETECTOR)
    ask(page, "blue square, yellow circle")
    check("detect")
    choose(page, "classify", other=ENCODER)
    ask(page, "blue square, yellow circle")
    check("classify")
    choose(page, "search")
    page.locator("summary").click()
    ask(page, "red circle")
    check("search")


def test_dark_rooms_and_still_pages(opened):
    page = opened(color_scheme="dark", reduced_motion="reduce")
    page.evaluate("() => document.body.append(Object.assign(document.createElement('div'), { className: 'writing' }))")
    style = "(name) => getComputedStyle(document.querySelector(name))"
    red, green, blue = page.evaluate(f"() => ({style})('body').backgroundColor.match(/\\d+/g).map(Number)")
    assert max(red, green, blue) < 40
    assert page.evaluate(f"() => ({style})('.button').transitionDuration") == "0s"
    assert page.evaluate(f"() => ({style})('.writing').animationName") == "none"
