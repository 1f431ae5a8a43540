"""Trees of submissions, written once."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from ..builders.broken_trees import Tree, Trees


@pytest.fixture(scope="session")
def trees(tmp_path_factory: pytest.TempPathFactory) -> Trees:
    """Makes the trees of builders/broken_trees.py."""
    return Trees(tmp_path_factory.mktemp("trees"))


@pytest.fixture
def tree(trees: Trees, tmp_path: Path) -> Tree:
    """A tree of closed that the product has written, to be changed."""
    root = trees.make("nothing, closed")
    shutil.move(root, tmp_path / "tree")
    return Tree(tmp_path / "tree")
