"""The program that CK runs, `python run.py job.json`; what it does is in ck_mlperf.commands.run."""

from pathlib import Path

from ck_mlperf.commands.run import main

if __name__ == "__main__":
    main(program=Path(__file__).resolve().parent.name)
