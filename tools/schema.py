"""The JSON schema of a record, made from its types (ck_mlperf.results.record)."""

from __future__ import annotations

import inspect
import json
from typing import Any

import msgspec

from ck_mlperf.common.docstrings import read_field_docs
from ck_mlperf.loadgen.settings import VARIABLES, Variable
from ck_mlperf.machine import facts
from ck_mlperf.models.recipe import ModelRecipe
from ck_mlperf.results import record, verdicts

_REF = "#/$defs/{name}"


def make_record_schema() -> str:
    """The text of record.schema.json."""
    _, defs = msgspec.json.schema_components((record.Record, ModelRecipe), ref_template=_REF)
    parts = {**vars(facts), **vars(verdicts), **vars(record)}
    for name, schema in defs.items():
        if "description" in schema:  # which Python 3.13 has without the indentation
            schema["description"] = inspect.cleandoc(schema["description"])
        if name not in parts:
            continue  # of a model's recipe, which is declared elsewhere
        cls: type = parts[name]
        schema["additionalProperties"] = False
        for base in cls.__mro__[: cls.__mro__.index(msgspec.Struct)]:
            for field, text in read_field_docs(base).items():
                schema["properties"][field]["description"] = text
    defs["Model"]["properties"]["recipe"] |= _refer("ModelRecipe")
    defs["Settings"]["properties"]["ours"] |= {
        "properties": {variable.name: _describe(variable) for variable in VARIABLES},
        "additionalProperties": False,
    }
    _order(defs)
    top = defs.pop("Record")
    dialect = "https://json-schema.org/draft/2020-12/schema"
    return json.dumps({"$schema": dialect, **top, "$defs": defs}, indent=1) + "\n"


def _order(schema: Any) -> None:
    """Put alternatives in an order that does not depend on msgspec's version, null last."""
    for part in schema.values() if isinstance(schema, dict) else schema:
        if isinstance(part, (dict, list)):
            _order(part)
    if "anyOf" in schema:
        schema["anyOf"].sort(key=lambda part: (part == {"type": "null"}, json.dumps(part)))


def _describe(variable: Variable) -> dict[str, Any]:
    unit = {"unit": variable.unit} if variable.unit else {}
    return {"description": variable.help, **unit, **_refer("Setting")}


def _refer(name: str) -> dict[str, Any]:
    return {"$ref": _REF.format(name=name)}
