"""Build plans one after the other in one process: TensorRT starts once.

    python -m tensorrt_helper.builds

Takes a line of JSON for each build, the options of `tensorrt_helper.build` as a list, and answers
with one: {"error": what went wrong or null, "libraries": [...]}. What else is printed goes to
stderr. The process ends with its input; where TensorRT crashes, without an answer.
"""

from __future__ import annotations

import argparse
import json
import os
import sys

from imagenet_helper.errors import UserError, describe_os_error, run_main

from .build import build_plan, parse_request
from .libraries import list_libraries


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
