"""The page of `ck report loadgen` and `ck serve loadgen`: recorded runs as HTML, works offline."""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime, timezone
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ck_mlperf.analyze import points
from ck_mlperf.analyze.curves import list_plots
from ck_mlperf.analyze.flags import Flag, find_flags
from ck_mlperf.analyze.runs import NETWORK, Point, Run, group_points
from ck_mlperf.common.errors import UserError
from ck_mlperf.common.files import open_regular
from ck_mlperf.common.printable import make_printable

if TYPE_CHECKING:
    from jinja2 import Template

HERE = Path(__file__).resolve().parent
GENERATOR = "ck report loadgen"  # marks a file as such a page, which may be replaced
FILTERS = ("scenario", "model", "precision", "engine", "verdict")
UNKNOWN = "unknown"
TITLE = "LoadGen runs"
_MOST_NOTICES = 10

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
"""The columns that describe where a run was made."""


class Row(NamedTuple):
    """A point as the page shows it."""

    id: str
    point: Point
    typical: Run
    verdict: points.Verdict
    valid_count: int
    load: str
    rate: points.Spread
    latency: points.Latency | None
    rules: Run
    flags: list[Flag]
    filters: dict[str, str]
    """Value by name, for each of FILTERS."""


class Finding(NamedTuple):
    """The result for a scenario and a model."""

    scenario: str
    model: str
    best: Row | None
    """The fastest point that is VALID."""
    slower: list[Row]
    """The other VALID points, the fastest first: a filter may hide the best."""
    ids: list[str]
    """Of all points."""
    points: int
    reason: str | None
    """If none is VALID: LoadGen's most frequent reason."""


def refuse_to_replace(path: Path) -> None:
    """Raise UserError if `path` cannot be written, or holds anything but a page."""
    if path.is_dir():
        raise UserError(f"--out_file={path} is a folder: give the name of a file")
    if not path.parent.is_dir():
        raise UserError(f"--out_file={path}: there is no folder {path.parent}; make it first")
    if path.exists():
        with open_regular(path) as file:
            if f'content="{GENERATOR}"'.encode() not in file.read(1000):
                raise UserError(
                    f"{path} exists and is not a page of this command: give --out_file another "
                    "name, or --force"
                )


def build_page(
    runs: Sequence[Run],
    now: datetime,
    live_version: str | None = None,
    notices: Sequence[str] = (),
    title: str = TITLE,
) -> bytes:
    """The page as UTF-8, complete: it loads nothing from elsewhere.

    A run that the page cannot show is passed over with a notice, so that the others are there.
    now: when it is made, with a time zone. live_version: for a page that asks its server for a
    newer one every 2 s, the server's name of this one. notices: sentences for the top of the page.
    title: its heading.
    """
    try:
        return _build(runs, now, live_version, notices, title)
    except Exception:
        odd = dict(_find_odd(runs, now))
        if not odd:
            raise
        said = [
            f"passed over: {run.experiment}/{run.file}, repetition {run.repetition + 1}: "
            f"the page cannot show it: {type(error).__name__}: {error}"
            for run, error in odd.items()
        ]
        shown = [run for run in runs if run not in odd]
        return _build(shown, now, live_version, [*notices, *said], title)


def _find_odd(runs: Sequence[Run], now: datetime) -> list[tuple[Run, Exception]]:
    """The runs of which not even a page of their own can be made, with why."""
    try:
        _build(runs, now, None, (), TITLE)
    except Exception as error:
        if len(runs) == 1:
            return [(runs[0], error)]
        half = len(runs) // 2
        return [*_find_odd(runs[:half], now), *_find_odd(runs[half:], now)] if half else []
    return []


def _build(
    runs: Sequence[Run],
    now: datetime,
    live_version: str | None,
    notices: Sequence[str],
    title: str,
) -> bytes:
    from ck_mlperf.analyze.inline_svg import draw_inline_svg

    grouped = group_points(runs)
    rows = sorted(map(describe_point, grouped), key=_order_row)
    style, script = read_sources()
    page = _load_template().render(
        generator=GENERATOR,
        title=title,
        policy=describe_policy(style, script, live_version is not None),
        style=style,
        script=script,
        live_version=live_version,
        notices=_shorten(notices),
        now=now,
        runs=runs,
        span=_find_span(runs),
        rows=rows,
        findings=list_findings(rows),
        filters={name: sorted({row.filters[name] for row in rows}) for name in FILTERS},
        plots=[(plot, draw_inline_svg(plot)) for plot in list_plots(grouped)],
        accuracies=_list_accuracies(runs),
        failures=[run for run in runs if run.error is not None],
        others=[run for run in runs if run.is_of_another_kind and run.error is None],
        unofficial=Counter(run.unofficial for run in runs if run.unofficial).most_common(),
        not_closed=Counter(run.not_closed for run in runs if run.not_closed).most_common(),
        systems=_list_systems(runs),
        environment=ENVIRONMENT,
        environments=Counter(
            _describe_environment(run) for run in runs if run.error is None
        ).most_common(),
    )
    return page.encode()


