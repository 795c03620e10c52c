"""Values as one line of text, for `print`: arrays as type and shape, never their content."""

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any

_LONGEST_TEXT = 40
# Longer lists are counted, not shown.
_LONGEST_LIST = 4


def one_line(value: Any) -> str:
    """A dataclass as one line, its arrays as `float32[3,256,256]`.

    Fields that hold nothing (None, an empty tuple or text) are left out. Whatever JAX puts in the
    place of arrays (tracers, `ShapeDtypeStruct`, other objects) is taken.
    """
    fields = ((field.name, getattr(value, field.name, None)) for field in dataclasses.fields(value))
    parts = [f"{name}={short(held)}" for name, held in fields if not _is_nothing(held)]
    return f"{type(value).__name__}({', '.join(parts)})"


def model_line(runner: Any, params: Any, **more: Any) -> str:
    """What runs a model, as one line: the model's name, input size, parameters, and `more`."""
    count = sum(math.prod(shape) for shape in _shapes(params))
    config = runner.config
    parts = [repr(config.name), f"image_size={config.image_size}", f"{count:,} parameters"]
    for name, value in more.items():
        if isinstance(value, str):
            parts.append(f"{name}={short(value)}")
        elif value is not None:
            parts.append(str(getattr(value, "name", None) or getattr(value, "__name__", value)))
    return f"{type(runner).__name__}({', '.join(parts)})"


def short(value: Any) -> str:
    """A value in a few words, on one line."""
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    if isinstance(shape, tuple) and dtype is not None:
        return f"{getattr(dtype, 'name', dtype)}[{','.join(map(str, shape))}]"
    if isinstance(value, str):
        return repr(value if len(value) <= _LONGEST_TEXT else f"{value[:12]}...")
    if isinstance(value, tuple | list) and len(value) <= _LONGEST_LIST:
        inner = ", ".join(map(short, value))
        return f"[{inner}]" if isinstance(value, list) else f"({inner}{',' * (len(value) == 1)})"
    if isinstance(value, tuple | list | dict | set):
        return f"{type(value).__name__} of {len(value)}"
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _short_dataclass(value)
    text = " ".join(repr(value).split())
    return text if len(text) <= _LONGEST_TEXT else type(value).__name__


def _short_dataclass(value: Any) -> str:
    sizes = list(_array_bytes(value))
    if not sizes and isinstance(getattr(value, "name", None), str):
        return repr(value.name)  # a configuration
    return f"{type(value).__name__}({len(sizes)} arrays, {sum(sizes) / 1e6:.1f} MB)"


def _array_bytes(value: Any) -> Iterator[int]:
    for field in dataclasses.fields(value):
        held: Any = getattr(value, field.name, None)
        shape = getattr(held, "shape", None)
        if dataclasses.is_dataclass(held) and not isinstance(held, type):
            yield from _array_bytes(held)
        elif isinstance(shape, tuple):
            yield math.prod(shape) * getattr(getattr(held, "dtype", None), "itemsize", 1)


def _shapes(params: Any) -> Iterator[tuple[int, ...]]:
    if isinstance(params, Mapping):
        for value in params.values():
            yield from _shapes(value)
    elif isinstance(getattr(params, "shape", None), tuple):
        yield params.shape


def _is_nothing(value: Any) -> bool:
    return value is None or (isinstance(value, tuple | str) and not value)
