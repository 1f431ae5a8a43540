"""The docstrings of a class's fields, which Python itself does not keep."""

from __future__ import annotations

import ast
import inspect


def read_field_docs(cls: type) -> dict[str, str]:
    """The text under each field of a class that has one, in one line, by the field's name."""
    (definition,) = ast.parse(inspect.getsource(cls)).body
    assert isinstance(definition, ast.ClassDef)
    docs = {}
    for field, following in zip(definition.body, definition.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(following, ast.Expr):
            text = ast.literal_eval(following.value)
            docs[ast.unparse(field.target)] = " ".join(text.split())
    return docs
