"""Procedural clips, and clips of a folder: the same objects in every frame."""

import json
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from sam_jax.data.clip_folders import ClipFolderBatches
from sam_jax.data.scenes.clips import ClipBatches, ClipOptions, clip_batch
from sam_jax.errors import InputError

SMALL = ClipOptions(image_size=64, frames=6, objects=3)


def masks_of(batch):
    return np.unpackbits(batch.masks, axis=-1).astype(bool)


@pytest.fixture(scope="module")
def drawn():
    return jax.device_get(clip_batch(jnp.uint32(7), jnp.arange(24), SMALL))


def test_a_clip_is_the_same_in_any_batch(drawn):
    batches = ClipBatches(SMALL, 7, 4)
    next(batches)
    state = batches.get_state()
    second = jax.device_get(next(batches))
    np.testing.assert_array_equal(second.images, drawn.images[4:8])
    again = ClipBatches(SMALL, 7, 4)
    again.set_state(state)
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(next(again)), second)
    halves = [ClipBatches(SMALL, 7, 2, part, 2) for part in (0, 1)]
    parts = [jax.device_get(next(half)).images for half in halves]
    np.testing.assert_array_equal(np.concatenate(parts), drawn.images[:4])


def test_objects_move_hide_each_other_and_leave(drawn):
    masks = masks_of(drawn)
    assert drawn.images.dtype == np.uint8 and drawn.images.shape == (24, 6, 64, 64, 3)
    assert (masks.sum(axis=2) <= 1).all()  # one is in front
    areas = masks.mean(axis=(3, 4))
    visible = drawn.weights > 0
    assert 0.6 < visible.mean() <= 1
    assert (areas[:, 0][visible] >= 0.004).all()
    gone = (areas[:, 1:-1] == 0).any(axis=1) & visible
    assert 0.02 < gone.mean() < 0.5
    back = gone & (areas[:, -1] > 0)
    assert back.any()
    y, x = np.mgrid[0:64, 0:64]
    there = areas > 0.002
    centres = np.stack(
        [(masks * axis).sum(axis=(3, 4)) / np.maximum(masks.sum(axis=(3, 4)), 1) for axis in (x, y)]
    )
    moved = np.abs(np.diff(centres, axis=2))[:, there[:, 1:] & there[:, :-1]]
    assert np.median(moved) > 0.5 and moved.max() < 64


def test_without_leaving_and_passers_slow_objects_stay():
    calm = ClipOptions(
        image_size=64, frames=4, objects=1, passers=0, leaving=0.0, speed=0.01, turn=0.0
    )
    masks = masks_of(jax.device_get(clip_batch(jnp.uint32(1), jnp.arange(12), calm)))[:, :, 0]
    both = (masks[:, 1:] & masks[:, :-1]).sum(axis=(2, 3))
    either = (masks[:, 1:] | masks[:, :-1]).sum(axis=(2, 3))
    assert (both / either).min() > 0.5


def test_values_out_of_range_are_refused():
    for name, value in (("image_size", 63), ("frames", 0), ("leaving", 1.5), ("speed", -1.0)):
        with pytest.raises(InputError, match=name):
            ClipOptions(**{name: value})


def davis(root, videos=2, frames=5, below="480p"):
    for v in range(videos):
        for i in range(frames):
            labels = np.zeros((30, 40), np.uint8)
            labels[5:15, 5 + i : 15 + i] = 1
            labels[20:28, 20:30] = 4
            labels[0, 0] = 255
            image = np.repeat(labels[..., None] * 40, 3, axis=2)
            for kind, array, suffix in (
                ("JPEGImages", image, "jpg"),
                ("Annotations", labels, "png"),
            ):
                path = root / kind / below / f"video{v}"
                path.mkdir(parents=True, exist_ok=True)
                picture = Image.fromarray(array)
                if suffix == "png":
                    picture = picture.convert("P")
                    picture.putdata(labels.ravel().tolist())
                picture.save(path / f"{i:05d}.{suffix}")
    return root


@pytest.mark.parametrize("below", ["480p", ""])
def test_a_folder_gives_windows_of_its_videos(tmp_path, below):
    batches = ClipFolderBatches(davis(tmp_path, below=below), 32, 3, 3, seed=0, batch_size=4)
    batch = next(batches)
    masks = masks_of(batch)
    assert batch.images.shape == (4, 3, 32, 32, 3) and masks.shape == (4, 3, 3, 32, 32)
    np.testing.assert_array_equal(batch.weights, [[1, 1, 0]] * 4)
    assert not masks[:, :, 2].any() and masks[:, :, :2].any(axis=(3, 4)).all()
    assert (masks.sum(axis=2) <= 1).all()
    # The picture has an object's own gray where the mask is.
    for image, clip in zip(batch.images, masks, strict=True):
        greys = {round(float(image[0][clip[0, p]].mean()) / 40) for p in (0, 1)}
        assert greys == {1, 4}
    state = batches.get_state()
    second = next(batches)
    batches.set_state(state)
    jax.tree.map(np.testing.assert_array_equal, next(batches), second)


def test_a_run_goes_on_with_the_same_videos_alone(tmp_path):
    root = davis(tmp_path, below="")
    state = ClipFolderBatches(root, 32, 3, 3, seed=0, batch_size=1).get_state()
    ClipFolderBatches(root, 32, 3, 3, seed=0, batch_size=1).set_state(json.loads(json.dumps(state)))
    with pytest.raises(InputError, match="is of seed 0, this is of 1"):
        ClipFolderBatches(root, 32, 3, 3, seed=1, batch_size=1).set_state(state)
    frame = next((root / "JPEGImages").rglob("*.jpg"))
    frame.write_bytes(frame.read_bytes() + b"more")
    with pytest.raises(InputError, match="files were renamed or changed in size"):
        ClipFolderBatches(root, 32, 3, 3, seed=0, batch_size=1).set_state(state)


def test_drawn_clips_go_on_as_they_were_drawn_alone():
    options = ClipOptions(image_size=32, frames=2, objects=1)
    state = json.loads(json.dumps(ClipBatches(options, 3, 1).get_state()))
    ClipBatches(options, 3, 1).set_state(state)
    ClipBatches(options, 3, 1).set_state({"seed": 3, "position": 4})  # of earlier releases
    with pytest.raises(InputError, match="is of options"):
        ClipBatches(replace(options, frames=3), 3, 1).set_state(state)


def test_folders_that_are_none_are_refused(tmp_path):
    with pytest.raises(InputError, match="no JPEGImages and Annotations"):
        ClipFolderBatches(tmp_path, 32, 3, 3, seed=0, batch_size=1)
    with pytest.raises(InputError, match="no video with 9 frames"):
        ClipFolderBatches(davis(tmp_path), 32, 9, 3, seed=0, batch_size=1)


def test_pictures_of_masks_beside_the_frames_are_no_frames(tmp_path):
    root = davis(tmp_path, below="")
    expected = next(ClipFolderBatches(root, 32, 3, 3, seed=0, batch_size=2))
    for frame in (root / "JPEGImages").rglob("*.jpg"):
        Image.new("L", (40, 30)).save(frame.with_suffix(".png"))
    with pytest.warns(UserWarning, match="the JPEGs are taken as the frames"):
        batches = ClipFolderBatches(root, 32, 3, 3, seed=0, batch_size=2)
    jax.tree.map(np.testing.assert_array_equal, next(batches), expected)
