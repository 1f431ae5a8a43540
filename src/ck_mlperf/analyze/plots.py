"""The plots, drawn with matplotlib: as files for papers, and for the page (inline_svg)."""

from __future__ import annotations

import io
import math
import textwrap
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ck_mlperf.analyze.curves import LONGEST_TITLE, Plot, Series
from ck_mlperf.analyze.series import shorten
from ck_mlperf.common.files import write_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMATS = ("png", "svg")

# Colours that any colour vision can tell apart on white; each series also has its own marker and
# line style. The page has other values for dark mode.
COLOURS = ("#0072b2", "#c24a00", "#00785a", "#9a4183", "#7d6200", "#3d3d3d")
MARKERS = ("o", "s", "^", "D", "v", "P")
LINES: Any = ("-", "--", "-.", ":", (0, (6, 1, 1, 1, 1, 1)), (0, (1, 1)))
INK = "#1f2328"
GRID = "#d7dbe0"
PAPER = "#fefefe"
BOUND = "#b3001e"
NO_VALID = "#e9e3e4"

WIDTH_IN = 4.5
HEIGHT_IN = 3.0
_LEGEND_ROW_IN = 0.21
_DOTS_PER_INCH = 200
_TITLE_WIDTH = 52  # characters
_LEGEND_WIDTH = 44  # characters in two columns

_STYLE: dict[Any, Any] = {
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "font.family": "DejaVu Sans",
    "font.size": 11,
    "axes.labelsize": 11,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "legend.columnspacing": 1.0,
    "legend.fontsize": 9.5,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "lines.markersize": 6,
    "svg.fonttype": "none",
    "svg.hashsalt": "ck-mlperf",
    "text.color": INK,
    "text.parse_math": False,  # a name may have a dollar in it
    "xtick.color": INK,
    "ytick.color": INK,
}


def draw_svg(plot: Plot) -> str:
    """The plot as an SVG document without a background, the same text each time.

    The ids in it say what an element is: `marks-SERIES-VALID`, `line-SERIES`, `band-SERIES`.
    """
    with _in_style():
        figure = _draw(plot)
        figure.patch.set_visible(False)
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()


