"""What needs a process of its own, for the rivals: see `sam_jax.bench.children`."""

from pathlib import Path

import numpy as np

from convert.sam.original_package import import_original
from convert.sam.reference import build_original
from sam_jax.bench.children import Stages, serve
from sam_jax.bench.rivals import RIVALS, Torch, Transformers
from sam_jax.configs import CONFIGS, SamConfig


def _write_weights(name: str, model: str, checkpoint: str, folder: str) -> str:
    """A file or folder that a rival loads a model from; the original's has our weights."""
    path = Path(folder) / name
    if name == "original":
        from convert.conversion import export_checkpoint

        export_checkpoint(checkpoint, path.with_suffix(".pth"))
        return str(path.with_suffix(".pth"))
    Transformers(model).model.save_pretrained(path)
    return str(path)


def _memory(name: str, model: str, dtype: str, accelerator: bool) -> dict[str, float]:
    package = RIVALS[name](model, dtype, accelerator)
    package.encode()
    package.encode()
    return package.where.peaks_gb()


def _first_mask(
    name: str,
    weights: str,
    model: str,
    dtype: str,
    accelerator: bool,
    photo: str,
    point: list[float],
    started: float,
) -> dict[str, float]:
    """As `sam_jax.bench.children.first_mask`."""
    stages = Stages(started)
    stages.end("start")
    steps = _original_steps if name == "original" else _transformers_steps
    steps(stages, weights, CONFIGS[model], Torch(dtype, accelerator), photo, point)
    return stages.seconds


def _original_steps(
    stages: Stages, weights: str, config: SamConfig, where: Torch, photo: str, point: list[float]
) -> None:
    from PIL import Image

    package, torch = import_original(), where.torch
    stages.end("import")
    model = build_original(config)
    model.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    model.to(where.target)
    predictor = package.SamPredictor(model)
    stages.end("load")
    for again in ("", " again"):
        with where.running():
            predictor.set_image(np.asarray(Image.open(photo).convert("RGB")))
        stages.end(f"encode{again}")
        with where.running():
            predictor.predict_torch(
                where.tensor(predictor.transform.apply_coords(np.array([[point]]), _size(photo))),
                torch.ones(1, 1, dtype=torch.int, device=where.target),
            )
        stages.end(f"mask{again}")


def _size(photo: str) -> tuple[int, int]:
    from PIL import Image

    with Image.open(photo) as image:
        return image.height, image.width


def _transformers_steps(
    stages: Stages, weights: str, config: SamConfig, where: Torch, photo: str, point: list[float]
) -> None:
    from PIL import Image
    from transformers import SamImageProcessor, SamModel, SamProcessor

    stages.end("import")
    model = SamModel.from_pretrained(weights).eval().to(where.target)
    side = model.config.vision_config.image_size
    processor = SamProcessor(
        SamImageProcessor(size={"longest_edge": side}, pad_size={"height": side, "width": side})
    )
    stages.end("load")
    for again in ("", " again"):
        inputs = processor(
            Image.open(photo).convert("RGB"), input_points=[[point]], return_tensors="pt"
        ).to(where.target)
        with where.running():
            features = model.get_image_embeddings(inputs["pixel_values"])
        stages.end(f"encode{again}")
        with where.running():
            outputs = model(image_embeddings=features, input_points=inputs["input_points"])
            processor.image_processor.post_process_masks(
                outputs.pred_masks.float().cpu(),
                inputs["original_sizes"],
                inputs["reshaped_input_sizes"],
            )
        stages.end(f"mask{again}")


if __name__ == "__main__":
    serve({"memory": _memory, "write-weights": _write_weights, "first-mask": _first_mask})
