"""In place of pip-audit: prints the files that it was asked about, FAKE_PRINTED, and exits."""

from __future__ import annotations

import os
import sys
from pathlib import Path

if __name__ == "__main__":
    for file in sys.argv[sys.argv.index("--requirement") + 1 :: 2]:
        sys.stderr.write(f"{Path(file).read_text()}--\n")
    sys.stderr.write(" ".join(sys.argv))
    sys.stdout.write(os.environ["FAKE_PRINTED"])
    sys.exit(int(os.environ["FAKE_CODE"]))
