"""`sam-jax evaluate-video`: folders with masks of videos against the true ones."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from sam_jax.cli.output_files import FILE, check_output_folder
from sam_jax.cli.progress import ProgressBar

if TYPE_CHECKING:
    from sam_jax.evaluate.video_scores import MeanScore, VideoScores

# How many names a remark gives.
_NAMED = 8


@click.command(short_help="J, F and J&F of masks of videos, as in DAVIS.")
@click.argument("predictions", type=FILE)
@click.argument("annotations", type=FILE)
@click.option(
    "--videos", type=FILE, metavar="FILE", help="A text file with the videos to score, one a line."
)
@click.option(
    "--missing",
    type=click.Choice(["error", "empty"]),
    default="error",
    show_default=True,
    help="What missing predictions are: an error, or empty masks.",
)
@click.option(
    "--all-frames", is_flag=True, help="Score the first and the last annotated frame, too."
)
@click.option(
    "--output",
    type=FILE,
    metavar="DIR",
    help="Also write results.json, and results.csv with every object, there.",
)
def evaluate_video(
    predictions: Path,
    annotations: Path,
    videos: Path | None,
    missing: str,
    all_frames: bool,
    output: Path | None,
) -> None:
    """Measures how well the masks of videos in PREDICTIONS agree with those in ANNOTATIONS.

    Both are folders of one layout. DAVIS: VIDEO/FRAME.png, where the value of a pixel is the number
    of its object. SA-V: VIDEO/OBJECT/FRAME.png, a mask each. ANNOTATIONS may be the folder of the
    dataset, with Annotations or Annotations_6fps in it. Folders that `sam-jax track` wrote count as
    DAVIS's: PREDICTIONS has one for each video, or is one, of the only video. Frames go by their
    names, and are in the order of the numbers in them.

    J is intersection over union, F the F-measure of boundaries, J&F their mean; each a mean over an
    object's frames, from the first one on that shows it, then over all objects. Frames without
    annotations do not count, nor do the first one, whose masks are the prompt, and the last.
    """
    from sam_jax.evaluate.mask_folders import read_video_list
    from sam_jax.evaluate.video_folders import score_folders
    from sam_jax.evaluate.video_results import write_video_results

    if output is not None:
        check_output_folder(output)
    names = None if videos is None else read_video_list(videos)
    with ProgressBar("scoring", "frames") as bar:
        scores = score_folders(
            predictions,
            annotations,
            names,
            missing="empty" if missing == "empty" else "error",
            skip_first_and_last=not all_frames,
            progress=bar.update,
        )
    _show(scores)
    if output is not None:
        about = {
            "predictions": str(predictions),
            "annotations": str(annotations),
            "options": {
                "videos": None if names is None else list(names),
                "missing": missing,
                "skip_first_and_last": not all_frames,
            },
        }
        write_video_results(output, scores, about)
        click.echo(f"written to {output}")


def _show(scores: "VideoScores") -> None:
    from sam_jax.evaluate.tables import table_lines

    if scores.missing:
        click.echo(f"{scores.missing} missing masks count as empty", err=True)
    if scores.left_out:
        click.echo(f"left out, for no scored frame shows them: {_some(scores.left_out)}", err=True)
    if scores.unknown:
        click.echo(f"only in the predictions: {_some(scores.unknown)}", err=True)
    means = scores.videos
    click.echo(f"{scores.overall.objects} objects in {len(means)} videos, layout {scores.layout}\n")
    rows = [_row(video, mean) for video, mean in means.items()]
    titles = ["video", "objects", "J&F", "J", "F"]
    for line in table_lines(titles, [*rows, _row("all objects", scores.overall)]):
        click.echo(line)


def _row(title: str, mean: "MeanScore") -> list[str | float | None]:
    return [_as_text(title), str(mean.objects), mean.j_and_f, mean.j, mean.f]


def _some(names: tuple[str, ...]) -> str:
    named = ", ".join(map(_as_text, names[:_NAMED]))
    return named if len(names) <= _NAMED else f"{named} ... ({len(names)} in all)"


def _as_text(name: str) -> str:
    """A folder's name as a terminal can show it; bytes that are no text become a sign."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
