"""What a training run can be told, as frozen values; their documentation is the keys'."""

import dataclasses
from dataclasses import dataclass, field
from typing import Literal

from sam_jax.configs import CONFIGS, SamConfig
from sam_jax.data.scenes import SceneOptions
from sam_jax.errors import InputError
from sam_jax.lora import LoraOptions
from sam_jax.train.interactive import InteractiveOptions
from sam_jax.train.losses import LossOptions
from sam_jax.train.optimizer import OptimizerOptions
from sam_jax.train.simulation import SimulationOptions

# `data.path` of procedural scenes.
SCENES = "scenes"


@dataclass(frozen=True)
class ModelOptions:
    """What is trained, and from where.

    Attributes:
      name: of a configuration, such as vit_b.
      checkpoint: a native checkpoint or a name to start from; empty for random parameters.
      mae: a checkpoint of `sam-jax pretrain`, whose encoder to start from; empty for none.
      dtype: compute type; parameters and the optimiser's state are float32.
      remat: recompute the encoder's blocks in the backward pass to save memory.
      drop_path: see `Sam` (paper: 0.4 for ViT-H and ViT-L, 0.6 for ViT-B).
      decoder_dropout: see `Sam` (paper: 0.1).
    """

    name: str = "vit_h"
    checkpoint: str = ""
    mae: str = ""
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    remat: bool = True
    drop_path: float = 0.4
    decoder_dropout: float = 0.1


@dataclass(frozen=True)
class ArchitectureOptions:
    """Another size of the model that `model.name` names; 0, or an empty list, is that one's own.

    Attributes:
      image_size: side in pixels of the frame that images are scaled to.
      patch_size: of the image encoder, and so are the next five.
      width: its channels.
      depth: its blocks.
      num_heads: of its attention.
      mlp_dim: channels in its MLPs.
      window_size: tokens along a window.
      global_attention_indexes: blocks that attend over the whole image.
      embed_dim: channels of an image's embedding and of the mask decoder.
      decoder_num_heads: of the mask decoder's attention.
      decoder_mlp_dim: channels in its MLPs.
    """

    image_size: int = 0
    patch_size: int = 0
    width: int = 0
    depth: int = 0
    num_heads: int = 0
    mlp_dim: int = 0
    window_size: int = 0
    global_attention_indexes: tuple[int, ...] = ()
    embed_dim: int = 0
    decoder_num_heads: int = 0
    decoder_mlp_dim: int = 0

    def applied_to(self, config: SamConfig) -> SamConfig:
        """The configuration with what is given in its place.

        Raises:
          InputError: the model's encoder has no such part.
        """
        given = {name: value for name, value in dataclasses.asdict(self).items() if value}
        if not given:
            return config
        outer = ("image_size", "embed_dim", "decoder_num_heads", "decoder_mlp_dim")
        changed = {name: given.pop(name) for name in outer if name in given}
        if "width" in given:
            given["embed_dim"] = given.pop("width")
        parts = {field.name for field in dataclasses.fields(config.image_encoder)}
        if unknown := sorted(given.keys() - parts):
            raise InputError(
                f"{config.name} has a hybrid image encoder, which has no "
                f"{', '.join(unknown)}; take that out of [architecture]"
            )
        encoder = dataclasses.replace(config.image_encoder, **given)
        config = dataclasses.replace(config, **changed)
        side = config.image_size // encoder.token_size
        encoder = dataclasses.replace(encoder, table_size_hw=(side, side))
        name = f"{config.name} of another size"
        return dataclasses.replace(config, name=name, image_encoder=encoder)


@dataclass(frozen=True)
class DataOptions:
    """What it is trained on.

    Attributes:
      path: a folder of SA-1B (images with their JSON, or tar shards) or of COCO images; or "scenes"
        for procedural scenes without end, drawn on the device as the table scenes says.
      annotations: the JSON file of COCO instances; empty to look for it in the folder, in those
        inside it and above it.
      batch_size: images in an update, over all devices and processes.
      image_size: side in pixels of the frame that images are scaled to; 0 for the model's own
        (paper: 1024). A smaller one makes the first part of a long run cheap.
      max_masks: of an image, drawn anew each time (paper: 64).
      max_mask_area: masks that cover more of the image than this are left out (paper: 0.9).
      jitter: the least and greatest factor of large-scale jitter; empty for none (paper: none;
        0.1 and 2 for the model that made SA-1B's masks).
      flip: horizontally, half of the time (paper: none).
      workers: processes that prepare images; 0 does it in the training process.
      overfit: train on the first so many images alone, one batch again and again; 0 for all.
    """

    path: str = ""
    annotations: str = ""
    batch_size: int = 256
    image_size: int = 0
    max_masks: int = 64
    max_mask_area: float = 0.9
    jitter: tuple[float, ...] = ()
    flip: bool = False
    workers: int = 8
    overfit: int = 0


