"""Types of figures that go into JSON: each has its unit and the range in which it must be."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

POSITIVE = Meta(gt=0)
NOT_NEGATIVE = Meta(ge=0)


def unit(name: str) -> Meta:
    """What the figures of a type are in."""
    return Meta(extra_json_schema={"unit": name})


Nanoseconds = Annotated[int, unit("ns"), NOT_NEGATIVE]
Milliseconds = Annotated[int, unit("ms"), POSITIVE]
Seconds = Annotated[float, unit("s"), NOT_NEGATIVE]
CoreSeconds = Annotated[float, unit("core-seconds"), NOT_NEGATIVE]
"""Seconds that one core worked."""
SamplesPerSecond = Annotated[float, unit("samples/s"), POSITIVE]
QueriesPerSecond = Annotated[float, unit("queries/s"), POSITIVE]
Percent = Annotated[float, unit("%"), Meta(ge=0, le=100)]
Samples = Annotated[int, unit("samples"), POSITIVE]
Queries = Annotated[int, unit("queries"), POSITIVE]
Images = Annotated[int, unit("images"), POSITIVE]
Cores = Annotated[int, unit("cores"), POSITIVE]
Bytes = Annotated[int, unit("bytes"), NOT_NEGATIVE]
Mebibytes = Annotated[float, unit("MiB"), NOT_NEGATIVE]
Megahertz = Annotated[float, unit("MHz"), NOT_NEGATIVE]
Watts = Annotated[float, unit("W")]
Count = Annotated[int, unit("1"), NOT_NEGATIVE]
"""How many there are of what the field names; there may be none."""
