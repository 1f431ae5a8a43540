import io

import pytest
from rich.console import Console

from ck_mlperf.analyze.compare import compare_points
from ck_mlperf.analyze.points import format_figure
from ck_mlperf.analyze.runs import group_points
from ck_mlperf.analyze.show import describe_load, show_answer, show_points
from ck_mlperf.analyze.show_comparison import show_comparison

WIDTH = 80


@pytest.fixture
def console():
    """80 columns, and no terminal."""
    return Console(file=io.StringIO(), width=WIDTH, highlight=False)


def read(console) -> str:
    text = console.file.getvalue()
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) <= WIDTH
    assert "\N{HORIZONTAL ELLIPSIS}" not in text
    return text


def squeeze(text: str) -> str:
    """Without what lays it out."""
    return " ".join(text.split())


def test_a_point_is_a_line_under_the_heading_of_its_model(row, console):
    runs = [
        row(samples_per_second=rate, latency_p99_ns=p99, loadgen_valid=True, rules_met=False)
        for rate, p99 in ((2000.0, 900_000), (2020.0, 910_000), (2040.0, 950_000))
    ]
    show_points(runs, console)
    lines = read(console).splitlines()
    assert lines[0].startswith("digits fp32 | onnxruntime-cpu 1.32.0 on cpu, 2 threads | digits")
    assert "top-1 " in lines[1]
    assert lines[2].startswith("no official result: the images are 500 of digits")
    (line,) = [squeeze(line) for line in lines if "MultiStream " in line]
    assert line == "1 MultiStream 8 32 2,020 2.0% 3 p99 0.91 VALID not met"


def test_wide_figures_still_fit(row, console):
    runs = [
        row(
            scenario="Server", target_qps=1_234_567.0, samples_per_query=1, batch=65_536,
            samples_per_second=rate, latency_p99_ns=123_456_789_012, loadgen_valid=False,
        )
        for rate in (1_234_567.0, 1_334_567.0, 2_345_678.0)
    ]  # fmt: skip
    show_points(runs, console)
    assert "!1 Server 1,234,567/s 65536 1,334,567 83.3% 3 p99 123,457 INVALID not met" in map(
        squeeze, read(console).splitlines()
    )


def test_doubts_stand_below_the_table(row, console):
    runs = [row(samples_per_second=rate) for rate in (100.0, 110.0, 120.0)]
    runs += [row(batch=1), row(batch=2, loadgen_valid=True), row(batch=2)]
    show_points(runs, console)
    text = squeeze(read(console))
    assert "Doubtful (!): 1: throughput from 100 to 120 samples/s over 3 runs, 18% of" in text
    assert "3: LoadGen found 1 of 2 runs VALID, not all" in text
    assert "Too few runs to tell how well a point repeats: 2-3." in text


def test_what_is_random_and_what_was_not_measured_is_said(row, console):
    run = row(weights="random", model="resnet50", top1_percent=None, gpu="RTX 4090", driver="555.1")
    show_points([run], console)
    text = squeeze(read(console))
    assert "resnet50 fp32, RANDOM WEIGHTS" in text
    assert "accuracy not measured" in text
    assert "RTX 4090, driver 555.1" in text


def test_failed_runs_and_runs_without_a_speed(row, console):
    failed = row(
        error="Traceback\nerror: out of memory\n", samples_per_second=None, file="failed-7"
    )
    accuracy = row(samples_per_second=None, top1_percent=97.2)
    show_points([failed, accuracy], console)
    text = squeeze(read(console))
    assert "Failed: 1 of 2 runs digits/failed-7: error: out of memory" in text
    assert "No run measured a speed." in text
    assert "500 images of digits: top-1 97.200%" in text


def test_no_runs(console):
    show_points([], console)
    assert squeeze(read(console)).startswith("No runs are recorded. `ck benchmark ... --record")


def test_names_are_neither_markup_nor_commands_to_the_terminal(row, console):
    show_points([row(model="[red]net[/]", engine="\x1b]0;title\x07e\x9b2J\r")], console)
    text = read(console)
    assert "[red]net[/] fp32" in text
    assert "\x07" not in text
    assert "\x9b" not in text


def test_nothing_in_a_name_hides_or_cannot_be_printed(row, console):
    name = "a\u202eb\u2028c\ud800"
    show_points([row(model=name), row(error=name, samples_per_second=None)], console)
    show_answer((name,), [(name,), (name * 50,)], console)
    points = group_points([row(model=name)])
    show_comparison(compare_points(points, points), name, name, console)
    text = console.file.getvalue()
    text.encode()
    assert not set(text) & set(name[1::2])
    assert "a\ufffdb\ufffdc\ufffd" in text


