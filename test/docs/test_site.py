"""`make docs`: every page, every link, and nothing that a reader without a network would miss."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

# What a browser fetches when it shows a page.
FETCHED = re.compile(r"""<(?:script|img|link|iframe)[^>]*?\b(?:src|href)=["']?(https?:[^"' >]+)""")


def test_the_site_is_built_and_is_complete_without_a_network(repository, tmp_path):
    subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "-q", "--strict", "--site-dir", tmp_path],
        cwd=repository,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        check=True,
        timeout=120,
    )
    written = {path.stem for path in tmp_path.glob("*.html")} - {"404"}
    assert written == {path.stem for path in (repository / "docs").glob("*.md")}
    pages = {path: path.read_text() for path in tmp_path.rglob("*.html")}
    assert not {url for text in pages.values() for url in FETCHED.findall(text)}
    api = pages[tmp_path / "api.html"]
    assert "run_test" in api
    assert "make_engine" in api


def test_the_readme_is_short_and_names_every_page(repository):
    readme = (repository / "README.md").read_text()
    assert len(readme.splitlines()) <= 150
    index = (repository / "docs" / "index.md").read_text()
    nav = (repository / "mkdocs.yml").read_text()
    for page in (repository / "docs").glob("*.md"):
        if page.name != "index.md":
            assert f"({page.name})" in index or "add-" in page.name, page.name
            assert page.name in nav


def list_headings(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and mkdocs make them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    words = [re.sub(r"[^\w\s-]", "", heading.lower()) for heading in headings]
    return {re.sub(r"\s+", "-", text.strip()) for text in words}


def test_anchors(repository):
    for page in [repository / "README.md", *(repository / "docs").rglob("*.md")]:
        for target, anchor in re.findall(r"\]\(([^)#:]*)#([^)]+)\)", page.read_text()):
            assert anchor in list_headings(page.parent / target if target else page), target
