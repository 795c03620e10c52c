"""What `gpu_side_by_side.py` runs in its processes: both packages on one GPU, and our attention.

Imports are inside, where each process needs its own; NumPy alone is everyone's.
"""

import contextlib
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

PHOTO = Path(__file__).parents[1] / "examples" / "photos" / "coffee.jpg"
POINTS_A_SIDE = 32
# Calls in a row that one reading of an attention implementation is the mean of.
REPEATS = 20


def random_params(name: str) -> Any:
    """Variables for a model, the same in every process, that keep activations' order of size."""
    import jax

    from sam_jax.configs import CONFIGS
    from sam_jax.models.sam.sam import variable_shapes

    rng = np.random.default_rng(0)

    def values(path: Any, leaf: Any) -> np.ndarray:
        x, kind = rng.standard_normal(leaf.shape, np.float32), path[-1].key
        if kind == "kernel":
            return x * np.float32(np.prod(leaf.shape[:-1]) ** -0.5)
        if kind == "scale":
            return 1 + 0.3 * x
        return x * np.float32({"bias": 0.3, "pos_embed": 0.3}.get(kind, 0.2))

    return jax.tree_util.tree_map_with_path(values, variable_shapes(CONFIGS[name]))


def photo() -> np.ndarray:
    """The photo that everything is measured on, uint8 [height, width, 3]."""
    from sam_jax.images import read_image

    return read_image(str(PHOTO))


def prepared(name: str, batch: int) -> np.ndarray:
    """The photo as a model takes it, float32 [batch, side, side, 3]."""
    from sam_jax.configs import CONFIGS
    from sam_jax.preprocess import prepare_image

    return np.stack([prepare_image(photo(), CONFIGS[name])] * batch)


def grid_points(side: int) -> np.ndarray:
    """One point for each of 8x8 prompts, float32 [64, 1, 2], in the model's frame."""
    line = (np.arange(8, dtype=np.float32) + 0.5) * side / 8
    return np.stack(np.meshgrid(line, line), axis=-1).reshape(64, 1, 2)