@dataclass(frozen=True)
class RunOptions:
    """How the run is done.

    Attributes:
      seed: decides everything that is random.
      accumulate: parts that a batch is taken in, one after the other, to save memory.
      data: devices of the mesh over which images are divided; 0 for as many as there are.
      model: devices that share an image.
      checkpoint_every: updates between checkpoints.
      keep: so many of the newest checkpoints, at least 2.
      keep_every: also those of steps that are multiples of this; 0 for none.
      log_every: updates between lines of metrics.
      picture_every: updates between pictures of prompts and masks; 0 for none.
    """

    seed: int = 0
    accumulate: int = 1
    data: int = 0
    model: int = 1
    checkpoint_every: int = 1000
    keep: int = 2
    keep_every: int = 0
    log_every: int = 20
    picture_every: int = 1000


@dataclass(frozen=True)
class TuneOptions:
    """What of a trained model is trained further; what is not has no gradient and no state.

    Attributes:
      method: "full" trains all parameters. "decoder" trains the mask decoder alone, as most who
        tune SAM do. "lora" trains the mask decoder and low-rank updates of the image encoder. With
        each, `optimizer.frozen` leaves out more of the model's own parameters: with
        ["^mask_decoder/"], "lora" trains the updates alone; these are frozen by leaving their
        kernels out of lora_patterns. With "decoder" and "lora" an adapter is written beside the
        model.
      lora_rank: see `LoraOptions`, and so are the next three.
      lora_alpha: the updates are scaled by lora_alpha / lora_rank.
      lora_targets: of "q", "k" and "v".
      lora_patterns: of the kernels that are updated.
      cached_embeddings: a folder, empty for none; each image is encoded once and its embedding kept
        there, 4 MB for an image of 1024 pixels. With method "decoder", without augmentation and
        drop path; no pictures are drawn.
    """

    method: Literal["full", "decoder", "lora"] = "full"
    lora_rank: int = LoraOptions.rank
    lora_alpha: float = LoraOptions.alpha
    lora_targets: tuple[Literal["q", "k", "v"], ...] = LoraOptions.targets
    lora_patterns: tuple[str, ...] = LoraOptions.patterns
    cached_embeddings: str = ""

    @property
    def lora(self) -> LoraOptions | None:
        """The low-rank updates; None with another method."""
        if self.method != "lora":
            return None
        return LoraOptions(self.lora_rank, self.lora_alpha, self.lora_targets, self.lora_patterns)


@dataclass(frozen=True)
class TrainConfig:
    """One run: each attribute but the last two is a table of its file.

    `single_first` and `detach_feedback` are those of `InteractiveOptions`.
    """

    model: ModelOptions = field(default_factory=ModelOptions)
    architecture: ArchitectureOptions = field(default_factory=ArchitectureOptions)
    data: DataOptions = field(default_factory=DataOptions)
    scenes: SceneOptions = field(default_factory=SceneOptions)
    optimizer: OptimizerOptions = field(default_factory=OptimizerOptions)
    simulation: SimulationOptions = field(default_factory=SimulationOptions)
    losses: LossOptions = field(default_factory=LossOptions)
    tune: TuneOptions = field(default_factory=TuneOptions)
    run: RunOptions = field(default_factory=RunOptions)
    single_first: bool = False
    detach_feedback: bool = False

    @property
    def sam(self) -> SamConfig:
        """The model."""
        return self.architecture.applied_to(CONFIGS[self.model.name])

    @property
    def interaction(self) -> InteractiveOptions:
        """The passes of interactive training."""
        return InteractiveOptions(
            self.simulation, self.losses, self.single_first, self.detach_feedback
        )
