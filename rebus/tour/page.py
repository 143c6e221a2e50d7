"""The page of the tour: one self-contained HTML file, light or dark like the system's theme."""

import base64
import html
import io
from collections.abc import Iterable

from PIL import Image, ImageDraw

from rebus import catalog
from rebus.core.answers import Box
from rebus.tasks.draw import draw_boxes, draw_masks
from rebus.tour.names import Named
from rebus.tour.parts import RELEASED, Line, Tour
from rebus.tour.photos import Captioned, Found, Photos, Sorted
from rebus.tour.scenes import Drawing, Matched, Writing, Written, enlarged, truth_boxes
from rebus.tour.style import STYLE

_PHOTO_SIDE, _SCENE_FACTOR = 340, 3
_SHOWN_MATCHES = 8


def page(tour: Tour, version: str) -> str:
    """The whole page."""
    parts = [
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>",
        "<meta name='viewport' content='width=device-width, initial-scale=1'>",
        f"<title>rebus: the offline tour</title><style>{STYLE}</style></head><body><main>",
        _head(tour, version),
        *map(_photos, tour.photos),
        *(f"<p class='missing'>{_text(said)}</p>" for said in tour.missing),
        _table(tour.lines),
        *_scenes(tour),
        *map(_photo_mistakes, tour.photos),
        *map(_captioned, tour.captioned),
        "<footer>All scenes were held out: no model here was trained on them. The photos are the samples of "
        "scikit-image; no model here was tuned on them, but the queries were chosen by hand. All mistakes are shown. "
        "Nothing was downloaded or uploaded.</footer></main></body></html>",
    ]
    return "\n".join(parts)


def _scenes(tour: Tour) -> list[str]:
    """The sections of synthetic scenes, most accurate model first."""
    shown = [
        *((one.model, {"match"}, _matched(one)) for one in tour.matched),
        *((one.model, set(one.seconds), _writing(one)) for one in tour.writing),
        *((one.model, {"classify"}, _named(one)) for one in tour.named),
        *((one.model, {"imagine"}, _drawing(one)) for one in tour.drawing),
    ]

    def accuracy(section: tuple[str, set[str], str]) -> float:
        model, tasks, _ = section
        lines = [line.accuracy for line in tour.lines if line.model == model and line.task in tasks]
        return sum(lines) / len(lines) if lines else 0.0

    return [section[2] for section in sorted(shown, key=accuracy, reverse=True)]


def _head(tour: Tour, version: str) -> str:
    return (
        "<header><h1>rebus</h1><p class='lead'>Vision-language models on this machine, offline: classification, "
        "text search, captions, question answering, detection and segmentation.</p>"
        f"<p class='quiet'>version {_text(version)} · {tour.seconds:.0f} seconds on {_text(tour.machine)}</p></header>"
    )


def _table(lines: Iterable[Line]) -> str:
    rows = []
    for line in lines:
        rows.append(
            f"<tr><td class='name'>{_text(line.model)}</td><td>{_text(line.task)}</td><td>{_text(line.what)}</td>"
            f"<td class='number'>{line.right} of {line.of}</td>"
            f"<td><span class='bar'><i style='width:{line.accuracy:.0%}'></i></span></td>"
            f"<td class='number quiet'>{line.seconds:.1f} s</td></tr>"
        )
    titles = "<th>model</th><th>task</th><th>held-out images</th><th class='number'>correct</th><th></th><th></th>"
    if not rows:
        return ""
    table = f"<table><tr>{titles}</tr>{''.join(rows)}</table>"
    return f"<section><h2>All results</h2><div class='scroll'>{table}</div></section>"


