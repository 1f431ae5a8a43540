import re

import pytest
from msgspec.structs import replace

from ck_mlperf.results.advice import advise_loadgen
from ck_mlperf.results.record import Accuracy, DeviceShare
from ck_mlperf.results.report import WIDTH, describe_run, format_report
from ck_mlperf.results.rules import judge, load_rules

from ..builders.real_run import build_real_record
from ..builders.records import make_record
from ..builders.results import make_result

RECORD = make_record(dataset={"used": 500, "source_list_sha256": "0" * 64})
DIGITS, MODEL = RECORD.dataset, RECORD.model
CPU = replace(RECORD.engine, name="onnxruntime-cpu", version="1.32.0", device="cpu, 2 threads")
WHOLE = replace(
    DIGITS,
    name="imagenet",
    count=50_000,
    used=50_000,
    source_list_sha256=load_rules()["dataset"]["list_sha256"],
    known_by="contents",
)


def read_row(printed: str, title: str) -> list[str]:
    (line,) = [line for line in printed.splitlines() if line.startswith(f"| {title} ")]
    return [cell.strip() for cell in line.strip("|").split("|")][1:]


def print_words(record) -> str:
    """The report without its line breaks."""
    return " ".join(format_report(record).split())


def test_accuracy_between_rules(real_run):
    record = build_real_record(real_run("onnx", SCENARIO="Offline"))
    accuracy = Accuracy(top1_percent=75.2, top5_percent=None, good=376, total=500)
    printed = format_report(replace(record, accuracy=accuracy))
    lines = printed.splitlines()
    at = lines.index("accuracy=75.200%, good=376, total=500")
    assert lines[at - 1] == lines[at + 1] == "-" * 80
    assert "LATENCIES" not in printed
    assert "valid" not in printed.lower().replace("validation", "")
    assert printed.startswith("Offline: accuracy 75.200% of 500 images\ndigits (500 hand")
    assert printed.count("Unofficial") == 1
    assert (
        "  - speed was not measured in this run: set CK_LOADGEN_MODE=PerformanceOnly\n" in printed
    )
    assert printed.endswith("\n")


def test_latencies_of_multistream_count_samples(real_run):
    run = real_run("onnx", SCENARIO="MultiStream", MODE="PerformanceOnly", MULTISTREAMNESS=30,
                   COUNT_OVERRIDE=100)  # fmt: skip
    record = build_real_record(run)
    printed = format_report(record)
    assert "LATENCIES (in nanoseconds and fps)" in printed
    assert read_row(printed, "number of queries run") == ["100", "30 samples each"]
    rows = {"min": "min", "median": "p50", "average": "mean", "90 percentile": "p90",
            "99 percentile": "p99", "99.9 percentile": "p99_9", "max": "max"}  # fmt: skip
    for title, name in rows.items():
        latency_ns = getattr(record.latencies_ns, name)
        assert read_row(printed, title) == [f"{latency_ns} ns", f"{30e9 / latency_ns:.3f} fps"]
    box = [line for line in printed.splitlines() if line.startswith(("|", "+"))]
    assert {len(line) for line in box} == {WIDTH}


def test_offline_has_one_rate(real_run):
    run = real_run(SCENARIO="Offline", MODE="PerformanceOnly", TARGET_QPS=500, DURATION=0.1)
    record = build_real_record(run)
    printed = format_report(record)
    assert read_row(printed, "min")[1] == "-"
    fps = float(read_row(printed, "max")[1].split()[0])
    assert fps == pytest.approx(record.samples_per_second, rel=1e-4)
    assert read_row(printed, "number of queries run")[0] == "1"


