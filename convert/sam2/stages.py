"""SAM 2's original and our model side by side, stage by stage; see `convert.verify`."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sam_jax.models.features import ImageFeatures
from sam_jax.models.sam2.config import Sam2Config
from sam_jax.models.sam2.sam2 import Sam2
from sam_jax.models.sam2.values import Memories
from sam_jax.types import Params, Prompts

Stages = dict[str, np.ndarray]

# Memories that the frame looks at, and pointers, each of which is divided into tokens.
_FRAMES = 2
_POINTERS = 3


def sam2_stages(
    original: Any, config: Sam2Config, variables: Params, seed: int
) -> tuple[Stages, Stages]:
    """The values of both after every stage, by its name: the original's and ours."""
    inputs = _inputs(config, seed)
    reference = _run_original(original, config, inputs)
    with jax.default_device(jax.devices("cpu")[0]), jax.default_matmul_precision("highest"):
        return reference, _run_ours(config, variables, inputs)


def _inputs(config: Sam2Config, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    side, grid, dim = config.image_size, config.grid_size, config.memory_dim
    coarse = rng.standard_normal((1, 16, 16, 3)).astype(np.float32)
    image = np.asarray(jax.image.resize(coarse, (1, side, side, 3), "linear"))
    parts = config.embed_dim // dim
    shapes = {
        "memories": (1, _FRAMES, grid, grid, dim),
        "times": (1, _FRAMES, dim),
        "pointers": (1, _POINTERS * parts, dim),
        "pointer_times": (1, _POINTERS * parts, dim),
    }
    drawn = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    low = config.mask_input_size
    return {
        "image": image + 0.2 * rng.standard_normal(image.shape).astype(np.float32),
        "points": rng.uniform(0, side, (1, 2, 2, 2)).astype(np.float32),
        "labels": np.array([[[1, 0], [2, 3]]], np.int32),
        "masks": 5 * rng.standard_normal((1, 2, low, low)).astype(np.float32),
        "memory_masks": rng.uniform(0, 1, (1, side, side)).astype(np.float32),
        **drawn,
    }


def _run_original(model: Any, config: Sam2Config, inputs: dict[str, np.ndarray]) -> Stages:
    import torch

    given = {name: torch.from_numpy(np.array(value)) for name, value in inputs.items()}
    stages: Stages = {}

    def keep(name: str, value: Any) -> None:
        stages[name] = value.detach().numpy().copy()

    def channels_last(name: str, value: Any) -> None:
        keep(name, value.permute(0, 2, 3, 1))

    trunk = model.image_encoder.trunk
    hooked = {"patch embedding": trunk.patch_embed}
    hooked.update({f"block {i}": block for i, block in enumerate(trunk.blocks)})
    handles = [
        module.register_forward_hook(lambda _, __, out, name=name: keep(name, out))
        for name, module in hooked.items()
    ]
    with torch.no_grad():
        features = model.forward_image(given["image"].permute(0, 3, 1, 2))["backbone_fpn"]
        for handle in handles:
            handle.remove()
        for name, value in zip(("stride 4", "stride 8", "stride 16"), features, strict=True):
            channels_last(f"neck: {name}", value)
        embedding = features[2] + model.no_mem_embed.reshape(1, -1, 1, 1)
        for kind, masks in (("points", None), ("points and masks", given["masks"][0][:, None])):
            sparse, dense = model.sam_prompt_encoder(
                points=(given["points"][0], given["labels"][0]), boxes=None, masks=masks
            )
            logits, iou, tokens, score = model.sam_mask_decoder.predict_masks(
                image_embeddings=embedding.repeat(2, 1, 1, 1),
                image_pe=model.sam_prompt_encoder.get_dense_pe(),
                sparse_prompt_embeddings=sparse,
                dense_prompt_embeddings=dense,
                repeat_image=False,
                high_res_features=[x.repeat(2, 1, 1, 1) for x in features[:2]],
            )
            keep(f"{kind}: logits", logits)
            keep(f"{kind}: predicted IoU", iou)
            keep(f"{kind}: mask tokens", tokens)
            keep(f"{kind}: object score", score[:, 0])
        keep("object pointers", model.obj_ptr_proj(tokens))
        scaled = given["memory_masks"][:, None] * 20.0 - 10.0
        memory = model.memory_encoder(features[2], scaled, skip_mask_sigmoid=True)
        channels_last("memory encoder", memory["vision_features"])
        positions = memory["vision_pos_enc"][0].permute(0, 2, 3, 1)[:, None]
        where = positions + given["times"][:, :, None, None]
        dim = config.memory_dim
        keys = torch.cat([given["memories"].reshape(1, -1, dim), given["pointers"]], 1)
        places = torch.cat([where.reshape(1, -1, dim), given["pointer_times"]], 1)
        current = features[2].flatten(2).permute(2, 0, 1)
        sines = model.image_encoder.neck.position_encoding(features[2])
        seen = model.memory_attention(
            curr=[current],
            curr_pos=[sines.flatten(2).permute(2, 0, 1)],
            memory=keys.permute(1, 0, 2),
            memory_pos=places.permute(1, 0, 2),
            num_obj_ptr_tokens=given["pointers"].shape[1],
        )
        keep("memory attention", seen.permute(1, 0, 2))
    return stages


def _run_ours(config: Sam2Config, variables: Params, inputs: dict[str, np.ndarray]) -> Stages:
    model = Sam2(config)
    stages: Stages = {}
    features, state = jax.device_get(_encode(model, variables, inputs["image"]))
    inner = state["intermediates"]["image_encoder"]["trunk"]
    stages["patch embedding"] = inner["patch_embed"]["__call__"][0]
    for i in range(config.image_encoder.depth):
        stages[f"block {i}"] = inner[f"blocks_{i}"]["__call__"][0]
    stages["neck: stride 8"], stages["neck: stride 4"] = features.finer
    stages["neck: stride 16"] = features.embedding
    call = partial(_call, model, variables)
    for kind, masks in (("points", None), ("points and masks", inputs["masks"])):
        prompts = Prompts(inputs["points"], inputs["labels"], masks=masks)
        decoded = call("decode_all", call("without_memory", features.embedding), features, prompts)
        stages[f"{kind}: logits"] = decoded.logits
        stages[f"{kind}: predicted IoU"] = decoded.iou
        stages[f"{kind}: mask tokens"] = decoded.tokens
        stages[f"{kind}: object score"] = decoded.object_score
    there = np.ones(decoded.tokens.shape[:-1], bool)
    stages["object pointers"] = call("object_pointer", decoded.tokens, there)
    masks = inputs["memory_masks"]
    stages["memory encoder"] = call("encode_memory", features.embedding, masks, np.ones(1, bool))
    drawn = {name: jnp.asarray(value) for name, value in inputs.items()}
    memories = Memories(
        drawn["memories"],
        drawn["times"],
        jnp.ones((1, _FRAMES), bool),
        drawn["pointers"],
        drawn["pointer_times"],
        jnp.ones(drawn["pointers"].shape[:2], bool),
    )
    stages["memory attention"] = call("with_memories", features.embedding[0], memories)
    return stages


def _call(model: Sam2, variables: Params, method: str, *args: Any) -> Any:
    return jax.device_get(_apply(model, method, variables, *args))


@partial(jax.jit, static_argnums=(0, 1))
def _apply(model: Sam2, method: str, variables: Params, *args: Any) -> Any:
    return model.apply(variables, *args, method=method)


@partial(jax.jit, static_argnums=0)
def _encode(model: Sam2, variables: Params, images: Any) -> tuple[ImageFeatures, Any]:
    def wanted(module: Any, method: str) -> bool:
        name = module.name or ""
        return method == "__call__" and (name == "patch_embed" or name.startswith("blocks_"))

    out: Any = model.apply(
        variables,
        images,
        method="encode_image",
        capture_intermediates=wanted,
        mutable=["intermediates"],
    )
    return out
