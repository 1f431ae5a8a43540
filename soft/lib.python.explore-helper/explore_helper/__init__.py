"""Sweeps of recorded runs, and searches for the largest load that is VALID."""
