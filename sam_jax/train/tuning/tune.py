"""Fine-tuning: a part of a model is trained, or low-rank updates of it, and the rest stays.

What is trained is the training state's parameters, so it alone has gradients and an optimizer's
state; the rest lies among the constants.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.sharding import Mesh

from sam_jax.adapters.adapter_files import merge_adapter, save_adapter
from sam_jax.adapters.lora import LoraOptions, init_lora, merge_lora
from sam_jax.checkpoints.native import read_info
from sam_jax.checkpoints.registry import checkpoint_path
from sam_jax.errors import InputError
from sam_jax.models.sam.sam import Sam
from sam_jax.sharding import MODEL, join_heads
from sam_jax.train.jobs import interactive_job
from sam_jax.train.loop.loop import Batches, Job
from sam_jax.train.loop.optimizer import frozen_names, paths
from sam_jax.train.loop.step import Loss
from sam_jax.train.loop.tasks import embedded_loss
from sam_jax.train.options import TrainConfig
from sam_jax.train.tuning.embeddings import EmbeddedBatches
from sam_jax.types import Params

LORA, FROZEN = "lora", "frozen"
_DECODER, _ENCODER = "mask_decoder/", "image_encoder/"


def divide(
    variables: Params,
    frozen: Sequence[str] = (),
    lora: LoraOptions | None = None,
    seed: int = 0,
    *,
    without_encoder: bool = False,
) -> Params:
    """Variables in which "params" is what is tuned: the mask decoder, and updates under "lora".

    All other parameters are under "frozen", the prompt encoder's among them. `unite` goes back.

    Args:
      variables: of the model, plain or from `sharding.split_heads`.
      frozen: patterns as `OptimizerOptions.frozen`, of the model's parameters: of the decoder,
        what they match is not trained.
      lora: the updates; None for none.
      seed: of the updates' random half.
      without_encoder: leave out the image encoder, where embeddings are trained on.

    Raises:
      InputError: a pattern is no regular expression or matches nothing, or nothing is left to be
        trained.
    """
    flat = flatten_dict(variables["params"], sep="/")
    kept = frozen_names(frozen, paths(variables["params"]))
    trained = {name for name in flat if name.startswith(_DECODER)} - kept
    if not trained and lora is None:
        raise InputError("frozen: the patterns match the whole mask decoder, nothing is trained")
    params = unflatten_dict({name: flat[name] for name in trained}, sep="/")
    if lora is not None:
        key = jax.random.fold_in(jax.random.key(seed), 1)
        params[LORA] = init_lora(key, variables["params"], lora)
    rest = {
        name: value
        for name, value in flat.items()
        if name not in trained and not (without_encoder and name.startswith(_ENCODER))
    }
    return {**variables, "params": params, FROZEN: unflatten_dict(rest, sep="/")}


def unite(
    variables: Params, lora: LoraOptions | None = None, model_axis: str | None = None
) -> Params:
    """The model's variables again, with the updates merged; the inverse of `divide`.

    Args:
      variables: from `divide`, trained or not.
      lora: as there.
      model_axis: see `merge_lora`.
    """
    trained, others = dict(variables["params"]), dict(variables)
    updates = trained.pop(LORA, None)
    parts = (others.pop(FROZEN), trained)
    flat = {name: x for part in parts for name, x in flatten_dict(part, sep="/").items()}
    params = unflatten_dict(flat, sep="/")
    if lora is not None:
        params = merge_lora(params, updates, lora, model_axis)
    return {**others, "params": params}


def tuned_loss(loss: Loss, lora: LoraOptions | None = None, model_axis: str | None = None) -> Loss:
    """A loss of the model as one of what is tuned (`divide`).

    Args:
      loss: of the model's parameters and constants.
      lora: the updates; None for none.
      model_axis: see `merge_lora`.
    """

    def tuned(params: Params, constants: Params, batch: Any, keys: Any) -> Any:
        variables = unite({"params": params, **constants}, lora, model_axis)
        return loss(variables.pop("params"), variables, batch, keys)

    return tuned


def tuned_job(
    config: TrainConfig, mesh: Mesh, batches: Batches, echo: Callable[[str], None] = print
) -> Job:
    """Fine-tuning as a configuration describes it; writes an adapter, and the merged model.

    The optimizer gets no patterns of frozen parameters: what they match is none of its parameters.

    Args:
      config: of the run, with a `tune.method` other than "full".
      mesh: from `sharding.make_mesh`.
      batches: of `TrainingBatch`, this process's part.
      echo: takes lines for a person.

    Raises:
      InputError: as `interactive_job`, or there is no such checkpoint.
    """
    tune, base = config.tune, checkpoint_path(config.model.checkpoint)
    fingerprint = read_info(base).fingerprint
    job = interactive_job(config, mesh, batches)
    cached = bool(tune.cached_embeddings)

    def variables() -> Params:
        seed = config.run.seed
        return divide(
            job.variables(), config.optimizer.frozen, tune.lora, seed, without_encoder=cached
        )

    def export(found: Params, path: Path) -> None:
        trained = dict(found["params"])
        updates = trained.pop(LORA, None)
        adapter = path.with_name("adapter")
        save_adapter(adapter, fingerprint, trained, updates, tune.lora, overwrite=True)
        merge_adapter(base, adapter, path, overwrite=True)

    tuned = replace(job, variables=variables, export=export)
    if cached:
        return _on_embeddings(tuned, config, lambda: join_heads(job.variables()), echo)
    axis = MODEL if mesh.shape[MODEL] > 1 else None
    draw = job.picture
    assert draw is not None
    return replace(
        tuned,
        loss=tuned_loss(job.loss, tune.lora, axis),
        picture=lambda found, batch: draw(unite(found, tune.lora), batch),
    )


def _on_embeddings(
    job: Job, config: TrainConfig, variables: Callable[[], Params], echo: Callable[[str], None]
) -> Job:
    """The job without the image encoder in its steps, and so without pictures."""
    architecture, dtype = config.sam, jnp.dtype(config.model.dtype)
    model = Sam(architecture, dtype, decoder_dropout=config.model.decoder_dropout)
    folder = Path(config.tune.cached_embeddings)
    batches = EmbeddedBatches(job.batches, Sam(architecture, dtype), variables, folder, echo)
    return replace(
        job,
        loss=tuned_loss(embedded_loss(model, config.interaction)),
        batches=batches,
        batch_shapes=batches.shapes(job.batch_shapes),
        picture=None,
    )
