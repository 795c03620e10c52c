"""Scores of videos as files."""

import csv
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sam_jax.evaluate.video_metrics import ObjectScore
from sam_jax.evaluate.video_scores import MeanScore, VideoScores
from sam_jax.files import written_together
from sam_jax.version import __version__

FORMAT_VERSION = 1


def write_video_results(folder: Path, scores: VideoScores, about: Mapping[str, Any]) -> None:
    """Writes results.json, and results.csv with every object.

    Args:
      folder: to write to.
      scores: of all videos.
      about: what else results.json says, such as the folders that were compared.

    Raises:
      OSError: they cannot be written.
    """
    with written_together(folder) as aside:
        (aside / "results.json").write_text(json.dumps(_values(scores, about), indent=1))
        (aside / "results.csv").write_bytes(_table(scores))


def _values(scores: VideoScores, about: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "format_version": FORMAT_VERSION,
        "sam_jax": __version__,
        **about,
        "layout": scores.layout,
        "objects": scores.overall.objects,
        "objects_left_out": list(scores.left_out),
        "objects_only_predicted": list(scores.unknown),
        "missing_masks": scores.missing,
        "overall": _measures(scores.overall),
        "videos": {
            video: _measures(mean)
            | {
                "objects": {
                    name: _measures(score) | {"frames": score.frames}
                    for name, score in scores.objects[video].items()
                }
            }
            for video, mean in scores.videos.items()
        },
    }


def _measures(score: MeanScore | ObjectScore) -> dict[str, Any]:
    return {"j_and_f": score.j_and_f, "j": score.j, "f": score.f}


def _table(scores: VideoScores) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["video", "object", "j_and_f", "j", "f", "frames"])
    for video, objects in scores.objects.items():
        for name, score in objects.items():
            writer.writerow([video, name, *_measures(score).values(), score.frames])
    # A folder's name may hold bytes that are no text.
    return text.getvalue().encode("utf-8", "surrogateescape")
