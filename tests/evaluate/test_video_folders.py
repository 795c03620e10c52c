"""Scores of folders: by hand for squares of 3x3 pixels on 10x10, as in test_video_metrics."""

import re

import numpy as np
import pytest
from video_mask_files import labels_of, write_davis, write_palette, write_sav

from sam_jax.errors import InputError
from sam_jax.evaluate.mask_folders import DAVIS, SA_V
from sam_jax.evaluate.video_folders import score_folders
from sam_jax.evaluate.video_metrics import score_object

NOTHING = np.zeros((10, 10), bool)
FULL = ~NOTHING


def square(x=2, y=2):
    mask = NOTHING.copy()
    mask[y : y + 3, x : x + 3] = True
    return mask


def named(masks):
    """By names of frames as SA-V annotates them: every fourth."""
    return {f"{4 * place:05}": mask for place, mask in enumerate(masks)}


def values(score):
    return pytest.approx((score.j, score.f, score.frames))


@pytest.fixture
def folders(tmp_path):
    return tmp_path / "predictions", tmp_path / "annotations"


def write_two_videos(predictions, annotations):
    """Video a has one object, b has two; every scored frame is like the others.

    a/1 is shifted by 2 pixels (J 1/5, F 2/3), b/1 is perfect, b/2 is lost (0).
    """
    first, second = {1: square()}, {1: square(), 2: square(6, 6)}
    write_davis(annotations, "a", named([labels_of(first)] * 4))
    write_davis(annotations, "b", named([labels_of(second)] * 4))
    write_davis(predictions, "a", named([labels_of({1: square(4)})] * 4))
    write_davis(predictions, "b", named([labels_of(first)] * 4))


def test_means_over_objects_not_over_videos(folders):
    write_two_videos(*folders)
    done = []
    scores = score_folders(*folders, progress=lambda *counts: done.append(counts))
    assert scores.layout == DAVIS
    assert {video: list(found) for video, found in scores.objects.items()} == {
        "a": ["1"],
        "b": ["1", "2"],
    }
    assert (0.2, 2 / 3, 2) == values(scores.objects["a"]["1"])
    assert (1, 1, 2) == values(scores.objects["b"]["1"])
    assert (0, 0, 2) == values(scores.objects["b"]["2"])
    videos = scores.videos
    assert (videos["a"].j, videos["a"].f, videos["a"].objects) == pytest.approx((0.2, 2 / 3, 1))
    assert (videos["b"].j, videos["b"].f, videos["b"].j_and_f) == (0.5, 0.5, 0.5)
    overall = scores.overall
    assert (overall.j, overall.f) == pytest.approx((1.2 / 3, (1 + 2 / 3) / 3))
    assert overall.objects == 3
    assert overall.j_and_f == pytest.approx((1.2 / 3 + (1 + 2 / 3) / 3) / 2)
    assert (scores.left_out, scores.unknown, scores.missing) == ((), (), 0)
    assert done == [(count, 4) for count in range(1, 5)]


def test_a_folder_against_itself_is_perfect(folders):
    write_two_videos(*folders)
    overall = score_folders(folders[1], folders[1]).overall
    assert (overall.j, overall.f, overall.objects) == (1.0, 1.0, 3)


def test_only_the_listed_videos(folders):
    write_two_videos(*folders)
    assert list(score_folders(*folders, videos=["a"]).objects) == ["a"]
    with pytest.raises(InputError, match="annotations has no c, d; mend the list"):
        score_folders(*folders, videos=["d", "a", "c"])


def test_all_frames(folders):
    write_two_videos(*folders)
    write_davis(folders[0], "a", {"00000": labels_of({1: square()})})
    score = score_folders(*folders, skip_first_and_last=False).objects["a"]["1"]
    assert ((1 + 3 * 0.2) / 4, (1 + 3 * 2 / 3) / 4, 4) == values(score)


