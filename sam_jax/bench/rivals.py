"""The PyTorch packages that ours is measured against: the original and Hugging Face transformers.

What `sam_jax.bench.packages.Package` asks for, called as each package's own code calls it.
"""

import importlib.util
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from convert.sam.original_package import import_original
from convert.sam.reference import build_original
from sam_jax.bench.children import peak_memory_gb
from sam_jax.bench.packages import random_input, random_points
from sam_jax.configs import CONFIGS, ImageEncoderConfig, SamConfig

# By name, what has to be installed.
REQUIRED = {"original": ("torch", "segment_anything"), "transformers": ("torch", "transformers")}


def missing(name: str) -> list[str]:
    """What a rival needs and is not installed."""
    return [module for module in REQUIRED[name] if importlib.util.find_spec(module) is None]


def have_model(model: str) -> bool:
    """Whether the rivals' code can build a model of ours, by its name; then all of them can."""
    return isinstance(CONFIGS[model].image_encoder, ImageEncoderConfig)


class Torch:
    """Where and how a PyTorch model runs."""

    def __init__(self, dtype: str, accelerator: bool):
        import torch

        self.torch = torch
        on_gpu = accelerator and torch.cuda.is_available()
        self.target = torch.device("cuda" if on_gpu else "cpu")
        self.device = torch.cuda.get_device_name() if on_gpu else "cpu"
        self.bfloat16 = dtype == "bfloat16"
        if on_gpu:
            # As JAX multiplies float32 there by default.
            torch.set_float32_matmul_precision("high")

    @contextmanager
    def running(self) -> Iterator[None]:
        """No gradients, autocast where bfloat16 is asked for; what ran is complete at the end."""
        torch = self.torch
        with (
            torch.inference_mode(),
            torch.autocast(self.target.type, torch.bfloat16, enabled=self.bfloat16),
        ):
            yield
        if self.target.type == "cuda":
            torch.cuda.synchronize()

    def tensor(self, array: np.ndarray) -> Any:
        """An array where the model is."""
        return self.torch.from_numpy(array).to(self.target)

    def image(self, side: int) -> Any:
        """The input that all packages encode, channels first; on the host, as ours is."""
        return self.torch.from_numpy(random_input(side)).permute(0, 3, 1, 2).contiguous()

    def peaks_gb(self) -> dict[str, float]:
        """Peak memory of this process, and of the accelerator."""
        found = {"host": peak_memory_gb()}
        if self.target.type == "cuda":
            found["device"] = self.torch.cuda.max_memory_allocated() / 1e9
        return found


class Original:
    """segment-anything, its parts called as `SamPredictor.predict_torch` calls them."""

    name = "original"

    def __init__(
        self,
        model: str,
        dtype: str = "float32",
        accelerator: bool = False,
        variables: Any = None,
        photo: np.ndarray | None = None,
        generate_options: Mapping[str, Any] | None = None,
    ):
        """Builds the model.

        Args:
          model: a name in `configs.CONFIGS`.
          dtype: "float32", or "bfloat16" for autocast.
          accelerator: use a GPU, where PyTorch has one.
          variables: our variables, to have the same weights; else they are random.
          photo: what `generate` works on, uint8 RGB.
          generate_options: for `SamAutomaticMaskGenerator`.

        Raises:
          InputError: PyTorch or the package is not installed.
        """
        config = CONFIGS[model]
        self.model = build_original(config)
        self.where = Torch(dtype, accelerator)
        self.device = self.where.device
        if variables is not None:
            _load_ours(self.model, config, variables)
        self.model.to(self.where.target)
        self._side = self.model.image_encoder.img_size
        self._image = self.where.image(self._side)
        self._features: Any = None
        self._photo, self._generate_options = photo, dict(generate_options or {})
        if self.where.bfloat16:
            # `generate` hands them to NumPy, which has no bfloat16.
            self.model.mask_decoder.register_forward_hook(
                lambda _, __, outputs: tuple(output.float() for output in outputs)
            )

    def encode(self) -> None:
        """See `Package`."""
        with self.where.running():
            self._features = self.model.image_encoder(self._image.to(self.where.target))

    def decode(self, count: int) -> None:
        """See `Package`."""
        if self._features is None:
            self.encode()
        torch = self.where.torch
        points = self.where.tensor(random_points(count, self._side))
        labels = torch.ones(count, 1, dtype=torch.int, device=points.device)
        with self.where.running():
            sparse, dense = self.model.prompt_encoder(
                points=(points, labels), boxes=None, masks=None
            )
            self.model.mask_decoder(
                image_embeddings=self._features,
                image_pe=self.model.prompt_encoder.get_dense_pe(),
                sparse_prompt_embeddings=sparse,
                dense_prompt_embeddings=dense,
                multimask_output=True,
            )

    def generate(self) -> list[dict[str, Any]]:
        """See `Package`."""
        generator = import_original().SamAutomaticMaskGenerator(
            self.model, **self._generate_options
        )
        with self.where.running():
            return generator.generate(self._photo)


