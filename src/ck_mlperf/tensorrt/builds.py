"""Build plans one after the other in one process: TensorRT starts once.

    python -m ck_mlperf.tensorrt.builds

Takes a line of JSON for each build, the options of `ck_mlperf.tensorrt.build` as a list, and
answers with one: {"error": what went wrong or null, "libraries": [...]}. What else is printed goes
to stderr. The process ends with its input; where TensorRT crashes, without an answer.
"""

from __future__ import annotations

import argparse
import json
import os
import sys

from ck_mlperf.common.errors import UserError, describe_os_error, run_main
from ck_mlperf.tensorrt.build import build_plan, parse_request
from ck_mlperf.tensorrt.libraries import list_libraries


def main() -> None:
    # What libraries print must not come between the answers.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    for line in sys.stdin:
        error = None
        try:
            request = parse_request(argparse.ArgumentParser(), json.loads(line))
            build_plan(request, lambda said: print(said, file=sys.stderr))
        except UserError as failure:
            error = str(failure)
        except OSError as failure:
            error = describe_os_error(failure)
        print(json.dumps({"error": error, "libraries": list_libraries()}), file=answers, flush=True)


if __name__ == "__main__":
    run_main(main)
