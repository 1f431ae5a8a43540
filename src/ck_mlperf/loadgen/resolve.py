"""The settings of a run against its data set, its engine and its machine."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from ck_mlperf.common.errors import UserError
from ck_mlperf.loadgen.compliance import REPEATED_INDEX
from ck_mlperf.loadgen.engines.registry import ENGINES, GPU
from ck_mlperf.loadgen.settings import (
    DEFAULT_BATCH_SIZE,
    RunSettings,
    raise_problems,
    refuse_several_devices,
)
from ck_mlperf.machine.gpus import list_cuda_devices


@dataclass(frozen=True)
class ResolvedSettings(RunSettings):
    """Settings that fit a data set and an engine."""

    dataset_size: int = field(kw_only=True)
    batch_size: int = field(kw_only=True)


def resolve_settings(
    settings: RunSettings, available_images: int, engine_max_batch: int | None
) -> ResolvedSettings:
    """`settings` with numbers for dataset_size and batch_size; buffer_size is at most the former.

    Raises UserError that lists what this data set or engine cannot give. Loads nothing for it.
    """
    raise_problems(_find_misfits(settings, available_images, engine_max_batch))
    dataset_size = settings.dataset_size or available_images
    largest = min(engine_max_batch or DEFAULT_BATCH_SIZE, DEFAULT_BATCH_SIZE)
    batch_size = settings.batch_size or (1 if settings.scenario == "SingleStream" else largest)
    resolved = {
        "dataset_size": dataset_size,
        "batch_size": batch_size,
        "buffer_size": min(settings.buffer_size, dataset_size),
    }
    return ResolvedSettings(**vars(settings) | resolved)


def resolve_devices(
    settings: RunSettings,
    kind: str,
    list_devices: Callable[[], tuple[int, ...]] = list_cuda_devices,
) -> tuple[int, ...]:
    """CUDA's numbers of the devices to run on, an engine of `kind` (as in ENGINES) for each.

    (0,) where none were asked for, on the CPU too; `list_devices` is called only where some were.
    Raises UserError where the engine takes none, the machine has not those, or the scenario takes
    one.
    """
    wanted = settings.cuda_devices
    if wanted is None:
        return (0,)
    if not ENGINES[kind].takes_devices:
        raise UserError(
            f"CK_CUDA_DEVICES={_format_devices(wanted)}: this model runs on the CPU. Leave it out, "
            "or choose a model for GPUs"
        )
    if isinstance(wanted, str):
        devices = list_devices()
    else:
        devices = wanted
        missing = sorted({*devices} - {*list_devices()}) if ENGINES[kind].runs_on == GPU else []
        if missing:
            raise UserError(
                f"CK_CUDA_DEVICES={_format_devices(wanted)}: no GPU {_format_devices(missing)} "
                f"here, only {_format_devices(list_devices())}. (CUDA_VISIBLE_DEVICES hides "
                "some and renumbers the others)"
            )
    refuse_several_devices(settings.scenario, len(devices))
    return devices


def _find_misfits(
    settings: RunSettings, available_images: int, engine_max_batch: int | None
) -> list[str]:
    problems = []
    if settings.dataset_size is not None and settings.dataset_size > available_images:
        problems.append(
            f"CK_LOADGEN_DATASET_SIZE={settings.dataset_size}: the data set has {available_images} "
            "images. Lower it, or install a larger set"
        )
    if (
        settings.batch_size is not None
        and engine_max_batch is not None
        and settings.batch_size > engine_max_batch
    ):
        problems.append(
            f"CK_BATCH_SIZE={settings.batch_size}: the model takes at most {engine_max_batch} "
            "images at once. Lower it, or choose a model made for larger batches"
        )
    loaded = min(settings.buffer_size, settings.dataset_size or available_images)
    same_index = settings.conf.get("performance_issue_same_index", 0)
    if same_index >= loaded:
        problems.append(
            f"{settings.conf_file}: performance_issue_same_index = {same_index}: only {loaded} "
            "images are loaded. Want a smaller index"
        )
    if settings.compliance == "TEST04" and loaded <= REPEATED_INDEX:
        problems.append(
            f"CK_LOADGEN_COMPLIANCE=TEST04: it repeats image {REPEATED_INDEX} (from 0), and only "
            f"{loaded} are loaded. Raise CK_LOADGEN_BUFFER_SIZE or CK_LOADGEN_DATASET_SIZE"
        )
    return problems


def _format_devices(devices: Iterable[int] | str) -> str:
    return devices if isinstance(devices, str) else ",".join(map(str, devices))
