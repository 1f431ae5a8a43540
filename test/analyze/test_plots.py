"""What the plots show, and that it is drawn: the data in the axes, not the pixels."""

from __future__ import annotations

import math
import re
from xml.etree import ElementTree

import pytest
from synthetic_runs import make_odd_runs, make_run, make_runs

from ck_mlperf.analyze import curves, plots
from ck_mlperf.analyze.inline_svg import COLOURS, draw_inline_svg
from ck_mlperf.analyze.points import format_figure, identify_point, judge_point, list_quantiles
from ck_mlperf.analyze.runs import group_points


def make_points(*configurations: dict[str, object], repetitions: int = 1):
    return group_points(
        make_run(**columns) for columns in configurations for _ in range(repetitions)
    )


def find_plot(points, kind):
    (plot,) = [plot for plot in curves.list_plots(points) if plot.kind == kind]
    return plot


def read_line(figure, gid):
    """The (x, y) of the artist with this id."""
    (axes,) = figure.axes
    (line,) = [line for line in axes.lines if line.get_gid() == gid]
    return list(zip(*line.get_data(), strict=True))


def test_throughput_is_the_median_with_a_band_of_the_repetitions():
    rates = {1: (90.0, 100.0, 130.0), 4: (300.0, 310.0, 305.0)}
    points = make_points(
        *({"batch": batch, "samples_per_second": rate} for batch in rates for rate in rates[batch])
    )
    plot = find_plot(points, "throughput")
    (series,) = plot.series
    assert [mark[1:5] for mark in series.marks] == [(1, 100, 90, 130), (4, 305, 300, 310)]
    assert [mark.point for mark in series.marks] == [identify_point(p) for p in points]
    assert "90 to 130 in 3 runs" in series.marks[0].tip

    figure = plots.draw_plot(plot)
    assert read_line(figure, "line-0") == [(1, 100), (4, 305)]
    assert read_line(figure, "marks-0-True") == [(1, 100), (4, 305)]
    (axes,) = figure.axes
    (band,) = [one for one in axes.collections if one.get_gid() == "band-0"]
    assert {tuple(vertex) for vertex in band.get_paths()[0].vertices} >= {(1, 90), (1, 130)}
    assert axes.get_xscale() == "log"
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["1", "2", "4"]
    assert axes.get_xlabel() == "batch (samples)"
    assert axes.get_ylabel() == "throughput (samples/s)"


def test_a_plot_for_each_scenario_and_model():
    points = make_points(
        {"scenario": "Offline", "model": "a"},
        {"scenario": "Offline", "model": "b"},
        {"scenario": "Offline", "model": "b", "weights": "random"},
        {"scenario": "SingleStream", "model": "a"},
    )
    assert [plot.title for plot in curves.plot_throughput(points)] == [
        "Throughput, Offline, a",
        "Throughput, Offline, b",
        "Throughput, Offline, b (random weights)",
        "Throughput, SingleStream, a",
    ]


def test_a_legend_says_what_differs_and_no_more():
    points = make_points(
        *(
            {"precision": precision, "engine": engine, "engine_version": engine, "batch": batch}
            for precision in ("int8", "fp16", "fp32")
            for engine in ("tensorrt", "onnxruntime-cuda")
            for batch in (1, 2)
        )
    )
    (plot,) = curves.plot_throughput(points)
    labels = [
        "fp32, onnxruntime-cuda",
        "fp32, tensorrt",
        "fp16, onnxruntime-cuda",
        "fp16, tensorrt",
        "int8, onnxruntime-cuda",
        "int8, tensorrt",
    ]
    assert [series.label for series in plot.series] == labels
    (legend,) = plots.draw_plot(plot).legends
    assert [text.get_text() for text in legend.get_texts()] == labels


def test_seven_series_make_two_plots():
    points = make_points(*({"cpu": f"cpu {number}"} for number in range(1, 12)))
    parts = curves.plot_throughput(points)
    assert [len(plot.series) for plot in parts] == [6, 5]
    assert [plot.title[-11:] for plot in parts] == ["part 1 of 2", "part 2 of 2"]
    assert parts[1].series[-1].label == "fp32, cpu 11"