def write_plots(plots: Sequence[Plot], folder: Path, file_format: str) -> list[Path]:
    """Write each plot into `folder`, which is made if missing, as PNG or SVG with its title.

    Returns the files. Raises OSError.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for plot in plots:
        file = io.BytesIO()
        with _in_style():
            figure = _draw(plot, with_title=True)
            figure.savefig(
                file,
                format=file_format,
                dpi=_DOTS_PER_INCH,
                facecolor="white",
                metadata={"Date": None} if file_format == "svg" else None,
            )
        path = folder / f"{plot.name}.{file_format}"
        write_file(path, file.getvalue())
        paths.append(path)
    return paths


def draw_plot(plot: Plot) -> Figure:
    """The plot with its title as a figure, for a notebook."""
    with _in_style():
        return _draw(plot, with_title=True)


def _draw(plot: Plot, with_title: bool = False) -> Figure:
    from matplotlib.figure import Figure

    draw = {
        "latency": draw_latency,
        "throughput": draw_throughput,
        "tail": draw_tail,
        "accuracy": draw_accuracy,
    }[plot.kind]
    figure = Figure(figsize=(WIDTH_IN, HEIGHT_IN), layout="constrained")
    axes = figure.add_subplot(facecolor="none")
    draw(axes, plot)
    axes.set_xlabel(plot.x_label)
    axes.set_ylabel(plot.y_label)
    title = textwrap.fill(shorten(plot.title, LONGEST_TITLE), _TITLE_WIDTH) if with_title else ""
    _add_legend(figure, plot, title)
    return figure


def draw_latency(axes: Axes, plot: Plot) -> None:
    """Latency in ms on a log scale, against quantiles on a scale that counts nines."""
    _draw_lines(axes, plot, to_y=count_nines)
    xs = [mark.x for series in plot.series for mark in series.marks]
    if plot.bound_ms is not None:
        xs.append(plot.bound_ms)
        axes.axvline(plot.bound_ms, color=BOUND, linewidth=1.2, linestyle=(0, (5, 2)), gid="bound")
    _scale(axes, "x", xs)
    most = max(count_nines(mark.y) for series in plot.series for mark in series.marks)
    ticks = {0.0: "0", 0.5: "50", 0.9: "90", 0.99: "99", 0.999: "99.9", 0.9999: "99.99"}
    ticks |= {0.99999: "99.999", 0.999999: "99.9999"}
    shown = [quantile for quantile in ticks if count_nines(quantile) <= most + 0.35]
    axes.set_yticks([count_nines(quantile) for quantile in shown], [ticks[q] for q in shown])
    axes.set_ylim(-0.12, most + 0.15)


def draw_throughput(axes: Axes, plot: Plot) -> None:
    """Throughput against the load, with the band of the repetitions and the frontier of VALID."""
    _draw_lines(axes, plot, with_band=True)
    _scale_load(axes, plot)
    highs = [mark.high for series in plot.series for mark in series.marks]
    lows = [mark.low for series in plot.series for mark in series.marks]
    if _is_rate(plot):
        asked = [mark.x for series in plot.series for mark in series.marks]
        axes.plot(asked, asked, color=INK, linewidth=0.8, linestyle=":", gid="asked")
        _scale(axes, "y", [*lows, *highs])
    elif max(highs) > 30 * max(min(lows), 1e-9):
        _scale(axes, "y", [*lows, *highs])
    else:
        axes.set_ylim(0, 1.08 * max(highs) or 1)
        axes.yaxis.set_major_formatter(_format_number)
    _shade_frontier(axes, plot.series)


def draw_tail(axes: Axes, plot: Plot) -> None:
    """The 99th percentile of latency in ms against the load, with the bound and the frontier."""
    _draw_lines(axes, plot, with_band=True)
    _scale_load(axes, plot)
    ys = [y for series in plot.series for mark in series.marks for y in (mark.low, mark.high)]
    if plot.bound_ms is not None:
        ys.append(plot.bound_ms)
        axes.axhline(plot.bound_ms, color=BOUND, linewidth=1.2, linestyle=(0, (5, 2)), gid="bound")
    _scale(axes, "y", ys)
    _shade_frontier(axes, plot.series)


def draw_accuracy(axes: Axes, plot: Plot) -> None:
    """Accuracy in percent against throughput, which begins at 0."""
    _draw_lines(axes, plot)
    xs = [mark.x for series in plot.series for mark in series.marks]
    ys = [mark.y for series in plot.series for mark in series.marks]
    axes.set_xlim(0, 1.1 * max(xs) or 1)
    axes.xaxis.set_major_formatter(_format_number)
    axes.locator_params(axis="x", nbins=6)
    # At least two points of accuracy high: less would overstate a few images.
    middle, half = (min(ys) + max(ys)) / 2, max(1.0, 0.65 * (max(ys) - min(ys)))
    axes.set_ylim(middle - half, middle + half)
    axes.yaxis.set_major_formatter(_format_number)


def count_nines(quantile: float) -> float:
    """0.9: 1, 0.99: 2, 0.999: 3. quantile: from 0 to below 1."""
    return -math.log10(1 - quantile)


def _draw_lines(
    axes: Axes, plot: Plot, with_band: bool = False, to_y: Callable[[float], float] = float
) -> None:
    for number, series in enumerate(plot.series):
        colour = COLOURS[number]
        xs = [mark.x for mark in series.marks]
        ys = [to_y(mark.y) for mark in series.marks]
        if with_band and any(mark.low < mark.high for mark in series.marks):
            lows, highs = (
                [getattr(mark, name) for mark in series.marks] for name in ("low", "high")
            )
            if len(xs) > 1:
                axes.fill_between(
                    xs, lows, highs, color=colour, alpha=0.18, linewidth=0, gid=f"band-{number}"
                )
            else:
                axes.vlines(xs, lows, highs, color=colour, alpha=0.5, gid=f"band-{number}")
        if len(xs) > 1:
            axes.plot(xs, ys, color=colour, linestyle=LINES[number], gid=f"line-{number}")
        for is_valid in (True, False):
            shown = [
                (mark.x, y)
                for mark, y in zip(series.marks, ys, strict=True)
                if mark.is_valid == is_valid
            ]
            if shown:
                axes.plot(
                    *zip(*shown, strict=True),
                    linestyle="none",
                    marker=MARKERS[number],
                    markeredgecolor=colour,
                    markerfacecolor=colour if is_valid else PAPER,
                    markeredgewidth=1.3,
                    gid=f"marks-{number}-{is_valid}",
                    zorder=3,
                )


def _shade_frontier(axes: Axes, series: Sequence[Series]) -> None:
    """Shade the loads above the highest one at which any series is VALID."""
    loads = sorted({mark.x for one in series for mark in one.marks})
    valid = [mark.x for one in series for mark in one.marks if mark.is_valid]
    above = [load for load in loads if valid and load > max(valid)]
    if not above:
        return
    edge = math.sqrt(max(valid) * above[0])
    right = axes.get_xlim()[1]
    axes.axvspan(edge, right, color=NO_VALID, linewidth=0, zorder=0, gid="frontier")
    axes.axvline(edge, color=INK, linewidth=0.8, linestyle=":", gid="frontier-edge")
    axes.set_xlim(right=right)


def _is_rate(plot: Plot) -> bool:
    """Whether the load is the rate that was asked for (Server), and not a batch."""
    return "queries/s" in plot.x_label


def _scale_load(axes: Axes, plot: Plot) -> None:
    from matplotlib.ticker import NullLocator

    loads = sorted({mark.x for series in plot.series for mark in series.marks})
    if _is_rate(plot):
        _scale(axes, "x", loads)
        return
    axes.set_xscale("log", base=2)
    first, last = math.floor(math.log2(loads[0])), math.ceil(math.log2(loads[-1]))
    step = max(1, math.ceil((last - first) / 8))
    ticks = [2**power for power in range(first, last + 1, step)]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlim(loads[0] / 1.3, loads[-1] * 1.3)


def _scale(axes: Axes, name: Literal["x", "y"], values: Sequence[float]) -> None:
    """A log scale, with plain numbers as ticks: 0.5, 1, 2, ... or powers of ten."""
    from matplotlib.ticker import LogLocator, NullLocator

    positive = [value for value in values if value > 0] or [1.0]
    least, most = min(positive), max(positive)
    decades = math.log10(most / least)
    room = 10 ** max(0.06 * decades, 0.06)
    axes.set(**{f"{name}scale": "log", f"{name}lim": (least / room, most * room)})
    axis = axes.xaxis if name == "x" else axes.yaxis
    subs = (1, 2, 5) if decades < 2 else (1, 3) if decades < 3.2 else (1,)
    axis.set_major_locator(LogLocator(subs=subs, numticks=12))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(_format_number)


def _format_number(value: float, _: float | None = None) -> str:
    if abs(value) >= 1e6:
        return f"{value / 1e6:g}M"
    return f"{value / 1e3:g}k" if abs(value) >= 1e4 else f"{value:g}"


def _add_legend(figure: Figure, plot: Plot, title: str) -> None:
    """Put a legend above the axes, with the title above it."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: list[Line2D | Patch] = []
    labels = []
    if len(plot.series) > 1:
        for number, series in enumerate(plot.series):
            is_line = any(len(one.marks) > 1 for one in plot.series)
            handles.append(
                Line2D(
                    [],
                    [],
                    color=COLOURS[number],
                    linestyle=LINES[number] if is_line else "none",
                    marker=MARKERS[number],
                )
            )
            labels.append(series.label)
    marks = [mark for series in plot.series for mark in series.marks]
    if not all(mark.is_valid for mark in marks):
        for label, face in (("VALID", INK), ("not VALID", PAPER)):
            handles.append(
                Line2D([], [], color="none", marker="o", markeredgecolor=INK, markerfacecolor=face)
            )
            labels.append(label)
        if plot.kind in ("throughput", "tail") and any(mark.is_valid for mark in marks):
            handles.append(Patch(color=NO_VALID))
            labels.append("no series VALID")
    if plot.kind == "throughput" and _is_rate(plot):
        handles.append(Line2D([], [], color=INK, linewidth=0.8, linestyle=":"))
        labels.append("as asked for")
    if plot.bound_ms is not None:
        handles.append(Line2D([], [], color=BOUND, linewidth=1.2, linestyle=(0, (5, 2))))
        labels.append(f"bound {plot.bound_ms:g} ms")
    if not handles:
        figure.suptitle(title, x=0.02, ha="left", fontsize="medium")
        return
    half = -(-len(labels) // 2)
    widths = [max(map(len, some)) for some in (labels[:half], labels[half:]) if some]
    columns = 2 if len(labels) > 1 and sum(widths) <= _LEGEND_WIDTH else 1
    rows = -(-len(handles) // columns) + (title.count("\n") + 1 if title else 0)
    figure.set_figheight(HEIGHT_IN + _LEGEND_ROW_IN * rows)
    # A label with an underscore in front would be left out.
    labels = [f" {label}" if label.startswith("_") else label for label in labels]
    figure.legend(
        handles,
        labels,
        loc="outside upper left",
        ncols=columns,
        handlelength=2.6,
        title=title or None,
        alignment="left",
        title_fontsize="medium",
    )


@contextmanager
def _in_style() -> Iterator[None]:
    import matplotlib

    with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
        # A name in another script: the SVG's viewer has the font, and exact widths do not matter.
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        yield
