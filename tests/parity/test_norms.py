"""What a comparison of values does not show: epsilon hardly moves a variance of order one."""

import jax
from flax import linen as nn
from prompt_cases import case

from convert.sam.table import entries
from convert.tables import OFFICIAL
from sam_jax.configs import TEST
from sam_jax.models.sam.sam import Sam


def test_every_norm_has_the_originals_epsilon(small):
    model, variables = small
    ours = {}

    def note(next_function, args, kwargs, context):
        if isinstance(context.module, nn.LayerNorm):
            ours["/".join(("params", *context.module.path, "scale"))] = context.module.epsilon
        return next_function(*args, **kwargs)

    image = jax.ShapeDtypeStruct((1, 128, 128, 3), "float32")
    prompts = case("mask and points", (8, 8), batch=1).ours()
    with nn.intercept_methods(note):
        jax.eval_shape(Sam(TEST).apply, variables, image, prompts)
    official = {}
    for entry in entries(TEST):
        if entry.native.endswith("/scale"):
            ((name,),) = entry.names[OFFICIAL]
            official[entry.native] = model.get_submodule(name.removesuffix(".weight")).eps
    assert ours == official
    assert set(ours.values()) == {1e-6, 1e-5}