def test_objects_of_sav_may_overlap(folders):
    predictions, annotations = folders
    large = square() | square(4, 4)
    frames = {"000": named([large] * 4), "001": named([square()] * 4)}
    write_sav(annotations, "v", frames)
    # Of 9 + 9 - 1 pixels; the other has 9 of these, all within.
    write_sav(predictions, "v", {"000": named([square()] * 4), "001": named([large] * 4)})
    scores = score_folders(*folders)
    assert scores.layout == SA_V
    for name in ("000", "001"):
        assert scores.objects["v"][name].j == pytest.approx(9 / 17)
    assert score_folders(annotations, annotations).overall.j == 1.0


def test_each_object_of_sav_has_its_own_frames(folders):
    predictions, annotations = folders
    masks = named([square()] * 6)
    late = {name: masks[name] for name in list(masks)[2:]}
    write_sav(annotations, "v", {"000": masks, "001": late})
    # Predictions have all frames of the video, not only annotated ones.
    every = {f"{frame:05}": square(3) for frame in range(21)}
    write_sav(predictions, "v", {"000": every, "001": every})
    found = score_folders(*folders).objects["v"]
    assert (found["000"].frames, found["001"].frames) == (4, 2)
    assert found["000"].j == pytest.approx(0.5)


def test_objects_that_appear_late_and_that_leave(folders):
    predictions, annotations = folders
    one, two = square(), square(6, 6)
    true = [{1: one}, {1: one}, {1: one}, {2: two}, {2: two}, {1: one}]
    found = [{1: one}, {1: one}, {2: two}, {2: two}, {1: one}, {1: one}]
    write_davis(annotations, "v", named([labels_of(frame) for frame in true]))
    write_davis(predictions, "v", named([labels_of(frame) for frame in found]))
    scores = score_folders(*folders).objects["v"]
    # 1: found, lost, gone, seen where it is gone. 2: not yet (no frame), too early, found, lost.
    assert (0.5, 0.5, 4) == values(scores["1"])
    assert (1 / 3, 1 / 3, 3) == values(scores["2"])


def test_sixteen_objects(folders):
    predictions, annotations = folders
    rng = np.random.default_rng(0)
    true, found = rng.integers(0, 17, (2, 6, 12, 16), np.uint8).repeat(4, 2).repeat(4, 3)
    found[:, :20] = true[:, :20]
    write_davis(annotations, "v", named(true))
    write_davis(predictions, "v", named(found))
    scores = score_folders(*folders).objects["v"]
    assert list(scores) == [str(number) for number in range(1, 17)]
    for number in range(1, 17):
        assert scores[str(number)] == score_object(found == number, true == number)
    assert 0.2 < scores["16"].j < 0.9


def test_how_many_threads_makes_no_difference(folders):
    write_two_videos(*folders)
    assert score_folders(*folders, threads=1) == score_folders(*folders, threads=8)


def test_255_is_an_object_where_there_is_no_other(folders):
    predictions, annotations = folders
    for folder, x in ((annotations, 2), (predictions, 3)):
        write_davis(folder, "v", named([labels_of({255: square(x)})] * 3))
    assert (0.5, 1.0, 1) == values(score_folders(*folders).objects["v"]["255"])


@pytest.mark.parametrize("in_predictions", [False, True])
def test_255_beside_other_objects_is_background(folders, in_predictions):
    predictions, annotations = folders
    with_void = labels_of({1: square(), 255: square(6, 6)})
    write_davis(annotations, "v", named([with_void] * 3))
    found = with_void if in_predictions else labels_of({1: square()})
    write_davis(predictions, "v", named([found] * 3))
    scores = score_folders(*folders)
    assert list(scores.objects["v"]) == ["1"]
    assert (scores.left_out, scores.unknown) == ((), ())
    # Also where the other object is in the skipped frame only.
    write_davis(annotations, "v", {"00004": labels_of({255: square()})})
    with pytest.raises(InputError, match="no object in a frame that is scored"):
        score_folders(*folders)


def test_videos_of_which_no_frame_is_scored_are_left_out(folders):
    write_two_videos(*folders)
    # As of DAVIS's test videos, only the first frame has annotations.
    for folder in folders:
        write_davis(folder, "c", named([labels_of({1: square()})]))
        (folder / "d").mkdir()
    scores = score_folders(*folders)
    assert (scores.left_out, list(scores.objects)) == (("c", "d"), ["a", "b"])