def _photos(photos: Photos) -> str:
    """The photos and queries with correct predictions; the others are in `_photo_mistakes`."""
    sorted_right = [_sorted(image) for image in photos.images if image.right]
    found_right = [_found(photos, query) for query in photos.queries if query.right]
    return (
        f"<section><h2>Photos, classified <small>{_text(photos.model)}</small></h2><p>{_what_it_is(photos.model)} "
        f"{len(sorted_right)} of {len(photos.images)} photos get their label among {len(photos.labels)}; the mistakes "
        f"are further down.</p><div class='grid'>{''.join(sorted_right)}</div></section>"
        f"<section><h2>Photos, found by text <small>{_text(photos.model)}</small></h2>"
        f"<p>The three most similar of {len(photos.images)} photos. The queries were chosen by hand; for "
        f"{len(found_right)} of {len(photos.queries)} the photo that is meant comes first.</p>"
        f"<div class='queries'>{''.join(found_right)}</div></section>"
    )


def _photo_mistakes(photos: Photos) -> str:
    cards = [_sorted(image) for image in photos.images if not image.right]
    queries = [_found(photos, query) for query in photos.queries if not query.right]
    if not cards and not queries:
        return ""
    return (
        f"<section><h2>Photos, mistakes <small>{_text(photos.model)}</small></h2>"
        f"<div class='grid'>{''.join(cards)}</div><div class='queries after'>{''.join(queries)}</div></section>"
    )


def _what_it_is(model: str) -> str:
    if model == RELEASED:
        return "A released CLIP, from the local cache, with the same calls."
    if model != "asif/starter":
        return ""
    scores = catalog.info(model).scores["scores"]
    by_caption = scores["Flickr8k, 100 photos by a caption"]["class pairs"]
    imagenet = scores["ImageNet, 750 photos, 1,000 names"]["top-1"]
    return (
        "An ImageNet classifier and a sentence encoder, combined without training through the names of 1,000 classes. "
        "It recognises those classes and what resembles them. It is no CLIP: attributes, relations and abstract "
        f"queries are beyond it. Measured: top-1 accuracy {imagenet:.0%} on ImageNet photos, recall@1 "
        f"{by_caption['R@1']:.0%} and recall@10 {by_caption['R@10']:.0%} for captions of 100 Flickr8k photos. "
        f"For anything else load released weights, <code>rebus.load(&quot;{RELEASED}&quot;)</code>: same calls."
    )


def _sorted(image: Sorted) -> str:
    bars = "".join(
        f"<li><span class='label'>{_text(label)}</span><span class='bar'><i style='width:{p:.0%}'></i></span>"
        f"<span class='number'>{p:.0%}</span></li>"
        for label, p in list(image.ranking)[:3]
    )
    verdict = "" if image.right else f"<p class='miss'>a miss: it is {_text(image.truth)}</p>"
    return (
        f"<figure>{_photo(image.image, image.truth)}<figcaption><p class='said'>{_text(image.ranking.top)}"
        f"</p>{verdict}<ol class='bars'>{bars}</ol></figcaption></figure>"
    )


def _found(photos: Photos, query: Found) -> str:
    best = [photos.images[i] for i in query.order[:3]]
    thumbs = "".join(f"<span>{_photo(image.image, image.truth, 150)}</span>" for image in best)
    mark = "hit" if query.right else "miss"
    return f"<div><p class='words {mark}'>“{_text(query.text)}”</p><div class='thumbs'>{thumbs}</div></div>"


def _captioned(captioned: Captioned) -> str:
    cards = [
        f"<figure>{_photo(image, label)}<figcaption><p class='said'>{_text(said)}</p></figcaption></figure>"
        for image, label, said in captioned.images
    ]
    released = "for better captions load a released model, <code>rebus.load(&quot;florence2/base-ft&quot;)</code>."
    if captioned.unguided is None:
        about = (
            "A frozen language model of 135M parameters, and cross-attention to images, trained on 859 captioned "
            "photos. Captions often name what is there, and make up what people do and wear; photos unlike those are "
            f"captioned wrongly: {released}"
        )
    else:
        about = (
            "A demonstration of guided decoding, and last for a reason: a language model of 135M parameters that never "
            f"saw an image, guided token by token by asif/starter. Most of these captions are wrong; {released} "
            f"Without the guide every photo gets the same caption: “{_text(captioned.unguided)}”"
        )
    return (
        f"<section><h2>Photos, captioned <small>{_text(captioned.model)}</small></h2><p>{about}</p>"
        f"<div class='grid'>{''.join(cards)}</div></section>"
    )


