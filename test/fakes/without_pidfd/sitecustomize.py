"""Takes from a process what only Linux has. Python imports this file: it is on PYTHONPATH."""

import os

vars(os).pop("pidfd_open", None)
