"""Say why a plan would be reused or built again; the options are those of ck_mlperf.tensorrt.build.

python -m ck_mlperf.tensorrt.why --plan MODEL.plan \\
    --model CONVERTED.onnx --precision P --max-batch N
"""

from __future__ import annotations

import argparse
import sys

from ck_mlperf.common.errors import run_main
from ck_mlperf.tensorrt.lookup import look_up
from ck_mlperf.tensorrt.request import parse_request


def main() -> None:
    """Print the reason; builds nothing."""
    parser = argparse.ArgumentParser(prog="python -m ck_mlperf.tensorrt.why", description=__doc__)
    request = parse_request(parser, sys.argv[1:])
    print(f"{request.output}: {look_up(request).explain()}")


if __name__ == "__main__":
    run_main(main)