def _drawing(drawing: Drawing) -> str:
    cards = []
    for prompt, image, found, right in zip(drawing.prompts, drawing.images, drawing.found, drawing.right, strict=True):
        verdict = "" if right else f"<p class='miss'>a miss: found are {_text(', '.join(found) or 'no objects')}</p>"
        cards.append(
            f"<figure>{_scene_image(image.resize((96, 96), Image.Resampling.BICUBIC), prompt)}"
            f"<figcaption><p class='words'>“{_text(prompt)}”</p>{verdict}</figcaption></figure>"
        )
    return (
        f"<section><h2>Scenes, generated <small>{_text(drawing.model)}</small></h2>"
        f"<p>A network that generates image tokens in the same sequence as text. {_text(drawing.detector)} detects the "
        f"colours and shapes in each image.</p><div class='grid'>{''.join(cards)}</div></section>"
    )


def _matched(matched: Matched) -> str:
    number = len(matched.scenes)
    captions = [s.captions[0] for s in matched.scenes]
    missed = [i for i in range(number) if captions[matched.orders[i][0]] != captions[i]]
    hits = [i for i in range(number) if i not in missed]
    shown = [*hits[: max(2, _SHOWN_MATCHES - len(missed))], *missed]
    cards = []
    for i in shown:
        best = matched.orders[i][0]
        right = captions[best] == captions[i]
        place = matched.orders[i].index(i) + 1
        verdict = "" if right else f"<p class='miss'>a miss: its own image ranks {_ordinal(place)}</p>"
        other = "" if right else _scene_image(matched.scenes[i].image, "the image of the caption", small=True)
        cards.append(
            f"<figure><div class='pair'>{_scene_image(matched.scenes[best].image, captions[best])}{other}</div>"
            f"<figcaption><p class='words'>“{_text(captions[i])}”</p>{verdict}</figcaption></figure>"
        )
    return (
        f"<section><h2>Scenes, retrieved by caption <small>{_text(matched.model)}</small></h2>"
        f"<p>{matched.to_image} of {number} captions retrieve their own image, {matched.to_text} images their own "
        f"caption. All mistakes are shown, after a few of the others.</p>"
        f"<div class='grid'>{''.join(cards)}</div></section>"
    )


def _writing(writing: Writing) -> str:
    cards = [_written(row, writing.seconds) for row in writing.rows]
    how = "One small generative model: answers are text, boxes and masks are tokens too."
    if "caption" not in writing.seconds:
        how = "A detector distilled from a dual encoder, with the names of the shapes as labels."
    return (
        f"<section><h2>Scenes, captioned and searched <small>{_text(writing.model)}</small></h2>"
        f"<p>{how} Thin white boxes are the ground truth.</p><div class='stack'>{''.join(cards)}</div></section>"
    )


def _named(named: Named) -> str:
    cards = []
    for one, said in named.rows:
        shown = "".join(
            f"<span>{_scene_image(example.scene.image, example.name, small=True)} {_text(example.name)}</span>"
            for example in one.shots
        )
        mark = "hit" if said == one.query.name else "miss"
        verdict = "" if mark == "hit" else f"<p class='miss'>a miss: it is {_text(one.query.name)}</p>"
        cards.append(
            f"<div><div class='thumbs'>{shown}</div>{_scene_image(one.query.scene.image, 'the query')}"
            f"<p class='words {mark}'>“{_text(said)}”</p>{verdict}</div>"
        )
    return (
        f"<section><h2>New names, learned in context <small>{_text(named.model)}</small></h2>"
        "<p>Each episode has new names for kinds of objects that were held out of training. The small images "
        f"and their names are the prompt; the model names the large one.</p><div class='queries'>{''.join(cards)}</div>"
        "</section>"
    )


