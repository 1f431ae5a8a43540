"""CK's tags: words that say what an entry is, joined with commas."""

from __future__ import annotations

import re
from collections.abc import Iterable

# CK puts these on an env entry itself: the host, the entry's version, and `tmp` while it is being
# installed. In a request they would ask for that version on that host.
_CK_TAG = re.compile(r"(host|target)-os-.*|\d+bits|v\d+(\.\w+)*|tmp")

# A name that anybody chose becomes part of paths, of tags and of the scripts that CK writes.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
NAME_RULE = "1 to 64 letters, digits, '.', '_' or '-', the first a letter or a digit"


def is_name(value: object) -> bool:
    """Whether it is a text that keeps to NAME_RULE, as models' names and tags of ours must."""
    return isinstance(value, str) and _NAME.fullmatch(value) is not None


def split_tags(text: str) -> set[str]:
    """The tags of a list such as 'model,onnx'; spaces around them do not count."""
    return {tag.strip() for tag in text.split(",") if tag.strip()}


def join_tags(tags: Iterable[str]) -> str:
    """The tags in alphabetical order, as CK takes them."""
    return ",".join(sorted(tags))


def is_ck_tag(tag: str) -> bool:
    """Whether CK itself puts this tag on what is installed."""
    return _CK_TAG.fullmatch(tag) is not None
