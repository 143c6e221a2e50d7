"""The page as a person uses it, in a headless Chromium: each task once, beside what the library answers."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from tests.serve.browsing import IMAGE, ask, choose, expect, give, needs_browser
from tests.serve.conftest import DETECTOR, ENCODER, GENERATIVE, data_url, file_of, load, running
from tests.serve.test_guard import KEY

pytestmark = needs_browser
HOSTILE = "<img src=x onerror=hacked()>.png"


def tasks_of(page):
    return [one.get_attribute("value") for one in page.locator("#tasks input").all()]


WATCHED = """() => {
  window.grown = [];
  const look = () => grown.push(document.querySelector(".said")?.textContent);
  new MutationObserver(look).observe(document.getElementById("cards"), { childList: true, subtree: true });
}"""
PAINTED = """() => {
  const canvas = document.querySelector(".inner canvas");
  const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  return [...pixels.filter((_, index) => index % 4 === 3)];
}"""


def test_captions_and_answers_come_token_by_token(opened):
    page = opened()
    give(page)
    page.evaluate(WATCHED)
    choose(page, "caption", GENERATIVE)
    ask(page)
    caption = load(GENERATIVE).caption(IMAGE)
    expect(page.locator(".card .said")).to_have_text(caption)
    assert len({text for text in page.evaluate("() => grown") if text}) > 3
    choose(page, "ask")
    for question in ("what is left of the blue square?", "how many hearts are there?"):
        ask(page, question)
    log = page.get_by_role("log")
    expect(log).to_have_attribute("aria-live", "polite")
    expect(log.locator(".asked")).to_have_text(["what is left of the blue square?", "how many hearts are there?"])
    answers = load(GENERATIVE).ask([IMAGE] * 2, ["what is left of the blue square?", "how many hearts are there?"])
    expect(log.locator(".said")).to_have_text(list(answers))


def test_what_is_found_is_drawn_and_listed(opened):
    page = opened()
    give(page)
    choose(page, "detect", DETECTOR)
    assert tasks_of(page) == ["detect", "segment", "search"]  # what this model can do, and no more
    expect(page.locator("#domain")).to_contain_text("synthetic shapes only")
    assert ask(page, "blue square, yellow circle").startswith(f"{len(sure())} found")
    rows = page.get_by_role("list", name=f"What {DETECTOR} found").get_by_role("button")
    expect(rows).to_have_count(len(sure()))
    best = max(sure(), key=lambda box: box.score)
    expect(rows.first).to_contain_text(best.label)
    box, frame = page.locator(".box").first.bounding_box(), page.locator(".inner").bounding_box()
    drawn = [(box["x"] - frame["x"]) / frame["width"], (box["y"] - frame["y"]) / frame["height"]]
    np.testing.assert_allclose(drawn, [best.xyxy[0] / 96, best.xyxy[1] / 96], atol=0.01)
    rows.last.focus()
    expect(page.locator(".box.on")).to_have_count(1)
    page.keyboard.press("Enter")
    expect(rows.last).to_have_attribute("aria-pressed", "true")
    page.locator("#threshold").fill("1")
    expect(page.locator(".box")).to_have_count(sum(box.score >= 1 for box in sure()))
    page.locator("#threshold").fill("0.25")
    choose(page, "segment")
    ask(page, "yellow circle")
    masks = [mask for mask in load(DETECTOR).segment(IMAGE, "yellow circle") if mask.score >= 0.25]
    painted = np.array(page.evaluate(PAINTED)).reshape(96, 96) > 0
    np.testing.assert_array_equal(painted, np.any([mask.mask for mask in masks], axis=0))


def sure():
    return [box for box in load(DETECTOR).detect(IMAGE, ["blue square", "yellow circle"]) if box.score >= 0.25]


def test_two_models_beside_each_other_with_time_and_memory(opened):
    page = opened()
    give(page)
    choose(page, "classify", ENCODER, GENERATIVE)
    labels = ["blue square", "green cross", "white star"]
    ask(page, ", ".join(labels))
    cards = page.locator(".card")
    expect(cards).to_have_count(2)
    expect(page.locator("figure img")).to_have_count(2)
    for card, name in zip(cards.all(), (ENCODER, GENERATIVE), strict=True):
        expect(card.get_by_role("heading")).to_have_text(name)
        expect(card.locator("header p")).to_have_text(re.compile(r"\d\.\d\d s · \d\.\d MB of weights"))
        wanted = load(name).classify(IMAGE, labels)
        expect(card.locator(".row")).to_have_count(3)
        expect(card.locator(".row").first).to_contain_text(f"{wanted.labels[0]}{wanted.probabilities[0]:.3f}"[:-1])


def test_where_words_look_is_over_the_image(opened):
    page = opened()
    give(page)
    choose(page, "explain", ENCODER)
    ask(page, "blue square, purple heart")
    rows = page.locator(".card button")
    pixels = "() => document.querySelector('.inner canvas').toDataURL()"
    expect(rows.first).to_have_attribute("aria-pressed", "true")
    first = page.evaluate(pixels)
    rows.last.click()
    expect(rows.last).to_have_attribute("aria-pressed", "true")
    assert len(first) > 1000
    assert page.evaluate(pixels) != first


def test_an_indexed_folder_is_searched_and_a_hit_is_looked_at(opened, index):
    if index is None:
        pytest.skip("lancedb is not installed")
    page = opened()
    choose(page, "search")
    ask(page, "a red circle")
    hits = page.locator(".hit")
    expect(hits).to_have_count(12)
    found = index.search("a red circle", number=12)
    expect(hits.first).to_contain_text(str(Path(found[0].path).relative_to(index.root)))
    expect(hits.first.locator("img")).to_have_js_property("naturalWidth", 96)
    page.locator("summary").click()
    page.fill("#under", "deep")
    page.fill("#minus", "blue")
    ask(page)
    expect(hits).to_have_count(6)
    hits.first.click()
    expect(page.locator("#panes img")).to_have_js_property("naturalWidth", 96)
    expect(page.locator("#stage figcaption")).to_contain_text("deep/")
    choose(page, "search")
    page.check("#like")
    page.fill("#minus", "")
    ask(page, "")
    expect(hits.first).to_contain_text(page.locator("#panes img").get_attribute("alt"))


DROPPED = """([kind, base64, name]) => {
  const bytes = Uint8Array.from(atob(base64), (sign) => sign.charCodeAt(0));
  const transfer = new DataTransfer();
  transfer.items.add(new File([bytes], name, { type: "image/png" }));
  const event = kind === "paste" ? new ClipboardEvent(kind, { clipboardData: transfer, bubbles: true })
                                 : new DragEvent(kind, { dataTransfer: transfer, bubbles: true });
  document.body.dispatchEvent(event);
}"""


def test_images_are_pasted_dropped_photographed_and_drawn_by_the_server(opened):
    page = opened()
    stage = page.locator("#stage figcaption")
    for kind, form in (("paste", "PNG"), ("drop", "TIFF")):  # of which no browser but one shows the second
        data = data_url(file_of(IMAGE, form)).partition(",")[2]
        page.evaluate(DROPPED, [kind, data, f"{kind}.{form}"])
        expect(stage).to_have_text(f"{kind}.{form}")
        expect(page.locator("#panes img")).to_have_js_property("naturalWidth", 96)
    choose(page, "caption", GENERATIVE)
    ask(page)
    expect(page.locator(".said")).to_have_text(load(GENERATIVE).caption(IMAGE))
    page.click("#camera")
    expect(page.locator("#video")).not_to_have_js_property("videoWidth", 0)
    page.click("#take")
    expect(stage).to_have_text("photo")
    page.click("#example")
    expect(stage).to_have_text("example.png")
    page.set_input_files("#file", {"name": "no.png", "mimeType": "image/png", "buffer": b"no image"})
    expect(page.locator("#status.error")).to_have_text(re.compile("not an image|no image|cannot"))


def test_markup_in_names_and_answers_stays_text(opened):
    page = opened()
    page.evaluate("() => { window.hacked = () => { window.bad = true } }")
    chunk = json.dumps({"choices": [{"delta": {"content": HOSTILE}}]})
    answer = {"content_type": "text/event-stream", "body": f"data: {chunk}\n\ndata: [DONE]\n\n"}
    page.route("**/v1/chat/completions", lambda route: route.fulfill(**answer))
    boxes = [
        {
            "index": 0,
            "image": {"width": 9, "height": 9},
            "predictions": [{"xyxy": [1, 1, 5, 5], "label": HOSTILE, "score": 1}],
        }
    ]
    page.route("**/v1/detect", lambda route: route.fulfill(json={"data": boxes}))
    hits = [{"id": 1, "path": HOSTILE, "score": 1.0, "caption": HOSTILE}]
    page.route("**/v1/search/photos", lambda route: route.fulfill(json={"data": hits}))
    failed = {"status": 400, "json": {"error": {"message": HOSTILE}}}
    page.route("**/v1/classify", lambda route: route.fulfill(**failed))
    give(page, name=HOSTILE)
    expect(page.locator("#stage figcaption")).to_have_text(HOSTILE)
    choose(page, "caption", GENERATIVE)
    ask(page)
    expect(page.locator(".said")).to_have_text(HOSTILE)
    choose(page, "detect")
    ask(page, HOSTILE)
    expect(page.locator(".row")).to_contain_text(HOSTILE)
    choose(page, "classify")
    page.fill("#text", "a")
    page.click("#go")
    expect(page.locator(".card .error")).to_have_text(HOSTILE)
    choose(page, "search")
    ask(page, HOSTILE)
    expect(page.locator(".hit")).to_contain_text(HOSTILE)
    assert page.evaluate("() => document.querySelectorAll('[onerror]').length") == 0
    assert page.evaluate("() => window.bad") is None


def test_a_model_that_draws_and_one_that_reads_the_whole_conversation(opened):
    """Which no bundled model does: their answers are made up."""
    toy = {"id": "toy", "tasks": ["complete", "imagine"], "sees_images": True, "explains": False, "weights_bytes": 2e9}
    drawn = data_url(file_of(IMAGE)).partition(",")[2]
    chunk = json.dumps({"choices": [{"delta": {"content": "a star"}}]})
    answers = {
        "**/v1/models": {"json": {"data": [toy]}},
        "**/v1/images/generations": {"json": {"data": [{"b64_json": drawn}]}},
        "**/v1/chat/completions": {"content_type": "text/event-stream", "body": f"data: {chunk}\n\ndata: [DONE]\n\n"},
    }
    page = opened(answers)
    assert tasks_of(page) == ["ask", "imagine", "search"]
    expect(page.locator("#domain")).to_be_hidden()
    give(page)
    said = []
    page.on("request", lambda request: said.append(request.post_data_json) if "/chat/" in request.url else None)
    ask(page, "what is white?")
    expect(page.locator(".card header p")).to_have_text(re.compile(r"2\.0 GB of weights"))
    ask(page, "and what is blue?")
    first, second = (body["messages"] for body in said)
    assert [message["role"] for message in second] == ["user", "assistant", "user"]
    assert second[0] == first[0]
    assert [part["type"] for part in first[0]["content"]] == ["image_url", "text"]
    assert second[1:] == [
        {"role": "assistant", "content": "a star"},
        {"role": "user", "content": [{"type": "text", "text": "and what is blue?"}]},
    ]
    choose(page, "imagine")
    ask(page, "a red circle above a blue square")
    picture = page.get_by_role("img", name="a red circle above a blue square")
    expect(picture).to_have_js_property("naturalWidth", 96)


def test_what_takes_long_is_stopped_and_what_fails_is_told(opened):
    page = opened()
    give(page)
    page.route("**/v1/detect", lambda route: None)
    choose(page, "detect", GENERATIVE)
    page.fill("#text", "blue square")
    page.click("#go")
    page.click("#stop")
    expect(page.locator("#status")).to_have_text("Stopped.")
    expect(page.locator("#stop")).to_be_hidden()
    choose(page, "caption")
    page.route("**/v1/chat/completions", lambda route: route.abort())
    page.click("#go")
    expect(page.locator(".error")).to_contain_text("does not answer")


def test_the_key_is_asked_for_by_the_browser(browser):
    with running(ENCODER, api_key=KEY) as (url, _):
        stranger = browser.new_context()
        with pytest.raises(Exception, match="INVALID_AUTH_CREDENTIALS"):  # a person is asked for a password instead
            stranger.new_page().goto(f"{url}/")
        stranger.close()
        known = browser.new_context(http_credentials={"username": "anybody", "password": KEY})
        page = known.new_page()
        page.goto(f"{url}/")
        expect(page.locator("#status")).to_have_text("1 model ready")
        give(page)
        choose(page, "classify")
        ask(page, "blue square, green cross")
        expect(page.locator(".row").first).to_contain_text("blue square")
        known.close()
