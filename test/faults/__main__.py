"""The campaigns of faults: `make test-faults`, or `python test/faults --help`.

Python's own library has a package `test` too, so this one is named here before it is imported.
"""

import argparse
import importlib
import os
import subprocess
import sys
import tempfile
import types
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
SHIM = "FAULTS_SHIM"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python test/faults", description=__doc__)
    add = parser.add_argument
    add("--seed", type=int, default=1, help="decides the cases (default %(default)s)")
    add("--minutes", type=float, default=1, help="budget of all (default %(default)s)")
    add("--campaign", action="append", default=[], metavar="NAME", help="only this one")
    add("--case", type=int, metavar="N", help="only this case of the campaign")
    add("--only", default="", metavar="WORDS", help="only cases whose description has these words")
    add("--first", action="store_true", help="stop at the first case that fails")
    add("--quick", action="store_true", help="without the campaigns that run the real `ck`")
    add("--planted", action="store_true", help="let the campaigns find faults that are planted")
    add("--src", type=Path, default=ROOT / "src", help="the library (default %(default)s)")
    options = parser.parse_args()
    if SHIM not in os.environ:
        return start_again(options.src)
    os.environ.pop("LD_PRELOAD", None)  # this process has it; what it executes does without
    sys.path[0] = str(options.src)
    package = types.ModuleType("test")
    package.__path__ = [str(HERE.parent)]
    sys.modules["test"] = package
    runner = importlib.import_module("test.faults.runner")
    return runner.find_planted(options) if options.planted else runner.run_campaigns(options)


def start_again(source: Path) -> int:
    """This program in a process that has the shim."""
    from shim import compile_shim

    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        library = compile_shim(Path(folder))
        if library is None:
            print("NOT RUN: the campaigns of faults need a C compiler, `cc`")
            return 0
        environment = os.environ | {
            SHIM: folder,
            "LD_PRELOAD": str(library),
            "PYTHONPATH": str(source),
            "OPENBLAS_NUM_THREADS": "1",  # cases are forked from a process with one thread
        }
        return subprocess.run([sys.executable, *sys.argv], env=environment, check=False).returncode


sys.exit(main())
