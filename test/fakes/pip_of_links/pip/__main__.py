"""pip install --upgrade --target FOLDER NAME>=VERSION, without downloading.

Links what the interpreter of PIP_LINKS_FROM has installed, and what that depends on, into FOLDER.
On PYTHONPATH this stands in for pip.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

LIST = """
import importlib.metadata as metadata, json, re, sys
found, wanted = {}, sys.argv[1:]
while wanted:
    name = wanted.pop()
    try:
        distribution = metadata.distribution(name)
    except metadata.PackageNotFoundError:
        continue
    if distribution.name not in found:
        tops = {file.parts[0] for file in distribution.files if file.parts[0] != ".."}
        found[distribution.name] = [str(distribution.locate_file(top)) for top in sorted(tops)]
        for requirement in distribution.requires or []:
            if "extra ==" not in requirement:
                wanted.append(re.match(r"[\\w.-]+", requirement)[0])
print(json.dumps(found))
"""

arguments = sys.argv[1:]
target = Path(arguments[arguments.index("--target") + 1])
name = re.match(r"[\w.-]+", arguments[-1])[0]
listed = subprocess.run(
    [os.environ["PIP_LINKS_FROM"], "-c", LIST, name],
    env={key: value for key, value in os.environ.items() if key != "PYTHONPATH"},
    stdout=subprocess.PIPE,
    check=True,
)
found = json.loads(listed.stdout)
if not found:
    sys.exit(f"{name} is not there")
for paths in found.values():
    for path in paths:
        link = target / Path(path).name
        if not link.exists() and Path(path).name != "__pycache__":
            link.symlink_to(path)
