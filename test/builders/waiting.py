"""Waiting for what another thread or process does."""

from __future__ import annotations

import time
from collections.abc import Callable

TIMEOUT_S = 300
"""Only a hang takes so long."""


def wait_until(condition: Callable[[], object]) -> None:
    """Wait until the condition holds. Raises AssertionError after TIMEOUT_S."""
    end = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)
