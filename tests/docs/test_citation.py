"""CITATION.cff names the version that the package has."""

import re
from pathlib import Path

from sam_jax import __version__

CITATION = Path(__file__).parents[2] / "CITATION.cff"


def test_the_citation_has_the_packages_version():
    found = re.search(r"^version: (\S+)$", CITATION.read_text(encoding="utf-8"), re.MULTILINE)
    assert found and found[1] == __version__
