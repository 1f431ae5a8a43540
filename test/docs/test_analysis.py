"""docs/analysis.ipynb runs, and says what it is committed with."""

from __future__ import annotations

import copy

import nbformat
import pytest

pytestmark = pytest.mark.slow


def read_texts(notebook):
    """What each cell printed, and the kinds of what it showed."""
    return [
        [
            "".join(output["text"]) if output.output_type == "stream" else sorted(output["data"])
            for output in cell.get("outputs", [])
        ]
        for cell in notebook.cells
    ]


def test_notebook(repository, tmp_path, monkeypatch):
    from nbclient import NotebookClient

    path = repository / "docs" / "analysis.ipynb"
    assert path.stat().st_size < 250_000
    for name in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "MPLCONFIGDIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setenv("PYTHONPATH", str(repository / "src"))
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    fresh = copy.deepcopy(notebook)
    client = NotebookClient(
        fresh, timeout=120, kernel_name="python3", resources={"metadata": {"path": path.parent}}
    )
    client.execute()
    assert read_texts(fresh) == read_texts(notebook)
    assert any("image/png" in kinds for outputs in read_texts(fresh) for kinds in outputs)
