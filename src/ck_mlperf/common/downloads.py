"""Get a pinned file from the first source that has it, and unpack it if it is an archive.

A download goes to a temporary file beside the output first, so that only a complete file with the
expected hash reaches the output.
"""

from __future__ import annotations

import argparse
import functools
import logging
import os
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from ck_mlperf.common.archives import unpack
from ck_mlperf.common.errors import UserError, describe_os_error, run_main
from ck_mlperf.common.files import hash_file, open_regular

_HEX_DIGITS = {"sha256": 64, "md5": 32}
_TIMEOUT_S = (10, 60)  # to connect; between two pieces of the answer
_BLOCK_BYTES = 1 << 20


class _SourceError(Exception):
    """This source does not have the file; another may."""


def fetch(output: Path, known_hash: str, urls: Sequence[str], local: Path | None = None) -> None:
    """Put the file of hash `known_hash` ('sha256:HEX' or 'md5:HEX') at `output`.

    Sources are tried in order: `local` (a copy from elsewhere), then `urls` (https, http, file).
    If `output` has the hash already, nothing is downloaded.
    Raises UserError that says why each source failed, and what to do.
    """
    import pooch

    algorithm, digest = parse_hash(known_hash)
    if output.is_dir():
        raise UserError(f"{output}: is a folder. Name the file to write")
    if output.is_file() and hash_file(output, algorithm) == digest:
        return
    pooch.get_logger().setLevel(logging.WARNING)
    sources = [local.resolve().as_uri()] if local else []
    failures = []
    for url in [*sources, *urls]:
        try:
            pooch.retrieve(
                url,
                f"{algorithm}:{digest}",
                fname=output.name,
                path=output.parent,
                downloader=functools.partial(_download_checked, algorithm, digest),
            )
            _say_what_md5_is_worth(output, algorithm)
            return
        except _SourceError as error:
            failures.append(f"  {url}: {error}")
        except OSError as error:
            raise UserError(
                f"cannot write {output}: {describe_os_error(error)}. "
                "Make room there, or give another folder"
            ) from None
    raise UserError(
        f"cannot get {output.name} ({known_hash}):\n" + "\n".join(failures) + "\n"
        "Name another place with --mirror URL, or download the file by other means and name it "
        "with --file PATH"
    )


def _say_what_md5_is_worth(output: Path, algorithm: str) -> None:
    """Whoever can read a file that only an md5 is published of learns what to pin it by."""
    if algorithm == "md5":
        print(
            f"{output.name}: checked by its md5 alone, which does not prove that nobody replaced "
            f"it: no sha256 is known here. This copy's, to pin it by from now on: "
            f"--env.PACKAGE_HASH=sha256:{hash_file(output)}",
            flush=True,
        )


def parse_hash(known_hash: str) -> tuple[str, str]:
    """'sha256:HEX' or 'md5:HEX' as (algorithm, hex digits in lower case)."""
    algorithm, _, digest = known_hash.lower().partition(":")
    if len(digest) != _HEX_DIGITS.get(algorithm) or not re.fullmatch("[0-9a-f]+", digest):
        raise UserError(
            f"hash {known_hash!r}: want sha256: and 64 hex digits, or md5: and 32 hex digits"
        )
    return algorithm, digest


def _download_checked(algorithm: str, digest: str, url: str, output_file: str, pooch: Any) -> None:
    """Pooch's downloader: fill a temporary file from a URL, and say what is wrong with it.

    Pooch checks the hash too, but knows neither sizes nor what a wrong file looks like.
    """
    path = Path(output_file)
    parts = urlsplit(url)
    if parts.scheme == "file":
        _copy(Path(unquote(parts.path)), path)
    elif parts.scheme in ("http", "https"):
        _download(url, path)
    else:
        raise _SourceError(f"unknown kind of URL {parts.scheme!r}, want https, http or file")
    found = hash_file(path, algorithm)
    if found != digest:
        raise _SourceError(
            f"{_describe_kind(path)} of {path.stat().st_size} bytes with {algorithm} {found}, "
            f"expected {digest}"
        )
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _copy(source: Path, target: Path) -> None:
    try:
        file = open_regular(source)
    except OSError as error:
        raise _SourceError(error.strerror) from None
    with file, target.open("wb") as copy:
        shutil.copyfileobj(file, copy, _BLOCK_BYTES)


def _download(url: str, target: Path) -> None:
    import requests
    from tqdm import tqdm

    try:
        # identity: not compressed on the way, so that Content-Length is the size of the file.
        with requests.get(
            url, stream=True, timeout=_TIMEOUT_S, headers={"Accept-Encoding": "identity"}
        ) as answer:
            if answer.status_code != requests.codes.ok:
                raise _SourceError(f"the server answers {answer.status_code} {answer.reason}")
            length = answer.headers.get("Content-Length", "")
            total = int(length) if length.isdigit() else None
            with (
                target.open("wb") as file,
                tqdm(
                    total=total,
                    desc=target.name,
                    unit="B",
                    unit_scale=True,
                    disable=not sys.stderr.isatty(),
                ) as bar,
            ):
                for block in answer.iter_content(_BLOCK_BYTES):
                    file.write(block)
                    bar.update(len(block))
    except requests.exceptions.RequestException as error:
        got = f" after {target.stat().st_size} bytes" if target.exists() else ""
        raise _SourceError(f"no connection, or it broke off{got} ({error})") from None
    got_bytes = target.stat().st_size
    if total is not None and got_bytes != total:
        raise _SourceError(f"cut off: {got_bytes} of {total} bytes came")


def _describe_kind(path: Path) -> str:
    with path.open("rb") as file:
        head = file.read(512).lstrip().lower()
    if head.startswith((b"<!doctype html", b"<html")):
        return "an HTML page in place of the file,"
    return "another or a damaged file" if head else "an empty file"


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m ck_mlperf.common.downloads", description=__doc__
    )
    add = parser.add_argument
    add("--url", help="of the file: https, http or file")
    add("--mirror", action="append", default=[], metavar="URL", help="tried next; may be repeated")
    add("--file", type=Path, metavar="PATH", help="a local copy; tried first")
    add("--hash", required=True, metavar="sha256:HEX", help="or md5:HEX")
    add("--output", type=Path, required=True, metavar="FILE")
    add("--unpack", type=Path, metavar="DIR", help="also unpack it (tar, tar.gz, zip) into DIR")
    options = parser.parse_args()
    urls = [*([options.url] if options.url else []), *options.mirror]
    if not urls and not options.file:
        raise UserError("name a source: --url, --mirror or --file")
    fetch(options.output, options.hash, urls, options.file)
    if options.unpack:
        unpack(options.output, options.unpack)


if __name__ == "__main__":
    run_main(main)
