"""How an ONNX Runtime session was set up, for the record."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ck_mlperf.common.files import MOST_ONNX_BYTES, read_regular

# An address, which is another one in each run.
_NOT_RECORDED = "user_compute_stream"


_EXTERNAL_DATA = "session.model_external_initializers_file_folder_path"


def read_model(path: Path, options: Any) -> bytes:
    """An ONNX file for a session with these SessionOptions, which finds its external data.

    Read here, so that what was hashed is what runs.
    """
    options.add_session_config_entry(_EXTERNAL_DATA, str(path.resolve().parent))
    return read_regular(path, MOST_ONNX_BYTES)


def describe_session(
    session: Any, options: Any, entries: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """{"session", "entries", "providers"} of an onnxruntime.InferenceSession.

    options: its SessionOptions, of which all attributes are listed, enumerations by name, paths
    and empty texts left out. entries: what was added to them by `add_session_config_entry`.
    """
    attributes = {name: getattr(options, name) for name in dir(options) if name[0] != "_"}
    return {
        "session": {
            name: getattr(value, "name", value)
            for name, value in attributes.items()
            if not callable(value) and value != "" and not name.endswith(("path", "prefix"))
        },
        "entries": dict(entries or {}),
        "providers": {
            provider: {name: text for name, text in given.items() if name != _NOT_RECORDED}
            for provider, given in session.get_provider_options().items()
        },
    }
