"""`python -m ck_mlperf VERB ...` is `ck-mlperf VERB ...`."""

from ck_mlperf.commands import cli

cli()
