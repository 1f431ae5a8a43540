"""Make the library of native.py: LoadGen's own sources, unmodified, compiled with native.cc.

    python -m ck_mlperf.loadgen.harness.native_build --output FILE.so

pip downloads the sources, the sdist of mlcommons-loadgen, and checks their hash before it opens
them. Needs g++, which gets the flags in CXXFLAGS as well.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ck_mlperf.common.archives import unpack
from ck_mlperf.common.downloads import parse_hash
from ck_mlperf.common.errors import UserError, run_main
from ck_mlperf.common.files import hash_file
from ck_mlperf.common.locks import hold_lock
from ck_mlperf.loadgen.harness.native import SHIM, NativeInterface

VERSION = "6.0.17"
HASH = "sha256:a2e85d09e3cc0c606f89bfe1fbf97537c8b5b238ae0afbd923ad9c710fcf2ca8"
COMPILER = "g++"
# LoadGen's own setup.py has the first three. The others keep this library's symbols apart from
# those of the Python module, which has the same names in the same process.
_FLAGS = ("-std=c++14", "-O3", "-fPIC", "-pthread", "-fvisibility=hidden", "-fno-gnu-unique")
_REQUIREMENT = "mlcommons-loadgen"


def build(
    output: Path, version: str = VERSION, known_hash: str = HASH, sdist: Path | None = None
) -> None:
    """Make the library `output` of LoadGen `version`, atomically.

    known_hash: of the sdist, 'sha256:HEX'. sdist: a local copy; None: pip downloads it.
    Raises UserError where there is no compiler, where the sdist cannot be had or has another hash,
    and where it does not compile.
    """
    if not re.fullmatch(r"\d+\.\d+(\.\d+)*", version):
        raise UserError(f"LoadGen's version {version!r}: want numbers and dots, such as {VERSION}")
    algorithm, digest = parse_hash(known_hash)
    if algorithm != "sha256":
        raise UserError(f"hash {known_hash!r}: want sha256: and 64 hex digits")
    compiler = shutil.which(COMPILER)
    if compiler is None:
        raise UserError(
            f"{COMPILER} is not installed, and LoadGen's native interface is compiled with it: "
            "`apt-get install g++` on Debian and Ubuntu. Runs use LoadGen's Python module without"
        )
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".loadgen-native-", dir=output.parent) as folder:
        work = Path(folder)
        if sdist is None:
            sdist = download(version, digest, work)
        elif hash_file(sdist) != digest:
            raise UserError(f"{sdist}: its sha256 is {hash_file(sdist)}, expected {digest}")
        unpack(sdist, work / "sources")
        library = work / "library.so"
        _compile(compiler, work / "sources" / f"mlcommons_loadgen-{version}", version, library)
        found = NativeInterface(library).version
        if found != version:
            raise UserError(f"{sdist} is LoadGen {found}, not {version}: give its version")
        library.replace(output)


def build_once(folder: Path) -> Path:
    """The library in `folder`, made only where it is missing: for tests and benchmarks.

    Raises UserError as `build` does.
    """
    digest = hash_file(SHIM)[:16] + hash_file(Path(__file__))[:16]
    library = folder / f"loadgen-{VERSION}-{digest}.so"
    folder.mkdir(parents=True, exist_ok=True)
    with hold_lock(folder / "lock"):
        if not library.exists():
            build(library)
    return library


def download(version: str, digest: str, folder: Path) -> Path:
    """The sdist, by pip, which refuses a file of another hash."""
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{_REQUIREMENT}=={version} --hash=sha256:{digest}\n")
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q", "download"]
    command += ["--no-deps", "--no-binary", _REQUIREMENT, "--require-hashes"]
    command += ["--dest", str(folder), "--requirement", str(requirements)]
    code = subprocess.call(command, stdout=sys.stderr)
    files = [*folder.glob("*.tar.gz")]
    if code or len(files) != 1:
        raise UserError(
            f"pip did not get the sources of {_REQUIREMENT} {version} (exit code {code}; its "
            "messages are above). Download the sdist by other means and name it with --file PATH "
            "(of the package: --env.PACKAGE_FILE=PATH)"
        )
    return files[0]


def _compile(compiler: str, sources: Path, version: str, library: Path) -> None:
    major, minor = version.split(".")[:2]
    files = [*sorted(sources.glob("*.cc")), sources / "generated" / "version_generated.cc", SHIM]
    if len(files) < 3:
        raise UserError(f"{sources}: missing, or without C++ files: no sdist of LoadGen {version}")
    command = [compiler, *_FLAGS, *shlex.split(os.environ.get("CXXFLAGS", ""))]
    command += [f"-I{sources}", f"-DMAJOR_VERSION={major}"]
    command += [f"-DMINOR_VERSION={minor}", f'-DCK_SHIM_SHA256="{hash_file(SHIM)}"']

    def compile_one(file: Path) -> str:
        compiled = str(library.with_name(f"{file.stem}.o"))
        _run([*command, "-c", str(file), "-o", compiled])
        return compiled

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        compiled = [*pool.map(compile_one, files)]
    _run([compiler, "-shared", "-pthread", "-Wl,-Bsymbolic", *compiled, "-o", str(library)])


def _run(command: list[str]) -> None:
    process = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if process.returncode:
        raise UserError(
            f"`{' '.join(command)}` ended with exit code {process.returncode}:\n"
            f"{process.stdout[-4000:]}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m ck_mlperf.loadgen.harness.native_build",
        description=__doc__.partition("\n")[0],
    )
    add = parser.add_argument
    add("--output", type=Path, required=True, metavar="FILE.so")
    add("--version", default=VERSION, help=f"LoadGen's (default: {VERSION})")
    add("--hash", default=HASH, metavar="sha256:HEX", help="of its sdist")
    add("--file", type=Path, metavar="PATH", help="a local copy of the sdist")
    options = parser.parse_args()
    build(options.output.absolute(), options.version, options.hash, options.file)


if __name__ == "__main__":
    run_main(main)