def _shorten(notices: Sequence[str]) -> list[str]:
    left_out = len(notices) - _MOST_NOTICES
    more = (
        [f"and {left_out:,} more; `ck analyze loadgen` names all of them"] if left_out > 0 else []
    )
    return [*notices[:_MOST_NOTICES], *more]


def _describe_environment(run: Run) -> tuple[Any, ...]:
    """The values of ENVIRONMENT, as a reader wants them."""
    values = {name: getattr(run, name) for name in ENVIRONMENT}
    if run.commit is not None:  # 12 of its 40 digits tell commits apart; a + may follow them
        values["commit"] = run.commit[:12] + run.commit[40:]
    if run.gpu is None:
        values |= {"gpu": "none", "driver": "none"}
    return tuple(values.values())


def _list_systems(runs: Iterable[Run]) -> list[str]:
    """Hardware and versions of each system in a line, the one with the most runs first."""
    systems = Counter(
        (
            run.gpu and f"{run.gpu}, driver {run.driver or UNKNOWN}",
            run.cpu and f"{run.cpu}, {run.cores or UNKNOWN} cores",
            run.engine and f"{run.engine} {run.engine_version or ''}".rstrip(),
            run.loadgen_version and f"LoadGen {run.loadgen_version}",
        )
        for run in runs
        if run.error is None
    )
    return ["; ".join(filter(None, system)) or UNKNOWN for system, _ in systems.most_common()]


def read_sources() -> tuple[str, str]:
    """The page's style and its script."""
    return (HERE / "page.css").read_text(), (HERE / "page.js").read_text()


def describe_policy(style: str, script: str, is_live: bool) -> str:
    """The Content-Security-Policy: only the page's own style and script, by their hashes.

    is_live: the page may ask its server.
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
    """A point as the page shows it."""
    verdict = points.judge_point(point)
    return Row(
        id=points.identify_point(point),
        point=point,
        typical=points.find_typical_run(point),
        verdict=verdict,
        valid_count=sum(run.loadgen_valid is True for run in point.runs),
        load=points.describe_load(point),
        rate=points.measure_throughput(point),
        latency=points.measure_latency(point),
        rules=min(point.runs, key=_order_by_rules),
        flags=find_flags(point),
        filters={
            "scenario": point.configuration["scenario"],
            "model": points.name_model(point),
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
        ranked = sorted(group, key=lambda row: points.rank_point(row.point), reverse=True)
        valid = [row for row in ranked if row.verdict == "VALID"]
        reasons = Counter(
            run.invalid_reason for row in group for run in row.point.runs if run.invalid_reason
        )
        findings.append(
            Finding(
                scenario,
                model,
                valid[0] if valid else None,
                valid[1:],
                [row.id for row in group],
                len(group),
                None if valid or not reasons else reasons.most_common(1)[0][0],
            )
        )
    return findings


def _show_text(value: Any) -> Any:
    """Text of a record; Markup, which is the template's own, stays."""
    return make_printable(value, keep="\n\t") if type(value) is str else value


@cache
def _load_template() -> Template:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_show_text,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        figure=points.format_figure,
        ms=lambda latency_ns: points.format_figure(latency_ns * 1e-6),
        utc=lambda time: time.astimezone(timezone.utc).strftime("%Y-%m-%d %H:%M"),
        counted=count,
    )
    return environment.get_template("page.html.j2")


def _order_row(row: Row) -> tuple[Any, ...]:
    load = points.load_of(row.point)
    return (
        *(row.filters[name] for name in FILTERS[:2]),
        row.filters["engine"],
        row.filters["precision"],
        load is None,
        load or 0,
        row.id,
    )


def _order_by_rules(run: Run) -> tuple[bool, bool, float]:
    """The run that breaks the rules most comes first."""
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
