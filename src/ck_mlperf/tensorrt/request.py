"""What to build: a BuildRequest, and the command line that makes one."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path

from ck_mlperf.common.errors import UserError
from ck_mlperf.models.precisions import FILE_PRECISION, PLAN_INPUTS, PRECISIONS
from ck_mlperf.tensorrt.names import MODULES


@dataclasses.dataclass(frozen=True)
class BuildRequest:
    """What to build.

    model: the ONNX file, with its recipe beside it. output: the plan. precision: one of
    PRECISIONS. max_batch: images, the most in a batch. opt_batch: the batch to tune for; None:
    max_batch. flavour: 'tensorrt' or 'tensorrt_rtx'; None: the one that is installed.
    compute_capabilities: to build for, with TensorRT for RTX; None: those of the GPUs that are
    there, or all if there is none. timings: the folder in which builds leave their timings for
    others; None: the plan's.
    input: what the samples are, one of PLAN_INPUTS. The limits are TensorRT's own if None:
    workspace_bytes: the most device memory that a layer may use; builder_level, aux_streams,
    tiling_level: its builder_optimization_level, max_aux_streams and tiling_optimization_level.
    """

    model: Path
    output: Path
    precision: str
    max_batch: int
    opt_batch: int | None = None
    flavour: str | None = None
    compute_capabilities: tuple[str, ...] | None = None
    timings: Path | None = None
    workspace_bytes: int | None = None
    input: str = "uint8"
    builder_level: int | None = None
    aux_streams: int | None = None
    tiling_level: int | None = None

    @property
    def limits(self) -> dict[str, int | None]:
        """The limits of the build, as `Flavour.list_options` takes them."""
        return {
            "workspace_bytes": self.workspace_bytes,
            "builder_level": self.builder_level,
            "aux_streams": self.aux_streams,
            "tiling_level": self.tiling_level,
        }

    @property
    def file_precision(self) -> str:
        """What the ONNX file must have been converted to."""
        return FILE_PRECISION[self.precision]

    def check(self) -> None:
        """Raises UserError if the request makes no sense on any machine."""
        if self.precision not in PRECISIONS:
            raise UserError(f"precision {self.precision!r}: want {' or '.join(PRECISIONS)}")
        opt_batch = self.opt_batch or self.max_batch
        if not 1 <= opt_batch <= self.max_batch:
            raise UserError(
                f"batch: the one to tune for must be 1 or more, and no more than the largest "
                f"({opt_batch} and {self.max_batch} were given)"
            )
        if self.output.is_dir():
            raise UserError(f"{self.output}: is a folder. Name the file to write")


def parse_request(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> BuildRequest:
    """The request that a command line makes. `parser` may have options of its own."""
    add = parser.add_argument
    add("--model", type=Path, required=True, metavar="CONVERTED.onnx")
    add("--output", "--plan", type=Path, required=True, metavar="MODEL.plan")
    add("--precision", choices=PRECISIONS, required=True)
    add("--input", choices=tuple(PLAN_INPUTS), default="uint8", help="what samples are")
    add("--max-batch", type=int, required=True, metavar="N")
    add("--opt-batch", type=int, metavar="N", help="batch to tune for (N)")
    add("--flavour", choices=MODULES, help="if several are installed")
    add("--compute-capabilities", metavar="8.6,8.9", help="TensorRT for RTX only")
    add("--timings", type=Path, metavar="FOLDER", help="for what builds share")
    add("--workspace-mib", type=int, metavar="MIB", help="device memory per layer")
    add("--builder-level", type=int, metavar="0..5", help="higher: slower builds")
    add("--aux-streams", type=int, metavar="N", help="streams beside a context's own")
    add("--tiling-level", type=int, metavar="0..3", help="TensorRT 10.8 and newer")
    options = vars(parser.parse_args(arguments))
    capabilities, mib = options.pop("compute_capabilities"), options.pop("workspace_mib")
    if mib is not None and mib < 1:
        raise UserError(f"--workspace-mib {mib}: want 1 or more")
    fields = {field.name for field in dataclasses.fields(BuildRequest)}
    return BuildRequest(
        **{name: value for name, value in options.items() if name in fields},
        compute_capabilities=None if capabilities is None else tuple(capabilities.split(",")),
        workspace_bytes=None if mib is None else mib << 20,
    )