def test_an_answer_that_fits_is_a_table(console):
    show_answer(("batch", "rate"), [(1, 2.5), (None, "[b]x")], console)
    assert read(console).splitlines() == ["batch rate", "1     2.5", "      [b]x"]


def test_an_answer_that_is_too_wide_is_a_line_for_each_value(console):
    show_answer(("name", "text"), [("a", "x" * 100)], console)
    assert console.file.getvalue() == f"-- row 1\nname: a\ntext: {'x' * 100}\n"


@pytest.mark.parametrize(
    ("value", "text"),
    [(15686.27, "15,686"), (999.96, "1,000"), (484.05, "484.1"), (0.94186, "0.9419"), (0, "0")],
)
def test_numbers(value, text):
    assert format_figure(value) == text


@pytest.mark.parametrize(
    ("configuration", "load"),
    [
        ({"scenario": "Server", "target_qps": 484.05}, "484.1/s"),
        ({"scenario": "MultiStream", "samples_per_query": 8}, "8"),
        ({"scenario": "SingleStream", "samples_per_query": 1}, "1"),
        ({"scenario": "Offline", "samples_per_query": None}, "-"),
    ],
)
def test_loads(configuration, load):
    assert describe_load(configuration) == load


def compare(row, console, a, b):
    sides = [
        group_points([row(latency_p99_ns=value, **columns) for value in values])
        for columns, values in (a, b)
    ]
    show_comparison(compare_points(*sides), "before", "after*", console)
    return read(console)


def test_a_comparison(row, console):
    before = [5_000_000 + 10_000 * n for n in range(5)]
    text = compare(
        row,
        console,
        ({"model_sha256": "a" * 64}, before),
        ({"model_sha256": "b" * 64}, [value // 2 for value in before]),
    )
    lines = list(map(squeeze, text.splitlines()))
    assert lines[:3] == [
        "A: before",
        "B: after*",
        "model_sha256: aaaaaaaaaaaa... -> bbbbbbbbbbbb...",
    ]
    assert "digits fp32 MultiStream: 99th percentile of the latency, ms" in lines
    (line,) = [line for line in lines if line.startswith("1 8 32 ")]
    assert line.startswith("1 8 32 5.02 5 2.51 5 faster 2.000 (")


def test_a_comparison_of_too_few_runs_says_what_to_do(row, console):
    text = squeeze(compare(row, console, ({}, [1.0, 2.0]), ({}, [1.0, 2.0, 3.0])))
    assert "A and B do not differ in their configurations." in text
    assert "cannot tell -" in text
    assert "Too few runs in 1: record the same again under the same name, until A and B" in text


def test_a_comparison_tells_which_side_is_doubtful(row, console):
    text = squeeze(compare(row, console, ({}, [1e6, 2e6, 3e6]), ({}, [1e6, 1e6, 1e6])))
    assert "1, A: 99th percentile of the latency from 1 to 3 ms over 3 runs" in text
    assert "1, B:" not in text


def test_a_comparison_without_pairs(row, console):
    a = group_points([row(batch=1, precision="fp32"), row(batch=2, precision="fp32")])
    b = group_points([row(batch=3, precision="fp32")])
    show_comparison(compare_points(a, b), "a", "b", console)
    text = squeeze(read(console))
    assert "batch: 1, 2 -> 3" in text
    assert "No point of A has a point of B that is otherwise alike." in text
    assert "2 points of A without one partner on the other side" in text


def test_many_pairs_give_verdicts_by_chance(row, console):
    runs = [row(batch=batch) for batch in range(1, 21)]
    show_comparison(compare_points(*[group_points(runs)] * 2), "a", "b", console)
    assert "Of 20 pairs of equal systems, up to 1.0 would be called" in squeeze(read(console))


def test_a_line_for_each_run(row, console):
    runs = [row(samples_per_second=2000.0, latency_p99_ns=900_000, loadgen_valid=True)]
    runs.append(row(disturbances=("hot",), disturbance_kinds=("gpu_heat",), loadgen_valid=False))
    show_points(runs, console, with_runs=True)
    text = squeeze(read(console))
    start = f"{runs[0].start:%Y-%m-%d %H:%M:%S}"
    assert f"1.1: digits, run 1, {start} UTC, 2,000 samples/s, p99 0.9 ms, VALID" in text
    assert "1.2: digits, run 2, " in text
    assert "INVALID, disturbed: gpu_heat" in text
