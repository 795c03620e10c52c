"""`sam-jax track`: objects through a video."""

from pathlib import Path
from typing import Any

import click

from sam_jax.cli.loading import dtype_option
from sam_jax.cli.option_order import InOrder
from sam_jax.cli.output_files import FILE, check_output_folder
from sam_jax.cli.progress import Steps, note
from sam_jax.cli.prompt_values import LABEL
from sam_jax.cli.track_prompts import BOX, MASK, POINT, frame_prompts
from sam_jax.errors import CheckpointError
from sam_jax.video.frame_prompts import MAX_OBJECT


@click.command(cls=InOrder, short_help="Objects through a video (SAM 2).")
@click.argument("video", type=FILE)
@click.option(
    "--object",
    "objects",
    type=click.IntRange(1, MAX_OBJECT),
    multiple=True,
    metavar="N",
    help="Which object the prompts after it are about.  [default: 1]",
)
@click.option(
    "--point",
    "points",
    type=POINT,
    multiple=True,
    metavar="F:X,Y[,LABEL]",
    help="A point on the object (LABEL 1, the default) or off it (0) in frame F, in pixels.",
)
@click.option(
    "--box",
    "boxes",
    type=BOX,
    multiple=True,
    metavar="F:X0,Y0,X1,Y1",
    help="A box around the object in frame F.",
)
@click.option(
    "--mask",
    "masks",
    type=MASK,
    multiple=True,
    metavar="F:FILE",
    help="The object's mask in frame F: a picture of the frame's size.",
)
@click.option(
    "--label",
    "mask_labels",
    type=LABEL,
    multiple=True,
    metavar="N|R,G,B|alpha",
    help="Which value of the picture of the --mask before it is the object, where it has several: "
    "a palette's index or gray value, a color, or what is opaque.",
)
@click.option(
    "--checkpoint",
    metavar="NAME|PATH",
    help="A SAM 2 model: a name (sam2.1_tiny, sam2.1_small, sam2.1_base_plus, sam2.1_large) or a "
    "checkpoint directory.",
)
@click.option(
    "--output",
    type=FILE,
    default=Path("sam-jax-tracked"),
    show_default=True,
    metavar="DIR",
    help="Folder to write to; results of an earlier call are replaced.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["png", "rle"]),
    default="png",
    show_default=True,
    help="What is written for each frame. png: a picture whose values are objects. rle: a JSON "
    "file with COCO RLE and scores.",
)
@click.option(
    "--overlay/--no-overlay",
    default=True,
    help="Also write a video with the masks drawn on it; pictures, where PyAV is not installed.",
)
@click.option(
    "--overlapping/--no-overlapping",
    default=True,
    help="Whether a pixel may belong to several objects.",
)
@click.option("--max-frames", type=click.IntRange(min=1), metavar="N", help="Stop after N frames.")
@dtype_option
@click.pass_context
def track(
    ctx: click.Context,
    video: Path,
    objects: tuple[int, ...],
    points: tuple[tuple[int, Any], ...],
    boxes: tuple[tuple[int, Any], ...],
    masks: tuple[tuple[int, Any], ...],
    mask_labels: tuple[Any, ...],
    checkpoint: str | None,
    output: Path,
    form: str,
    overlay: bool,
    overlapping: bool,
    max_frames: int | None,
    dtype: str,
) -> None:
    """Follows objects through VIDEO: a video file, a folder of pictures, or an animated picture.

    Frames count from 0, those of a folder by the numbers in their names. A prompt on a later frame
    adds an object there, or corrects the mask of one that is followed already.

        sam-jax track clip.mp4 --checkpoint sam2.1_tiny --point 0:310,220 --point 30:200,90

    Writes masks/ with a file for each frame (named as the pictures of a folder; 00000, 00001, ...
    for a file), overlay.mp4, and results.json. Ctrl-C ends it with what was done. A file that was
    cut short is an error, after the masks of what is there are written.
    """
    path = _video_model(checkpoint)
    prompts = frame_prompts(ctx, objects, points, boxes, masks, mask_labels)
    check_output_folder(output)
    from sam_jax.video.track_run import TrackRun

    run = TrackRun(video, prompts, output, form, overlay, max_frames, note)
    run.load(path, str(checkpoint), dtype, overlapping)
    try:
        with Steps("frames") as steps:
            run.run(steps.update)
    finally:
        if run.done is not None:
            folder, *others = run.done.written
            frames, seconds = run.done.frames, max(run.done.seconds, 1e-9)
            click.echo(f"{folder}  {frames} frames, {frames / seconds:.2f} a second")
            for file in others:
                click.echo(file)


def _video_model(checkpoint: str | None) -> Path:
    """The directory of a SAM 2 checkpoint; asked before anything else is looked at.

    Raises:
      CheckpointError: none is named, there is none, or it is a model for images.
    """
    advice = "run `sam-jax download sam2.1_tiny` and add --checkpoint sam2.1_tiny"
    if checkpoint is None:
        raise CheckpointError(f"video needs a SAM 2 model; {advice}")
    from sam_jax.checkpoints import registry
    from sam_jax.checkpoints.native import read_info
    from sam_jax.models.families import family_of

    official = registry.official_name(checkpoint)
    if official is not None and not official.startswith("sam2"):
        raise CheckpointError(
            f"{checkpoint} is {official!r}, a model for images; video needs SAM 2: {advice}"
        )
    path = registry.checkpoint_path(checkpoint)
    config = read_info(path).config
    if not family_of(config).tracks:
        raise CheckpointError(
            f"{checkpoint} is {config.name!r}, a model for images; video needs SAM 2: {advice}"
        )
    return path
