"""The report of a comparison as one HTML file: no scripts, nothing from elsewhere."""

import base64
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from PIL import Image

from rebus.codec.decode_image import open_image
from rebus.codec.html_page import STYLE, escaped
from rebus.compare.process import ModelRun
from rebus.core.answers import Box, Mask
from rebus.core.errors import RebusError
from rebus.data.outlines import mask_of
from rebus.tasks.draw import draw_boxes, draw_masks

if TYPE_CHECKING:
    from rebus.compare.comparison import Comparison

_MOST = 60  # images on the page; all are in answers.jsonl
_SIDE, _DRAWN_SIDE = 240, 320  # pixels of an image, at most; of one with boxes or masks drawn in
_LOOK = (
    "body{max-width:72rem;--line:#8884;--right:#1a7f37;--wrong:#b42318;--bar:#2684de}"
    "@media(prefers-color-scheme:dark){body{--right:#4cc26b;--wrong:#ff8a80;--bar:#5aa9ff}}"
    "table{border-collapse:collapse;width:100%}th,td{padding:.3rem .6rem;text-align:left;border-bottom:1px solid "
    "var(--line);vertical-align:top}td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}"
    ".wide{overflow-x:auto}section.image{display:grid;grid-template-columns:minmax(8rem,15rem) 1fr;gap:1rem;"
    "border-top:1px solid var(--line);padding:1rem 0}section.image>div>img{width:100%}section.image img{max-width:100%}"
    "dl{display:grid;grid-template-columns:minmax(7rem,max-content) 1fr;gap:.2rem 1rem;margin:0}"
    "dt{overflow-wrap:anywhere}dd{margin:0;overflow-wrap:anywhere}"
    ".right::before{content:'✓ ';color:var(--right)}.wrong::before{content:'✗ ';color:var(--wrong)}"
    ".failed{color:var(--wrong)}small{opacity:.75}.drawn{display:flex;flex-wrap:wrap;gap:1rem}figure{margin:0}"
    "@media(max-width:40rem){section.image{grid-template-columns:1fr}}"
)


def page(comparison: "Comparison", summary: Mapping[str, Any]) -> str:
    """The whole file. `summary`: what `comparison.summary()` gave."""
    question = comparison.question
    least = f"boxes of score {question.threshold:g} or more" if question.threshold is not None else None
    asked = "; ".join(filter(None, (question.question, question.phrase, ", ".join(question.labels), least)))
    names = ", ".join(run.model for run in comparison.runs)
    parts = [
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>",
        "<meta name='viewport' content='width=device-width,initial-scale=1'>",
        f"<title>{escaped(question.task)}: {escaped(names)}</title><style>{STYLE}{_LOOK}</style></head><body><main>",
        f"<h1>{escaped(question.task)}: {escaped(names)}</h1>",
        f"<p>{len(comparison.images):,} images{escaped(f'; {asked}' if asked else '')}</p>",
        "<ul>",
        *(f"<li>{escaped(line)}</li>" for line in summary["conclusions"]),
        "</ul><h2>Models</h2>",
        _models(summary),
        "<h2>Pairs</h2>" if summary["pairs"] else "",
        _pairs(summary) if summary["pairs"] else "",
        "<h2>Images, the most disputed first</h2>",
    ]
    order = comparison.by_disagreement()
    if len(order) > _MOST:
        parts.append(f"<p>{_MOST} of {len(order):,}; answers.jsonl has all.</p>")
    parts += [_image(comparison, number) for number in order[:_MOST]]
    where, versions = summary["machine"], summary["versions"]
    parts.append(
        f"<p><small>{escaped(where['system'])}, {where['processors']} processors; rebus {escaped(versions['rebus'])}; "
        f"{escaped(summary['date'])}; order and intervals drawn by seed {summary['seed']}</small></p>"
    )
    return "\n".join([*parts, "</main></body></html>"])


def _models(summary: Mapping[str, Any]) -> str:
    scored = summary["score"] is not None
    head = [("model", ""), *([(summary["score"], "n"), ("95% interval", "")] if scored else [])]
    head += [(title, "n") for title in ("an image", "1 in 20 over", "first answer", "peak memory", "parameters")]
    rows = []
    for model in summary["models"]:
        mark = " ★" if model["pareto"] else ""
        cells = [(escaped(model["model"]) + mark, "")]
        if scored:
            cells += [(_number(model["score"], "{:.3f}"), "n"), (_bar(model), "")]
        cells += [
            (_number(model["seconds_per_image"], "{:,.3f} s"), "n"),
            (_number(model["seconds_per_image_p95"], "{:,.3f} s"), "n"),
            (_number(model["first_answer_seconds"], "{:,.1f} s"), "n"),
            (_number(model["peak_memory_bytes"], "{:,.0f} MB", 1e-6), "n"),
            (_number(model["parameters"], "{:,}"), "n"),
        ]
        rows.append(cells)
        if model["status"] != "complete":
            why = model["error"] or f"{model['answered']} images within the budget"
            rows.append([(f"<span class='failed'>{escaped(model['status'])}: {escaped(why)}</span>", "' colspan='9")])
    stars = "<p><small>★ no other model is as good, as quick and as small, and better in one of these. "
    timing = "Time: one image at a time, after a warm-up; first answer: from the start of the process.</small></p>"
    return _table(head, rows) + (stars if scored else "<p><small>") + timing


