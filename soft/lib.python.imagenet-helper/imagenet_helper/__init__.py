"""Image data sets, preprocessing and model recipes for MLPerf image classification."""

import os

# ONNX Runtime 1.32 and newer sends what it measures to its maker, and keeps an identifier of the
# machine: not from a benchmark, beside whose runs its uploader would work. It reads this once, when
# it is imported. (Its pull requests 27379 and 29843.)
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
