"""The record of a run: all that is needed to believe its figures and to get them again.

`Record` is its shape. tools/generate.py makes record.schema.json of it: the text under a field is
its description there, its type has the unit. `SCHEMA_VERSION` goes up with every change that an
older reader would not understand; migrate.py reads records of older versions.

None (null): not measured in this mode, or not known.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from msgspec import Meta, Struct

from ck_mlperf.common import units
from ck_mlperf.common.errors import UserError
from ck_mlperf.loadgen.engines.registry import GPU, find_by_name
from ck_mlperf.loadgen.settings import EXPLORE_RUN
from ck_mlperf.machine.disturbances import Disturbance, find_disturbances
from ck_mlperf.machine.facts import Conditions, Environment
from ck_mlperf.models.precisions import find_precision
from ck_mlperf.results.verdicts import Verdicts

SCHEMA_VERSION: Final = 3

Scenario = Literal["SingleStream", "MultiStream", "Server", "Offline"]
JUDGED_BY: Final = {"SingleStream": "p90", "MultiStream": "p99", "Server": "p99"}
"""The percentile of the latency that MLPerf looks at, as `Latencies` names it; Offline has none."""
Mode = Literal["AccuracyOnly", "PerformanceOnly", "SubmissionRun", "FindPeakPerformance"]
Weights = Literal["trained", "random"]
Precision = Literal["fp32", "tf32", "fp16", "int8"]
Sha256 = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
KnownBy = Literal["contents", "names and labels only"]
Md5 = Annotated[str, Meta(pattern="^[0-9a-f]{32}$")]
UtcTime = Annotated[str, Meta(pattern="^[0-9-]{10}T[0-9:]{8}[+]00:00$")]
FileName = Annotated[str, Meta(pattern="^[^/]+$")]


class Accuracy(Struct, frozen=True):
    """Accuracy over the images of the test."""

    top1_percent: units.Percent
    """Share of the images whose best answer is right."""
    top5_percent: units.Percent | None
    """Share with the right label among the five best; null where the engine gives one answer."""
    good: Annotated[int, units.unit("images"), units.NOT_NEGATIVE]
    """Images whose best answer is right."""
    total: units.Images
    """Images of the test."""


class Counts(Struct, frozen=True):
    """What LoadGen sent in the performance part."""

    queries: units.Queries
    """Queries that were completed."""
    samples: units.Samples
    """Samples of all queries."""
    samples_per_query: units.Samples
    """Samples of each query."""


class Latencies(Struct, frozen=True):
    """Latencies of queries; in Offline, of the samples of its one query."""

    min: units.Nanoseconds
    """The shortest."""
    mean: units.Nanoseconds
    """Their mean."""
    p50: units.Nanoseconds
    """The median."""
    p90: units.Nanoseconds
    """The 90th percentile."""
    p95: units.Nanoseconds
    """The 95th percentile."""
    p97: units.Nanoseconds
    """The 97th percentile."""
    p99: units.Nanoseconds
    """The 99th percentile."""
    p99_9: units.Nanoseconds
    """The 99.9th percentile."""
    max: units.Nanoseconds
    """The longest."""


class EarlyStopped(Struct, frozen=True):
    """LoadGen's early-stopping estimates, which hold with 99% confidence and which MLPerf reports.

    null where there were too few queries, or the scenario has none.
    """

    p90: Annotated[int, units.unit("ns"), units.POSITIVE] | None
    """Of the 90th percentile, in SingleStream."""
    p99: Annotated[int, units.unit("ns"), units.POSITIVE] | None
    """Of the 99th percentile, in SingleStream and MultiStream."""


class Throughput(Struct, frozen=True):
    """Rates of the performance part."""

    samples_per_second: units.SamplesPerSecond | None
    """LoadGen's own figure (Server: completed samples); in MultiStream, which has none, samples by
    duration. null where a single query leaves nothing to divide."""
    queries_per_second: units.QueriesPerSecond | None
    """The same by samples per query."""
    peak_qps: Annotated[float, units.unit("queries/s")] | None
    """FindPeakPerformance: the highest rate within the latency bound."""


class Setting(Struct, frozen=True):
    """The value of a variable, and where it is from."""

    value: int | float | str | bool | list[int] | None
    """null: not asked for; LoadGen's setting holds (see loadgen)."""
    origin: Literal["env", "default"]
    """env: the user gave it."""