def _pairs(summary: Mapping[str, Any]) -> str:
    tested = any("p" in pair for pair in summary["pairs"])
    head = [("first", ""), ("second", ""), ("agreement", "n")]
    if tested:
        head += [
            ("second − first", "n"),
            ("95% interval", "n"),
            ("p (Holm)", "n"),
            ("better", ""),
            ("least shown", "n"),
        ]
    rows = []
    for pair in summary["pairs"]:
        cells = [
            (escaped(pair["first"]), ""),
            (escaped(pair["second"]), ""),
            (_number(pair["agreement"], "{:.3f}"), "n"),
        ]
        if "p" in pair:
            cells += [
                (f"{pair['difference']:+.3f}", "n"),
                (f"{pair['low']:+.3f} … {pair['high']:+.3f}", "n"),
                (f"{pair['adjusted']:.2g}", "n"),
                (escaped(pair["better"] or "not shown"), ""),
                (_number(pair["smallest"], "{:.3f}"), "n"),
            ]
        rows.append(cells)
    tests = sorted({pair["test"] for pair in summary["pairs"] if "test" in pair})
    about = f"agreement: {summary['agreement']}" + (f"; tests: {', '.join(tests)}" if tests else "")
    return _table(head, rows) + f"<p><small>{escaped(about)}</small></p>"


def _table(head: Sequence[tuple[str, str]], rows: Sequence[Sequence[tuple[str, str]]]) -> str:
    lines = ["<div class='wide'><table><thead><tr>"]
    lines += [f"<th class='{kind}'>{escaped(title)}</th>" for title, kind in head]
    lines.append("</tr></thead><tbody>")
    lines += ["<tr>" + "".join(f"<td class='{kind}'>{text}</td>" for text, kind in cells) + "</tr>" for cells in rows]
    return "\n".join([*lines, "</tbody></table></div>"])


def _number(value: float | None, form: str, scale: float = 1) -> str:
    return "–" if value is None else form.format(value * scale if scale != 1 else value)


def _bar(model: Mapping[str, Any]) -> str:
    """The score and its interval on a line from 0 to 1."""
    if model["score"] is None:
        return "–"
    low, high = (min(max(end, 0.0), 1.0) for end in model["interval"])
    said = f"{low:.3f} to {high:.3f}"
    return (
        f"<svg width='160' height='20' role='img' aria-label='{said}'><line x1='5' x2='155' y1='10' y2='10' "
        f"stroke='currentColor' opacity='.25'/><line x1='{5 + 150 * low:.1f}' x2='{5 + 150 * high:.1f}' y1='10' "
        f"y2='10' stroke='var(--bar)' stroke-width='4'/><circle cx='{5 + 150 * model['score']:.1f}' cy='10' r='5' "
        f"fill='var(--bar)'/></svg><br>{said}"
    )


def _image(comparison: "Comparison", number: int) -> str:
    path = comparison.images[number]
    try:
        image = open_image(path)
        look = _embedded(image, _SIDE, path)
    except RebusError as error:
        image, look = None, f"<p>{escaped(str(error))}</p>"
    truth = comparison.truths.of.get(path) if comparison.truths is not None else None
    lines = [f"<section class='image'><div>{look}<br><small>{escaped(path)}</small></div><div><dl>"]
    if truth is not None:
        true = ", ".join(str(one["label"] if isinstance(one, dict) else one) for one in truth) or "nothing"
        lines.append(f"<dt>ground truth</dt><dd>{escaped(true)}</dd>")
    for run in comparison.runs:
        lines.append(f"<dt>{escaped(run.model)}</dt>{_answer(comparison, run, number)}")
    lines.append("</dl>")
    if image is not None and comparison.question.task in ("detect", "segment"):
        lines += ["<div class='drawn'>", *_drawn(image, comparison, number), "</div>"]
    return "\n".join([*lines, "</div></section>"])


def _answer(comparison: "Comparison", run: ModelRun, number: int) -> str:
    if number not in run.answers:
        return f"<dd class='failed'>{escaped(run.faults.get(number, 'no answer'))}</dd>"
    right = comparison.score_of(run, number)
    kind = "" if right is None else "right" if right == 1 else "wrong" if right == 0 else "part"
    share = f" <small>{right:.2f}</small>" if kind == "part" else ""
    return f"<dd class='{kind}'>{escaped(comparison.question.said(run.answers[number]))}{share}</dd>"


def _drawn(image: Image.Image, comparison: "Comparison", number: int) -> Iterator[str]:
    """The image once for each model, with what it found."""
    for run in comparison.runs:
        found = run.answers.get(number)
        if not found:
            continue
        drawn = (
            draw_masks(image, list(map(_mask, found)))
            if "counts" in found[0]
            else draw_boxes(image, [*map(_box, found)])
        )
        image_of = _embedded(drawn, _DRAWN_SIDE, run.model)
        yield f"<figure>{image_of}<figcaption>{escaped(run.model)}</figcaption></figure>"


def _box(one: Mapping[str, Any]) -> Box:
    left, top, right, bottom = one["xyxy"]
    return Box((left, top, right, bottom), one["label"], _score(one))


def _mask(one: Mapping[str, Any]) -> Mask:
    left, top, right, bottom = one["box"]
    return Mask(mask_of(one, *one["size"]), (left, top, right, bottom), one["label"], _score(one))


def _score(one: Mapping[str, Any]) -> float:
    return float("nan") if one["score"] is None else one["score"]


def _embedded(image: Image.Image, side: int, name: str) -> str:
    small = image.copy()
    small.thumbnail((side, side))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=85)
    data = base64.b64encode(buffer.getvalue()).decode()
    return f"<img alt='{escaped(name)}' src='data:image/jpeg;base64,{data}'>"
