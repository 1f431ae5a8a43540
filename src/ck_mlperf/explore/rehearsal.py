"""The end of a rehearsal: the tree of a submission, made of runs of seconds."""

from __future__ import annotations

from pathlib import Path

from ck_mlperf.submission.complaints import Complaint
from ck_mlperf.submission.requirements import SYSTEM_FIELDS
from ck_mlperf.submission.runs import choose_runs, infer_scenarios, read_recorded_runs
from ck_mlperf.submission.system import tell_fields
from ck_mlperf.submission.tree import Submission, write_submission

MARK = "REHEARSAL"
SYSTEM_TYPES = {"edge": "edge", "datacenter-edge": "datacenter,edge"}
"""The checker's types of system, by --submission=."""


def write_rehearsal(
    repository: Path, experiment: str, kind: str, inferred: tuple[str, ...], folder: Path
) -> list[Complaint]:
    """Write the tree into `folder`, for the open division. Returns what the checker would say.

    repository: CK's, which has the experiment. kind: the type of the system. What of the system
    the records do not tell is called a rehearsal. UserError where runs are missing.
    """
    scenarios = choose_runs(read_recorded_runs([repository], [experiment]), "closed")
    infer_scenarios(scenarios, inferred)
    told = tell_fields(next(iter(scenarios.values())).performance.record)
    system = {name: told[name].value if name in told else MARK for name in SYSTEM_FIELDS}
    system |= {"system_name": MARK, "system_type": SYSTEM_TYPES[kind], "status": "rdi"}
    for name in ("division", "submitter"):
        del system[name]
    return write_submission(Submission("open", MARK, system, scenarios), folder)
