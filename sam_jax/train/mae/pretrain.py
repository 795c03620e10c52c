"""A pre-training run: a masked autoencoder from a folder of images (He et al. 2021)."""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key, UInt8

from sam_jax.configs import MAE_CONFIGS, MaeConfig, check_mae_config
from sam_jax.data.image_folder import ImageFolder
from sam_jax.errors import InputError
from sam_jax.image_inputs import normalized
from sam_jax.models.mae.mae import MaskedAutoencoder
from sam_jax.sharding import make_mesh
from sam_jax.train.config import check_rules, from_values, optimizer_rules, run_rules
from sam_jax.train.defaults import with_fitted_schedule
from sam_jax.train.loop.loop import Job, run_folder, run_job
from sam_jax.train.loop.memory import advice
from sam_jax.train.loop.optimizer import OptimizerOptions
from sam_jax.train.loop.state import Summed
from sam_jax.train.loop.step import Loss
from sam_jax.train.mae.mae import mae_loss
from sam_jax.train.mae.mae_files import save_mae
from sam_jax.train.options import RunOptions
from sam_jax.train.runs import changes_besides_recipe, forbidden_changes
from sam_jax.types import Params


@dataclass(frozen=True)
class MaeOptions:
    """What is pre-trained.

    Attributes:
      name: the model whose encoder is pre-trained: vit_b, vit_l or vit_h.
      image_size: [pixels] side of the crops; 0 for the model's own (paper: 224).
      mask_ratio: [fraction] share of an image's patches that are hidden (paper: 0.75).
      dtype: type that the model computes in; parameters and the optimizer's state are always
        float32.
      remat: compute blocks again in the backward pass, to save memory.
    """

    name: str = "vit_b"
    image_size: int = 0
    mask_ratio: float = 0.75
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    remat: bool = False


@dataclass(frozen=True)
class ImageOptions:
    """What it is pre-trained on.

    Attributes:
      path: a folder of images; all folders in it are searched too. Required.
      batch_size: [crops] crops in an update, over all devices and processes.
    """

    path: str = ""
    batch_size: int = 4096


@dataclass(frozen=True)
class PretrainConfig:
    """One run. Tables: model, data, optimizer, run."""

    model: MaeOptions = field(default_factory=MaeOptions)
    data: ImageOptions = field(default_factory=ImageOptions)
    optimizer: OptimizerOptions = field(default_factory=OptimizerOptions)
    run: RunOptions = field(default_factory=RunOptions)

    @property
    def architecture(self) -> MaeConfig:
        """The masked autoencoder."""
        config = MAE_CONFIGS[self.model.name]
        size = self.model.image_size or config.image_size
        return replace(config, image_size=size, mask_ratio=self.model.mask_ratio)


def pretrain_config(values: dict[str, Any]) -> PretrainConfig:
    """The run that values describe; what they leave out is the default.

    Raises:
      InputError: a key is unknown, a value is wrong.
    """
    config = from_values(PretrainConfig, with_fitted_schedule(values))
    names = ", ".join(MAE_CONFIGS)
    rules = {
        f"model.name must be one of {names}": config.model.name in MAE_CONFIGS,
        "data.path is missing: a folder of images": bool(config.data.path),
        "data.batch_size must be at least 1": config.data.batch_size >= 1,
        "run.model must be 1: an autoencoder is not divided": config.run.model == 1,
    }
    check_rules(rules | optimizer_rules(config.optimizer, values) | run_rules(config.run))
    check_mae_config(config.architecture)
    return config


def reconstruction_loss(model: MaskedAutoencoder) -> Loss:
    """The loss of pre-training on crops as bytes."""

    def loss(
        params: Params,
        constants: Params,
        crops: UInt8[Array, "B size size 3"],
        keys: Key[Array, " B"],
    ) -> Summed:
        config = model.config
        images = normalized(crops, config)
        patches = math.prod(size // config.patch_size for size in images.shape[1:3])
        noise = jax.vmap(lambda key: jax.random.uniform(key, (patches,)))(keys)
        value, _ = mae_loss(model, {"params": params, **constants}, images, keys[0], noise=noise)
        count = jnp.float32(len(images))
        return Summed(value * count, count, {})

    return loss


def pretrain_run(
    config: PretrainConfig,
    folder: Path,
    echo: Callable[[str], None] = print,
    change_recipe: bool = False,
) -> Path:
    """Pre-trains an encoder, from the newest checkpoint in the folder or from the start.

    Args:
      config: of the run.
      folder: of the run.
      echo: takes lines for a person.
      change_recipe: as for `runs.train_run`.

    Returns:
      The path of the autoencoder's file, for `model.mae` of a training run.

    Raises:
      InputError: as `runs.train_run`.
      KeyboardInterrupt: likewise.
    """
    mesh = make_mesh(config.run.data or None, devices=jax.devices())
    architecture = config.architecture
    processes = jax.process_count()
    if config.data.batch_size % processes:
        raise InputError(
            f"data.batch_size {config.data.batch_size} is no multiple of the {processes} processes"
        )
    changed = changes_besides_recipe if change_recipe else forbidden_changes
    with run_folder(folder, asdict(config), changed) as begin:
        batches = ImageFolder(
            config.data.path,
            architecture.image_size,
            config.data.batch_size // processes,
            seed=config.run.seed,
            process_index=jax.process_index(),
            process_count=processes,
        )
        echo(f"{batches.images} images in {config.data.path}")
        dtype = jnp.dtype(config.model.dtype)
        model = MaskedAutoencoder(architecture, dtype=dtype, remat=config.model.remat)
        size = architecture.image_size
        patches = architecture.grid_size**2

        def variables() -> Params:
            images, noise = jnp.zeros((1, size, size, 3)), jnp.arange(patches)[None] / patches
            return dict(model.init(jax.random.key(config.run.seed), images, noise))

        job = Job(
            variables=variables,
            loss=reconstruction_loss(model),
            batches=batches,
            batch_size=config.data.batch_size,
            depth=architecture.depth,
            export=lambda found, path: save_mae(path.with_suffix(".npz"), architecture, found),
            batch_shapes=jax.ShapeDtypeStruct((config.data.batch_size, size, size, 3), jnp.uint8),
            memory=advice(
                config.data.batch_size,
                config.run.accumulate,
                dtype=config.model.dtype,
                remat=config.model.remat,
            ),
        )
        run_job(job, config.optimizer, config.run, mesh, folder, begin, echo)
    return folder / "model.npz"