def test_verdicts_with_reasons_margins_and_advice(real_run):
    run = real_run("onnx", SCENARIO="MultiStream", MODE="PerformanceOnly", MULTISTREAMNESS=30,
                   COUNT_OVERRIDE=100)  # fmt: skip
    printed = format_report(build_real_record(run), verbose=True)
    assert re.search(r"^LoadGen 6[\d.]+: INVALID\n  because: early stopping", printed, re.M)
    assert "MLPerf Inference v6.1, edge (current): performance rules NOT met" in printed
    assert "accuracy not checked in this run" in printed
    assert "a stand-in" in printed
    assert "- min_duration was 0 s of 600 s: set CK_LOADGEN_DURATION=600" in printed
    assert "NOT met (-100.0%): min_duration was 0 s of 600 s: as above" in printed
    assert "v6.1, datacenter,edge (current): performance rules NOT met" in printed
    assert "the same rules as MLPerf Inference v6.1, edge" in printed
    assert "set CK_LOADGEN_MULTISTREAMNESS=8" in printed
    assert "no round takes results" in printed
    assert printed.isascii()
    assert max(map(len, printed.splitlines())) <= 120


def test_devices_are_listed_where_there_are_several(real_run):
    run = real_run(SCENARIO="Offline", MODE="PerformanceOnly", TARGET_QPS=500, DURATION=0.1)
    record = build_real_record(run)
    first = DeviceShare("GPU 0", samples=30, samples_per_second=300.5, batches=4)
    second = DeviceShare("GPU 1", samples=0, samples_per_second=None, batches=0)
    plain = format_report(record)
    one, both = (replace(run.engine, devices=shares) for shares in ([first], [first, second]))
    assert format_report(replace(record, engine=one)) == plain
    printed = format_report(replace(record, engine=both))
    at = printed.rindex("\nOffline: ") + 1
    assert printed[at:].splitlines()[1:3] == [
        "  GPU 0: 300.500 samples/s, 30 samples, 7.5 a batch",
        "  GPU 1: 0 samples",
    ]


def test_one_query_without_a_rate(real_run):
    run = real_run(SCENARIO="SingleStream", MODE="PerformanceOnly", COUNT_OVERRIDE=1)
    printed = format_report(build_real_record(run))
    assert read_row(printed, "number of queries run") == ["1", "1 sample each"]
    assert "samples/s" not in printed.split("LoadGen")[0]


def test_a_valid_run_is_still_not_verified(real_run):
    run = real_run(SCENARIO="SingleStream", MODE="PerformanceOnly", DURATION=0.2)
    record = build_real_record(run)
    rules = [replace(judged, valid=True, unofficial=[]) for judged in record.verdicts.rules]
    printed = print_words(replace(record, verdicts=replace(record.verdicts, rules=rules)))
    assert "this run meets the rules for one run, not verified by MLCommons" in printed
    assert "all rules met" not in printed
    assert "- a submission also needs: performance and accuracy in MultiStream, Offline" in printed
    assert "TEST01 and TEST04 of each scenario" in printed
    assert "Unofficial" not in printed
    rules = [replace(judged, not_closed=["other weights"]) for judged in rules]
    printed = print_words(replace(record, verdicts=replace(record.verdicts, rules=rules)))
    assert "this run meets the rules of the open division for one run" in printed
    assert "- the closed division does not take it: other weights" in printed


def test_compliance_runs_are_called_that(real_run):
    record = build_real_record(
        real_run(SCENARIO="SingleStream", MODE="PerformanceOnly", DURATION=0.2)
    )
    for valid, compliance, title in (
        (None, "TEST01", "compliance run TEST01, no fault found"),
        (False, "TEST04", "compliance run TEST04, INVALID"),
        (None, "unknown", "run by an audit.config, no fault found"),
    ):
        loadgen = replace(record.verdicts.loadgen, valid=valid, compliance=compliance)
        verdicts = replace(record.verdicts, loadgen=loadgen)
        for silent in (True, False):
            printed = format_report(replace(record, verdicts=verdicts), silent=silent)
            assert f"LoadGen {loadgen.version}: {title}\n" in printed
            assert ": VALID" not in printed


