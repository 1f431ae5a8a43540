"""Text from a record or another file, made safe to show."""

from __future__ import annotations

from unicodedata import category

# Control and format characters, halves of surrogate pairs, what is no character, separators of
# lines and paragraphs: a terminal obeys them, XML refuses them, or they hide or reverse text.
_HIDDEN = {"Cc", "Cf", "Cs", "Cn", "Zl", "Zp"}


def make_printable(text: str, keep: str = "") -> str:
    """`text` with U+FFFD in place of each character that hides or commands, but those of `keep`."""
    if text.isprintable():
        return text
    return "".join(
        "\ufffd" if category(one) in _HIDDEN and one not in keep else one for one in text
    )
