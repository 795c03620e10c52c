"""What a configuration means: the model, where it starts, its loss, what is written at the end."""

from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from sam_jax.checkpoints.native import load_checkpoint, read_info, save_checkpoint
from sam_jax.checkpoints.registry import checkpoint_path
from sam_jax.configs import ImageEncoderConfig, SamConfig
from sam_jax.data.batches import TrainingBatch
from sam_jax.errors import InputError
from sam_jax.models.sam.sam import Sam
from sam_jax.sharding import MODEL, check_mesh, join_heads, split_heads
from sam_jax.train.interactive.pictures import first_prompt_pictures
from sam_jax.train.loop.loop import Batches, Job
from sam_jax.train.loop.memory import advice
from sam_jax.train.loop.tasks import interactive_loss
from sam_jax.train.mae.mae import sam_encoder_from_mae
from sam_jax.train.mae.mae_files import load_mae
from sam_jax.train.options import TrainConfig
from sam_jax.types import Params, Prompts


def interactive_job(config: TrainConfig, mesh: Mesh, batches: Batches) -> Job:
    """Interactive training as a configuration describes it.

    Args:
      config: of the run.
      mesh: from `sharding.make_mesh`.
      batches: of `TrainingBatch`, this process's part.

    Raises:
      InputError: the mesh does not fit the model.
    """
    architecture = config.sam
    check_mesh(architecture, mesh)
    dtype = jnp.dtype(config.model.dtype)
    model = Sam(
        architecture,
        dtype=dtype,
        remat=config.model.remat,
        drop_path=config.model.drop_path,
        decoder_dropout=config.model.decoder_dropout,
        model_axis=MODEL if mesh.shape[MODEL] > 1 else None,
    )
    return Job(
        variables=_start(architecture, config),
        loss=interactive_loss(model, config.interaction),
        batches=batches,
        batch_size=config.data.batch_size,
        depth=architecture.image_encoder.depth,
        export=partial(_export, architecture, _thresholds(config)),
        batch_shapes=_batch_shapes(config),
        memory=advice(
            config.data.batch_size,
            config.run.accumulate,
            config.data.max_masks,
            config.model.dtype,
            config.model.remat,
        ),
        picture=first_prompt_pictures(Sam(architecture, dtype=dtype), config.simulation),
    )


def _batch_shapes(config: TrainConfig) -> TrainingBatch:
    count, masks = config.data.batch_size, config.data.max_masks
    side = config.data.image_size or config.sam.image_size

    def of(shape: tuple[int, ...], dtype: Any) -> Any:
        return jax.ShapeDtypeStruct((count, *shape), dtype)

    return TrainingBatch(
        images=of((side, side, 3), jnp.uint8),
        sizes_hw=of((2,), jnp.int32),
        masks=of((masks, side, -(-side // 8)), jnp.uint8),
        weights=of((masks,), jnp.float32),
    )


def random_variables(config: SamConfig, seed: int) -> Params:
    """Random parameters, as training from nothing starts with."""

    @jax.jit
    def initialise(key):
        patch = config.image_encoder.patch_size
        prompts = Prompts(points=jnp.zeros((1, 1, 1, 2)), labels=jnp.zeros((1, 1, 1), jnp.int32))
        return Sam(config).init(key, jnp.zeros((1, patch, patch, 3)), prompts)

    return initialise(jax.random.key(seed))


def _start(architecture: SamConfig, config: TrainConfig) -> Callable[[], Params]:
    name, mae = config.model.checkpoint, config.model.mae
    if not name and not mae:
        return lambda: split_heads(architecture, random_variables(architecture, config.run.seed))
    if mae:
        mae_config, pretrained = load_mae(Path(mae))
        encoder_config = architecture.image_encoder
        assert isinstance(encoder_config, ImageEncoderConfig)  # else the file was refused

        def with_encoder() -> Params:
            variables = random_variables(architecture, config.run.seed)
            params = variables["params"]
            encoder = sam_encoder_from_mae(
                pretrained["params"]["image_encoder"],
                mae_config,
                params["image_encoder"],
                encoder_config,
            )
            params = {**params, "image_encoder": encoder}
            return split_heads(architecture, {**variables, "params": params})

        return with_encoder

    @cache
    def loaded() -> Params:
        found = load_checkpoint(checkpoint_path(name))
        if found.config != architecture:
            raise InputError(
                f"model.checkpoint {name} ({found.config.name}) has other sizes than model.name's "
                f"{architecture.name}"
            )
        return split_heads(architecture, found.params)

    return loaded


def _thresholds(config: TrainConfig) -> Mapping[str, float]:
    """Options of `generate` that came with the model that is gone on from."""
    name = config.model.checkpoint
    return read_info(checkpoint_path(name)).generate if name else {}


def _export(
    architecture: SamConfig, generate: Mapping[str, float], variables: Any, path: Path
) -> None:
    source = {"trained_with": "sam-jax train"}
    save_checkpoint(
        path, architecture, join_heads(variables), source, overwrite=True, generate=generate
    )
