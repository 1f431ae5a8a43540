"""Files, bytes and JSON made odd, by a generator of random numbers."""

from __future__ import annotations

import copy
import json
import os
from pathlib import Path
from random import Random
from typing import Any

from ..builders.records import find_holder

ODD_BYTES = (
    b"",
    b"\0",
    b"\xff\xfe",
    b"\xed\xa0\x80",
    b"../",
    b"/dev/zero",
    b"$(touch ../owned)",
    b"`touch ../owned`",
    b"\x1b]0;owned\x07",
    b"\xc2\xa0",
    b"\r\n",
    b"\n" * 50,
    b"-1",
    b"0" * 400,
    b"1e400",
    b"NaN",
    b"99999999999999999999999",
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b"&a [*a, *a]",
    b"!!python/object/apply:os.system ['touch ../owned']",
    b"\x7f\xff\xff\xff\xff\xff\xff\xff\xff\x01",
)
ODD_VALUES = (
    *(None, True, False, 0, -1, 1, 2**31, 2**63, 2**64, 10**400, 1e308, -0.0, 1e-308),
    *(float("nan"), float("inf"), "", " ", ".", "..", "../../x", "/etc/passwd", "a" * 300, "\n"),
    *("\0", "\ud800", "\x1b[31m", "$(touch ../owned)", "é", "=1+1", "NaN", "<script>", "1"),
    *([], {}, [[]], [None] * 1000, {"": {}}, {"$ref": "x"}),
)


def replace_file(draw: Random, path: Path) -> None:
    """Put something else in place of a file."""
    path.unlink()
    kind = draw.randrange(5)
    if kind == 0:
        os.mkfifo(path)
    elif kind == 1:
        path.symlink_to("/dev/zero")
    elif kind == 2:
        path.symlink_to(path.name)
    elif kind == 3:
        path.mkdir()
    # else it is not there


def mutate(draw: Random, content: bytes, is_json: bool) -> bytes:
    """The content with one to three changes."""
    if is_json and draw.random() < 0.6:
        return mutate_json(draw, content)
    for _ in range(draw.randint(1, 3)):
        content = _change(draw, content)
    return content


def mutate_json(draw: Random, content: bytes) -> bytes:
    """JSON that is still JSON (as Python writes it), with odd values in it."""
    data = copy.deepcopy(json.loads(content))
    for _ in range(draw.randint(1, 3)):
        path = draw.choice(list_paths(data) or [()])
        if not path:
            return json.dumps(draw.choice(ODD_VALUES)).encode()
        holder, key = find_holder(data, path), path[-1]
        what = draw.random()
        if what < 0.2:
            del holder[key]
        elif what < 0.3 and isinstance(holder, dict):
            holder[draw.choice([f"{key} ", "odd", "__class__", "\ud800"])] = holder[key]
        else:
            holder[key] = draw.choice(ODD_VALUES)
    return json.dumps(data, ensure_ascii=draw.random() < 0.5).encode(errors="surrogatepass")


def list_paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path to each part, as keys and indices."""
    if not isinstance(value, (dict, list)):
        return []
    items = value.items() if isinstance(value, dict) else enumerate(value)
    found = []
    for key, part in items:
        found += [(*path, key), *list_paths(part, (*path, key))]
    return found


def _change(draw: Random, content: bytes) -> bytes:
    start = draw.randint(0, len(content))
    end = min(len(content), start + draw.choice((1, 1, 2, 8, 100)))
    odd = draw.choice((*ODD_BYTES, draw.randbytes(draw.randint(1, 16))))
    kind = draw.choice((0, 0, 0, 1, 2, 3, 4, 5, 6, 6))
    if kind == 0:  # one bit
        place = min(start, len(content) - 1)
        if place < 0:
            return odd
        flipped = content[place] ^ (1 << draw.randrange(8))
        return content[:place] + bytes([flipped]) + content[place + 1 :]
    if kind == 1:  # cut off
        return content[:start]
    if kind == 2:  # twice
        return content[:end] + content[start:]
    if kind == 3:  # left out
        return content[:start] + content[end:]
    if kind == 4:  # replaced
        return content[:start] + odd + content[end:]
    if kind == 5:  # put in
        return content[:start] + odd + content[start:]
    return content[:start] + draw.randbytes(end - start) + content[end:]  # overwritten
