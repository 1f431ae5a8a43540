"""Fixtures by which plans are built with a stand-in for TensorRT."""

from __future__ import annotations

from ..builders.plans import (
    build_fake,
    fake_tensorrt,
    make_model,
    make_request,
    no_gpu,
    set_gpus,
)

__all__ = ["build_fake", "fake_tensorrt", "make_model", "make_request", "no_gpu", "set_gpus"]
