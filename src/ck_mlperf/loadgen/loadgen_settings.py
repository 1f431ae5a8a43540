"""LoadGen's own settings of a test (TestSettings), made from those of a run.

`test` is LoadGen's TestSettings throughout, of its Python module; `settings` are resolved.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

from ck_mlperf.common.errors import UserError
from ck_mlperf.loadgen.settings import RunSettings
from ck_mlperf.loadgen.user_conf import MODEL

# LoadGen's memory for a query that it generates ahead, its metadata and promise, rounded up from
# measurements.
_BYTES_PER_QUERY = 250
_UNPACED_QPS = 1e9


def build_loadgen_settings(settings: RunSettings, audit_config: Path | None = None) -> Any:
    """TestSettings: LoadGen's mlperf.conf, then user.conf, the variables, a test's audit.config.

    Does not use LoadGen's conf_type 1, which reads mlperf.conf only the first time in a process.
    """
    import mlperf_loadgen as lg

    test = lg.TestSettings()
    test.FromConfig("", MODEL, settings.scenario, 0)
    if settings.conf_file is not None and test.FromConfig(
        str(settings.conf_file), MODEL, settings.scenario, 2
    ):
        raise UserError(f"{settings.conf_file}: LoadGen cannot read it")
    test.scenario = getattr(lg.TestScenario, settings.scenario)
    test.mode = getattr(lg.TestMode, settings.mode)
    test.performance_sample_count_override = settings.buffer_size
    if settings.multistreamness is not None:
        test.multi_stream_samples_per_query = settings.multistreamness
    if settings.count_override is not None:
        test.min_query_count = settings.count_override  # Offline: LoadGen takes it for samples
        test.min_duration_ms = 0
    if settings.duration_s is not None:
        test.min_duration_ms = round(settings.duration_s * 1000)
    if settings.target_qps is not None:
        test.server_target_qps = test.offline_expected_qps = settings.target_qps
    if settings.target_latency_ms is not None:
        latency_ns = settings.target_latency_ms * 1e6
        test.server_target_latency_ns = round(latency_ns)
        test.single_stream_expected_latency_ns = latency_ns
        test.multi_stream_expected_latency_ns = latency_ns
    if audit_config is not None:  # LoadGen reads it itself, and does not show what became of it
        test.FromConfig(str(audit_config), "*", settings.scenario, 2)
    return test


def tune_server(test: Any, settings: RunSettings) -> None:
    """Set what lets a Server test end, once its rate is set."""
    if "coalesce_queries" not in settings.conf:
        test.server_coalesce_queries = True
    if settings.mode == "AccuracyOnly":
        # LoadGen keeps to the schedule here too: 500 images at its 1 query/s take 8 minutes.
        test.server_target_qps = _UNPACED_QPS
    elif not test.server_max_async_queries:
        # Without a limit a system that is too slow queues up for the whole duration, and one that
        # failed cannot end the test. With this many queries open, twice the share that may be late
        # is late: the limit never ends a test that could have been valid.
        rate = test.server_target_qps
        queries = max(test.min_query_count, rate * test.min_duration_ms / 1000)
        late_share = 1 - test.server_target_latency_percentile
        limit = max(rate, 2 * late_share * queries)
        if settings.mode == "FindPeakPerformance":
            limit *= 100  # LoadGen raises the rate as it searches, but not the limit
        test.server_max_async_queries = min(math.ceil(limit), 2**31 - 1)


def check_memory(test: Any, settings: RunSettings, bytes_per_sample: int) -> None:
    """Raise UserError where this machine cannot hold the queries, which LoadGen generates ahead.

    bytes_per_sample: `Interface.bytes_per_sample`.
    """
    if settings.mode == "AccuracyOnly":
        return
    duration_s = test.min_duration_ms / 1000
    samples_per_query = 1
    if settings.scenario == "Offline":
        queries = 1.0
        samples_per_query = max(test.min_query_count, 1.1 * duration_s * test.offline_expected_qps)
    elif settings.scenario == "Server":
        queries = max(test.min_query_count, duration_s * test.server_target_qps)
    else:
        latency_ns = test.single_stream_expected_latency_ns
        if settings.scenario == "MultiStream":
            latency_ns = test.multi_stream_expected_latency_ns
            samples_per_query = test.multi_stream_samples_per_query
        queries = max(test.min_query_count, 2 * duration_s * 1e9 / latency_ns)
    needed = queries * (_BYTES_PER_QUERY + samples_per_query * bytes_per_sample)
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > memory:
        raise UserError(
            f"LoadGen would generate {queries * samples_per_query:.3g} samples ahead, which takes "
            f"{needed / 1e9:.0f} GB; this machine has {memory / 1e9:.0f}. Lower the duration, the "
            "count or the target rate, or raise the target latency"
        )


def list_values(test: Any) -> dict[str, int | float | str | bool]:
    """Every attribute of TestSettings, enumerations by name."""
    values = {name: getattr(test, name) for name in dir(test) if not name.startswith("_")}
    return {
        name: value if isinstance(value, (int, float)) else value.name
        for name, value in values.items()
        if not callable(value)
    }
