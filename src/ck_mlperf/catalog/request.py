"""What the tags of a converted ONNX file or of a plan ask for."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence

from ck_mlperf.catalog.kernel import Entry
from ck_mlperf.common.errors import UserError
from ck_mlperf.common.tags import is_ck_tag, join_tags
from ck_mlperf.models.precisions import (
    FILE_INPUTS,
    FILE_PRECISION,
    OUTPUTS,
    PLAN_INPUTS,
    PRECISIONS,
)
from ck_mlperf.tensorrt.names import is_flavour_tag

CONVERTED = "converted-from-onnx"
RANDOM = "random"
CALIBRATION = "calibration"
DEFAULT_SOURCE = "digits"
DEFAULT_MAX_BATCH = 1

ONNX = frozenset({"model", "onnx", "image-classification"})
PLAN = frozenset({"model", "tensorrt", "image-classification"})

_INPUT, _OUTPUT, _MAX_BATCH = "input.", "output.", "maxbatch."


@dataclasses.dataclass(frozen=True)
class Request:
    """What tags ask for.

    source: the tags of the ONNX file to convert, none for the one that a dep names. input: one of
    PLAN_INPUTS, of a converted file one of FILE_INPUTS. flavour: 'tensorrt-rtx', 'tensorrt-8' and
    so on, None for the one that is installed.
    """

    source: frozenset[str]
    precision: str
    input: str
    output: str
    max_batch: int
    flavour: str | None

    def for_conversion(self) -> Request:
        """The request for the converted file that a plan is made from."""
        return dataclasses.replace(self, input="fp32" if self.input == "fp32" else "native")

    def for_source(self, source: Entry) -> Request:
        """The same request, of this ONNX file and no other with the same tags."""
        return dataclasses.replace(self, source=source_tags(source))

    def conversion_tags(self) -> set[str]:
        """The tags of the converted file."""
        precision = FILE_PRECISION[self.precision]
        options = list_option_tags(precision, self.input, self.output)
        return {*ONNX, CONVERTED, *options, *self.source}

    def plan_tags(self, flavour: str | None) -> set[str]:
        """The tags of the plan; flavour None: of any flavour."""
        own = {CONVERTED, max_batch_tag(self.max_batch), *([flavour] if flavour else [])}
        options = list_option_tags(self.precision, self.input, self.output)
        return {*PLAN, *own, *options, *self.source}


def list_option_tags(precision: str, input_kind: str, output_kind: str) -> list[str]:
    """The tags that a converted file and a plan have of how they were made."""
    return [precision, f"{_INPUT}{input_kind}", f"{_OUTPUT}{output_kind}"]


def max_batch_tag(max_batch: int) -> str:
    return f"{_MAX_BATCH}{max_batch}"


def read_request(
    tags: Collection[str],
    max_batch: int = DEFAULT_MAX_BATCH,
    default_source: str = DEFAULT_SOURCE,
) -> Request:
    """Take tags apart. What is no option is the source's. max_batch: where no tag says it.

    Raises UserError where tags contradict each other or say what there is not.
    """
    tags = {tag for tag in tags if not is_ck_tag(tag)}
    precision = _choose(tags, "precision", PRECISIONS)
    input_tag = _choose_input(tags, precision)
    output_tag = _choose(tags, "output", [f"{_OUTPUT}{name}" for name in OUTPUTS])
    flavours = {tag for tag in tags if is_flavour_tag(tag)}
    sizes = {tag for tag in tags if tag.startswith(_MAX_BATCH)}
    for several in (flavours, sizes):
        if len(several) > 1:
            raise UserError(f"{join_tags(several)}: want one of these tags, not several")
    for size in sizes:
        max_batch = read_max_batch(size.removeprefix(_MAX_BATCH))
    options = {precision, input_tag, output_tag, CONVERTED, *flavours, *sizes}
    source = tags - ONNX - PLAN - options
    if not source and default_source:
        source = {default_source}
    return Request(
        source=frozenset(source),
        precision=precision,
        input=input_tag.removeprefix(_INPUT),
        output=output_tag.removeprefix(_OUTPUT),
        max_batch=max_batch,
        flavour=min(flavours, default=None),
    )


def read_max_batch(text: str) -> int:
    """The most images in a batch. Raises UserError where that is no number above 0."""
    if not (text.isascii() and text.isdigit() and int(text)):
        raise UserError(f"maxbatch.{text}: want the most images in a batch, such as maxbatch.32")
    return int(text)


def find_max_batch_tag(tags: Collection[str]) -> str | None:
    """The tag that says the largest batch."""
    return next((tag for tag in tags if tag.startswith(_MAX_BATCH)), None)


def source_tags(entry: Entry) -> frozenset[str]:
    """The tags by which a model is known, of the env entry of its ONNX file."""
    return frozenset(tag for tag in entry.tags if not is_ck_tag(tag)) - ONNX


def find_flavour_tag(tags: Collection[str]) -> str:
    """The flavour of a plan, by its tags."""
    return min(tag for tag in tags if is_flavour_tag(tag))


def _choose_input(tags: Collection[str], precision: str) -> str:
    """The tag of the input, of a plan or of a converted file, by the other tags."""
    is_file = "onnx" in tags and "tensorrt" not in tags
    what, names = ("converted file", FILE_INPUTS) if is_file else ("plan", tuple(PLAN_INPUTS))
    choices = [f"{_INPUT}{name}" for name in names]
    unfit = {tag for tag in tags if tag.startswith(_INPUT)} - set(choices)
    if unfit:
        raise UserError(f"{join_tags(unfit)}: the input of a {what} is {' or '.join(choices)}")
    chosen = _choose(tags, "input", choices)
    name = chosen.removeprefix(_INPUT)
    if name in ("int8", "fp16") and name != precision:
        raise UserError(
            f"{chosen} is the input of a plan in {name}, and {precision} was asked for. Leave it "
            "out, and the GPU prepares the images"
        )
    return chosen


def _choose(tags: Collection[str], what: str, choices: Sequence[str]) -> str:
    """The one of the choices that is among the tags; the first where none is."""
    chosen = [choice for choice in choices if choice in tags]
    if len(chosen) > 1:
        raise UserError(f"{' and '.join(chosen)}: want one {what}, not several")
    return chosen[0] if chosen else choices[0]
