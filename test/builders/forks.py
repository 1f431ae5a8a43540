"""Processes forked from this one, which start at once and take what a test has patched."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from typing import Any


def start_fork(target: Callable[..., object], *arguments: Any, **options: Any) -> BaseProcess:
    """A process that calls `target`; its exitcode is 0, what it gave to sys.exit, or -signal."""
    process = get_context("fork").Process(target=target, args=arguments, kwargs=options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads, which it does not use
        process.start()
    return process


def run_fork(target: Callable[..., object], *arguments: Any, **options: Any) -> int | None:
    """Wait for such a process. Returns its exitcode."""
    process = start_fork(target, *arguments, **options)
    process.join()
    return process.exitcode
