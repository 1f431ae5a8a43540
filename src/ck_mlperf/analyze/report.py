"""`ck report loadgen`: recorded runs as one HTML page that works offline."""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime, timezone
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from unicodedata import category

from ck_mlperf.analyze import curves
from ck_mlperf.analyze.curves import Verdict, format_figure
from ck_mlperf.analyze.flags import Flag, find_flags
from ck_mlperf.analyze.runs import NETWORK, Point, Run, group_points
from ck_mlperf.common.errors import UserError

if TYPE_CHECKING:
    from jinja2 import Template

HERE = Path(__file__).resolve().parent
GENERATOR = "ck report loadgen"  # by this a file is known as a report, which may be replaced
FILTERS = ("scenario", "model", "precision", "engine", "verdict")
UNKNOWN = "unknown"
_HIDDEN = {"Cc", "Cf", "Cs"}  # Unicode categories: control, format, surrogate

ENVIRONMENT = (
    "cpu",
    "cores",
    "gpu",
    "driver",
    "engine",
    "engine_version",
    "device",
    "devices",
    "loadgen_version",
    "commit",
)
"""The columns that say on what a run was made."""


class Row(NamedTuple):
    """A point as the page shows it."""

    id: str
    point: Point
    typical: Run
    verdict: Verdict
    valid_count: int
    load: str
    rate: curves.Spread
    p99_ms: curves.Spread | None
    rules: Run
    flags: list[Flag]
    filters: dict[str, str]
    """Value by name, for each of FILTERS."""


class Finding(NamedTuple):
    """What came out for a scenario and a model."""

    scenario: str
    model: str
    best: Row | None
    """The fastest point that is VALID."""
    points: int
    reason: str | None
    """Where none is VALID: LoadGen's most frequent reason."""


def refuse_to_replace(path: Path) -> None:
    """Raise UserError where `path` cannot be written, or holds something else than a report."""
    if path.is_dir():
        raise UserError(f"--out_file={path} is a folder: give the name of a file")
    if not path.parent.is_dir():
        raise UserError(f"--out_file={path}: there is no folder {path.parent}; make it first")
    if path.exists():
        with path.open("rb") as file:
            if f'content="{GENERATOR}"'.encode() not in file.read(1000):
                raise UserError(
                    f"{path} is there and is no report: give --out_file another name, or --force"
                )


def build_page(
    runs: Sequence[Run],
    now: datetime,
    live_version: str | None = None,
    notices: Sequence[str] = (),
) -> bytes:
    """The page as UTF-8 with all that it needs in it: it asks for nothing from elsewhere.

    now: when it is made, with a time zone. live_version: for a page that asks its server for a
    newer one every 2 s; what the server calls this one. notices: sentences that stand on top.
    """
    from ck_mlperf.analyze.inline_svg import draw_inline_svg

    points = group_points(runs)
    rows = [describe_point(point) for point in points]
    rows.sort(key=_order_row)
    style, script = read_sources()
    page = _load_template().render(
        generator=GENERATOR,
        policy=describe_policy(style, script, live_version is not None),
        style=style,
        script=script,
        live_version=live_version,
        notices=notices,
        now=now,
        runs=runs,
        span=_find_span(runs),
        rows=rows,
        findings=list_findings(rows),
        filters={name: sorted({row.filters[name] for row in rows}) for name in FILTERS},
        plots=[(plot, draw_inline_svg(plot)) for plot in curves.list_plots(points)],
        accuracies=_list_accuracies(runs),
        failures=[run for run in runs if run.error is not None],
        others=[run for run in runs if run.mode == "FindPeakPerformance" and run.error is None],
        unofficial=Counter(run.unofficial for run in runs if run.unofficial).most_common(),
        environment=ENVIRONMENT,
        environments=Counter(
            _describe_environment(run) for run in runs if run.error is None
        ).most_common(),
    )
    return page.encode()


def _describe_environment(run: Run) -> tuple[Any, ...]:
    """The values of ENVIRONMENT, as a reader wants them."""
    values = {name: getattr(run, name) for name in ENVIRONMENT}
    if run.commit is not None:  # 12 of its 40 digits tell commits apart; a + may follow them
        values["commit"] = run.commit[:12] + run.commit[40:]
    if run.gpu is None:
        values |= {"gpu": "none", "driver": "none"}
    return tuple(values.values())


