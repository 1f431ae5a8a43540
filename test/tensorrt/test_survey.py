"""Which TensorRTs an interpreter finds; they are stand-ins."""

from __future__ import annotations

import json
import subprocess
import sys

from ck_mlperf.tensorrt.names import is_flavour_tag, make_flavour_tag, read_flavour_tag
from ck_mlperf.tensorrt.survey import find_flavours


def test_every_tensorrt_is_found_once(fake_tensorrt, monkeypatch):
    own, eight = fake_tensorrt("10.13.0.35"), fake_tensorrt("8.6.1")
    monkeypatch.setattr(sys, "path", [str(own), *(p for p in sys.path if "site-8" not in p)])
    path = list(sys.path)
    found = [entry for entry in find_flavours([str(eight), str(own)]) if entry[1] == "tensorrt"]
    assert found == [("", "tensorrt", "10.13.0.35"), (str(eight), "tensorrt", "8.6.1")]
    assert sys.path == path


def test_the_command(fake_tensorrt, library_environment):
    site = str(fake_tensorrt("10.13.0.35"))
    process = subprocess.run(
        [sys.executable, "-m", "ck_mlperf.tensorrt.survey", site],
        env=library_environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert [site, "tensorrt", "10.13.0.35"] in json.loads(process.stdout)


def test_a_flavour_is_a_module_and_a_tag():
    assert make_flavour_tag("tensorrt", "10.13.0.35") == "tensorrt-10"
    assert make_flavour_tag("tensorrt_rtx", "1.7.1") == "tensorrt-rtx"
    assert read_flavour_tag("tensorrt-10") == ("tensorrt", "10")
    assert read_flavour_tag("tensorrt-rtx") == ("tensorrt_rtx", None)
    assert read_flavour_tag("tensorrt") == ("tensorrt", None)  # of whatever version
    assert [tag for tag in ("tensorrt", "tensorrt-8", "tensorrt-rtx", "tensorrt-x")
            if is_flavour_tag(tag)] == ["tensorrt-8", "tensorrt-rtx"]  # fmt: skip
