"""A result as a folder to keep: `results.json`, `report.md`, plots, and the worst mistakes as images.

The folder is written atomically. Plots need the extra "report"; without it the report says so.
"""

import io
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from rebus.codec.decode_image import open_image
from rebus.core.answers import Box, Mask
from rebus.core.atomic_write import write_folder_atomically
from rebus.core.errors import MissingExtra, RebusError, UsageError
from rebus.core.fonts import font_for
from rebus.core.strict_json import to_json
from rebus.evaluate.measure import Result
from rebus.evaluate.outcome import Mistake, Plot
from rebus.tasks.draw import draw_boxes, draw_masks

_SIDE = 320  # pixels of the longer side of an image
_QUALITY = 85
_FONT, _LINE = 13, 17  # pixels
_ROWS = 40  # of a group in the report; all are in results.json
_DRAWN = 8  # regions in an image; more hide it
_RED, _GREEN = "#b42318", "#1a7f37"


def check_free(folder: Path) -> None:
    """Raise `UsageError` where a report cannot go: before the work, not after it."""
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--out {folder} is a file; a report is a folder")
    if folder.is_dir() and any(folder.iterdir()):
        raise UsageError(f"--out {folder} is not empty; choose a new folder")


def write_report(result: Result, folder: Path) -> None:
    """Write the folder. Raises `UsageError` for one that is not empty, `CannotWrite`."""
    check_free(folder)
    with write_folder_atomically(folder) as draft:
        for name, data in _files(result):
            target = draft / name
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(data)


def _files(result: Result) -> Iterator[tuple[str, bytes]]:
    document = dict(result.document)
    mistakes = []
    for number, mistake in enumerate(result.outcome.worst, 1):
        name = f"images/{number:02d}.jpg"
        image = _image(mistake)
        if image is not None:
            yield name, image
        mistakes.append(
            {"key": mistake.key, "said": mistake.said, "truth": mistake.truth, "image": name if image else None}
        )
    plots = []
    for plot in result.outcome.plots if can_plot() else ():
        plots.append((plot.title, f"plots/{plot.name}.png"))
        yield plots[-1][1], draw_plot(plot)
    document["mistakes"] = mistakes
    yield "results.json", (to_json(document, ensure_ascii=False, indent=2) + "\n").encode()
    lost = [] if can_plot() else [str(MissingExtra("report", "drawing plots"))]
    yield "report.md", _page(document, plots, lost).encode()


def can_plot() -> bool:
    return find_spec("matplotlib") is not None