class Transformers:
    """Hugging Face's SamModel with its default attention and random weights."""

    name = "transformers"

    def __init__(self, model: str, dtype: str = "float32", accelerator: bool = False):
        """Builds the model; arguments as for `Original`."""
        from transformers import SamModel

        config = CONFIGS[model]
        self.where = Torch(dtype, accelerator)
        self.device = self.where.device
        self.model = SamModel(_transformers_config(config)).eval().to(self.where.target)
        self._side = self.model.config.vision_config.image_size
        self._image = self.where.image(self._side)
        self._features: Any = None

    def encode(self) -> None:
        """See `Package`."""
        with self.where.running():
            self._features = self.model.get_image_embeddings(self._image.to(self.where.target))

    def decode(self, count: int) -> None:
        """See `Package`."""
        if self._features is None:
            self.encode()
        torch = self.where.torch
        points = self.where.tensor(random_points(count, self._side))[None]
        labels = torch.ones(1, count, 1, dtype=torch.int, device=points.device)
        with self.where.running():
            self.model(image_embeddings=self._features, input_points=points, input_labels=labels)


def _load_ours(model: Any, config: SamConfig, variables: Any) -> None:
    import torch

    from convert.conversion import to_state_dict

    state = to_state_dict(config, variables)
    model.load_state_dict({name: torch.from_numpy(np.array(v)) for name, v in state.items()})


def _transformers_config(config: SamConfig) -> Any:
    from transformers import SamConfig as TheirConfig

    vit = config.image_encoder
    assert isinstance(vit, ImageEncoderConfig)
    # Square tables, as all our presets have.
    side = vit.table_size_hw[0] * vit.patch_size
    return TheirConfig(
        vision_config={
            "hidden_size": vit.embed_dim,
            "output_channels": config.embed_dim,
            "num_hidden_layers": vit.depth,
            "num_attention_heads": vit.num_heads,
            "mlp_dim": vit.mlp_dim,
            "window_size": vit.window_size,
            "global_attn_indexes": list(vit.global_attention_indexes),
            "num_pos_feats": config.embed_dim // 2,
            "image_size": side,
            "patch_size": vit.patch_size,
        },
        prompt_encoder_config={
            "hidden_size": config.embed_dim,
            "image_size": side,
            "patch_size": vit.patch_size,
            "mask_input_channels": config.mask_in_channels,
        },
        mask_decoder_config={
            "hidden_size": config.embed_dim,
            "mlp_dim": config.decoder_mlp_dim,
            "num_hidden_layers": config.decoder_depth,
            "num_attention_heads": config.decoder_num_heads,
            "attention_downsample_rate": config.attention_downsample_rate,
            "num_multimask_outputs": config.num_multimask_outputs,
            "iou_head_depth": config.iou_head_depth,
            "iou_head_hidden_dim": config.iou_head_hidden_dim,
        },
    )


RIVALS: Mapping[str, type] = {"original": Original, "transformers": Transformers}
