"""MLPerf's compliance tests: the audit.config with which LoadGen runs each.

CK's hooks import this module: it needs the standard library alone.
"""

from __future__ import annotations

from pathlib import Path

AUDIT_CONFIG = "audit.config"
_PERFORMANCE_ONLY = 2
# Source: mlcommons/inference, compliance/TEST01/resnet50/audit.config and TEST04/audit.config.
_SETTINGS = {
    "TEST01": {
        "mode": _PERFORMANCE_ONLY,
        "accuracy_log_rng_seed": 720381539243781796,
        "accuracy_log_sampling_target": 4096,
    },
    "TEST04": {
        "mode": _PERFORMANCE_ONLY,
        "performance_issue_unique": 0,
        "performance_issue_same": 1,
        "performance_issue_same_index": 3,
    },
}
COMPLIANCE_TESTS = tuple(_SETTINGS)
REPEATED_INDEX = _SETTINGS["TEST04"]["performance_issue_same_index"]
"""Index, among the loaded images, of the one that TEST04 repeats."""


def write_audit_config(test: str, folder: Path) -> Path:
    """Write the audit.config of a test, one of COMPLIANCE_TESTS, into `folder`. Returns its path.

    It holds for every model and scenario: LoadGen asks it for the model `*`.
    """
    path = folder / AUDIT_CONFIG
    lines = (f"*.*.{name} = {value}\n" for name, value in _SETTINGS[test].items())
    path.write_text("".join(lines), encoding="ascii")
    return path
