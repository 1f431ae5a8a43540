"""Stands in for `ck`: makes experiment entries, records made-up runs, fails as it is told.

$FAKE_CK is its folder: `local` is CK's local repository, `calls` gets a line for each benchmark,
`behaviour.json` says by batch size, or scenario and compliance test (`Server.TEST01`), what goes
wrong or how long a benchmark takes in seconds. Records are INVALID unless it says `valid`, and in
Server above `most_qps`.
"""

import gzip
import hashlib
import json
import os
import signal
import sys
import time
import uuid
from pathlib import Path

RECORD = Path(__file__).resolve().parents[1] / "data" / "records" / "version-3-first.json"

# The figures that the verification compares, in the detail log and in the summary.
SCORES = (
    *("early_stopping_latency_ss", "early_stopping_latency_ms"),
    *("result_samples_per_second", "result_completed_samples_per_sec"),
)
LINES = (
    *("Samples per second", "Completed samples per second"),
    *("Early stopping 90th percentile estimate", "Early stopping 99th percentile estimate"),
)


def main() -> None:
    home = Path(os.environ["FAKE_CK"])
    action, what, *rest = sys.argv[1:]
    flags = dict(word.removeprefix("--").partition("=")[::2] for word in rest)
    if action == "update":
        repository, module, name = what.split(":")
        assert (repository, module) == ("local", "experiment")
        cm = home / "local" / "experiment" / name / ".cm"
        if cm.parent.exists():
            sys.exit("CK error: inconsistent entry")
        cm.mkdir(parents=True)
        (cm / "meta.json").write_text(json.dumps({"tags": flags["tags"].split(",")}))
        return
    assert action == "benchmark"
    entry = home / "local" / "experiment" / flags["record_uoa"]
    assert (entry / ".cm" / "meta.json").exists()
    run = flags["env.CK_EXPLORE_RUN"]
    with (home / "calls").open("a") as calls:
        calls.write(f"{run} {os.getpid()} begins\n")
    behaviour = json.loads((home / "behaviour.json").read_text())
    test = flags.get("env.CK_LOADGEN_COMPLIANCE", flags["env.CK_LOADGEN_MODE"])
    scenario = flags["env.CK_LOADGEN_SCENARIO"]
    told = behaviour.get(f"{scenario}.{test}")
    if told is None:
        told = behaviour.get(flags["env.CK_BATCH_SIZE"], behaviour.get("any", 0))
    if told == "fail":
        print("CK's own words", flush=True)
        print("warning: of no matter", file=sys.stderr)
        print("error: the model takes at most 3 images\n  at once", file=sys.stderr)
        sys.exit(2)
    if told == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if told == "stubborn":
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        told = 60
    rate = float(flags.get("env.CK_LOADGEN_TARGET_QPS", 300))
    is_valid = behaviour.get("valid", False) and told != "invalid"
    if scenario == "Server":
        is_valid &= rate <= behaviour.get("most_qps", rate)
    time.sleep(0 if isinstance(told, str) else told)
    record = json.loads(RECORD.read_text())
    record["settings"]["ours"]["CK_EXPLORE_RUN"] = {"value": run, "origin": "env"}
    record["settings"]["loadgen"]["server_target_qps"] = rate
    record["verdicts"]["loadgen"]["valid"] = is_valid
    record["timing"]["wall_s"] = 0.5
    record["accuracy"]["top1_percent"] = 99.2
    record["throughput"]["samples_per_second"] = 1234.5
    record["scenario"], record["mode"] = scenario, flags["env.CK_LOADGEN_MODE"]
    if "env.CK_LOADGEN_COMPLIANCE" in flags:
        record["settings"]["ours"]["CK_LOADGEN_COMPLIANCE"] = {"value": test, "origin": "env"}
        record["verdicts"]["loadgen"]["compliance"] = test
        if is_valid:
            record["verdicts"]["loadgen"]["valid"] = None
    record["logs"] = []
    (entry / "logs").mkdir(exist_ok=True)
    record["model"]["precision"] = "fp32"
    for name, text in make_logs(run, scenario, 50 if told == "slow" else 100).items():
        log = text.encode()
        digest = hashlib.sha256(log).hexdigest()
        record["logs"].append({"file": name, "sha256": digest, "bytes": len(log)})
        (entry / "logs" / f"{digest}.gz").write_bytes(gzip.compress(log, mtime=0))
    point = {"characteristics_list": [{"run": record}]}
    (entry / f"ckp-{uuid.uuid4().hex[:16]}.0001.json").write_text(json.dumps(point))
    with (home / "calls").open("a") as calls:
        calls.write(f"{run} {os.getpid()} ends\n")


def make_logs(run: str, scenario: str, score: int) -> dict[str, str]:
    """What MLPerf's verification of compliance tests reads of LoadGen's logs."""
    values = {"run": run, "effective_scenario": scenario, "result_validity": "VALID"}
    values |= dict.fromkeys(SCORES, score)
    events = [
        {"key": key, "value": value, "metadata": {"is_error": False}}
        for key, value in values.items()
    ]
    summary = {"Scenario ": scenario, **dict.fromkeys(LINES, score), "Result is ": "VALID"}
    return {
        "mlperf_log_detail.txt": "".join(f":::MLLOG {json.dumps(event)}\n" for event in events),
        "mlperf_log_summary.txt": "".join(f"{key}: {value}\n" for key, value in summary.items()),
        "mlperf_log_accuracy.json": '[{"seq_id": 0, "qsl_idx": 0, "data": "05000000"}]',
    }


main()
