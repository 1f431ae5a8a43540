"""Write the CycloneDX SBOM of an image: python tools/sbom.py IMAGE FILE

The Python packages are those that cyclonedx-py finds in the image's virtual environment (it runs in
a container of the image, and is not in the image); Debian's are what dpkg says is installed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote

PYTHON = (
    "python3 -m venv /tmp/sbom"
    " && /tmp/sbom/bin/pip -q install --require-hashes"
    " -r /home/dvdt/CK_REPOS/ck-mlperf/locks/sbom.txt >&2"
    " && /tmp/sbom/bin/cyclonedx-py environment /home/dvdt/venv"
)
DEBIAN = (
    ". /etc/os-release && dpkg-query --show --showformat "
    r"""'${db:Status-Abbrev}\t${Package}\t${Version}\t${Architecture}\t'"$ID-$VERSION_ID"'\n'"""
)


def run_in(image: str, command: str) -> str:
    """What a command prints in a container of the image. Raises CalledProcessError."""
    flags = os.environ.get("DOCKER_RUN_FLAGS", "").split()
    return subprocess.run(
        ["docker", "run", "--rm", *flags, image, command],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout


def read_debian(listing: str) -> list[dict[str, str]]:
    """CycloneDX's components for dpkg's list of what is installed."""
    components = []
    for line in listing.splitlines():
        status, name, version, architecture, system = line.split("\t")
        if status.startswith("ii"):
            purl = f"pkg:deb/{system.partition('-')[0]}/{quote(name)}@{quote(version, safe='')}"
            purl += f"?arch={architecture}&distro={system}"
            component = {"type": "library", "name": name, "version": version, "purl": purl}
            components.append(component | {"bom-ref": purl})
    return components


def describe(image: str) -> dict[str, Any]:
    bom: dict[str, Any] = json.loads(run_in(image, PYTHON))
    bom["components"] += read_debian(run_in(image, DEBIAN))
    bom["metadata"]["component"] = {"type": "container", "name": image, "bom-ref": image}
    return bom


def main() -> None:
    if len(sys.argv) != 3:
        sys.exit("usage: python tools/sbom.py IMAGE FILE")
    image, file = sys.argv[1], Path(sys.argv[2])
    try:
        bom = describe(image)
    except subprocess.CalledProcessError as error:
        sys.exit(f"error: no SBOM of {image}: docker's exit code is {error.returncode}")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(bom, indent=2) + "\n")
    print(f"{file}: {len(bom['components'])} components")


if __name__ == "__main__":
    main()