def test_an_error_of_the_caller_ends_all_threads(folders):
    write_two_videos(*folders)
    counts = []

    def progress(done, total):
        counts.append(done)
        raise KeyError("no more")

    for threads in (1, 2):
        with pytest.raises(KeyError, match="no more"):
            score_folders(*folders, threads=threads, progress=progress)
    assert counts == [1, 1]


def test_what_is_only_in_the_predictions_costs_nothing(folders):
    write_two_videos(*folders)
    more = labels_of({1: square(4), 7: square(6, 6), 255: square(0, 7)})
    write_davis(folders[0], "a", named([more] * 4))
    scores = score_folders(*folders)
    assert scores.unknown == ("a/7", "a/255")
    assert list(scores.objects["a"]) == ["1"]


def test_a_folder_of_an_object_that_is_only_in_the_predictions(folders):
    predictions, annotations = folders
    write_sav(annotations, "v", {"000": named([square()] * 3)})
    write_sav(predictions, "v", {name: named([square()] * 3) for name in ("000", "005")})
    scores = score_folders(*folders)
    assert (scores.unknown, list(scores.objects["v"])) == (("v/005",), ["000"])


def test_objects_of_no_scored_frame_are_left_out(folders):
    predictions, annotations = folders
    both, one = labels_of({1: square(), 2: square(6, 6)}), labels_of({1: square()})
    write_davis(annotations, "v", named([both, one, one]))
    write_davis(predictions, "v", named([both, both, one]))
    scores = score_folders(*folders)
    assert (scores.left_out, scores.unknown) == (("v/2",), ())
    assert list(scores.objects["v"]) == ["1"]
    # In SA-V, an object whose masks are empty, or are not more than two.
    write_sav(annotations.parent / "sav", "v", {"a": named([square()] * 3)})
    write_sav(annotations.parent / "sav", "v", {"b": named([NOTHING] * 3)})
    write_sav(annotations.parent / "sav", "v", {"c": named([square()] * 2)})
    scores = score_folders(annotations.parent / "sav", annotations.parent / "sav")
    assert (scores.left_out, list(scores.objects["v"])) == (("v/b", "v/c"), ["a"])


def test_missing_frames(folders):
    write_two_videos(*folders)
    predictions, _ = folders
    # Those that are skipped are not asked for.
    (predictions / "a" / "00000.png").unlink()
    assert score_folders(*folders).missing == 0
    (predictions / "a" / "00004.png").unlink()
    (predictions / "b" / "00008.png").unlink()
    with pytest.raises(InputError, match=r"predictions has no a/00004\.png, b/00008\.png$"):
        score_folders(*folders)
    scores = score_folders(*folders, missing="empty")
    assert scores.missing == 2
    assert (0.1, 1 / 3, 2) == values(scores.objects["a"]["1"])
    assert (0.5, 0.5, 2) == values(scores.objects["b"]["1"])


def test_missing_objects_and_videos_of_sav(folders):
    predictions, annotations = folders
    masks = named([square()] * 12)
    write_sav(annotations, "v", {"000": masks, "001": masks})
    write_sav(annotations, "w", {"000": masks})
    write_sav(predictions, "v", {"000": masks})
    with pytest.raises(InputError, match="predictions has no w$"):
        score_folders(*folders)
    message = r"has no v/001/00004.png, .*v/001/00032.png \.\.\. \(10 masks in all\)$"
    with pytest.raises(InputError, match=message):
        score_folders(*folders, videos=["v"])
    scores = score_folders(*folders, missing="empty")
    assert scores.missing == 20
    assert (scores.overall.j, scores.overall.objects) == (pytest.approx(1 / 3), 3)


def test_predictions_for_other_videos(folders):
    write_two_videos(*folders)
    write_davis(folders[0], "c", named([labels_of({1: square()})] * 4))
    with pytest.raises(InputError, match="annotations has no c, which .*predictions has; list"):
        score_folders(*folders)
    assert len(score_folders(*folders, videos=["a", "b"]).objects) == 2


