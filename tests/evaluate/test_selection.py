"""What is taken of a dataset, and what is counted as left out."""

import numpy as np

from sam_jax.data.samples import CANNOT_READ, SIZES_DIFFER, RecordError, Sample
from sam_jax.evaluate.selection import NO_OBJECT, SelectedImages, Selection
from sam_jax.formats.rle import encode_rle

SIZE = (20, 31)


def bar(length, size_hw=SIZE):
    mask = np.zeros(size_hw, bool)
    mask[1, :length] = True
    return mask


class Bars:
    """Ten images; in number i objects of 0, 1, ..., i pixels. Three of them cannot be used."""

    description = "bars"

    def __len__(self):
        return 10

    def name(self, index):
        return f"bars {index}"

    def __getitem__(self, index):
        if index == 4:
            raise RecordError(CANNOT_READ, "bars 4: gone")
        size_hw = (SIZE[1], SIZE[0]) if index == 6 else SIZE
        masks = [encode_rle(bar(length, size_hw)) for length in range(index + 1)]
        return Sample(self.name(index), np.full((*SIZE, 3), index, np.uint8), SIZE, masks)


class Encoder:
    def __init__(self):
        self.encoded = []

    def encode(self, pixels):
        self.encoded.append(pixels)
        return int(pixels[0, 0, 0])


def taken(**options):
    images = SelectedImages(Bars(), Selection(**options), None)
    return images, {image.index: image.objects for image in images}


def test_everything_is_taken_but_empty_masks_and_broken_images():
    images, objects = taken()
    assert objects == {i: list(range(1, i + 1)) for i in (1, 2, 3, 5, 7, 8, 9)}
    # Image 0 has an empty mask alone; 6 has masks that lie on their side.
    assert images.skipped == {CANNOT_READ: 1, SIZES_DIFFER: 1, NO_OBJECT: 1}
    assert [message.split(":")[0] for message in images.messages] == ["bars 0", "bars 4", "bars 6"]
    assert images.small_objects == 7
    assert images.total == 10


def test_small_objects_are_left_out_by_area():
    images, objects = taken(min_area=8)
    assert objects == {8: [8], 9: [8, 9]}
    assert images.small_objects == 8 + 8
    assert images.skipped[NO_OBJECT] == 6


def test_a_part_is_random_under_the_seed_and_unusable_images_are_replaced():
    seen = [taken(max_images=3, max_masks=2, seed=seed)[1] for seed in (0, 0, 1, 2)]
    assert seen[0] == seen[1]
    assert len({tuple(one) for one in seen}) > 1
    for objects in seen:
        assert len(objects) == 3
        assert all(len(set(some)) == min(2, index) for index, some in objects.items())
        assert all(0 not in some for some in objects.values())
    everywhere = taken(max_masks=2, seed=1)[1]
    for index, some in seen[2].items():
        assert everywhere[index] == some, "an image's objects depend on other images"


def test_masks_areas_and_an_embedding_that_is_made_once():
    encoder = Encoder()
    image = next(iter(SelectedImages(Bars(), Selection(min_area=3, max_images=1), encoder)))
    assert image.areas == image.objects  # as long as their number
    for place, number in enumerate(image.objects):
        np.testing.assert_array_equal(image.mask(place), bar(number))
    assert not encoder.encoded
    assert image.embedding == image.embedding == image.index
    assert len(encoder.encoded) == 1
