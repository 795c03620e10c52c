"""The outlined photographs are where they should be, and their outlines are what they should be."""

import importlib
import re
import sys
import tomllib
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.spatial.distance import pdist

from sam_jax.errors import InputError
from sam_jax.evaluate.interactive import tight_box
from sam_jax.evaluate.selection import SelectedImages, Selection

ROOT = Path(__file__).parents[2]


@pytest.fixture
def load(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    before = set(sys.modules)
    yield importlib.import_module
    for name in set(sys.modules) - before:
        if name.partition(".")[0] in ("outlined", "outlined_objects"):
            del sys.modules[name]


@pytest.fixture
def outlined(load):
    return load("outlined.pictures")


def of_test_packages(outlined):
    """The pictures of packages that the tests install."""
    extra = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    installed = {re.match(r"[\w-]+", requirement)[0] for requirement in extra["test"]}
    return [one for one in outlined.outlined_pictures() if one.distribution in installed]


def test_thirty_objects_in_ten_pictures_are_in_packages_of_the_tests(outlined):
    pictures = of_test_packages(outlined)
    assert len(pictures) >= 10 and sum(len(one.objects) for one in pictures) >= 30
    for one in pictures:
        path = one.find()
        assert path is not None, one.name
        assert one.read(path).shape == (*one.size_hw, 3)


def test_every_picture_says_whose_it_is(outlined):
    pictures = outlined.outlined_pictures()
    assert len({one.name for one in pictures}) == len(pictures)
    assert all(one.by and one.licence and len(one.sha256) == 64 for one in pictures)
    listed = (ROOT / "benchmarks" / "outlined" / "README.md").read_text()
    assert all(Path(one.file).name in listed for one in pictures)


def test_outlines_are_simple_and_inside_their_picture(outlined):
    for picture in outlined.outlined_pictures():
        names = [one.name for one in picture.objects]
        assert len(set(names)) == len(names)
        for one in picture.objects:
            for ring in one.polygons + one.holes:
                corners = np.array(ring, float)
                where = (picture.name, one.name)
                assert corners.ndim == 2 and len(corners) >= 3, where
                assert (corners >= 0).all(), where
                assert (corners <= picture.size_hw[::-1]).all(), where
                assert pdist(corners).min() > 0 and not crosses_itself(corners), where


def test_masks_are_not_empty_and_are_what_is_in_the_polygons(outlined):
    for picture in outlined.outlined_pictures():
        for one in picture.objects:
            assert one.mask(picture.size_hw).sum() > 50, (picture.name, one.name)
    square = outlined.Outline(
        "a", [[[1, 1], [5, 1], [5, 4], [1, 4]]], [[[3, 2], [9, 2], [9, 3], [3, 3]]]
    )
    found = square.mask((6, 7))
    right = np.zeros((6, 7), bool)
    right[1:4, 1:5] = True
    right[2, 3:5] = False
    np.testing.assert_array_equal(found, right)


def test_another_picture_is_refused_and_a_missing_package_told(outlined, monkeypatch):
    picture = outlined.outlined_pictures()[0]
    with pytest.raises(InputError, match="not the picture that was outlined"):
        replace(picture, sha256="0" * 64).read(picture.find())
    with pytest.raises(InputError, match="there is no picture at"):
        replace(picture, file="data/none.png").find()
    absent = replace(picture, package="no_such_package", distribution="no-such-package")
    monkeypatch.setattr(outlined, "outlined_pictures", lambda: [absent])
    assert outlined.OutlinedPictures().missing == [
        "astronaut is left out: pip install no-such-package"
    ]


class KnowsTheMasks:
    """Answers with the right mask, an empty one and all of the image; the first is most certain."""

    def __init__(self, truths):
        self._truths = truths

    def encode(self, image):
        return None

    def predict(self, embedding, points=None, labels=None, boxes=None, masks=None, multimask=True):
        if points is not None:
            found = [next(t for t in self._truths if t[int(y), int(x)]) for x, y in points[:, 0]]
        else:
            tight = [tight_box(t) for t in self._truths]
            found = [
                next(t for t, b in zip(self._truths, tight, strict=True) if (b == box).all())
                for box in boxes
            ]
        answers = [(t, np.zeros_like(t), np.ones_like(t)) for t in found]
        count = 3 if multimask else 1
        return SimpleNamespace(
            scores=np.tile(np.float32([0.9, 0.1, 0.5][:count]), (len(found), 1)),
            logits=np.zeros((len(found), count, 8, 8), np.float32),
            mask=lambda prompt, index: answers[prompt][index],
        )


def test_the_benchmark_measures_and_draws_every_object(load, monkeypatch):
    script = load("outlined_objects")
    data = script.OutlinedPictures()
    coins = [one.name for one in data.pictures].index("coins")
    data.pictures, data._paths = [data.pictures[coins]], [data._paths[coins]]
    [picture] = data.pictures
    monkeypatch.setattr(script, "BASELINES", ("flood-fill", "filled-box"))
    knows = KnowsTheMasks([one.mask(picture.size_hw) for one in picture.objects])
    sheet = script.Sheet()
    results = script.measured(SelectedImages(data, Selection(), knows), data, sheet)
    assert results["objects"] == [("coins", one.name) for one in picture.objects]
    assert set(results["found"]["sam"]) >= set(script.COLUMNS)
    assert all(np.mean(values) == 1 for values in results["found"]["sam"].values())
    assert 0.7 < np.mean(results["found"]["filled-box"]["box"]) < 0.9
    assert results["rank_correlation"] > 0.9
    assert script.lines(results["found"])[2].startswith("| sam | 1.000 | 1.000 |")
    assert sheet.picture().size[0] > 1000


def crosses_itself(corners):
    """Whether any two edges of a ring that are not neighbors meet."""
    count = len(corners)
    a, b = corners, np.roll(corners, -1, axis=0)
    i, j = np.triu_indices(count, 2)
    apart = (i != 0) | (j != count - 1)
    i, j = i[apart], j[apart]

    def side(p, q, r):
        u, v = q - p, r - p
        return np.sign(u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0])

    return bool(
        (
            (side(a[i], b[i], a[j]) * side(a[i], b[i], b[j]) < 0)
            & (side(a[j], b[j], a[i]) * side(a[j], b[j], b[i]) < 0)
        ).any()
    )
