"""Every form by its name, and errors that name what is wrong."""

import numpy as np
import pytest
from labelled_images import SIZE, image_of, some_masks

import sam_jax.formats
from sam_jax.cli.generation_options import EXPORT_NAMES
from sam_jax.errors import InputError
from sam_jax.folder_runs.generated_exports import EXPORTS as GENERATED
from sam_jax.formats.exports import EXPORTS, write_exports


def test_the_command_line_knows_the_same_forms():
    assert set(EXPORT_NAMES) == set(EXPORTS) == set(GENERATED)


def test_all_forms_are_written_beside_each_other(tmp_path):
    image = image_of(list(some_masks().values()))
    names = write_exports(tmp_path, "a", image, EXPORTS, simplify=1.0)
    assert set(names) == set(EXPORTS)
    assert {path.name for path in tmp_path.iterdir()} == set(names.values())


# COCO files have one category: labels are not read for them.
@pytest.mark.parametrize("kind", sorted(set(EXPORTS) - {"coco-rle", "polygon"}))
@pytest.mark.parametrize(
    "record, reason",
    [
        ({}, "segmentation is missing"),
        ({"segmentation": np.zeros((3, 3), bool)}, "3x3 pixels"),
        ({"segmentation": np.ones(SIZE, bool), "label": "a\nb"}, "a label is text on one line"),
        ({"segmentation": np.ones(SIZE, bool), "predicted_iou": np.nan}, "NaN"),
    ],
)
def test_wrong_records_are_refused_and_nothing_is_written(tmp_path, kind, record, reason):
    image = image_of([])
    image.records.append(record)
    with pytest.raises(InputError, match=reason) as error:
        write_exports(tmp_path, "a", image, [kind])
    assert "record 0 of image 'a photo.jpg'" in str(error.value)
    assert not list(tmp_path.iterdir())


def test_an_unknown_form_is_refused_with_those_there_are(tmp_path):
    with pytest.raises(InputError, match="no format 'coco'; formats are coco-rle, polygon, yolo"):
        write_exports(tmp_path, "a", image_of([]), ["coco"])


def test_every_public_name_is_there():
    for name in sam_jax.formats.__all__:
        assert getattr(sam_jax.formats, name) is not None
        assert name in dir(sam_jax.formats)
    with pytest.raises(AttributeError, match="no attribute 'read_voc'"):
        _ = sam_jax.formats.read_voc
