"""CK's hooks around a run: what they do is in ck_mlperf.catalog.program."""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "src"))
from ck_mlperf.catalog.program import ck_postprocess, ck_preprocess

__all__ = ["ck_postprocess", "ck_preprocess"]