def test_margins_as_a_person_reads_them():
    """A latency of 554 times the bound, not -55323.8%; and advice is given once."""
    overloaded = make_result(
        "Server",
        p99_ms=8313.5,
        samples_per_second=2451.0,
        target_qps=20_000,
        min_duration_ms=3000,
        performance_sample_count=500,
        is_valid=False,
        not_met=["latency", "duration", "early stopping"],
    )
    overloaded = replace(overloaded, ending="open queries")
    verdicts = RECORD.verdicts
    loadgen = replace(verdicts.loadgen, valid=False, advice=advise_loadgen(overloaded))
    rules = judge(overloaded, None, DIGITS, MODEL, CPU)
    printed = format_report(
        replace(RECORD, verdicts=replace(verdicts, loadgen=loadgen, rules=rules))
    )
    assert "- p99 is 8313.5 ms, over the bound of 15 ms: as above" in printed
    printed = format_report(
        replace(RECORD, verdicts=replace(verdicts, loadgen=loadgen, rules=rules)), verbose=True
    )
    assert "NOT met (554 times): p99 is 8313.5 ms, over the bound of 15 ms: as above" in printed
    assert "NOT met (-99.5%): min_duration was 3 s of 600 s" in printed
    assert not re.search(r"-\d{4,}\.", printed)
    assert printed.count("lower CK_LOADGEN_TARGET_QPS below 2451") == 1
    assert "set CK_LOADGEN_TARGET_QPS=" not in printed
    assert printed.count("set CK_LOADGEN_BUFFER_SIZE") == 1


@pytest.mark.parametrize(
    ("dataset", "model", "engine", "wanted"),
    [
        (DIGITS, MODEL, CPU,
         "digits (500 handwritten digits, not ImageNet) | model digits on "  # an older record
         "ONNX Runtime CPU 1.32.0 (no GPU, not TensorRT)"),
        (WHOLE, replace(MODEL, name="resnet50_v1", precision="fp32"), CPU,
         "ImageNet (the whole validation set, 50000 images) | model resnet50_v1 fp32 on "
         "ONNX Runtime CPU 1.32.0 (no GPU, not TensorRT)"),
        (replace(WHOLE, used=500),
         replace(MODEL, name="resnet50_random", weights="random", precision="fp16"),
         replace(CPU, name="null"),
         "ImageNet (500 images, not the whole validation set) | model resnet50_random fp16, "
         "RANDOM WEIGHTS on null engine (no network ran, not TensorRT)"),
        (WHOLE, replace(MODEL, name="resnet50_v1", precision="int8"),
         replace(CPU, name="tensorrt", version="10.3", device="NVIDIA H100"),
         "ImageNet (the whole validation set, 50000 images) | model resnet50_v1 int8 on "
         "TensorRT 10.3 on NVIDIA H100"),
        (replace(DIGITS, name="cifar10", used=9), MODEL,
         replace(CPU, name="other", version="2", device="TensorRT lookalike"),
         "cifar10 (9 images, not ImageNet) | model digits on "
         "other 2 on TensorRT lookalike (not TensorRT)"),
        (replace(WHOLE, known_by="names and labels only"), MODEL, CPU,
         "ImageNet (50000 images, the validation set by names and labels only) | model digits on "
         "ONNX Runtime CPU 1.32.0 (no GPU, not TensorRT)"),
        (replace(WHOLE, source_list_sha256="1" * 64), MODEL, CPU,
         "ImageNet (50000 images, not the whole validation set) | model digits on "
         "ONNX Runtime CPU 1.32.0 (no GPU, not TensorRT)"),
    ],
)  # fmt: skip
def test_first_line(dataset, model, engine, wanted):
    assert describe_run(dataset, model, engine) == wanted