class File(Struct, frozen=True):
    """A file."""

    file: FileName
    """Its name without folders."""
    sha256: Sha256
    """Of its content."""


class Log(File, frozen=True):
    """One of LoadGen's logs."""

    bytes: units.Bytes
    """Its size."""


class Settings(Struct, frozen=True):
    """The settings in force."""

    ours: dict[str, Setting]
    """The variables of this program. One that a later version of it has may be missing."""
    loadgen: dict[str, int | float | str | bool]
    """Every attribute of LoadGen's TestSettings under its own name, which ends in its unit (_ns,
    _ms, _qps, _count); percentiles are shares of 1, times without unit (tpot_latency) ns."""
    user_conf: File | None
    """user.conf; null: none."""
    passed: dict[str, str] | None = None
    """Other variables that the user passed on to the program (--env.CUDA_VISIBLE_DEVICES=0), no
    value where the name says that it is secret. null: not noted."""

    def get_loadgen_number(self, name: str) -> float:
        """A number among LoadGen's settings. Raises UserError where there is none of that name."""
        value = self.loadgen.get(name)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise UserError(f"settings.loadgen.{name} is no number")
        return value


class DeviceShare(Struct, frozen=True):
    """What one device did."""

    device: str
    """As the engine names it."""
    samples: Annotated[int, units.unit("samples"), units.NOT_NEGATIVE]
    """Samples that it answered."""
    samples_per_second: Annotated[float, units.unit("samples/s"), units.NOT_NEGATIVE] | None
    """Its share of throughput.samples_per_second; null: that is not known."""
    batches: units.Count
    """Batches that these came in."""


class Engine(Struct, frozen=True):
    """What computed."""

    name: str
    """Which engine: onnxruntime-cpu, null, ..."""
    version: str
    """Of its library."""
    device: str
    """What it ran on; several of a kind as 2 x ..."""
    batch: units.Samples
    """The most samples that it got at once."""
    devices: Annotated[list[DeviceShare], Meta(min_length=1)] | None
    """Each device's part of the work, in the performance part of the run where it has one; null:
    not noted, as in the earliest records."""
    options: dict[str, Any] | None = None
    """How its library was set up: ONNX Runtime's session options, entries and providers; the key of
    TensorRT's plan, and how batches run on it. null: not noted, as before version 3."""


class WeightsSource(Struct, frozen=True):
    """The ONNX file as it was published, from which the engine's file was made."""

    sha256: Sha256 | None
    """Of its content; null: not noted."""
    md5: Md5 | None
    """Of its content, for comparison with published ones; null: not noted."""
    url: str | None
    """Where MLPerf publishes a file of that md5; null: it is none of MLPerf's."""


class Model(Struct, frozen=True):
    """The network."""

    name: str
    """Its name."""
    weights: Weights
    """random: for performance only."""
    sha256: Sha256
    """Of the file that the engine read."""
    recipe: dict[str, Any]
    """The model's recipe: mean and scale in pixel units of 0 to 255, sides in pixels."""
    network: str | None = None
    """By its graph: resnet50-v1.5 or resnet50-v1; null: another one, or not noted."""
    source: WeightsSource | None = None
    """null: not noted."""
    calibration_list: str | None = None
    """Which of MLPerf's lists has the images that int8 was calibrated with; null: none of them, or
    not int8."""
    precision: Precision | None = None
    """What it computes in. null: not noted."""


class Preprocessing(Struct, frozen=True):
    """How an image becomes side x side pixels (see ck_mlperf.images.recipe)."""

    side: Annotated[int, units.unit("pixels"), units.POSITIVE]
    """Width and height of the result."""
    crop: Annotated[float, Meta(gt=0, le=1)]
    """Share of the resized short side that is kept."""
    interpolation: Literal["area", "linear", "cubic", "antialias"]
    """How pixels are made of pixels."""
    channels: Literal["rgb", "bgr"]
    """Order of the colours."""
    aspect: Literal["keep", "stretch"]
    """keep: the centre is cut out; stretch: both sides are resized."""


