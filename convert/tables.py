"""How a family's table of names and layouts is written down, and both directions driven by it.

A row gives one tensor's place in our tree, its name in each naming of PyTorch files, and how its
axes are laid out. `{block}` in a row stands for a range of indexes; a row with a `stack` gathers
the tensors of one such range into a single array with a new leading axis.
"""

import itertools
import string
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sam_jax.checkpoints.native import mismatch_report
from sam_jax.errors import CheckpointError

OFFICIAL = "official"
HUGGING_FACE = "huggingface"
NAMINGS = (OFFICIAL, HUGGING_FACE)

Shape = tuple[int, ...]
# What a placeholder stands for: for each of its values, the text in our tree and in each naming.
Ranges = Mapping[str, Sequence[Mapping[str, str]]]


@dataclass(frozen=True)
class Layout:
    """How an array of ours is made from a tensor.

    Attributes:
      axes: the axes in our order, of the tensor without those of length 1; None keeps them.
      ones: axes of the tensor that have length 1 and that we leave out.
    """

    axes: tuple[int, ...] | None = None
    ones: tuple[int, ...] = ()

    def to_native(self, tensor: np.ndarray) -> np.ndarray:
        """Our array for a tensor, as a view."""
        tensor = tensor.squeeze(self.ones)
        return tensor if self.axes is None else tensor.transpose(self.axes)

    def to_torch(self, array: np.ndarray) -> np.ndarray:
        """The tensor for an array of ours, as a view."""
        array = array if self.axes is None else array.transpose(np.argsort(self.axes))
        return np.expand_dims(array, self.ones)

    def native_shape(self, shape: Shape) -> Shape | None:
        """Our array's shape for a tensor's; None where the tensor has the wrong rank."""
        if any(i >= len(shape) or shape[i] != 1 for i in self.ones):
            return None
        shape = tuple(size for i, size in enumerate(shape) if i not in self.ones)
        if self.axes is None:
            return shape
        return tuple(shape[i] for i in self.axes) if len(shape) == len(self.axes) else None

    def torch_shape(self, shape: Shape) -> Shape:
        """The tensor's shape for our array's."""
        if self.axes is not None:
            shape = tuple(shape[self.axes.index(i)] for i in range(len(self.axes)))
        for i in self.ones:
            shape = (*shape[:i], 1, *shape[i:])
        return shape


SAME = Layout()
LINEAR = Layout((1, 0))  # [out, in] -> [in, out]
CONVOLUTION = Layout((2, 3, 1, 0))  # OIHW -> HWIO
UPSCALING = Layout((0, 2, 3, 1))  # a transposed convolution: IOHW -> IHWO
LEADING_ONE = Layout(ones=(0,))
POINTWISE = Layout((1, 0), ones=(2, 3))  # a 1x1 convolution, for us a linear layer


@dataclass(frozen=True)
class Row:
    """One line of a table.

    Attributes:
      native: the path in our tree of variables.
      names: by naming, the tensor's name; several where files hold the same tensor twice.
      layout: of each tensor.
      stack: the placeholder whose tensors become one array.
    """

    native: str
    names: Mapping[str, tuple[str, ...]]
    layout: Layout = SAME
    stack: str | None = None


@dataclass(frozen=True)
class Entry:
    """A row with its placeholders filled in.

    Attributes:
      native: the path in our tree of variables.
      names: by naming, for each tensor of the stack (one, where there is none), its names.
      row: what it was made from.
    """

    native: str
    names: Mapping[str, tuple[tuple[str, ...], ...]]
    row: Row

    def tensor_shape(self, native_shape: Shape) -> Shape:
        """The shape of each of its tensors."""
        return self.row.layout.torch_shape(native_shape[1:] if self.row.stack else native_shape)


def row(
    native: str,
    official: str,
    huggingface: str | tuple[str, ...],
    layout: Layout = SAME,
    stack: str | None = None,
) -> Row:
    """One tensor (or stack of tensors) without a bias."""
    aliases = (huggingface,) if isinstance(huggingface, str) else huggingface
    return Row(native, {OFFICIAL: (official,), HUGGING_FACE: aliases}, layout, stack)


def layer(
    native: str, official: str, huggingface: str, layout: Layout = LINEAR, stack: str | None = None
) -> tuple[Row, Row]:
    """A kernel and its bias."""
    return (
        row(f"{native}/kernel", f"{official}.weight", f"{huggingface}.weight", layout, stack),
        row(f"{native}/bias", f"{official}.bias", f"{huggingface}.bias", SAME, stack),
    )


def norm(native: str, official: str, huggingface: str) -> tuple[Row, Row]:
    """A LayerNorm's scale and bias."""
    return (
        row(f"{native}/scale", f"{official}.weight", f"{huggingface}.weight"),
        row(f"{native}/bias", f"{official}.bias", f"{huggingface}.bias"),
    )