def test_silent_and_verbose(real_run):
    run = real_run("onnx", SCENARIO="MultiStream", MODE="PerformanceOnly", MULTISTREAMNESS=30,
                   COUNT_OVERRIDE=100)  # fmt: skip
    record = build_real_record(run)
    silent = format_report(record, silent=True)
    assert "because" not in silent
    assert "\nLoadGen 6" in silent
    assert "performance rules NOT met" in silent
    assert "No official result" in silent
    verbose = format_report(record, verbose=True)
    usual, _, how = format_report(record).rstrip("\n").rpartition("\n")
    assert verbose.startswith(usual)
    assert how.startswith("CK_VERBOSE=yes")
    assert "NOT met" in verbose
    assert "NOT met" not in usual.replace("rules NOT met", "")
    assert "  min_query_count = 100\n" in verbose


def test_the_headline_has_the_figure_that_the_scenario_is_judged_by(real_run):
    def read(**settings):
        record = build_real_record(real_run("null", MODE="PerformanceOnly", **settings))
        return record, format_report(record).splitlines()[0]

    record, line = read(SCENARIO="SingleStream", COUNT_OVERRIDE=200)
    assert line == f"SingleStream: p90 {record.early_stopped_ns.p90 / 1e6:.3g} ms, VALID"
    record, line = read(SCENARIO="SingleStream", COUNT_OVERRIDE=10)
    assert re.fullmatch(
        r"SingleStream: p90 [\d.e-]+ ms as measured, too few queries for an estimate, INVALID", line
    )
    record, line = read(SCENARIO="MultiStream", COUNT_OVERRIDE=1000)
    assert line == (
        f"MultiStream, 8 samples a query: p99 {record.early_stopped_ns.p99 / 1e6:.3g} ms, VALID"
    )
    _, line = read(SCENARIO="Offline", TARGET_QPS=500, DURATION=0.1)
    assert re.fullmatch(r"Offline: [\d,]+ samples/s, (IN)?VALID", line)
    _, line = read(SCENARIO="Server", TARGET_QPS=500, DURATION=0.3, COUNT_OVERRIDE=100)
    assert re.match(r"Server: [\d,]+ queries/s, p99 [\d.]+ ms, ", line)


@pytest.mark.parametrize("width", [80, 120])
def test_lines_fit_the_terminal(width):
    for verbose in (True, False):
        printed = format_report(RECORD, verbose=verbose, width=width)
        assert max(map(len, printed.splitlines())) <= width


def test_colours_are_of_verdicts_and_the_headline_alone():
    plain, coloured = (format_report(RECORD, colour=colour) for colour in (False, True))
    assert coloured.splitlines()[0].startswith("\x1b[1m")
    assert "\x1b[31mINVALID\x1b[39m" in coloured or "\x1b[32mVALID\x1b[39m" in coloured
    assert re.sub("\x1b\\[\\d+m", "", coloured) == plain
    assert plain.isascii()
    assert "\x1b" not in plain


def test_server_and_offline_have_no_rate_of_a_latency(real_run):
    run = real_run(SCENARIO="Server", MODE="PerformanceOnly", TARGET_QPS=500, DURATION=0.3,
                   COUNT_OVERRIDE=100)  # fmt: skip
    printed = format_report(build_real_record(run))
    assert read_row(printed, "99.9 percentile")[1] == read_row(printed, "min")[1] == "-"
    assert " fps |" not in printed


def test_other_streams_than_todays_are_judged_as_in_2019(real_run):
    for streams, is_shown in ((30, True), (8, False)):
        run = real_run("onnx", SCENARIO="MultiStream", MODE="PerformanceOnly",
                       MULTISTREAMNESS=streams, COUNT_OVERRIDE=100)  # fmt: skip
        assert ("MLPerf Inference v0.5" in format_report(build_real_record(run))) is is_shown


def test_a_check_without_advice_is_named():
    verdicts = RECORD.verdicts
    check = next(check for check in verdicts.rules[0].checks if check.metric == "loaded_images")
    rules = [
        replace(verdicts.rules[0], valid=False, checks=[replace(check, ok=False, advice=None)])
    ]
    printed = format_report(replace(RECORD, verdicts=replace(verdicts, rules=rules)))
    assert f"  - {check.name} not met\n" in printed
