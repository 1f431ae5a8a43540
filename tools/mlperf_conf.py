"""Write src/ck_mlperf/loadgen/mlperf_conf.py: python tools/mlperf_conf.py [SDIST]

It has what LoadGen's own mlperf.conf names, from the sdist of mlcommons-loadgen: a local copy, or
else pip downloads it. To be run again when native_build.VERSION changes.
"""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "src"))
from ck_mlperf.common.archives import unpack  # noqa: E402
from ck_mlperf.loadgen.harness.native_build import HASH, VERSION, download  # noqa: E402

_TEXT = '''"""What the mlperf.conf of LoadGen's sdist says. Written by tools/mlperf_conf.py."""

VERSION = "{version}"
"""LoadGen's."""
MODELS = frozenset(
    {{
{models}
    }}
)
"""The models that it names."""
'''


def list_models(conf: str) -> list[str]:
    """The models that lines `model.Scenario.key = value` are for, in alphabetical order."""
    names = re.findall(r"^([^\s#]+)\.[^.\s]+\.[^.\s]+ *=", conf, re.MULTILINE)
    return sorted({*names} - {"*"})


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        if len(sys.argv) > 1:
            sdist = Path(sys.argv[1])
        else:
            sdist = download(VERSION, HASH.partition(":")[2], Path(folder))
        unpack(sdist, Path(folder, "sources"))
        (conf,) = Path(folder, "sources").glob("*/mlperf.conf")
        models = list_models(conf.read_text())
    lines = "\n".join(f'        "{model}",' for model in models)
    target = ROOT / "src" / "ck_mlperf" / "loadgen" / "mlperf_conf.py"
    target.write_text(_TEXT.format(version=VERSION, models=lines))


if __name__ == "__main__":
    main()