def test_a_load_that_is_there_twice_is_two_series():
    points = make_points(
        {"scenario": "MultiStream", "batch": 8, "samples_per_query": 8},
        {"scenario": "MultiStream", "batch": 8, "samples_per_query": 32},
    )
    (plot,) = curves.plot_throughput(points)
    assert [series.label for series in plot.series] == [
        "fp32, 8 samples per query",
        "fp32, 32 samples per query",
    ]


def test_markers_are_filled_where_all_repetitions_are_valid():
    points = make_points(
        {"batch": 1},
        {"batch": 2},
        {"batch": 2, "loadgen_valid": False},
        {"batch": 4, "loadgen_valid": False},
    )
    plot = find_plot(points, "throughput")
    assert [judge_point(point) for point in points] == ["VALID", "MIXED", "INVALID"]
    figure = plots.draw_plot(plot)
    (axes,) = figure.axes
    assert read_line(figure, "marks-0-True") == [(1, 1000)]
    assert read_line(figure, "marks-0-False") == [(2, 1000), (4, 1000)]
    faces = [line.get_markerfacecolor() for line in axes.lines if "marks" in line.get_gid()]
    assert faces == [plots.COLOURS[0], plots.PAPER]
    # Between the last load that is VALID and the first that is not.
    edge = next(line for line in axes.lines if line.get_gid() == "frontier-edge").get_xdata()[0]
    assert edge == pytest.approx(math.sqrt(2))
    (legend,) = figure.legends
    texts = [text.get_text() for text in legend.get_texts()]
    assert texts == ["VALID", "not VALID", "no series VALID"]


def test_no_frontier_where_nothing_is_valid():
    points = make_points(*({"batch": batch, "loadgen_valid": False} for batch in (1, 2)))
    (axes,) = plots.draw_plot(find_plot(points, "throughput")).axes
    assert "frontier" not in [patch.get_gid() for patch in axes.patches]


def test_server_is_drawn_against_the_rate_asked_for():
    points = make_points(
        *(
            {
                "scenario": "Server",
                "target_qps": qps,
                "samples_per_second": min(qps, 900.0),
                "latency_p99_ns": 1e4 * qps,
                "latency_bound_ms": 15.0,
            }
            for qps in (100.0, 1000.0)
        )
    )
    rate, tail = find_plot(points, "throughput"), find_plot(points, "tail")
    assert [mark[1:3] for mark in rate.series[0].marks] == [(100, 100), (1000, 900)]
    assert [mark[1:3] for mark in tail.series[0].marks] == [(100, 1), (1000, 10)]
    assert "queries/s" in rate.x_label
    (axes,) = plots.draw_plot(tail).axes
    assert [line.get_ydata()[0] for line in axes.lines if line.get_gid() == "bound"] == [15]
    assert axes.get_ylim()[1] > 15


def test_latency_distribution():
    points = make_points({"scenario": "Server", "target_qps": 10.0, "latency_bound_ms": 15.0})
    plot = find_plot(points, "latency")
    (series,) = plot.series
    count = 10_000
    assert [(mark.y, mark.x) for mark in series.marks] == [
        (1 / (count + 1), 1),
        (0.5, 2),
        (0.9, 3),
        (0.95, 3.5),
        (0.97, 4),
        (0.99, 5),
        (0.999, 8),
        (count / (count + 1), 9),
    ]
    figure = plots.draw_plot(plot)
    assert read_line(figure, "line-0")[5] == (5, pytest.approx(2))  # two nines
    (axes,) = figure.axes
    assert [line.get_xdata()[0] for line in axes.lines if line.get_gid() == "bound"] == [15]
    labels = [tick.get_text() for tick in axes.get_yticklabels()]
    assert labels == ["0", "50", "90", "99", "99.9", "99.99"]
    assert "percentiles that LoadGen recorded" in plot.description


def test_a_percentile_beyond_the_queries_is_left_out():
    run = make_run(queries=20)
    assert [quantile for quantile, _ in list_quantiles(run)] == [
        1 / 21,
        0.5,
        0.9,
        0.95,
        20 / 21,
    ]
    assert list_quantiles(make_run(queries=None)) == []


def test_offline_has_no_latency_distribution():
    assert curves.plot_latencies(make_points({"scenario": "Offline"})) == []