def read_sources() -> tuple[str, str]:
    """The page's style and its script."""
    return (HERE / "report.css").read_text(), (HERE / "report.js").read_text()


def describe_policy(style: str, script: str, is_live: bool) -> str:
    """The Content-Security-Policy: the page's own style and script, by their hashes, and no more.

    is_live: it may ask the server that it comes from.
    """
    parts = [
        "default-src 'none'",
        f"style-src '{_hash_source(style)}'",
        f"script-src '{_hash_source(script)}'",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
    ]
    return "; ".join([*parts, "connect-src 'self'"] if is_live else parts)


def describe_point(point: Point) -> Row:
    """What the page says of a point."""
    tail = curves.spread(point, "latency_p99_ns")
    verdict = curves.judge_point(point)
    return Row(
        id=curves.identify_point(point),
        point=point,
        typical=curves.find_typical_run(point),
        verdict=verdict,
        valid_count=sum(run.loadgen_valid is True for run in point.runs),
        load=curves.describe_load(point),
        rate=curves.measure_throughput(point),
        p99_ms=tail and curves.Spread(*(value * 1e-6 for value in tail)),
        rules=min(point.runs, key=_order_by_rules),
        flags=find_flags(point),
        filters={
            "scenario": point.configuration["scenario"],
            "model": curves.name_model(point),
            "precision": point.configuration["precision"] or UNKNOWN,
            "engine": point.configuration["engine"] or UNKNOWN,
            "verdict": verdict,
        },
    )


def list_findings(rows: Iterable[Row]) -> list[Finding]:
    """For each scenario and model the fastest point that is VALID."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.filters["scenario"], row.filters["model"]), []).append(row)
    findings = []
    for (scenario, model), group in sorted(groups.items()):
        best = max(group, key=lambda row: curves.rank_point(row.point))
        reasons = Counter(
            run.invalid_reason for row in group for run in row.point.runs if run.invalid_reason
        )
        is_valid = best.verdict == "VALID"
        findings.append(
            Finding(
                scenario,
                model,
                best if is_valid else None,
                len(group),
                None if is_valid or not reasons else reasons.most_common(1)[0][0],
            )
        )
    return findings


def _show_hidden(value: Any) -> Any:
    """Make visible what a name has in it to hide or turn round other text, or half characters."""
    if type(value) is not str or value.isprintable():  # Markup is the template's own
        return value
    return "".join("\ufffd" if category(one) in _HIDDEN and one != "\n" else one for one in value)


@cache
def _load_template() -> Template:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_show_hidden,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        figure=format_figure,
        ms=lambda latency_ns: format_figure(latency_ns * 1e-6),
        utc=lambda time: time.astimezone(timezone.utc).strftime("%Y-%m-%d %H:%M"),
        counted=count,
    )
    return environment.get_template("report.html.j2")


def _order_row(row: Row) -> tuple[Any, ...]:
    load = curves.load_of(row.point)
    return (
        *(row.filters[name] for name in FILTERS[:2]),
        row.filters["engine"],
        row.filters["precision"],
        load is None,
        load or 0,
        row.id,
    )


def _order_by_rules(run: Run) -> tuple[bool, bool, float]:
    """The run with which the rules are least content comes first."""
    return run.rules_met is True, run.worst_margin is None, run.worst_margin or 0


def _list_accuracies(runs: Iterable[Run]) -> list[Run]:
    """The newest accuracy of each network."""
    newest: dict[tuple[Any, ...], Run] = {}
    for run in sorted(runs, key=lambda run: (run.start is not None, run.start)):
        if run.top1_percent is not None:
            newest[tuple(getattr(run, name) for name in NETWORK)] = run
    return list(newest.values())


def _find_span(runs: Iterable[Run]) -> tuple[datetime, datetime] | None:
    starts = [run.start for run in runs if run.start is not None]
    return (min(starts), max(starts)) if starts else None


def _hash_source(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def count(things: Sequence[Any], name: str) -> str:
    """How many things there are, with their name: `2 points`."""
    return f"{len(things):,} {name}{'' if len(things) == 1 else 's'}"
