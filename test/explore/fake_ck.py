"""Stands in for `ck`: makes experiment entries, records made-up runs, fails as it is told.

$FAKE_CK is its folder: `local` is CK's local repository, `calls` gets a line for each benchmark,
`behaviour.json` says by batch size what goes wrong or how long a benchmark takes in seconds.
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


def main() -> None:
    home = Path(os.environ["FAKE_CK"])
    action, what, *rest = sys.argv[1:]
    flags = dict(word.removeprefix("--").partition("=")[::2] for word in rest)
    if action == "update":
        repository, module, name = what.split(":")
        assert (repository, module) == ("local", "experiment")
        cm = home / "local" / "experiment" / name / ".cm"
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
    time.sleep(told)
    record = json.loads(RECORD.read_text())
    record["settings"]["ours"]["CK_EXPLORE_RUN"] = {"value": run, "origin": "env"}
    record["timing"]["wall_s"] = 0.5
    record["accuracy"]["top1_percent"] = 99.2
    record["throughput"]["samples_per_second"] = 1234.5
    log = f":::MLLOG of {run}\n".encode()
    digest = hashlib.sha256(log).hexdigest()
    record["logs"] = [{"file": "mlperf_log_detail.txt", "sha256": digest, "bytes": len(log)}]
    (entry / "logs").mkdir(exist_ok=True)
    (entry / "logs" / f"{digest}.gz").write_bytes(gzip.compress(log, mtime=0))
    record["model"]["precision"] = "fp32"
    point = {"characteristics_list": [{"run": record}]}
    (entry / f"ckp-{uuid.uuid4().hex[:16]}.0001.json").write_text(json.dumps(point))
    with (home / "calls").open("a") as calls:
        calls.write(f"{run} {os.getpid()} ends\n")


main()
