"""Build plans one after the other in one process, so that TensorRT starts only once.

    python -m ck_mlperf.tensorrt.builds

Each line of stdin is a build: a JSON list, the options of `ck_mlperf.tensorrt.build`. The answer is
a line on stdout: {"error": what went wrong or null, "libraries": [...]}. All other output goes to
stderr. The process ends with its input, or without an answer if TensorRT crashes.
"""

from __future__ import annotations

import argparse
import json
import os
import sys

from ck_mlperf.common.errors import UserError, describe_os_error, run_main
from ck_mlperf.tensorrt.build import build_plan
from ck_mlperf.tensorrt.libraries import list_libraries
from ck_mlperf.tensorrt.request import parse_request


def main() -> None:
    # The output of libraries must not come between the answers.
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