def _written(row: Written, seconds: dict[str, float]) -> str:
    images = [("the scene", row.scene.image.resize((288, 288), Image.Resampling.NEAREST))]
    notes = []
    if "detect" in seconds:
        wrong = len(row.boxes) - row.found
        drawn = draw_boxes(_with_truth(row), [_scaled(box) for box in row.boxes], smallest=288)
        said = f"{row.found} of {len(row.scene.objects)} found" + (f", {wrong} wrong" if wrong else "")
        images.append((f"detect: {said}", drawn))
    if "segment" in seconds:
        images.append(
            (f"segment “{row.phrase}”: IoU {row.overlap:.2f}", draw_masks(row.scene.image, row.masks[:1], 288))
        )
    writing = row.scene.writing
    if row.read is not None and writing is not None:
        images.append((f"read: {row.read}", writing.image.resize((288, 288), Image.Resampling.NEAREST)))
        notes.append(_answer("what is written?", writing.text, row.read))
    figures = "".join(
        f"<figure>{_image(image, title, 'PNG')}<figcaption>{_text(title)}</figcaption></figure>"
        for title, image in images
    )
    if "caption" in seconds:
        notes.append(f"<p class='caption'>{_caption(row)}</p>")
    notes += [_answer(*answer) for answer in row.answers]
    return f"<article><div class='row'>{figures}</div><div class='notes'>{''.join(notes)}</div></article>"


def _answer(question: str, truth: str, said: str) -> str:
    mark, corrected = ("hit", "") if truth == said else ("miss", f" <em>it is {_text(truth)}</em>")
    return f"<p class='qa'><span class='{mark}'>{_text(question)}</span> <b>{_text(said)}</b>{corrected}</p>"


def _caption(row: Written) -> str:
    """The caption; what is wrong is struck out and followed by the ground truth."""
    if not row.attributes or not row.caption:
        return "<del>nothing</del>"
    words = [
        _text(said) if truth is None else f"<del>{_text(said)}</del> <ins>{_text(truth)}</ins>"
        for said, truth in row.attributes
    ]
    groups = [" ".join(words[i : i + 4]) for i in range(0, len(words), 4)]
    return ", ".join(groups)


def _with_truth(row: Written) -> Image.Image:
    """The scene, enlarged, with thin white boxes around the objects."""
    canvas = enlarged(row.scene.image, _SCENE_FACTOR)
    pen = ImageDraw.Draw(canvas)
    for box in truth_boxes(row.scene):
        pen.rectangle([value * _SCENE_FACTOR for value in box.xyxy], outline=(255, 255, 255), width=1)
    return canvas


def _scaled(box: Box) -> Box:
    left, top, right, bottom = (value * _SCENE_FACTOR for value in box.xyxy)
    return Box((left, top, right, bottom), box.label, box.score)


def _photo(image: Image.Image, alt: str, side: int = _PHOTO_SIDE) -> str:
    copy = image.copy()
    copy.thumbnail((side, side), Image.Resampling.LANCZOS)
    return _image(copy, alt, "JPEG")


def _scene_image(image: Image.Image, alt: str, small: bool = False) -> str:
    return _image(image, alt, "PNG", "scene small" if small else "scene")


def _image(image: Image.Image, alt: str, form: str, style: str = "") -> str:
    buffer = io.BytesIO()
    image.save(buffer, form, **({"quality": 85} if form == "JPEG" else {"optimize": True}))
    data = base64.b64encode(buffer.getvalue()).decode()
    size = f"width='{image.width}' height='{image.height}'"
    return f"<img class='{style}' {size} alt='{_text(alt)}' src='data:image/{form.lower()};base64,{data}'>"


def _text(words: str) -> str:
    return html.escape(words, quote=True)


def _ordinal(number: int) -> str:
    ending = "th" if 10 <= number % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"
