"""Make the types of tensorrt-stubs readable to mypy: python tools/tensorrt_stubs.py [FOLDER]

The package (10.13.0.35.1) is made by a generator that writes parameters named `in`, which is a
keyword, and a constant named `bool`, which hides the type; and it has no py.typed beside its
tensorrt folder, so that mypy passes over it. FOLDER (.ck/stubs, which pyproject.toml has in
mypy_path) gets a copy with those lines repaired.
"""

from __future__ import annotations

import ast
import re
import sys
from importlib.metadata import files
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent
_MOST_REPAIRS = 50


def repair(text: str) -> str:
    """`text` of a .pyi file with the lines repaired that Python cannot read.

    Raises SyntaxError where a line is wrong in a way that is not known here.
    """
    lines = [line for line in text.splitlines() if not line.startswith("bool: DataType")]
    for _ in range(_MOST_REPAIRS):
        try:
            ast.parse("\n".join(lines))
            break
        except SyntaxError as error:
            number = (error.lineno or 1) - 1
            repaired = re.sub(r"\bin: ", "input: ", lines[number])
            if repaired == lines[number]:  # a parameter without a default after one that has one
                repaired = re.sub(r" = [^,()]+(?=[,)])", " = ...", lines[number])
                repaired = re.sub(r"(: [^,=()\[\]]+(?:\[[^\]]*\])?)(?=[,)])", r"\1 = ...", repaired)
            if repaired == lines[number]:
                raise
            lines[number] = repaired
    return "\n".join(lines) + "\n"


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / ".ck" / "stubs"
    for file in files("tensorrt-stubs") or []:
        if file.suffix == ".pyi":
            target = folder / file
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(repair(Path(str(file.locate())).read_text()))


if __name__ == "__main__":
    main()
