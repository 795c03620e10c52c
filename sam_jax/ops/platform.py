"""Which platform a program that is being traced will run on."""

import jax


def traced_platform() -> str:
    """The platform ("cpu", "gpu", "tpu") of `jax.default_device` where that is set, else JAX's.

    JAX traces a function anew where the default device differs, so what is chosen by this is never
    reused elsewhere. Arrays' own placement cannot be seen while tracing; `CompiledModel` therefore
    makes its device, or its mesh's first, the default.
    """
    device = jax.config.jax_default_device  # type: ignore[attr-defined]
    if device is None:
        return jax.default_backend()
    return device if isinstance(device, str) else device.platform
