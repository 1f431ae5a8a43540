"""The rate of a submission's Server runs, where the user gives none.

It is searched for as `--find=max` does it, by probes in the submission's own experiment. The answer
is kept there in a file: a search is no run, and later runs depend on it.
"""

from __future__ import annotations

import json
from dataclasses import replace

from rich.console import Console

from ck_mlperf.common.decode import decode_json
from ck_mlperf.common.errors import UserError
from ck_mlperf.common.files import read_regular, write_file
from ck_mlperf.explore.entry import Entry
from ck_mlperf.explore.measure import Measurer
from ck_mlperf.explore.search.definition import read_search
from ck_mlperf.explore.search.probes import Prober
from ck_mlperf.explore.sweep import Sweep

FILE = "server-rate.json"
_KEY = "queries_per_second"
# A rehearsal's share of the rate at which the engine answers single queries one by one, halved.
_REHEARSAL_SHARE, _REHEARSAL_S = 0.1, "1"


def read_rate(entry: Entry) -> float | None:
    """The rate that was found before, in queries/s; None: none was. Raises UserError."""
    path = entry.folder / FILE
    try:
        return decode_json(read_regular(path), dict[str, float])[_KEY]
    except FileNotFoundError:
        return None
    except (ValueError, KeyError) as error:
        raise UserError(f"{path}: {error!r}. Remove it, and the rate is found again") from error


def find_rate(console: Console, sweep: Sweep, measurer: Measurer) -> None:
    """Find the largest rate that is VALID, and keep it. sweep: of the probes. Raises UserError."""
    search = read_search({"find": "max", "scenario": "Server"})
    probes = replace(
        sweep,
        scenario=search.sweep.scenario,
        repetitions=search.sweep.repetitions,
        count=search.sweep.count,
        duration=search.sweep.duration,
    )
    search = replace(search, sweep=probes)
    answer = Prober(console, search, replace(measurer, sweep=probes)).search()
    if answer.load is None:
        raise UserError(f"Server: no rate was found ({answer.ending.value}): give one, --qps=")
    _keep(measurer.entry, answer.load)


def take_low_rate(sweep: Sweep, measurer: Measurer) -> None:
    """Keep a rate that is no matter for the engine, even where the machine is busy: for a
    rehearsal. sweep: of the run that measures it. Raises RunFailedError."""
    sweep = replace(sweep, duration=_REHEARSAL_S)
    (server,) = (one for one in sweep.list_configurations() if one.scenario == "Server")
    record = replace(measurer, sweep=sweep).measure(server, 1)
    rate = _REHEARSAL_SHARE * record.settings.get_loadgen_number("server_target_qps")
    _keep(measurer.entry, rate)


def _keep(entry: Entry, rate: float) -> None:
    write_file(entry.folder / FILE, json.dumps({_KEY: rate}) + "\n")
