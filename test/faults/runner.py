"""Runs campaigns within a budget of time, and says how many cases were tried and failed."""

from __future__ import annotations

import argparse
import importlib
import os
import shutil
import subprocess
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from .planted import PLANTED, plant

MAIN = Path(__file__).parent
_MOST_SHOWN = 10


class Campaign(Protocol):
    """Cases of one kind of fault, by their index. All follows from the seed."""

    def __init__(self, seed: int, folder: Path) -> None:
        """folder: to work in."""

    def describe(self, index: int) -> str:
        """A case in words."""

    def try_case(self, index: int) -> None:
        """Raises AssertionError where a promise is not kept."""


CAMPAIGNS = {
    "kills-recording": ("writing", "kill_recordings"),
    "errors-recording": ("writing", "fail_recordings"),
    "kills-writing": ("writing", "kill_writers"),
    "errors-writing": ("writing", "fail_writers"),
    "at-once": ("at_once", "AtOnce"),
    "hostile": ("hostile", "Hostile"),
}
"""By name: the module here, imported when it is asked for, and what makes the campaign."""
SLOW = {
    "kills-random": ("with_ck", "RandomKills"),
    "registering": ("with_ck", "Registering"),
    "first-runs": ("with_ck", "FirstRuns"),
}
"""These run the real `ck`: some seconds a case."""


@dataclass
class Tally:
    """How far a campaign is."""

    campaign: Campaign
    spent_s: float
    index: int = 0
    """Of the next case."""
    tried: int = 0
    failed: int = 0


def run_campaigns(options: argparse.Namespace) -> int:
    """Try cases until the budget is used up. Returns the exit status: 1 where one failed."""
    folder = Path(os.environ["FAULTS_SHIM"], f"cases-{os.getpid()}")
    tallies = {}
    started_s = time.monotonic()
    for name in options.campaign or (CAMPAIGNS if options.quick else CAMPAIGNS | SLOW):
        before_s = time.monotonic()
        module, make = (CAMPAIGNS | SLOW)[name]
        (folder / name).mkdir(parents=True)
        imported = importlib.import_module(f".{module}", __package__)
        campaign = getattr(imported, make)(options.seed, folder / name)
        tallies[name] = Tally(campaign, time.monotonic() - before_s, options.case or 0)
    is_over = False
    while not is_over:
        # The budget is shared out evenly: cheap cases get many tries.
        name = min(tallies, key=lambda name: tallies[name].spent_s)
        tally = tallies[name]
        before_s = time.monotonic()
        while options.only not in tally.campaign.describe(tally.index):
            tally.index += 1
        try_case(name, tally, options.seed)
        tally.spent_s += time.monotonic() - before_s
        is_over = time.monotonic() - started_s > 60 * options.minutes or options.case is not None
        is_over |= options.first and tally.failed > 0
    print(f"seed {options.seed}, {time.monotonic() - started_s:.0f} s")
    for name, tally in tallies.items():
        print(f"{name}: tried {tally.tried}, failed {tally.failed}", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    return 1 if any(tally.failed for tally in tallies.values()) else 0


def try_case(name: str, tally: Tally, seed: int) -> None:
    """Try the next case; say why it fails, and how to try it again."""
    index = tally.index
    tally.index += 1
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
        again = f"--seed={seed} --campaign={name} --case={index}"
        print(f"  again: make test-faults ARGS='{again}'", flush=True)


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
        command += [f"--campaign={fault.campaign}", f"--only={fault.cases}"]
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
