"""`Module`: what the original's model has of a `torch.nn.Module`, for a model without PyTorch."""

from collections.abc import Iterator
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from sam_jax.compat.device import Device
from sam_jax.converter import load_converter
from sam_jax.errors import InputError
from sam_jax.segmenter import Segmenter
from sam_jax.types import compute_dtype

_Module = TypeVar("_Module", bound="Module")


class Module:
    """Goes where code puts a module, as long as it is not trained.

    Parameters cannot be changed through it, and it has no gradients; `sam_jax.Sam` is for that.

    Attributes:
      segmenter: ours.
      training: always False.
      device: where the caller's tensors belong; see `to`.
    """

    training: bool = False

    def __init__(self, segmenter: Segmenter) -> None:
        self.segmenter = segmenter
        self._device: Any = Device("cpu")

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(
            f"sam_jax.compat's Sam has no {name!r}; the model as a Flax module is sam_jax.Sam, "
            "and its parameters are sam.segmenter.params"
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.segmenter!r})"

    @property
    def device(self) -> Any:
        """What `to` was told: a `torch.device`, or a string with its `type` and `index`.

        "cpu" at first. `torch.as_tensor(x, device=sam.device)` takes either.
        """
        return self._device

    def to(
        self: _Module, device: Any = None, dtype: Any = None, non_blocking: bool = False
    ) -> _Module:
        """Sets what `device` says. The model stays where JAX has put it.

        Raises:
          InputError: another type is asked for than the model was built with, or float32.
        """
        if str(device).startswith("torch.") and dtype is None:
            device, dtype = None, device
        own = self.segmenter.compiled.model.dtype
        if dtype is not None and not _is_type(dtype, own):
            raise InputError(
                f"the model cannot be changed to {dtype}; it computes in float32, or in bfloat16 "
                'when built so: sam_model_registry["vit_b"](checkpoint=..., dtype="bfloat16")'
            )
        if isinstance(device, int):
            device = f"cuda:{device}"
        if device is not None:
            self._device = Device(device) if isinstance(device, str) else device
        return self

    def cuda(self: _Module, device: Any = None) -> _Module:
        """The same as `to("cuda")`."""
        return self.to("cuda" if device is None else device)

    def cpu(self: _Module) -> _Module:
        """The same as `to("cpu")`."""
        return self.to("cpu")

    def float(self: _Module) -> _Module:
        """Changes nothing: inputs, parameters and outputs are float32."""
        return self

    def half(self: _Module) -> _Module:
        """Refused, see `to`."""
        return self.to(dtype="float16")

    def bfloat16(self: _Module) -> _Module:
        """Refused, see `to`, unless the model was built with that type."""
        return self.to(dtype="bfloat16")

    def double(self: _Module) -> _Module:
        """Refused, see `to`."""
        return self.to(dtype="float64")

    def eval(self: _Module) -> _Module:
        """Changes nothing: there is no other mode."""
        return self

    def train(self: _Module, mode: bool = True) -> _Module:
        """Changes nothing.

        Raises:
          InputError: another mode than that of `eval` is asked for.
        """
        if mode:
            raise InputError("compat has no training; train sam_jax.Sam with jax.grad")
        return self

    def requires_grad_(self: _Module, requires_grad: bool = True) -> _Module:
        """Changes nothing.

        Raises:
          InputError: gradients are asked for.
        """
        if requires_grad:
            raise InputError("compat has no gradients; train sam_jax.Sam with jax.grad")
        return self

    def parameters(self) -> Iterator[np.ndarray]:
        """The parameters as NumPy arrays in the layout of `sam_jax.Sam`, one after another.

        As many numbers as the original's; `state_dict` has its names and layout.
        """
        return map(np.asarray, jax.tree.leaves(self.segmenter.params["params"]))

    def state_dict(self) -> dict[str, np.ndarray]:
        """The parameters under the original's names, as NumPy arrays that are not to be changed.

        `torch.as_tensor` of each gives what the original's `load_state_dict` takes.

        Raises:
          InputError: a module of the user's hides our package `convert`.
        """
        params = jax.device_get(self.segmenter.params)
        return load_converter().conversion.to_state_dict(self.segmenter.config, params)


def _is_type(dtype: Any, own: Any) -> bool:
    """Whether a type, however it is said, is float32 or the model's own."""
    try:
        return compute_dtype(dtype) in (jnp.float32, own)
    except InputError:
        return False
