"""From tags to a TensorRT plan: request, host, source, calibration, conversion, plan.

Tags find the candidates; the key in a plan's sidecar decides. A plan is taken only if the key
agrees with what the same request would build now. The run's hook, the packages and
`ck why loadgen` all go through here.
"""

from __future__ import annotations

import dataclasses
import functools
import os

from ck_mlperf.catalog.calibration import calibration_tags, obtain_original
from ck_mlperf.catalog.conversion import Conversion, judge_conversion
from ck_mlperf.catalog.host import Host, survey_host
from ck_mlperf.catalog.judge import judge_plan_file
from ck_mlperf.catalog.kernel import Catalog, Dep, Entry, describe_ambiguity
from ck_mlperf.catalog.request import (
    ONNX,
    RANDOM,
    Request,
    find_flavour_tag,
    find_max_batch_tag,
    max_batch_tag,
    read_max_batch,
    source_tags,
)
from ck_mlperf.catalog.source import find_source_package, find_sources, obtain_source
from ck_mlperf.catalog.step import Installation, Step
from ck_mlperf.common.errors import UserError
from ck_mlperf.common.tags import join_tags
from ck_mlperf.tensorrt.names import MODULE, is_flavour_tag, read_flavour_tag


class PlanChain(Step):
    """What a plan is made from, and the plan. Each part is found out when it is first needed.

    python: the interpreter that builds and runs it.
    """

    package = "model-tensorrt-convert-from-onnx"

    def __init__(self, catalog: Catalog, request: Request, python: str) -> None:
        super().__init__(catalog)
        self.request = request
        self.python = python

    @classmethod
    def from_installation(cls, installation: Installation) -> PlanChain:
        request = installation.read_request()
        named = find_max_batch_tag(installation.tags)
        text = str(installation.environment.get("ML_MODEL_MAX_BATCH_SIZE", ""))
        if text:
            size = read_max_batch(text)
            if named and size != request.max_batch:
                raise UserError(
                    f"{named} and ML_MODEL_MAX_BATCH_SIZE={text} contradict each other: give one"
                )
            request = dataclasses.replace(request, max_batch=size)
        chain = cls(installation.catalog, request, installation.deps["python"].path)
        pinned = installation.deps["onnx"].uid
        if pinned:
            chain.source = installation.catalog.load_pinned("onnx", pinned)
        return chain

    @functools.cached_property
    def host(self) -> Host:
        return survey_host(self.catalog, self.python)

    @functools.cached_property
    def flavour(self) -> str:
        """The tag of the TensorRT that builds the plan and runs it."""
        return self.host.choose_flavour(self.request.flavour)

    @functools.cached_property
    def source(self) -> Entry:
        """The ONNX file as it was exported; it is installed where it is not there."""
        return obtain_source(self.catalog, "onnx", self.request.source)

    @property
    def tags(self) -> set[str]:
        """The plan's."""
        return self.request.plan_tags(self.flavour)

    def convert(self, source: Entry, calibration: str = "", count: str = "") -> Conversion:
        """The step that makes the file that the plan is built from."""
        request = self.request.for_source(source).for_conversion()
        return Conversion(self.catalog, request, source, calibration, count)

    def find(self, thorough: bool = False) -> tuple[Entry | None, list[str]]:
        """(the plan that would be built now or None, why none of those that are there is it)

        thorough: hash also what nobody has touched.
        """
        fitting, faults = [], []
        refused = {RANDOM} - self.request.source
        for entry in self.catalog.find(self.tags, refused):
            reasons = self.judge(entry, thorough)
            if reasons:
                faults += [f"{entry.path}: {reason}" for reason in reasons]
            else:
                fitting.append(entry)
        # Plans of one key are interchangeable.
        if any(entry.customize["key"] != fitting[0].customize["key"] for entry in fitting):
            raise UserError(describe_ambiguity("weights", self.tags, fitting))
        return (fitting[0] if fitting else None), faults

    def judge(self, entry: Entry, thorough: bool = False) -> list[str]:
        """Why a plan is not what the request would build now; [] where it is."""
        if not os.path.exists(entry.path):
            return ["the plan is gone"]
        source = self._find_source_of(entry)
        if source:
            key = entry.customize["key"]
            faults = judge_conversion(self.catalog, key, source)
            if faults:
                return faults
        return judge_plan_file(entry, self.request, self.host, thorough)

    def obtain(self) -> Entry:
        """The plan; it is built, and all that it needs, where it is not there."""
        entry, faults = self.find()
        if entry is not None:
            return entry
        source = self.find_source()
        if source is not None:
            self.source = source
        for fault in faults:
            print(f"building again: {fault}", flush=True)
        environment = {"ML_MODEL_MAX_BATCH_SIZE": str(self.request.max_batch)}
        return self._install(self.tags, environment)

    def prepare(self, installation: Installation) -> dict[str, str]:
        deps = installation.deps
        flavour = self.flavour  # an error ends the command before anything is made
        deps["onnx"].take(self.source, {*self.request.source, *ONNX})
        conversion = self.convert(
            self.source,
            deps["calibration"].uid,
            str(installation.environment.get("CALIBRATION_COUNT", "")),
        )
        deps["converted"].take(conversion.obtain(), conversion.request.conversion_tags())
        flavour = self._resolve_library(deps["tensorrt"], flavour)
        own = join_tags(source_tags(self.source))
        installation.set_name(
            self.source,
            {flavour, max_batch_tag(self.request.max_batch)},
            f"{own}, {flavour}",
        )
        return {
            "ML_MODEL_MAX_BATCH_SIZE": str(self.request.max_batch),
            "TENSORRT_FLAVOUR": read_flavour_tag(flavour)[0],
        }

    def find_source(self) -> Entry | None:
        """The one registered ONNX file to make the plan from, None without.

        Raises UserError where there are more.
        """
        sources = find_sources(self.catalog, self.request.source)
        if len(sources) > 1:
            raise UserError(
                describe_ambiguity(
                    "onnx",
                    {*ONNX, *self.request.source},
                    sources,
                    "Add a tag that only one has; or make the plan of one, with the first word of "
                    f"its line, and it is found from then on: {self.describe_install()} "
                    "--deps.onnx=UID",
                )
            )
        return sources[0] if sources else None

    def describe_install(self) -> str:
        """The command that makes the plan, also where CK cannot find the package by the tags."""
        tags = self.tags - {"image-classification"}
        unknown = tags - self.catalog.load_package(self.package).known_tags
        if not unknown:
            return f"ck install package --tags={join_tags(tags)} --quiet"
        return (
            f"ck install package:{self.package} --tags={join_tags(tags - unknown)} "
            f"--extra_tags={join_tags(unknown)} "
            f"--env.ML_MODEL_MAX_BATCH_SIZE={self.request.max_batch} --quiet"
        )

    def explain(self) -> tuple[bool, list[str]]:
        """(whether a run would reuse a plan, the reasons, one a line). Makes nothing."""
        entry, faults = self.find(thorough=True)
        if entry:
            return True, [f"reused: {entry.path}", "all parts of its key agree"]
        lines = ["built: a run with these tags would make the plan"]
        lines += faults or [f"no plan is registered with the tags {join_tags(self.tags)}"]
        if self.flavour not in self.host.flavours:
            lines.append(f"{self.flavour} is not installed: pip would install it")
        lines += self._explain_conversion()
        lines.append(f"to make it now: {self.describe_install()}")
        return False, lines

    def _explain_conversion(self) -> list[str]:
        """What is there of the chain from the source to the converted file.

        Raises UserError where none can be.
        """
        source = self.find_source()
        if source is None:
            package = find_source_package(self.catalog, self.request.source)
            return [f"the ONNX file is not there: package:{package.name} would install it"]
        lines = [f"the ONNX file is {source.path}"]
        converted, faults = self.convert(source).find()
        if converted:
            lines.append(f"the converted file is {converted.path}")
        else:
            lines += faults or ["it is not converted yet: package:model-onnx-convert would do that"]
        recipe = source.recipe
        if self.request.precision == "int8" and not converted and recipe["dataset"] != "digits":
            obtain_original(self.catalog, calibration_tags(recipe)[0], recipe["dataset"])
        return lines

    def _find_source_of(self, entry: Entry) -> Entry | None:
        """The ONNX file that a plan was made from, as it is registered now."""
        uid = entry.dep_uid("onnx")
        source = self.catalog.load(uid) if uid else None
        sources = [source] if source else find_sources(self.catalog, self.request.source)
        return sources[0] if len(sources) == 1 else None

    def _resolve_library(self, dep: Dep, flavour: str) -> str:
        """Resolve the dep on TensorRT. Returns the tag of what was found."""
        self.catalog.resolve_library(dep, flavour)
        tags = dep.entry.tags if dep.entry else frozenset()
        found = {tag for tag in tags if is_flavour_tag(tag)}
        if flavour not in found | {MODULE}:
            raise UserError(
                f"{flavour} was asked for, and {join_tags(found)} is what CK has registered"
            )
        return find_flavour_tag(tags)