class Ours:
    """sam_jax on the default device."""

    def __init__(self, name: str, dtype: str):
        import jax

        from sam_jax import Segmenter
        from sam_jax.configs import CONFIGS

        if dtype == "float32":
            jax.config.update("jax_default_matmul_precision", "highest")
        self.name, self.config = name, CONFIGS[name]
        params = random_params(name)
        self.segmenter = Segmenter(
            self.config, params, dtype=dtype, fingerprint="random", prompt_batch=64
        )
        model = self.segmenter.compiled.model

        def encode(params: Any, images: Any) -> Any:
            return model.apply(params, images, method="encode_image")

        self._encode = jax.jit(encode)

    def encoder(self, batch: int) -> Callable[[], Any]:
        """Encodes images that are on the device, and waits."""
        import jax

        images = jax.device_put(prepared(self.name, batch))
        params = self.segmenter.params
        return lambda: jax.block_until_ready(self._encode(params, images))

    def outputs(self) -> dict[str, np.ndarray]:
        """Embedding, low-resolution logits and predicted IoU of the 8x8 prompts."""
        from sam_jax.preprocess import ImagePrompts

        compiled = self.segmenter.compiled
        [features] = compiled.encode(prepared(self.name, 1))
        prompts = ImagePrompts(grid_points(self.config.image_size), np.ones((64, 1), np.int32))
        [(logits, scores)] = compiled.decode([features], [prompts], True)
        return {"embedding": np.asarray(features.embedding), "logits": logits, "iou": scores}

    def generator(self, threshold: float) -> Callable[[], int]:
        """Masks of the photo; gives their number."""
        image = photo()
        options = {"points_per_side": POINTS_A_SIDE, "stability_score_thresh": 0.0}
        return lambda: len(
            self.segmenter.generate(image, pred_iou_thresh=threshold, **options)  # type: ignore
        )

    def peak_bytes(self) -> int:
        """The most device memory in use so far."""
        import jax

        return (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use", 0)

    def device(self) -> str:
        """What the results were measured on."""
        import jax

        return f"{jax.devices()[0].device_kind}, JAX {jax.__version__}"


class Original:
    """segment-anything's code; in bfloat16 its encoder and decoder run under torch.compile."""

    def __init__(self, name: str, dtype: str):
        import torch

        with contextlib.suppress(ImportError):  # before its parts, or it would be loaded in part
            import segment_anything  # noqa: F401
        from convert.conversion import to_state_dict
        from convert.sam.reference import build_original
        from sam_jax.configs import CONFIGS

        self.name, self.config = name, CONFIGS[name]
        self.torch_device = "cuda" if torch.cuda.is_available() else "cpu"
        torch.backends.cudnn.allow_tf32 = False  # as is the default for matrix products
        self.model = build_original(self.config)
        state = to_state_dict(self.config, random_params(name))
        self.model.load_state_dict({k: torch.from_numpy(v.copy()) for k, v in state.items()})
        self.model.requires_grad_(False).to(self.torch_device)
        if dtype == "bfloat16":
            self._to_bfloat16()

    def _to_bfloat16(self) -> None:
        """What is fast on a GPU: compiled; the encoder's weights in bfloat16, autocast behind."""
        import torch

        compile_ = torch.compile if self.torch_device == "cuda" else lambda f, **_: f
        encoder, decoder = self.model.image_encoder.bfloat16(), self.model.mask_decoder
        encode = compile_(encoder.forward, mode="max-autotune")
        decode = compile_(decoder.forward, mode="max-autotune")

        def decoder_forward(**inputs: Any) -> Any:
            with torch.autocast(self.torch_device, torch.bfloat16):
                return tuple(copied(x) for x in decode(**inputs))

        def copied(x: Any) -> Any:
            # The next call may write over what a compiled function gave.
            return x.to(torch.float32, copy=True)

        encoder.forward = lambda x: copied(encode(x.bfloat16()))
        decoder.forward = decoder_forward

    def encoder(self, batch: int) -> Callable[[], Any]:
        """Encodes images that are on the device, and waits."""
        import torch

        images = torch.from_numpy(prepared(self.name, batch)).permute(0, 3, 1, 2).contiguous()
        images = images.to(self.torch_device)

        def encode() -> Any:
            with torch.inference_mode():
                features = self.model.image_encoder(images)
            if self.torch_device == "cuda":
                torch.cuda.synchronize()
            return features

        return encode

    def outputs(self) -> dict[str, np.ndarray]:
        """Embedding, low-resolution logits and predicted IoU of the 8x8 prompts."""
        import torch

        features = self.encoder(1)()
        points = torch.from_numpy(grid_points(self.config.image_size)).to(self.torch_device)
        labels = torch.ones(64, 1, dtype=torch.int, device=self.torch_device)
        with torch.inference_mode():
            sparse, dense = self.model.prompt_encoder(
                points=(points, labels), boxes=None, masks=None
            )
            logits, iou = self.model.mask_decoder(
                image_embeddings=features,
                image_pe=self.model.prompt_encoder.get_dense_pe(),
                sparse_prompt_embeddings=sparse,
                dense_prompt_embeddings=dense,
                multimask_output=True,
            )
        embedding = features[0].permute(1, 2, 0)
        found = {"embedding": embedding, "logits": logits, "iou": iou}
        return {key: value.float().cpu().numpy() for key, value in found.items()}

    def generator(self, threshold: float) -> Callable[[], int]:
        """Masks of the photo; gives their number."""
        from segment_anything import SamAutomaticMaskGenerator

        image = photo()
        generator = SamAutomaticMaskGenerator(
            self.model,
            points_per_side=POINTS_A_SIDE,
            pred_iou_thresh=threshold,
            stability_score_thresh=0.0,
        )
        return lambda: len(generator.generate(image))

    def peak_bytes(self) -> int:
        """The most device memory allocated so far."""
        import torch

        return torch.cuda.max_memory_allocated() if self.torch_device == "cuda" else 0

    def device(self) -> str:
        """What the results were measured on."""
        import torch

        name = torch.cuda.get_device_name() if self.torch_device == "cuda" else "cpu"
        return f"{name}, PyTorch {torch.__version__}"


PACKAGES: dict[str, Any] = {"sam_jax": Ours, "original": Original}


def attention_rows(shapes: dict[str, tuple[int, ...]], names: tuple[str, ...]) -> list[dict]:
    """Error and time of each implementation of grid attention, bfloat16, on the default device."""
    import jax
    import jax.numpy as jnp

    from sam_jax.ops.attention import grid_attention

    rows = []
    for title, (batch, height, width, head, channel) in shapes.items():
        rng = np.random.default_rng(0)
        arrays = (
            rng.standard_normal((batch, height, width, 3, head, channel)),
            0.2 * rng.standard_normal((height, height, channel)),
            0.2 * rng.standard_normal((width, width, channel)),
        )
        inputs = [jnp.asarray(x, jnp.bfloat16) for x in arrays]
        with jax.default_matmul_precision("highest"):
            truth = grid_attention(
                *(x.astype(jnp.float32) for x in inputs), implementation="reference"
            )
        for name in names:
            attend = jax.jit(grid_attention, static_argnames="implementation")
            out = attend(*inputs, implementation=name)
            off = jnp.abs(out.astype(jnp.float32) - truth).max() / truth.std()
            seconds = []
            for _ in range(5):
                started = time.perf_counter()
                for _ in range(REPEATS):
                    out = attend(*inputs, implementation=name)
                jax.block_until_ready(out)
                seconds.append((time.perf_counter() - started) / REPEATS)
            row = {"shape": title, "implementation": name, "error": float(off)}
            rows.append(row | {"seconds": statistics.median(seconds)})
    return rows
