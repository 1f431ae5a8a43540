"""Runs campaigns within a budget of time, and says how many cases were tried and failed."""

from __future__ import annotations

import argparse
import functools
import os
import shutil
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from .at_once import AtOnce
from .hostile import Hostile
from .planted import PLANTED, plant
from .with_ck import FirstRuns, RandomKills, Registering
from .writers import WRITERS
from .writing import Writing

MAIN = Path(__file__).parent
_MOST_SHOWN = 10


class Campaign(Protocol):
    """Cases of one kind of fault, by their index."""

    def describe(self, index: int) -> str:
        """A case in words."""

    def try_case(self, index: int) -> None:
        """Raises AssertionError where a promise is not kept."""


CAMPAIGNS: dict[str, Callable[[int, Path], Campaign]] = {
    "kills-recording": functools.partial(Writing, ("kill", "power cut"), WRITERS[:2]),
    "errors-recording": functools.partial(Writing, ("ENOSPC", "EROFS", "EIO"), WRITERS[:2]),
    "kills-writing": functools.partial(Writing, ("kill", "power cut"), WRITERS[2:]),
    "at-once": AtOnce,
    "hostile": Hostile,
    "errors-writing": functools.partial(Writing, ("ENOSPC", "EROFS", "EIO"), WRITERS[2:]),
}
# These run the real `ck`: some seconds a case.
SLOW: dict[str, Callable[[int, Path], Campaign]] = {
    "kills-random": RandomKills,
    "registering": Registering,
    "first-runs": FirstRuns,
}


@dataclass
class Tally:
    """How far a campaign is."""

    campaign: Campaign
    spent_s: float
    tried: int = 0
    failed: int = 0


def run_campaigns(options: argparse.Namespace) -> int:
    """Try cases until the budget is used up. Returns the exit status: 1 where one failed."""
    folder = Path(os.environ["FAULTS_SHIM"], f"cases-{os.getpid()}")
    tallies = {}
    end_s = time.monotonic() + 60 * options.minutes
    known = CAMPAIGNS | SLOW
    for name in options.campaign or (CAMPAIGNS if options.quick else known):
        started_s = time.monotonic()
        (folder / name).mkdir(parents=True)
        campaign = known[name](options.seed, folder / name)
        tallies[name] = Tally(campaign, time.monotonic() - started_s)
    is_over = False
    while not is_over:
        # The budget is shared out evenly: cheap cases get many tries.
        name = min(tallies, key=lambda name: tallies[name].spent_s)
        tally = tallies[name]
        index = tally.tried if options.case is None else options.case
        started_s = time.monotonic()
        try_case(name, tally, index, options)
        tally.spent_s += time.monotonic() - started_s
        is_over = time.monotonic() > end_s or options.case is not None
        is_over |= options.first and tally.failed > 0
    for name, tally in tallies.items():
        print(f"{name}: tried {tally.tried}, failed {tally.failed}", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    return 1 if any(tally.failed for tally in tallies.values()) else 0


def try_case(name: str, tally: Tally, index: int, options: argparse.Namespace) -> None:
    """Try a case; say why it fails, and how to try it again."""
    tally.tried += 1
    try:
        tally.campaign.try_case(index)
    except Exception as error:
        tally.failed += 1
        if tally.failed > _MOST_SHOWN:
            return
        print(f"FAILED {name}, case {index}: {tally.campaign.describe(index)}")
        if not isinstance(error, AssertionError):
            traceback.print_exc(file=sys.stdout)
        print("  " + str(error)[-3000:].replace("\n", "\n  "))
        print(
            f"  again: make test-faults ARGS='--seed={options.seed} --campaign={name} "
            f"--case={index}'",
            flush=True,
        )


def find_planted(options: argparse.Namespace) -> int:
    """Let the campaigns look for each of the faults that `planted` describes.

    Returns the exit status: 1 where one was not found within the budget.
    """
    missed = 0
    for fault in PLANTED:
        folder = Path(os.environ["FAULTS_SHIM"], "planted")
        source = plant(fault, folder)
        command = [sys.executable, str(MAIN), "--first", f"--src={source}"]
        command += [f"--seed={options.seed}", f"--minutes={options.minutes}"]
        command += [f"--campaign={fault.campaign}"]
        environment = {name: os.environ[name] for name in os.environ if name != "FAULTS_SHIM"}
        started_s = time.monotonic()
        found = subprocess.run(command, env=environment, capture_output=True, text=True)
        seconds = time.monotonic() - started_s
        if found.returncode == 1 and "FAILED" in found.stdout:
            (line,) = (one for one in found.stdout.splitlines() if one.startswith("FAILED"))
            print(f"planted, {fault.name}: found in {seconds:.0f} s: {line[7:]}", flush=True)
        else:
            missed += 1
            print(f"MISSED, planted: {fault.name}\n{found.stdout}{found.stderr}", flush=True)
        shutil.rmtree(folder)
    print(f"planted: tried {len(PLANTED)}, missed {missed}")
    return 1 if missed else 0