def test_latencies_of_many_points_are_spread_over_the_load():
    points = make_points(*({"scenario": "SingleStream", "batch": batch} for batch in range(1, 102)))
    (plot,) = curves.plot_latencies(points)
    assert [series.label for series in plot.series] == [
        f"batch {batch}" for batch in (1, 21, 41, 61, 81, 101)
    ]
    assert "6 of 101 points" in plot.title


def test_accuracy_of_the_fastest_valid_point_of_each_network():
    columns = [
        {"precision": precision, "model_sha256": precision, "batch": batch, **rest}
        for precision, batch, rest in (
            ("fp32", 1, {"top1_percent": 76.5}),
            ("fp32", 2, {"samples_per_second": 1500.0}),
            ("fp32", 4, {"samples_per_second": 9000.0, "loadgen_valid": False}),
            ("int8", 1, {"top1_percent": 76.0, "loadgen_valid": False}),
            ("fp16", 1, {}),
        )
    ]
    plot = find_plot(make_points(*columns), "accuracy")
    marks = {series.label: series.marks[0] for series in plot.series}
    assert marks.keys() == {"fp32", "int8"}  # that of fp16 was not measured
    assert marks["fp32"][1:3] == (1500, 76.5)
    assert marks["fp32"].is_valid
    assert not marks["int8"].is_valid
    (axes,) = plots.draw_plot(plot).axes
    low, high = axes.get_ylim()
    assert high - low == pytest.approx(2)  # half a point does not look like much


def test_one_network_is_nothing_to_compare():
    assert curves.plot_accuracy(make_points({"top1_percent": 76.5})) == []


@pytest.fixture(scope="module")
def odd_plots():
    some = [run for run in make_runs(40, repetitions=2) if run.model == "resnet50"]
    return curves.list_plots(group_points([*some, *make_odd_runs()]))


def test_inline_svg_has_no_style_no_other_page_and_no_clash(odd_plots):
    ids: list[str] = []
    for plot in odd_plots:
        svg = draw_inline_svg(plot)
        root = ElementTree.fromstring(svg)
        assert root.get("role") == "img"
        titles = {element.get("id"): element.text for element in root[:2]}
        assert root.get("aria-labelledby") == " ".join(titles)
        assert list(titles.values()) == [plot.title, plot.description]
        own = [element.get("id") for element in root.iter() if element.get("id")]
        referred = re.findall(r'(?:href="|url\()#([^")]+)', svg)
        assert set(referred) <= set(own)
        ids += own
        for element in root.iter():
            assert element.tag not in ("style", "script", "image", "metadata")
            for name, value in element.items():
                assert name not in ("style", "onload")
                assert "//" not in value
                assert value not in COLOURS  # each is a variable of the page's
    assert len(set(ids)) == len(ids)


def test_inline_svg_says_what_each_marker_is(odd_plots):
    for plot in odd_plots:
        root = ElementTree.fromstring(draw_inline_svg(plot))
        marks = [mark for series in plot.series for mark in series.marks]
        assert all("\x00" not in mark.tip and "\u202e" not in mark.tip for mark in marks)
        found = [
            (element.get("data-points"), element[0].text)
            for element in root.iter()
            if element.tag == "use" and element.get("data-points")
        ]
        assert sorted(found) == sorted((mark.point, mark.tip) for mark in marks)


def test_svg_is_the_same_each_time(odd_plots):
    assert plots.draw_svg(odd_plots[0]) == plots.draw_svg(odd_plots[0])


def test_write_plots(tmp_path, odd_plots):
    folder = tmp_path / "a" / "b"
    for file_format, magic in (("png", b"\x89PNG"), ("svg", b"<?xml")):
        files = plots.write_plots(odd_plots[:2], folder, file_format)
        assert [file.suffix for file in files] == [f".{file_format}"] * 2
        for file in files:
            assert file.parent == folder
            assert file.read_bytes().startswith(magic)
    assert odd_plots[0].title in (folder / f"{odd_plots[0].name}.svg").read_text()
    assert len({plot.name for plot in odd_plots}) == len(odd_plots)


@pytest.mark.parametrize(
    ("figure", "text"),
    [(0.00012345, "0.0001234"), (9.99951, "10"), (123.456, "123.5"), (12345.6, "12,346")],
)
def test_format_figure(figure, text):
    assert format_figure(figure) == text
