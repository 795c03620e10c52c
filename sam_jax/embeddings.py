"""The image embedding as a value: kept, saved, loaded, sent to another host."""

import json
import os
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from sam_jax.errors import InputError
from sam_jax.files import written_aside
from sam_jax.forks import refuse_forked
from sam_jax.models.features import ImageFeatures
from sam_jax.one_line import one_line

FORMAT_VERSION = 2
# Finer features that an embedding has, beside the first.
_FINER = ("finer_0", "finer_1")
# A 4,096-pixel model would store 64 MB; a file that claims more than this is not one of ours.
MAX_FEATURE_BYTES = 1 << 30


@struct.dataclass
class ImageEmbedding:
    """What the image encoder made of one image: all that any prompt on it needs.

    A pytree of arrays.

    Attributes:
      features: float32 [h, w, C], the embedding of the model's input at 1/16 of its resolution; a
        hybrid encoder's is at 1/8, with details.
      size_hw: height and width of the image itself, in its own pixels.
      fingerprint: of the model that made it; another model's `Segmenter` refuses it.
      finer: what SAM 2 has beside it: float32 [2h, 2w, C/4] and [4h, 4w, C/8]. SAM has none.
      model: the model's name, for people; empty where it is not known.
    """

    features: jax.Array
    size_hw: tuple[int, int] = struct.field(pytree_node=False)
    fingerprint: str = struct.field(pytree_node=False)
    finer: tuple[jax.Array, ...] = ()
    model: str = struct.field(pytree_node=False, default="")

    __repr__ = one_line

    def save(self, path: str | os.PathLike, about: Mapping[str, str] | None = None) -> None:
        """Writes the embedding to one file (NumPy's .npz), whole or not at all.

        Args:
          path: of the file; directories are made, and a file that is there is replaced.
          about: what else the file says, for `load_with_about`; the image it was made from, say.

        Raises:
          OSError: the file cannot be written.
        """
        header = {
            # Releases that know no finer features read what has none.
            "format_version": FORMAT_VERSION if self.finer else 1,
            "size_hw": list(self.size_hw),
            "fingerprint": self.fingerprint,
            "model": self.model,
            "about": dict(about or {}),
        }
        with written_aside(path) as file:
            finer: dict[str, Any] = {
                f"finer_{i}": np.asarray(jax.device_get(one), np.float32)
                for i, one in enumerate(self.finer)
            }
            np.savez(
                file,
                header=np.frombuffer(json.dumps(header).encode(), np.uint8),
                features=np.asarray(jax.device_get(self.features), np.float32),
                **finer,
            )

    @classmethod
    def load(cls, path: str | os.PathLike) -> "ImageEmbedding":
        """Reads what `save` wrote.

        Raises:
          InputError: the file is missing, damaged, or no embedding.
        """
        return load_with_about(path)[0]


@struct.dataclass
class EmbeddingBatch:
    """Embeddings of one model, of images of any sizes: a pytree whose leaves share the first axis.

    It can be mapped over (`jax.vmap`, `jax.lax.map`), and so can `features` under
    `model.apply(params, features, prompts, method="decode")`.

    Attributes:
      features: as the model takes them, of B images.
      sizes_hw: int32 [B, 2], height and width of each image.
      fingerprint: of the model that made them.
      model: its name, for people.
    """

    features: ImageFeatures
    sizes_hw: jax.Array
    fingerprint: str = struct.field(pytree_node=False)
    model: str = struct.field(pytree_node=False, default="")

    __repr__ = one_line

    def unstack(self) -> list[ImageEmbedding]:
        """The embeddings one by one, for `Segmenter`."""
        sizes = jax.device_get(self.sizes_hw).tolist()
        parts = (jax.tree.map(lambda x, i=i: x[i], self.features) for i in range(len(sizes)))
        return [
            ImageEmbedding(one.embedding, tuple(size), self.fingerprint, one.finer, self.model)
            for one, size in zip(parts, sizes, strict=True)
        ]


def stack_embeddings(embeddings: Sequence[ImageEmbedding]) -> EmbeddingBatch:
    """Embeddings as one batch.

    Raises:
      InputError: there are none, or they are of different models or of inputs of different sizes.
    """
    if not embeddings:
        raise InputError("the list of embeddings is empty")
    if len({one.fingerprint for one in embeddings}) > 1:
        raise InputError("the embeddings are of different models; stack those of one model")
    shapes = sorted({tuple(one.features.shape) for one in embeddings})
    if len(shapes) > 1:
        raise InputError(f"embeddings of shapes {shapes[0]} and {shapes[1]} do not stack")
    features = [ImageFeatures(one.features, tuple(one.finer)) for one in embeddings]
    stacked = jax.tree.map(lambda *arrays: jnp.stack(arrays), *features)
    sizes = jax.device_put(np.array([one.size_hw for one in embeddings], np.int32))
    return EmbeddingBatch(stacked, sizes, embeddings[0].fingerprint, embeddings[0].model)


def load_with_about(path: str | os.PathLike) -> tuple[ImageEmbedding, dict[str, str]]:
    """Reads what `save` wrote, and what it was given as `about`; empty where it was not.

    Raises:
      InputError: the file is missing, damaged, or no embedding.
    """
    refuse_forked()
    path = Path(path)
    try:
        header, (features, *finer) = _read(path)
        size_hw = tuple(int(length) for length in header["size_hw"])
        fingerprint = str(header["fingerprint"])
        model = str(header.get("model", ""))  # files of earlier releases do not name it
        about = {str(key): str(text) for key, text in header.get("about", {}).items()}
    except FileNotFoundError:
        raise InputError(f"{path} does not exist") from None
    except PermissionError:
        raise InputError(f"{path} cannot be read: permission denied") from None
    # zipfile and numpy raise a dozen unrelated types for a damaged file.
    except Exception as error:
        raise InputError(
            f"{path} is not a saved embedding, or is damaged ({error}); encode the image again"
        ) from None
    if len(size_hw) != 2 or min(size_hw) < 1:
        raise InputError(f"{path} is damaged: image size {size_hw}; encode the image again")
    features, arrays = jax.device_put((features, tuple(finer)))
    return ImageEmbedding(features, size_hw, fingerprint, arrays, model), about


def _read(path: Path) -> tuple[dict[str, Any], list[np.ndarray]]:
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            if entry.compress_type != zipfile.ZIP_STORED or entry.file_size > MAX_FEATURE_BYTES:
                raise ValueError(f"entry {entry.filename} is compressed or too large")
    with np.load(path, allow_pickle=False) as arrays:
        header = json.loads(arrays["header"].tobytes())
        version = header["format_version"]
        if version not in (1, FORMAT_VERSION):
            raise ValueError(f"format version {version}; this release reads {FORMAT_VERSION}")
        found = [arrays[name] for name in ("features", *(_FINER if version > 1 else ()))]
    for features in found:
        if features.dtype != np.float32 or features.ndim != 3 or 0 in features.shape:
            raise ValueError(f"features are {features.dtype} {features.shape}")
        if not np.isfinite(features).all():
            raise ValueError("features are not finite")
    return header, found
