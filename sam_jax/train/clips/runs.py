"""Training SAM 2 on clips: what a run can be told, its loss, and the run itself."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from sam_jax.checkpoints.native import load_checkpoint, save_checkpoint
from sam_jax.checkpoints.registry import checkpoint_path
from sam_jax.data.batches import unpack_masks
from sam_jax.data.clip_folders import ClipFolderBatches
from sam_jax.data.scenes.clips import ClipBatch, ClipBatches, ClipOptions
from sam_jax.errors import CheckpointError, InputError
from sam_jax.image_inputs import normalized
from sam_jax.models.sam2.config import SAM2_CONFIGS, Sam2Config, check_sam2_config
from sam_jax.models.sam2.sam2 import Sam2
from sam_jax.ops.platform import traced_platform
from sam_jax.sharding import make_mesh
from sam_jax.train.clips.interaction import ClipInteractionOptions, interact_with_clip
from sam_jax.train.config import check_rules, from_values, optimizer_rules, run_rules
from sam_jax.train.defaults import with_fitted_schedule
from sam_jax.train.loop.loop import Batches, Job, run_folder, run_job
from sam_jax.train.loop.memory import advice
from sam_jax.train.loop.optimizer import OptimizerOptions
from sam_jax.train.loop.state import Summed
from sam_jax.train.loop.step import Loss
from sam_jax.train.options import RunOptions
from sam_jax.train.runs import forbidden_changes
from sam_jax.types import Params, Prompts

# `data.path` of procedural clips.
CLIPS = "clips"


@dataclass(frozen=True)
class ClipModelOptions:
    """What is trained, and from where.

    Attributes:
      name: the architecture, such as sam2.1_tiny.
      checkpoint: a checkpoint directory or a model's name to start from; empty for random
        parameters.
      image_size: [pixels] side of the frames; 0 for the model's own.
      dtype: type that the model computes in; parameters and the optimizer's state are always
        float32.
      remat: compute the encoder's blocks again in the backward pass, to save memory.
    """

    name: str = "sam2.1_tiny"
    checkpoint: str = ""
    image_size: int = 0
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    remat: bool = True


@dataclass(frozen=True)
class ClipDataOptions:
    """What it is trained on.

    Attributes:
      path: a folder of videos in DAVIS's layout; or "clips" for procedural ones, drawn as the table
        `[clips]` says. Required.
      batch_size: [clips] clips in an update, over all devices and processes.
      frames: [frames] length of a clip (SAM 2: 8); 1 trains on images.
      objects: [objects] objects of a clip that are followed, at most (SAM 2: 3).
    """

    path: str = ""
    batch_size: int = 8
    frames: int = 8
    objects: int = 3


@dataclass(frozen=True)
class ClipTrainConfig:
    """One run: each attribute is a table of its file."""

    model: ClipModelOptions = field(default_factory=ClipModelOptions)
    data: ClipDataOptions = field(default_factory=ClipDataOptions)
    clips: ClipOptions = field(default_factory=ClipOptions)
    optimizer: OptimizerOptions = field(default_factory=OptimizerOptions)
    interaction: ClipInteractionOptions = field(default_factory=ClipInteractionOptions)
    run: RunOptions = field(default_factory=RunOptions)

    @property
    def sam2(self) -> Sam2Config:
        """The model."""
        config = SAM2_CONFIGS[self.model.name]
        size = self.model.image_size or config.image_size
        return replace(config, image_size=size)


def clip_config_from_values(values: dict[str, Any]) -> ClipTrainConfig:
    """The run that values describe; what they leave out is the default.

    Raises:
      InputError: a key is unknown, a value is wrong.
    """
    config = from_values(ClipTrainConfig, with_fitted_schedule(values))
    data, steps = config.data, config.interaction
    names = ", ".join(SAM2_CONFIGS)
    known = config.model.name in SAM2_CONFIGS
    own = (config.clips.image_size, config.clips.frames, config.clips.objects)
    usual = (ClipOptions.image_size, ClipOptions.frames, ClipOptions.objects)
    check_rules(
        {
            f"model.name must be one of {names}": known,
            "data.path is missing: a folder of videos, or clips": bool(data.path),
            "data.batch_size, frames and objects must be at least 1": min(
                data.batch_size, data.frames, data.objects
            )
            >= 1,
            "clips.image_size, frames and objects come from the model and from data": own == usual,
            "[clips] is for data.path clips alone": data.path == CLIPS
            or config.clips == ClipOptions(),
            "interaction's probabilities must be from 0 to 1": all(
                0 <= value <= 1
                for value in (
                    steps.mask_probability,
                    steps.box_probability,
                    steps.from_mask_probability,
                )
            ),
            "interaction.max_conditioning must be at least 1": steps.max_conditioning >= 1,
            "interaction.max_corrected and correction_points must be at least 0": min(
                steps.max_corrected, steps.correction_points
            )
            >= 0,
            **optimizer_rules(config.optimizer, values),
            **run_rules(config.run),
            "run.model must be 1: SAM 2's parameters are not divided": config.run.model == 1,
        }
    )
    try:
        check_sam2_config(config.sam2)
    except CheckpointError as error:
        raise InputError(f"model: {error}") from None
    return config


def clip_loss(model: Sam2, options: ClipInteractionOptions) -> Loss:
    """The loss of training on clips.

    Args:
      model: made with `differentiable`.
      options: what is done with a clip.
    """
    config = model.config

    def loss(params: Params, constants: Params, batch: ClipBatch, keys: Key[Array, " B"]) -> Summed:
        variables = {"params": params, **constants}

        def apply(method: str, *args: Any) -> Any:
            return model.apply(variables, *args, method=method)

        def of_clip(args):
            images, masks, weights, key = args
            features = apply("encode_image", normalized(images, config))
            targets = unpack_masks(masks)
            return interact_with_clip(apply, config, features, targets, weights, key, options)

        clips = (batch.images, batch.masks, batch.weights, keys)
        # A CPU skips what a clip does not need; elsewhere all clips go together.
        mapped = jax.lax.map if traced_platform() == "cpu" else _together
        losses, overlap = jax.tree.map(lambda x: x.sum(axis=0), mapped(of_clip, clips))
        metrics = {
            "focal": losses.focal,
            "dice": losses.dice,
            "iou_error": losses.iou,
            "presence": losses.presence,
            "iou": overlap,
        }
        return Summed(losses.total, (batch.weights > 0).sum().astype(jnp.float32), metrics)

    return loss


def train_clips(config: ClipTrainConfig, folder: Path, echo: Callable[[str], None] = print) -> Path:
    """Trains on clips, from the newest checkpoint in the folder or from the start.

    Args:
      config: of the run.
      folder: of the run.
      echo: takes lines for a person.

    Returns:
      The path of the model, a native checkpoint for `Tracker`.

    Raises:
      InputError: the data or the checkpoint to start from cannot be used, the folder has another
        run, or the loss is not finite.
      KeyboardInterrupt: the run was asked to stop; the same call goes on.
    """
    mesh = make_mesh(config.run.data or None, 1, devices=jax.devices())
    architecture = config.sam2
    model = Sam2(
        architecture, jnp.dtype(config.model.dtype), config.model.remat, differentiable=True
    )
    with run_folder(folder, asdict(config), forbidden_changes) as begin:
        job = Job(
            variables=_start(architecture, config),
            loss=clip_loss(model, config.interaction),
            batches=_open(config, echo),
            batch_size=config.data.batch_size,
            depth=architecture.image_encoder.depth,
            export=lambda variables, path: save_checkpoint(
                path,
                architecture,
                jax.tree.map(np.asarray, variables),
                {"trained_with": "sam-jax train"},
                overwrite=True,
            ),
            batch_shapes=_batch_shapes(config),
            memory=_memory(config),
        )
        return run_job(job, config.optimizer, config.run, mesh, folder, begin, echo)


def _batch_shapes(config: ClipTrainConfig) -> ClipBatch:
    data, side = config.data, config.sam2.image_size

    def of(shape: tuple[int, ...], dtype: Any) -> Any:
        return jax.ShapeDtypeStruct((data.batch_size, *shape), dtype)

    return ClipBatch(
        images=of((data.frames, side, side, 3), jnp.uint8),
        masks=of((data.frames, data.objects, side, -(-side // 8)), jnp.uint8),
        weights=of((data.objects,), jnp.float32),
    )


def _memory(config: ClipTrainConfig) -> list[str]:
    data, model = config.data, config.model
    ways = advice(data.batch_size, config.run.accumulate, dtype=model.dtype, remat=model.remat)
    of_clips = [
        f"lower data.{name} (now {getattr(data, name)})"
        for name in ("frames", "objects")
        if getattr(data, name) > 1
    ]
    return [*of_clips, *ways]


def _together(function: Callable, clips: Any) -> Any:
    return jax.vmap(lambda *one: function(one))(*clips)


def _open(config: ClipTrainConfig, echo: Callable[[str], None]) -> Batches:
    data, count = config.data, jax.process_count()
    if data.batch_size % count:
        raise InputError(f"data.batch_size {data.batch_size} is no multiple of {count} processes")
    side, each, process = config.sam2.image_size, data.batch_size // count, jax.process_index()
    if data.path == CLIPS:
        echo("procedural clips")
        options = replace(config.clips, image_size=side, frames=data.frames, objects=data.objects)
        return ClipBatches(options, config.run.seed, each, process, count)
    found = ClipFolderBatches(
        data.path, side, data.frames, data.objects, config.run.seed, each, process, count
    )
    echo(f"{len(found.videos)} videos in {data.path}")
    return found


def _start(architecture: Sam2Config, config: ClipTrainConfig) -> Callable[[], Params]:
    name = config.model.checkpoint
    if name:
        found = load_checkpoint(checkpoint_path(name))
        if replace(found.config, image_size=architecture.image_size) != architecture:
            raise InputError(
                f"model.checkpoint {name} ({found.config.name}) is no {architecture.name}"
            )
        return lambda: found.params

    @jax.jit
    def initialise(key):
        hiera = architecture.image_encoder
        side = max(4 * hiera.window_sizes[0], 2 * hiera.patch_size)
        prompts = Prompts(points=jnp.zeros((1, 1, 1, 2)), labels=jnp.zeros((1, 1, 1), jnp.int32))
        return Sam2(architecture).init(key, jnp.zeros((1, side, side, 3)), prompts)

    return lambda: initialise(jax.random.key(config.run.seed))
