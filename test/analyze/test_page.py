"""The page: that all is in it, that it is safe, and that it needs nothing else."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator
from datetime import datetime, timezone
from html.parser import HTMLParser

import pytest
from synthetic_runs import make_odd_runs, make_run, make_runs

from ck_mlperf.analyze import page as page_module
from ck_mlperf.analyze.inline_svg import COLOURS
from ck_mlperf.analyze.page import build_page, read_sources
from ck_mlperf.analyze.points import (
    format_figure,
    identify_point,
    judge_point,
    load_of,
    measure_throughput,
)
from ck_mlperf.analyze.runs import group_points

NOW = datetime(2026, 5, 6, 7, 8, 9, tzinfo=timezone.utc)
VOID = {"meta", "link", "br", "use", "path"}
BLOCKS = {"th", "td", "tr", "br", "small", "pre", "p", "details", "button"}


class Page(HTMLParser):
    """The elements of a page as (tag, attributes, text within)."""

    def __init__(self, content: bytes) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None], list[str]]] = []
        self._open: list[tuple[str, dict[str, str | None], list[str]]] = []
        self.feed(content.decode())

    def handle_starttag(self, tag, attrs):
        element = tag, dict(attrs), []
        self.elements.append(element)
        if tag in BLOCKS:
            self.handle_data(" ")
        if tag not in VOID:
            self._open.append(element)

    def handle_endtag(self, tag):
        while tag not in VOID and self._open and self._open.pop()[0] != tag:
            pass

    def handle_data(self, data):
        for element in self._open:
            element[2].append(data)

    def find(self, tag: str, **attributes: str) -> Iterator[tuple[dict[str, str | None], str]]:
        for name, found, text in self.elements:
            if name == tag and all(found.get(key) == value for key, value in attributes.items()):
                yield found, " ".join("".join(text).split())

    def read(self, identity: str) -> str:
        """The text of the element with this id."""
        ((_, _, text),) = [e for e in self.elements if e[1].get("id") == identity]
        return " ".join("".join(text).split())


def build(*runs, **arguments) -> Page:
    return Page(build_page(runs, NOW, **arguments))


@pytest.fixture(scope="module")
def runs():
    some = [run for run in make_runs(40, repetitions=2) if run.engine == "tensorrt"]
    return [*some, *make_odd_runs()]


@pytest.fixture(scope="module")
def content(runs):
    return build_page(runs, NOW)


@pytest.fixture(scope="module")
def page(content):
    return Page(content)


def test_every_point_is_there_with_its_figures_and_its_command(runs, page):
    points = group_points(runs)
    ids = [attributes["id"] for attributes, _ in page.find("tbody", **{"class": "point"})]
    assert sorted(ids) == sorted(map(identify_point, points))
    for point in points:
        identity = identify_point(point)
        text = page.read(identity)
        assert format_figure(measure_throughput(point).median) in text
        assert judge_point(point) in text
        command = page.read(f"{identity}-command")
        if point.runs[-1].command.isprintable():
            assert command == point.runs[-1].command


def test_commands_are_as_they_were_but_for_what_hides():
    (command,) = build(make_run(command="ck a  'b\nc' --d=\u202e<e>")).find("code")
    assert command[1] == "ck a 'b c' --d=\ufffd<e>"


def test_every_point_is_marked_in_a_plot(runs, page):
    shown = {
        identity
        for _, attributes, _ in page.elements
        for identity in (attributes.get("data-points") or "").split()
    }
    loaded = [point for point in group_points(runs) if load_of(point) is not None]
    assert shown == set(map(identify_point, loaded))


def test_nothing_is_fetched_and_nothing_foreign_runs(content, page):
    assert b"http://" not in content
    assert b"https://" not in content
    for tag, attributes, _ in page.elements:
        assert tag not in ("img", "iframe", "object", "embed", "base", "audio", "video")
        assert "src" not in attributes
        assert not [name for name in attributes if name == "style" or name.startswith("on")]
        assert (attributes.get("href") or "#").startswith(("#", "data:,"))
    assert len(list(page.find("script"))) == len(list(page.find("style"))) == 1


def test_names_are_text_and_cannot_hide(content):
    text = content.decode()
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;" in text
    assert "\x00" not in text
    assert "\u202e" not in text


def test_half_a_character_is_shown_as_such():
    assert "\ufffd name" in build(make_run(model="\ud83d name")).read("findings")


@pytest.mark.parametrize("live_version", [None, '"1"'])
def test_policy_allows_the_own_style_and_script_only(runs, live_version):
    content = build_page(runs[:3], NOW, live_version=live_version)
    ((attributes, _),) = Page(content).find("meta", **{"http-equiv": "Content-Security-Policy"})
    policy = dict(part.split(" ", 1) for part in attributes["content"].split("; "))
    assert policy.pop("default-src") == "'none'"
    for directive, tag in (("style-src", b"style"), ("script-src", b"script")):
        (source,) = re.findall(b"<" + tag + b">(.*?)</" + tag + b">", content, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(source).digest()).decode()
        assert policy.pop(directive) == f"'sha256-{digest}'"
    assert policy.pop("img-src") == "data:"
    assert policy.pop("base-uri") == policy.pop("form-action") == "'none'"
    assert policy == ({"connect-src": "'self'"} if live_version else {})


def test_a_run_that_cannot_be_shown_leaves_the_others():
    odd = make_run(experiment="odd", file="ckp-1.0001.json", samples_per_second=0.0)
    page = build(make_run(batch=1), make_run(batch=2), odd, make_run(batch=4))
    assert "3 points from 3 recorded runs" in page.read("summary-text")
    assert page.read("notice-1").startswith(
        "passed over: odd/ckp-1.0001.json, repetition 1: the page cannot show it: ZeroDivisionError"
    )


def test_a_page_that_cannot_be_made_at_all_is_an_error(monkeypatch):
    monkeypatch.setattr(page_module, "read_sources", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        build()


def test_many_notices_are_some_and_a_count():
    page = build(make_run(), notices=[f"notice {number}" for number in range(1012)])
    assert page.read("notice-10") == "notice 9"
    assert page.read("notice-11") == "and 1,002 more; `ck analyze loadgen` names all of them"
    assert not list(page.find("p", id="notice-12"))


def test_labels_headings_and_language(page):
    assert list(page.find("html", lang="en"))
    assert len(list(page.find("h1"))) == 1
    ids = [attributes["id"] for _, attributes, _ in page.elements if attributes.get("id")]
    assert len(ids) == len(set(ids))
    labelled = {attributes["for"] for attributes, _ in page.find("label")}
    assert labelled == {attributes["id"] for attributes, _ in page.find("select")}
    for _, attributes, _ in page.elements:
        for name in ("aria-labelledby", "aria-describedby"):
            assert set((attributes.get(name) or "").split()) <= set(ids)


def test_colours_of_both_themes_are_there():
    style, _ = read_sources()
    light, dark = (set(re.findall(r"--([\w-]+):", block)) for block in style.split("@media")[:2])
    used = set(re.findall(r"var\(--([\w-]+)\)", style)) | set(COLOURS.values())
    assert used <= light
    assert light == dark


def test_verdicts_margins_and_doubts():
    runs = [
        make_run(samples_per_second=rate, loadgen_valid=valid, worst_margin=margin)
        for rate, valid, margin in ((100.0, True, -0.5), (200.0, False, -0.9), (300.0, True, 0.1))
    ]
    page = build(*runs)
    (((_, text)),) = page.find("tbody", **{"class": "point"})
    assert "\u00b1 MIXED 2 of 3 VALID" in text
    assert "edge: not met duration \u221290%" in text
    assert "200 100 to 300" in text
    assert "throughput from 100 to 300 samples/s" in text
    assert "LoadGen found 2 of 3 runs VALID" in text


def test_rules_that_are_met_by_something_else_are_not_called_met():
    met = {"rules_met": True, "worst_margin": 0.25}
    assert "edge: met, not comparable duration +25%" in build(make_run(**met)).read("points")
    text = build(make_run(**met, unofficial=None)).read("points")
    assert "edge: met duration +25%" in text
    assert "not official MLPerf results" in build(make_run(unofficial=None)).read("official")
    assert "the network of digits is not ResNet-50 v1.5 (2 runs)" in (
        build(make_run(), make_run()).read("unofficial")
    )


def test_findings_take_the_fastest_valid_point():
    page = build(
        make_run(batch=1, samples_per_second=10.0),
        make_run(batch=2, samples_per_second=20.0, top1_percent=99.5),
        make_run(batch=4, samples_per_second=40.0, loadgen_valid=False),
        make_run(scenario="Server", target_qps=9.0, loadgen_valid=False, invalid_reason="too slow"),
    )
    offline, server = page.read("finding-1"), page.read("finding-2")
    assert "batch 2 20 99.500" in offline
    assert server == (
        "Server digits none of 1 is VALID in all repetitions; "
        "LoadGen's most frequent reason: too slow"
    )


def test_failed_runs_and_other_runs_are_told():
    failed = make_run(
        error="exit code 3\nno space", explore_run="batch-8", samples_per_second=None, start=None
    )
    peak = make_run(mode="FindPeakPerformance", peak_qps=500.0)
    page = build(failed, peak, make_run())
    assert page.read("summary-text").startswith(
        "1 point from 3 recorded runs, 1 failed run among them, "
        "1 run of FindPeakPerformance or compliance tests, which no point includes"
    )
    failures = page.read("failures")
    assert "sweep, batch-8: Offline, PerformanceOnly exit code 3 no space" in failures
    assert failed.command in failures


def test_environments_are_counted():
    commit = 4 * "0123456789"
    last = make_run(gpu="GPU 1", driver="570.1", commit=f"{commit}+")
    page = build(make_run(), make_run(), last)
    text = page.read("environments")
    assert f"{commit[:12]}+" in text
    assert commit not in text
    assert "2 A CPU 16 none none onnxruntime-cpu" in text
    assert "1 A CPU 16 GPU 1 570.1" in text


def test_notices_and_version_of_a_live_page():
    page = build(make_run(), live_version='"1.5"', notices=["x.json: no JSON"])
    assert page.read("notice-1") == "x.json: no JSON"
    assert list(page.find("html", **{"data-version": '"1.5"'}))
    assert list(page.find("p", id="live"))
    assert not list(build(make_run()).find("p", id="live"))


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"scenario": "SingleStream"}, "p90 3 as measured"),
        ({"scenario": "SingleStream", "early_stopped_p90_ns": 3.1e6}, "p90 3.1 early-stopped"),
        ({"scenario": "MultiStream", "early_stopped_p99_ns": 5.2e6}, "p99 5.2 early-stopped"),
        ({"scenario": "Server", "target_qps": 9.0, "latency_bound_ms": 15.0}, "p99 5 bound 15"),
    ],
)
def test_latency_is_the_one_that_the_scenario_is_judged_by(columns, expected):
    page = build(make_run(**columns))
    assert expected in page.read("points")
    assert expected in page.read("finding-1")
    assert "p99" not in build(make_run(scenario="Offline")).read("points")


def test_what_the_closed_division_does_not_take_is_told():
    met = {"rules_met": True, "unofficial": None, "worst_margin": 0.25}
    page = build(make_run(**met, not_closed="<b>other weights</b>"))
    assert "<b>other weights</b> (1 run)" in page.read("not-closed")
    assert "edge: met, open division only" in page.read("points")
    assert not list(build(make_run(**met)).find("details", id="not-closed"))


def test_title_and_system_come_first():
    content = build_page([make_run(gpu="GPU 1", driver="570.1")], NOW, title="<i>Q2</i>")
    assert b"<h1>&lt;i&gt;Q2&lt;/i&gt;</h1>" in content
    assert (
        Page(content)
        .read("systems")
        .startswith("GPU 1, driver 570.1; A CPU, 16 cores; onnxruntime-cpu 1.20.0; LoadGen 6.0.17")
    )


def test_runs_of_a_point_are_numbered_in_it():
    """A sweep records each repetition by itself: the experiment's own number is always 1."""
    runs = [make_run(start=NOW, repetition=0, experiment="sweep") for _ in range(2)]
    page = Page(build_page(runs, NOW))
    cells = [text for _, text in page.find("td")]
    assert "sweep, 1" in cells
    assert "sweep, 2" in cells