class Dataset(Struct, frozen=True):
    """The preprocessed images."""

    name: str
    """Which data set: imagenet, digits."""
    count: units.Images
    """Images in the set."""
    used: units.Images
    """Images that the test used, the first ones."""
    images_sha256: Sha256
    """Of the pixels (see ck_mlperf.images.preprocessed.hash_rows)."""
    source_list_sha256: Sha256
    """Of the list of images and labels that the set was made from."""
    recipe: Preprocessing
    libraries: dict[str, str]
    """Versions of the libraries that decided the pixels: opencv, pillow."""
    source_files_sha256: Sha256 | None = None
    """Of the names and contents of the files that the set was made from (see
    ck_mlperf.images.originals.combine_digests); null: an earlier version made the set."""
    known_by: KnownBy | None = None
    """How it is known that the set is ImageNet's validation set. contents: its files are those of
    ILSVRC2012_img_val.tar; names and labels only: nothing was there to compare contents with;
    null: it is another set, or an earlier version made the record."""


class Dep(Struct, frozen=True):
    """A dependency that CK resolved."""

    key: str
    """Its name in the program's meta.json."""
    tags: list[str]
    """Tags of the entry that was taken."""
    version: str
    """Its version; empty: it has none."""
    uoa: str
    """CK's identifier of the entry on that machine."""


class Timing(Struct, frozen=True):
    """When and how long."""

    start: UtcTime
    """When the test began, ISO 8601."""
    wall_s: units.Seconds
    """What LoadGen's test took, loading of the samples included."""
    performance_s: units.Seconds | None
    """From the first query's issue to the last one's completion."""


class AccuracyRun(Struct, frozen=True):
    """The run that measured the accuracy of the same model file or plan, engine and images."""

    file: FileName
    """The file of the same experiment that its record is in."""
    start: UtcTime
    """When its test began."""
    log_sha256: Sha256
    """Of its accuracy log."""
    top1_percent: units.Percent
    """Its accuracy."""
    total: units.Images
    """Images that it is of."""


class Record(Struct, frozen=True):
    """The record of one LoadGen test. null: not measured in this mode, or not known."""

    schema_version: Literal[3]
    """Version of this shape."""
    program: str
    """The program that ran."""
    scenario: Scenario
    """LoadGen's scenario."""
    mode: Mode
    """LoadGen's mode."""
    accuracy: Accuracy | None
    counts: Counts | None
    latencies_ns: Latencies | None
    early_stopped_ns: EarlyStopped | None
    throughput: Throughput | None
    verdicts: Verdicts
    settings: Settings
    engine: Engine
    model: Model
    dataset: Dataset
    environment: Environment
    conditions: Conditions | None
    """null: nothing watched the machine, as in records of version 1."""
    deps: list[Dep]
    """What CK resolved."""
    logs: list[Log]
    """LoadGen's logs beside this record; in an experiment, logs/SHA256.gz."""
    timing: Timing
    accuracy_run: AccuracyRun | None = None
    """null: not a performance run, or its experiment had no such run when this was recorded."""
    run_id: str | None = None
    """Random: by it, CK knows the record of the run that it started; null: a run without CK."""

    @property
    def explore_run(self) -> str | None:
        """The name that `ck explore loadgen` gave the run."""
        setting = self.settings.ours.get(EXPLORE_RUN)
        return None if setting is None or setting.value is None else str(setting.value)

    @property
    def precision(self) -> str | None:
        """What the model computed in; of a record without it, what the tags of its dep say."""
        tags = next((dep.tags for dep in self.deps if dep.key == "weights"), None)
        return self.model.precision or (None if tags is None else find_precision(tags))

    @property
    def samples_per_second(self) -> float | None:
        """The throughput, where it was measured."""
        return self.throughput.samples_per_second if self.throughput else None

    def find_disturbances(self) -> list[Disturbance]:
        """What else the machine did that makes the speed doubtful; none where none was measured."""
        if self.conditions is None or self.latencies_ns is None:
            return []
        engine = find_by_name(self.engine.name)
        on_cpu = engine is not None and engine.runs_on != GPU
        return find_disturbances(self.conditions, on_cpu)
