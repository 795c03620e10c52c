"""Which platform a program that is being traced will run on."""

import jax


def traced_platform() -> str:
    """"cpu", "gpu" or "tpu": that of `jax.default_device` where one is set, else JAX's first.

    JAX traces a function anew where the default device differs, so what is chosen by this is never
    reused elsewhere. Arrays' own placement cannot be seen while tracing; `CompiledModel` therefore
    makes its device, or its mesh's first, the default.
    """
    device = jax.config.jax_default_device
    if device is None:
        return jax.default_backend()
    return device if isinstance(device, str) else device.platform
