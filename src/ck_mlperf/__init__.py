"""Image classification under MLPerf's LoadGen: engines, harness, verdicts, records, analysis.

The rooms, from the ground up; each imports only from those before it:

common, machine, images, models, tensorrt, loadgen, results, analyze, explore, catalog, commands
"""
