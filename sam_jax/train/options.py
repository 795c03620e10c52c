"""What a training run can be told, as frozen values; their documentation is the keys'.

In an "Attributes:" section, square brackets hold the unit: docs/reference/configuration.md is made
of these sections by docs/tools/reference_pages.py.
"""

import dataclasses
from dataclasses import dataclass, field
from typing import Literal

from sam_jax.adapters.lora import LoraOptions
from sam_jax.configs import CONFIGS, SamConfig
from sam_jax.data.scenes.scenes import SceneOptions
from sam_jax.errors import InputError
from sam_jax.train.interactive.losses import LossOptions
from sam_jax.train.interactive.passes import InteractiveOptions
from sam_jax.train.interactive.simulation import SimulationOptions
from sam_jax.train.loop.optimizer import OptimizerOptions

# `data.path` of procedural scenes.
SCENES = "scenes"


@dataclass(frozen=True)
class ModelOptions:
    """What is trained, and from where.

    Attributes:
      name: the architecture: vit_b, vit_l, vit_h, tiny or test. With a name of SAM 2, such as
        sam2.1_tiny, the run trains on clips and has tables of its own.
      checkpoint: a checkpoint directory or a model's name to start from; empty for random
        parameters.
      mae: `model.npz` of `sam-jax pretrain`, whose encoder to start from; empty for none. Not
        together with `checkpoint`.
      dtype: type that the model computes in; parameters and the optimizer's state are always
        float32.
      remat: compute the encoder's blocks again in the backward pass, to save memory.
      drop_path: [probability] how often the encoder's last block is left out for an image; linearly
        less for the blocks before (paper: 0.4 for ViT-H and ViT-L, 0.6 for ViT-B).
      decoder_dropout: [probability] dropout in the mask decoder's attention and MLPs (paper: 0.1).
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
    """Another size of the model that `model.name` names; 0 or an empty list keeps that model's own.

    Attributes:
      image_size: [pixels] side of the model's frame.
      patch_size: [pixels] side of a patch of the image encoder.
      width: [channels] width of the image encoder.
      depth: [blocks] depth of the image encoder.
      num_heads: [heads] heads of the image encoder's attention; must divide `width`.
      mlp_dim: [channels] width of the image encoder's MLPs.
      window_size: [tokens] side of a window of the image encoder's attention.
      global_attention_indexes: [block numbers from 0] blocks of the image encoder that attend over
        the whole image.
      embed_dim: [channels] width of an image's embedding and of the mask decoder.
      decoder_num_heads: [heads] heads of the mask decoder's attention.
      decoder_mlp_dim: [channels] width of the mask decoder's MLPs.
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
      path: a folder in SA-1B's layout (images with their JSON, or tar shards) or with COCO images;
        or "scenes" for procedural scenes without end, drawn on the device as the table `[scenes]`
        says. Required.
      annotations: the instances JSON of a COCO folder; empty to look for it in the folder, in those
        inside it and above it.
      batch_size: [images] images in an update, over all devices and processes.
      image_size: [pixels] side of the frame that images are scaled to; 0 for the model's own
        (paper: 1024). A smaller one makes the first part of a long run cheap.
      max_masks: [masks] masks of an image that are trained on, at most; drawn anew each time the
        image comes up (paper: 64).
      max_mask_area: [fraction of the image] masks that cover more than this are left out (paper:
        0.9).
      jitter: [factors] least and greatest factor of large-scale jitter, such as `[0.1, 2.0]`; empty
        for no jitter (paper: none; 0.1 and 2 for the model that made SA-1B's masks).
      flip: mirror images left to right, half of the time (paper: none).
      workers: [processes] processes that read and resize images; 0 does it in threads of the
        training process.
      overfit: [images] train on this many images, the first ones, again and again as one batch; 0
        for all images. Must equal `batch_size`.
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
      seed: start of everything that is random.
      accumulate: [parts] parts of a batch that are computed one after the other, to save memory.
      data: [devices] devices over which the images of a batch are divided; 0 for all there are.
      model: [devices] devices that share one image.
      checkpoint_every: [updates] how often a checkpoint is written.
      keep: [checkpoints] how many of the newest checkpoints are kept; at least 2.
      keep_every: [updates] checkpoints at multiples of this are kept for good; 0 for none.
      log_every: [updates] how often a line of metrics is written.
      picture_every: [updates] how often pictures of prompts and masks are drawn; 0 for never.
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
        ["^mask_decoder/"], "lora" trains the updates alone. With "decoder" and "lora" an adapter is
        written beside the model.
      lora_rank: rank of the low-rank updates; at least 1.
      lora_alpha: scale of the updates: they are multiplied by `lora_alpha / lora_rank`, so that
        another rank needs no other learning rate.
      lora_targets: which of queries, keys and values get an update (the LoRA paper's choice: q and
        v).
      lora_patterns: regular expressions, searched in paths such as
        `image_encoder/blocks_0/attn/qkv/kernel`; kernels that match any get an update.
      cached_embeddings: a folder where each image's embedding is kept, so that it is encoded once;
        empty for none. 4 MB for an image of 1024 pixels. Only with method "decoder", without
        augmentation and drop path; no pictures are drawn.
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
    """One run: the tables of its file, and two keys that belong to none of them.

    Attributes:
      single_first: train the single mask on the first prompt too, beside the three (paper: no, as
        it is not asked for then; users do ask for it).
      detach_feedback: stop gradients at logits that are fed back to the next pass (paper: silent;
        SAM 2 does not stop them).
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
