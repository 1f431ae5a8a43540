import pytest

from ck_mlperf.results.report import format_report

from ..builders import records

QUIET_CPU = {
    "wall_s": 10.0, "cores": 4, "busy_core_s": 30.0, "own_core_s": 29.0, "steal_core_s": 0.1,
}  # fmt: skip
QUIET_GPU = {
    "cuda_device": 1,
    "samples": 610,
    "busy_samples": 600,
    "sm_clock_mhz": {"min": 1755, "median": 1800, "max": 1980},
    "memory_clock_mhz": {"min": 2619, "median": 2619, "max": 2619},
    "temperature_c": {"min": 50, "median": 69.5, "max": 71},
    "power_w": {"min": 300, "median": 698.1, "max": 701},
    "utilization_percent": {"min": 3, "median": 100, "max": 100},
    "clocks_event_reasons": {"sw_power_cap": 590, "hw_slowdown": 1},
    "other_processes_before": {"count": 0, "memory_mib": 0},
    "other_processes_after": None,
}


def make_record(cpu=None, gpu=None, engine="onnxruntime-cpu", **changes):
    conditions = {
        "cpu": QUIET_CPU | (cpu or {}),
        "gpus": [] if gpu is None else [QUIET_GPU | gpu],
    }
    return records.make_record(engine={"name": engine}, conditions=conditions, **changes)


def find_texts(*args, **kwargs) -> dict[str, str]:
    return {found.kind: found.text for found in make_record(*args, **kwargs).find_disturbances()}


def test_a_quiet_machine():
    assert find_texts() == {}
    assert find_texts(gpu={}) == {}  # at its power limit, and one change of clocks
    assert records.make_record(1).find_disturbances() == []


def test_others_on_the_processors():
    assert find_texts({"own_core_s": 26.1}) == {}
    assert find_texts({"own_core_s": 20.0}) == {
        "other_processes": "other processes took 1 of the 4 cores (25%): end them and run again"
    }
    assert set(find_texts({"own_core_s": 20.0}, engine="null")) == {"other_processes"}
    assert find_texts({"own_core_s": 20.0}, engine="tensorrt") == {}
    assert find_texts({"busy_core_s": None, "own_core_s": 0.0}) == {}
    assert find_texts({"cores": None, "own_core_s": 0.0}) == {}
    assert find_texts({"own_core_s": 31.0}) == {}


def test_steal():
    assert find_texts({"steal_core_s": 0.8}) == {}
    assert find_texts({"steal_core_s": None}) == {}
    assert find_texts({"steal_core_s": 1.7}, engine="tensorrt") == {
        "steal": "the hypervisor took 4.2% of the cores' time (steal): run again where cores are "
        "not shared"
    }


def test_short_runs_have_no_verdict_on_the_processors():
    short = {"wall_s": 0.99, "busy_core_s": 3.9, "own_core_s": 0.5, "steal_core_s": 0.9}
    assert find_texts(short) == {}
    assert set(find_texts(short | {"wall_s": 1.0})) == {"other_processes", "steal"}


@pytest.mark.parametrize(
    ("reasons", "kind", "text"),
    [
        ({"sw_thermal_slowdown": 12}, "gpu_heat",
         "heat lowered GPU 1's clocks in 12 of 600 samples, up to 71 C: cool it better"),
        ({"hw_thermal_slowdown": 3, "sw_thermal_slowdown": 2, "hw_slowdown": 3}, "gpu_heat",
         "heat lowered GPU 1's clocks in at least 3 of 600 samples, up to 71 C: cool it better"),
        ({"hw_power_brake_slowdown": 1, "hw_slowdown": 2}, "gpu_power_brake",
         "a power brake lowered GPU 1's clocks in 1 of 600 samples: check its power supply"),
        ({"hw_slowdown": 2}, "gpu_slowdown",
         "the hardware lowered GPU 1's clocks in 2 of 600 samples: check its power and cooling"),
    ],
)  # fmt: skip
def test_clocks_that_were_lowered(reasons, kind, text):
    gpu = {"clocks_event_reasons": reasons | {"sw_power_cap": 600}}
    assert find_texts(gpu=gpu, engine="tensorrt") == {kind: text}
    assert find_texts(gpu=gpu | {"temperature_c": None})[kind] == text.replace(", up to 71 C", "")


def test_what_is_not_known_of_a_gpu_is_no_disturbance():
    unknown = dict.fromkeys(QUIET_GPU) | {"cuda_device": 0, "samples": 0, "busy_samples": 0}
    assert find_texts(gpu=unknown) == {}


def test_others_on_the_gpu():
    one, two = {"count": 1, "memory_mib": 512.0}, {"count": 2, "memory_mib": None}
    assert find_texts(gpu={"other_processes_before": one, "other_processes_after": two}) == {
        "gpu_shared": "1 other process on GPU 1 before the test, with 512 MiB: end what "
        "`nvidia-smi` lists there"
    }
    assert find_texts(gpu={"other_processes_after": two}) == {
        "gpu_shared": "2 others on GPU 1 after the test: end what `nvidia-smi` lists there"
    }


def test_a_run_without_a_speed_has_none():
    assert make_record({"own_core_s": 0.0}).find_disturbances()
    assert make_record({"own_core_s": 0.0}, latencies_ns=None).find_disturbances() == []


@pytest.mark.parametrize("silent", [False, True])
def test_the_report_warns_in_a_line_each(silent):
    hot = {"clocks_event_reasons": {"sw_thermal_slowdown": 12}}
    record = make_record({"own_core_s": 20.0, "steal_core_s": 1.7}, hot)
    lines = format_report(record, silent=silent).splitlines()
    texts = [found.text for found in record.find_disturbances()]
    assert [line for line in lines if line.startswith("Disturbed")] == [
        f"Disturbed: {text}" for text in texts
    ]
    assert len(texts) == 3
    assert not any(
        line.startswith("Disturbed") for line in format_report(records.make_record()).splitlines()
    )
