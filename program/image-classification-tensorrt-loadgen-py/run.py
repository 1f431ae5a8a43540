"""The program that CK runs, `python run.py job.json`. It is `ck-mlperf run job.json`."""

from pathlib import Path

from ck_mlperf.commands.run import make_parser
from ck_mlperf.results.job_run import run_program

if __name__ == "__main__":
    parser = make_parser()
    parser.prog = "python run.py"
    run_program(parser.parse_args().job, program=Path(__file__).resolve().parent.name)
