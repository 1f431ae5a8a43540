"""Image classification under MLPerf's LoadGen: engines, harness, verdicts, records, analysis.

The rooms, from the ground up; each imports only from those before it:

common, machine, images, models, tensorrt, loadgen, results, analyze, explore, catalog, commands
"""

import os

# ONNX Runtime 1.32 and newer sends usage data to its maker from a thread that would work beside a
# benchmark, and keeps an identifier of the machine. It reads this variable once, when it is
# imported. (Its pull requests 27379 and 29843.)
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
