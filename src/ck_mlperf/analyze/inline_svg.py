"""A plot as SVG inside the page: with unique ids, in the page's own colours."""

from __future__ import annotations

import re
from functools import lru_cache
from xml.etree import ElementTree

from ck_mlperf.analyze import plots
from ck_mlperf.analyze.curves import Plot

COLOURS = {
    **{colour: f"series-{number}" for number, colour in enumerate(plots.COLOURS)},
    plots.INK: "ink",
    plots.GRID: "grid",
    plots.PAPER: "paper",
    plots.BOUND: "bound",
    plots.NO_VALID: "no-valid",
}
"""The colours in which plots are drawn, with the page's CSS variables that replace them."""

_GONE = {"metadata", "style"}
_REFERENCE = re.compile(r"#([\w-]+)")
_LONG_NUMBER = re.compile(r"-?\d+\.\d{3,}(?:e-?\d+)?")
_NUMBERS = ("d", "x", "y", "transform", "width", "height", "stroke-dasharray")


@lru_cache(maxsize=1024)
def draw_inline_svg(plot: Plot) -> str:
    """The plot as an `<svg>` element.

    A marker has its point's id in `data-points` and its figures in a `<title>`; a line or a band
    has the ids of all its points. There is no style attribute and no style element: the page's
    policy forbids them.
    """
    root = ElementTree.fromstring(plots.draw_svg(plot))
    for element in root.iter():
        element.tag = element.tag.split("}")[-1]
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in _GONE:
                parent.remove(child)
    referred = {
        name
        for element in root.iter()
        for value in element.attrib.values()
        for name in _REFERENCE.findall(value)
    }
    names = {name: f"{plot.name}-{number}" for number, name in enumerate(sorted(referred))}
    for element in root.iter():
        _add_data(element, plot)
        _rewrite(element, names)
    title, description = f"{plot.name}-title", f"{plot.name}-text"
    root.attrib = {
        "viewBox": root.attrib["viewBox"],
        "role": "img",
        "aria-labelledby": f"{title} {description}",
    }
    for place, (tag, name, text) in enumerate(
        (("title", title, plot.title), ("desc", description, plot.description))
    ):
        element = ElementTree.Element(tag, {"id": name})
        element.text = text
        root.insert(place, element)
    return re.sub(r">\s+<", "><", ElementTree.tostring(root, encoding="unicode"))


def _add_data(element: ElementTree.Element, plot: Plot) -> None:
    kind, *names = element.attrib.get("id", "").split("-")
    if kind == "marks":
        marks = [
            mark for mark in plot.series[int(names[0])].marks if str(mark.is_valid) == names[1]
        ]
        for use, mark in zip(element.iter("use"), marks, strict=True):
            use.attrib["data-points"] = mark.point
            title = ElementTree.SubElement(use, "title")
            title.text = mark.tip
    elif kind in ("line", "band"):
        points = dict.fromkeys(mark.point for mark in plot.series[int(names[0])].marks)
        element.attrib["data-points"] = " ".join(points)


def _rewrite(element: ElementTree.Element, names: dict[str, str]) -> None:
    attributes = {}
    for key, value in element.attrib.items():
        key = key.split("}")[-1]
        if key == "id":
            if value in names:
                attributes["id"] = names[value]
        elif key == "style":
            for declaration in filter(None, value.split(";")):
                name, _, setting = declaration.partition(":")
                if name.strip() != "font-family":  # the page's
                    attributes[name.strip()] = _take_colour(setting.strip())
        elif not value.startswith("rotate(-0"):
            value = _REFERENCE.sub(lambda found: f"#{names[found[1]]}", value)
            if key in _NUMBERS:
                value = _LONG_NUMBER.sub(lambda found: f"{float(found[0]):.2f}", value)
                value = " ".join(value.split())
            attributes[key] = value
    element.attrib = attributes


def _take_colour(setting: str) -> str:
    return f"var(--{COLOURS[setting]})" if setting in COLOURS else setting