def draw_plot(plot: Plot) -> bytes:
    """The plot as PNG."""
    from matplotlib.figure import Figure

    names = next(iter(plot.series.values()))[0] if plot.series else []
    long = plot.kind == "bars" and len(plot.series) == 1 and len(names) > 6
    figure = Figure(figsize=(7, max(3.6, 0.26 * len(names) + 1)) if long else (7, 4.2), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(plot.title, fontsize=11)
    if long:
        values = next(iter(plot.series.values()))[1]
        axes.barh([_short(name) for name in names], list(values), color="#2684de")
        axes.invert_yaxis()
        axes.set_xlim(0, _top(values))
        axes.set_xlabel(plot.y)
    elif plot.kind == "bars":
        width = 0.8 / max(len(plot.series), 1)
        for at, (label, (_, values)) in enumerate(plot.series.items()):
            axes.bar(
                [n + (at - (len(plot.series) - 1) / 2) * width for n in range(len(names))], values, width, label=label
            )
        axes.set_xticks(range(len(names)), [_short(name) for name in names])
        axes.set_ylim(0, _top([value for _, values in plot.series.values() for value in values]))
        axes.set_ylabel(plot.y)
    else:
        for label, (x, y) in plot.series.items():
            axes.plot(x, y, marker="o", markersize=4, label=label)
        axes.set_xlabel(plot.x)
        axes.set_ylabel(plot.y)
        axes.set_ylim(bottom=0)
    if len(plot.series) > 1:
        axes.legend()
    axes.spines[["top", "right"]].set_visible(False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _top(values: Sequence[float]) -> float:
    """The end of an axis: 1 for shares."""
    return 1.0 if max(values) <= 1 else 1.05 * max(values)


def _short(name: Any) -> str:
    text = str(name)
    return text if len(text) <= 28 else text[:27] + "…"


def _image(mistake: Mistake) -> bytes | None:
    """The image with what was said and what is true below it; with boxes, one beside the other."""
    try:
        source = mistake.image()
        if source is None:
            return None
        image = open_image(source)
    except RebusError:  # the data set has changed since
        return None
    panels = [_titled(_panel(image, mistake.found), "prediction", mistake.found, _RED)]
    if mistake.wanted:
        panels.append(_titled(_panel(image, mistake.wanted), "ground truth", mistake.wanted, _GREEN))
    width = max(sum(panel.width for panel in panels) + 8 * (len(panels) - 1), _SIDE)
    lines = [
        *((line, _RED) for line in _wrapped(f"said: {mistake.said}", width)),
        *((line, _GREEN) for line in _wrapped(f"true: {mistake.truth}", width)),
    ]
    height = max(panel.height for panel in panels)
    sheet = Image.new("RGB", (width, height + _LINE * len(lines) + 10), "white")
    left = 0
    for panel in panels:
        sheet.paste(panel, (left, 0))
        left += panel.width + 8
    pen = ImageDraw.Draw(sheet)
    for number, (line, colour) in enumerate(lines):
        pen.text((4, height + 4 + number * _LINE), line, fill=colour, font=font_for(line, _FONT))
    buffer = io.BytesIO()
    sheet.save(buffer, "JPEG", quality=_QUALITY)
    return buffer.getvalue()


def _panel(image: Image.Image, answers: Sequence[Box | Mask]) -> Image.Image:
    masks = [answer for answer in answers[:_DRAWN] if isinstance(answer, Mask)]
    boxes = [answer for answer in answers[:_DRAWN] if isinstance(answer, Box)]
    drawn = draw_masks(image, masks) if masks else draw_boxes(image, boxes) if boxes else image.copy()
    scale = _SIDE / max(drawn.size)
    if scale == 1:
        return drawn
    small = (max(1, round(drawn.width * scale)), max(1, round(drawn.height * scale)))
    return drawn.resize(small, Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.BICUBIC)


def _titled(panel: Image.Image, title: str, answers: Sequence[Box | Mask], colour: str) -> Image.Image:
    """A panel below its name, and how many regions are left out of it."""
    if not answers:
        return panel
    if len(answers) > _DRAWN:
        title += f", {_DRAWN} of {len(answers)} shown"
    titled = Image.new("RGB", (panel.width, panel.height + _LINE), "white")
    titled.paste(panel, (0, _LINE))
    ImageDraw.Draw(titled).text((4, 1), title, fill=colour, font=font_for(title, _FONT))
    return titled


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, max(20, width // 7))[:4]


def _page(document: Mapping[str, Any], plots: Sequence[tuple[str, str]], lost: Sequence[str]) -> str:
    lines = [f"# {document['model']} on {document['benchmark']}", "", *_table(document["scores"])]
    for note in (*document.get("notes", ()), *lost):
        lines += [f"- {note}"]
    for title, file in plots:
        lines += ["", f"![{title}]({file})"]
    mistakes = document["mistakes"]
    if mistakes:
        lines += ["", "## The worst mistakes", "", "| record | said | true | image |", "| --- | --- | --- | --- |"]
        lines += [
            f"| {_cell(one['key'])} | {_cell(one['said'])} | {_cell(one['truth'])} | "
            f"{'![](' + one['image'] + ')' if one['image'] else ''} |"
            for one in mistakes
        ]
    lines += ["", "## To repeat it", ""]
    if document.get("command"):
        lines += ["```", document["command"], "```", ""]
    data = document["data"]
    where = {"data": data.get("path"), "layout": data.get("layout"), "split": data.get("split")}
    counts = {
        "records": data.get("records"),
        "used": data.get("used"),
        "fingerprint": " ".join(data.get("fingerprint", [])),
    }
    rows = {
        **where,
        **counts,
        **{name: document.get(name) for name in ("source", "device", "dtype", "date", "seconds")},
    }
    rows |= document["versions"]
    lines += [
        "| | |",
        "| --- | --- |",
        *(f"| {name} | {_cell(value)} |" for name, value in rows.items() if value not in (None, "")),
    ]
    damaged = data.get("damaged") or {"count": 0, "first": []}
    if damaged["count"]:
        lines += ["", f"{damaged['count']:,} damaged records were skipped:", ""]
        lines += [f"- {_line(reason)}" for reason in damaged["first"]]
    if data.get("damaged_files"):
        lines += ["", "What damaged files hold after the damage is missing:", ""]
        lines += [f"- {_line(fault)}" for fault in data["damaged_files"]]
    return "\n".join(lines) + "\n"


def _table(scores: Mapping[str, Any]) -> list[str]:
    """Numbers first, then a table for each group."""
    single = {name: value for name, value in scores.items() if not isinstance(value, Mapping)}
    lines = []
    if single:
        lines += [
            "| score | |",
            "| --- | --- |",
            *(f"| {name} | {number(value)} |" for name, value in single.items()),
            "",
        ]
    for name, group in scores.items():
        if isinstance(group, Mapping):
            lines += [f"| {name} | |", "| --- | --- |"]
            rows = list(group.items())
            if len(rows) > _ROWS:
                known = [(key, value) for key, value in rows if value is not None]
                rows = sorted(known, key=lambda row: row[1])[:_ROWS]
                lines[-2] = f"| {name}: the lowest {_ROWS} of {len(group):,}, all in results.json | |"
            lines += [f"| {_cell(key)} | {number(value)} |" for key, value in rows] + [""]
    return lines


def number(value: Any) -> str:
    """A score for people; — where there was nothing to measure it on."""
    if value is None:
        return "—"
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def _line(text: Any) -> str:
    return " ".join(str(text).split())


def _cell(text: Any) -> str:
    """Text that breaks no table of Markdown."""
    return _line(text).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")