def under(
    parent: tuple[str, str, str], native: str, official: str, huggingface: str
) -> tuple[str, str, str]:
    """Our path and both names of something that is part of `parent`."""
    return f"{parent[0]}/{native}", f"{parent[1]}.{official}", f"{parent[2]}.{huggingface}"


def texts(*values: str) -> list[Mapping[str, str]]:
    """A range of texts that are the same in our tree and in each naming."""
    return [{place: value for place in ("native", *NAMINGS)} for value in values]


def indexes(count: int, start: int = 0) -> list[Mapping[str, str]]:
    """A range of numbers."""
    return texts(*(str(i) for i in range(start, start + count)))


def mlp_layers(depth: int) -> list[Mapping[str, str]]:
    """An MLP's layers: Hugging Face gives the first and the last one names of their own."""
    middle = [f"layers.{i}" for i in range(depth - 2)]
    return [
        {"native": str(i), OFFICIAL: f"layers.{i}", HUGGING_FACE: name}
        for i, name in enumerate(["proj_in", *middle, "proj_out"][:depth])
    ]


def placeholders(template: str) -> list[str]:
    """The names in braces of a template."""
    return [name for _, name, _, _ in string.Formatter().parse(template) if name]


def expand(rows: Iterable[Row], ranges: Ranges) -> list[Entry]:
    """Every entry that a table has for these ranges of indexes."""
    entries = []
    for one in rows:
        for values in _combinations(placeholders(one.native), ranges):
            stacked = _combinations([one.stack] if one.stack else [], ranges)
            names = {
                naming: tuple(
                    tuple(_fill(name, {**values, **item}, naming) for name in one.names[naming])
                    for item in stacked
                )
                for naming in NAMINGS
            }
            entries.append(Entry(_fill(one.native, values, "native"), names, one))
    return entries


def to_native(
    title: str,
    entries: Iterable[Entry],
    naming: str,
    tensors: Mapping[str, np.ndarray],
    shapes: Mapping[str, Any],
) -> dict[str, np.ndarray]:
    """Our arrays, float32, from a file's tensors; strict.

    Args:
      title: what the report opens with.
      entries: of the table, for the configuration of the file.
      naming: of the file.
      tensors: the file's, by name.
      shapes: by path in our tree, the shapes that our model needs.

    Raises:
      CheckpointError: anything is missing, unexpected, misshapen, of another type, or stands twice
        with different values; all of it is listed.
    """
    entries = list(entries)
    missing: list[str] = []
    wrong: list[str] = []
    known: set[str] = set()
    for entry in entries:
        expected = entry.tensor_shape(shapes[entry.native].shape)
        for aliases in entry.names[naming]:
            present = [name for name in aliases if name in tensors]
            known.update(aliases)
            missing += [] if present else aliases[:1]
            wrong += [line for name in present for line in _faults(name, tensors[name], expected)]
            if any(not _same(tensors[name], tensors[present[0]]) for name in present[1:]):
                wrong.append(f"must be equal, but differ: {', '.join(present)}")
    unexpected = sorted(tensors.keys() - known)
    report = mismatch_report(title, missing, unexpected, wrong)
    if report:
        raise CheckpointError(report)
    native = {}
    for entry in entries:
        parts = [
            entry.row.layout.to_native(tensors[next(name for name in aliases if name in tensors)])
            for aliases in entry.names[naming]
        ]
        array = np.stack(parts) if entry.row.stack else parts[0]
        with np.errstate(over="ignore"):  # infinities are refused where checkpoints are saved
            # Copied, so that no array depends on the file any more.
            native[entry.native] = np.array(array, np.float32, order="C")
    return native


def to_torch(
    entries: Iterable[Entry], naming: str, native: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """A file's tensors from our arrays, as views; a tensor with several names under the first."""
    tensors = {}
    for entry in entries:
        array = native[entry.native]
        parts = list(array) if entry.row.stack else [array]
        for aliases, part in zip(entry.names[naming], parts, strict=True):
            tensors[aliases[0]] = entry.row.layout.to_torch(part)
    return tensors


def _combinations(names: list[str], ranges: Ranges) -> list[dict[str, Mapping[str, str]]]:
    return [
        dict(zip(names, values, strict=True))
        for values in itertools.product(*(ranges[name] for name in names))
    ]


def _fill(template: str, values: Mapping[str, Mapping[str, str]], naming: str) -> str:
    return template.format(**{name: texts[naming] for name, texts in values.items()})


def _faults(name: str, tensor: np.ndarray, expected: Shape) -> list[str]:
    faults = []
    if tensor.shape != expected:
        faults.append(f"wrong shape: {name} is {tensor.shape}, not {expected}")
    if tensor.dtype.kind in "biu":
        faults.append(f"wrong type: {name} is {tensor.dtype}, not a floating-point type")
    return faults


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and bool(np.array_equal(a, b))