def test_layouts_that_differ(folders):
    write_two_videos(*folders)
    predictions = folders[0].parent / "other"
    for video in ("a", "b"):
        write_sav(predictions, video, {"1": named([square()] * 4)})
    with pytest.raises(InputError, match="is laid out as SA-V, .* as DAVIS; write the predictions"):
        score_folders(predictions, folders[1])


def test_sizes_that_differ(folders):
    write_two_videos(*folders)
    write_palette(folders[0] / "b" / "00008.png", np.zeros((10, 12), np.uint8))
    message = "b/00008.png: the prediction has 12x10 pixels, the annotation 10x10"
    with pytest.raises(InputError, match=re.escape(message)):
        score_folders(*folders)


@pytest.mark.parametrize("which", [0, 1])
def test_damaged_masks(folders, which):
    write_two_videos(*folders)
    path = folders[which] / "b" / "00004.png"
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(InputError, match=re.escape(f"{str(path)!r} cannot be read")):
        score_folders(*folders)


def test_videos_without_masks(folders):
    predictions, annotations = folders
    (annotations / "v").mkdir(parents=True)
    (predictions / "v").mkdir(parents=True)
    with pytest.raises(InputError, match="annotations holds no masks: v"):
        score_folders(*folders)
    write_davis(annotations, "v", named([labels_of({1: square()})] * 2))
    with pytest.raises(InputError, match="no object in a frame that is scored"):
        score_folders(*folders)
    write_davis(annotations, "v", named([labels_of({1: square()})] * 3))
    with pytest.raises(InputError, match=r"predictions has no v/00004\.png"):
        score_folders(*folders)
    assert score_folders(*folders, missing="empty").overall.j_and_f == 0.0


@pytest.mark.parametrize(
    "true_names, found_names",
    [
        (["5", "6", "7", "8", "9", "10", "11"],) * 2,
        (["t-1", "t0", "t0.25", "t0.5", "t10"],) * 2,
        (["5", "6", "10", "11"], ["00005", "00006", "00010", "00011"]),
        (["005", "006", "010", "011"], ["5", "6", "10", "11"]),
    ],
)
def test_frames_go_by_their_names_in_the_order_of_their_numbers(folders, true_names, found_names):
    predictions, annotations = folders
    last = len(true_names) - 1
    for place, (true, found) in enumerate(zip(true_names, found_names, strict=True)):
        write_davis(annotations, "v", {true: labels_of({1: square(place % 5)})})
        # The first and the last are not looked at.
        wrong = place in (0, last)
        write_davis(predictions, "v", {found: labels_of({1: square(6 if wrong else place % 5)})})
    assert (1, 1, last - 1) == values(score_folders(*folders).objects["v"]["1"])


def test_numbers_with_namesakes_are_not_mixed_up(folders):
    predictions, annotations = folders
    write_davis(annotations, "v", {n: labels_of({1: square(2)}) for n in ("0", "01", "1", "9")})
    write_davis(predictions, "v", {n: labels_of({1: square(2)}) for n in ("0", "01", "001", "9")})
    with pytest.raises(InputError, match="predictions has no v/1.png"):
        score_folders(*folders)


@pytest.mark.parametrize("one", [False, True])
def test_what_the_command_wrote_of_a_video_is_read_as_it_is(folders, one):
    predictions, annotations = folders
    frames = {str(number): labels_of({1: square()}) for number in range(5, 12)}
    write_davis(annotations, "clip", frames)
    run = predictions if one else predictions / "clip"
    write_davis(run, "masks", frames)
    (run / "results.json").write_text("{}")
    (run / "overlay").mkdir()
    assert (1, 1, 5) == values(score_folders(*folders).objects["clip"]["1"])
    write_davis(annotations, "other", frames)
    with pytest.raises(InputError, match="list the one video" if one else "has no other"):
        score_folders(*folders)
    scores = score_folders(*folders, videos=["clip"])
    assert list(scores.objects) == ["clip"]
