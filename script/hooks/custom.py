"""CK's hooks around an installation: what they do is in ck_mlperf.catalog.install."""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "src"))
from ck_mlperf.catalog.install import pre_path, setup

__all__ = ["pre_path", "setup"]
