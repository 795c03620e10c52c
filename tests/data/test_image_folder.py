import json
import sys

import numpy as np
import pytest
from PIL import Image

from sam_jax.data.image_folder import ImageFolder
from sam_jax.errors import InputError

COUNT = 12


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Images of one color each, so that every crop tells which image it is of."""
    root = tmp_path_factory.mktemp("images")
    for i in range(COUNT):
        inside = root / f"class{i % 3}"
        inside.mkdir(exist_ok=True)
        Image.new("RGB", (20 + i, 30), (i, 0, 0)).save(inside / f"{i}.png")
    (root / "class0" / "notes.txt").write_text("no image")
    (root / ".hidden").mkdir()
    Image.new("RGB", (9, 9), (99, 0, 0)).save(root / ".hidden" / "x.png")
    return root


@pytest.fixture
def textured(tmp_path):
    """Noise, so that every crop is another."""
    rng = np.random.default_rng(0)
    for i in range(7):
        pixels = rng.integers(0, 256, (40, 50, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
    return tmp_path


def numbers(batches):
    return [int(image[0, 0, 0]) for batch in batches for image in batch]


def take(folder, count):
    return [next(folder) for _ in range(count)]


def test_an_epoch_has_every_image_once_and_the_next_another_order(folder):
    reader = ImageFolder(folder, 8, 3, seed=0)
    first, second = numbers(take(reader, 4)), numbers(take(reader, 4))
    assert sorted(first) == sorted(second) == list(range(COUNT))
    assert first != second and first != sorted(first)
    assert reader.images == COUNT and not reader.unreadable


def test_a_batch_is_bytes_of_its_size(folder):
    batch = next(ImageFolder(folder, 8, 5, seed=0))
    assert batch.shape == (5, 8, 8, 3) and batch.dtype == np.uint8


def test_the_seed_decides_order_and_crops(textured):
    one, again, other = (take(ImageFolder(textured, 16, 4, seed=s), 4) for s in (1, 1, 2))
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)


def test_crops_of_an_image_differ_from_epoch_to_epoch(textured):
    reader = ImageFolder(textured, 16, 1, seed=0)
    crops = [crop.tobytes() for crop in take(reader, 3 * 7)]
    assert len(set(crops)) == len(crops)


def test_processes_share_every_epoch(folder):
    """Five processes have two or three images each, the same as one process has in all."""
    shares = [ImageFolder(folder, 8, 1, seed=0, process_index=i, process_count=5) for i in range(5)]
    lengths = [3, 3, 2, 2, 2]
    found = [numbers(take(share, n)) for share, n in zip(shares, lengths, strict=True)]
    assert sorted(sum(found, [])) == list(range(COUNT))


def test_the_crops_do_not_depend_on_how_many_share_them(textured):
    alone = np.concatenate(take(ImageFolder(textured, 16, 1, seed=0), 7))
    shares = [
        ImageFolder(textured, 16, 1, seed=0, process_index=i, process_count=2) for i in (0, 1)
    ]
    divided = np.concatenate([*take(shares[0], 4), *take(shares[1], 3)])
    assert {crop.tobytes() for crop in divided} == {crop.tobytes() for crop in alone}


@pytest.mark.parametrize("done", [0, 1, 5])
def test_a_stopped_run_goes_on_with_exactly_the_batches_to_come(textured, done):
    (textured / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nno more")
    reader = ImageFolder(textured, 16, 3, seed=4)
    take(reader, done)
    state = json.loads(json.dumps(reader.get_state()))
    expected = take(reader, 6)
    fresh = ImageFolder(textured, 16, 3, seed=4)
    take(fresh, 2)
    fresh.set_state(state)
    assert np.array_equal(take(fresh, 6), expected)


def test_a_state_of_other_images_or_another_seed_is_refused(textured):
    state = ImageFolder(textured, 16, 3, seed=4).get_state()
    with pytest.raises(InputError, match="seed was 4 and is 5 now"):
        ImageFolder(textured, 16, 3, seed=5).set_state(state)
    Image.new("RGB", (9, 9)).save(textured / "new.png")
    with pytest.raises(InputError, match="images was 7 and is 8 now"):
        ImageFolder(textured, 16, 3, seed=4).set_state(state)


def test_renamed_or_changed_images_are_noticed(textured):
    state = ImageFolder(textured, 16, 3, seed=4).get_state()
    ImageFolder(textured, 16, 3, seed=4).set_state(state)
    (textured / "3.png").rename(textured / "33.png")
    with pytest.raises(InputError, match="renamed or changed"):
        ImageFolder(textured, 16, 3, seed=4).set_state(state)
    (textured / "33.png").rename(textured / "3.png")
    Image.new("RGB", (9, 9)).save(textured / "5.png")
    with pytest.raises(InputError, match="renamed or changed"):
        ImageFolder(textured, 16, 3, seed=4).set_state(state)


def test_what_could_not_be_read_is_counted_on_after_a_stop(textured):
    (textured / "broken.png").write_bytes(b"no picture")
    reader = ImageFolder(textured, 16, 1, seed=0)
    take(reader, 7)
    state = json.loads(json.dumps(reader.get_state()))
    fresh = ImageFolder(textured, 16, 1, seed=0)
    fresh.set_state(state)
    assert fresh.skipped() == reader.skipped() == {"unreadable": 1}


def test_images_that_cannot_be_read_are_left_out_and_counted(textured):
    (textured / "broken.jpg").write_bytes(b"\xff\xd8\xff no picture")
    (textured / "empty.png").write_bytes(b"")
    reader = ImageFolder(textured, 16, 1, seed=0)
    crops = take(reader, 7)
    assert len({crop.tobytes() for crop in crops}) == 7
    take(reader, 7)
    assert reader.unreadable.keys() == {"broken.jpg", "empty.png"}
    assert "empty" in reader.unreadable["empty.png"]


def test_where_none_can_be_read_it_says_so_and_ends(tmp_path):
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(b"no picture")
    with pytest.raises(InputError, match="none of the 2 images"):
        next(ImageFolder(tmp_path, 16, 1, seed=0))


def test_a_folder_without_images_or_none_at_all_is_refused(tmp_path):
    with pytest.raises(InputError, match="no images in"):
        ImageFolder(tmp_path, 16, 1, seed=0)
    with pytest.raises(InputError, match="cannot list"):
        ImageFolder(tmp_path / "missing", 16, 1, seed=0)


def test_more_processes_than_images_are_refused(textured):
    with pytest.raises(InputError, match="too few for 8 processes"):
        ImageFolder(textured, 16, 1, seed=0, process_index=0, process_count=8)


def test_without_grain_it_says_what_to_install(textured, monkeypatch):
    monkeypatch.setitem(sys.modules, "grain", None)
    with pytest.raises(InputError, match=r'pip install "sam-jax\[train\]"'):
        ImageFolder(textured, 16, 1, seed=0)
