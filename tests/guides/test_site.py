"""The documentation builds without a warning, and what is made from the code is what the code says now."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.guides.shell import ROOT

mkdocs = Path(sys.executable).parent / "mkdocs"


@pytest.mark.timeout(180)
@pytest.mark.skipif(not mkdocs.exists(), reason="mkdocs is not installed (the extra 'docs')")
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    subprocess.run(["make", "-s", "tree"], cwd=ROOT, check=True, capture_output=True, timeout=120)
    ran = subprocess.run(
        [str(mkdocs), "build", "--strict", "--site-dir", str(tmp_path / "site")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
    )
    assert ran.returncode == 0, ran.stderr
    assert "WARNING" not in ran.stderr, ran.stderr
    pages = {page.relative_to(ROOT / "docs").with_suffix(".html") for page in (ROOT / "docs").rglob("*.md")}
    assert pages <= {page.relative_to(tmp_path / "site") for page in (tmp_path / "site").rglob("*.html")}
    persian = (tmp_path / "site/fa/tutorial.html").read_text()
    assert '<div dir="rtl" lang="fa">' in persian
