"""A training run as one TOML file: every choice, strict, with the paper's values as defaults.

Tables of the file are the dataclasses of `train.options`; their docstrings say what each key does.
Unknown keys, values of the wrong type and choices that contradict each other are refused before
anything runs.
"""

import dataclasses
import difflib
import math
import os
import tomllib
import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from sam_jax.configs import CONFIGS, ImageEncoderConfig, check_config
from sam_jax.data.scenes.scenes import SceneOptions
from sam_jax.errors import CheckpointError, InputError
from sam_jax.train.defaults import with_defaults
from sam_jax.train.interactive.losses import LossOptions
from sam_jax.train.loop.optimizer import OptimizerOptions
from sam_jax.train.loop.schedule import fitted_recipe, schedule_rules
from sam_jax.train.options import SCENES, DataOptions, RunOptions, TrainConfig
from sam_jax.train.paths import relative_to

RECIPES = Path(__file__).parent / "recipes"


# Options that a run may change when it goes on, without changing what it computes.
FREE_TO_CHANGE = (
    "data.workers",
    "run.checkpoint_every",
    "run.keep",
    "run.keep_every",
    "run.log_every",
    "run.picture_every",
)


def read_values(source: str, changes: Sequence[str] = (), recipes: str = "vit_*") -> dict[str, Any]:
    """What a file says, with changes, unchecked.

    Paths in the file are relative to its folder, those in changes to the working directory. A
    packaged recipe's schedule of the learning rate is scaled where `changes` make the run shorter
    or longer, and do not set the schedule themselves.

    Args:
      source: a TOML file, or the name of a recipe that comes with the package.
      changes: "table.key=value", in TOML's notation; strings may go without quotes.
      recipes: a pattern of the names that are of this kind of run.

    Raises:
      InputError: the file cannot be read or is no TOML.
    """
    path, folder = Path(source), os.path.dirname(source)
    known = {file.stem: file for file in sorted(RECIPES.glob(f"{recipes}.toml"))}
    is_recipe = not path.is_file() and source in known
    if is_recipe:
        path, folder = known[source], ""
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(
            f"{source}: {error.strerror or error}; give a TOML file, or one of {', '.join(known)}"
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{source} is no TOML file: {error}") from None
    relative_to(values, folder)
    recipe = dict(values.get("optimizer", {})) if is_recipe else {}
    for change in changes:
        _change(values, change)
    if is_recipe and isinstance(values.get("optimizer"), dict):
        names = {change.partition("=")[0].strip() for change in changes}
        changed = {name.removeprefix("optimizer.") for name in names}
        if "optimizer" in names:  # the whole table
            changed |= set(values["optimizer"])
        values["optimizer"] = fitted_recipe(recipe, values["optimizer"], changed)
    return relative_to(values, "")


def config_from_values(values: dict[str, Any]) -> TrainConfig:
    """The run that values describe; what they leave out is the default (`train.defaults`).

    Raises:
      InputError: a key is unknown, a value is wrong, or the schedule of the learning rate cannot
        happen in so many steps.
    """
    config = from_values(TrainConfig, with_defaults(values))
    check_rules(_rules(config) | optimizer_rules(config.optimizer, values) | run_rules(config.run))
    try:
        check_config(config.sam)
    except CheckpointError as error:
        raise InputError(f"architecture: {error}") from None
    return config


def differences(one: dict[str, Any], other: dict[str, Any], table: str = "") -> list[str]:
    """Dotted names of the keys whose values differ between two runs, as nested dicts."""
    found = []
    for key in sorted(one.keys() | other.keys()):
        name = f"{table}.{key}" if table else key
        a, b = one.get(key), other.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            found += differences(a, b, name)
        elif (list(a) if isinstance(a, tuple) else a) != (list(b) if isinstance(b, tuple) else b):
            found.append(name)
    return found


def _change(values: dict[str, Any], change: str) -> None:
    name, sign, text = change.partition("=")
    *tables, key = name.strip().split(".")
    if not sign or not key:
        raise InputError(f"{change!r} is no change; write table.key=value")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()
    for table in tables:
        values = values.setdefault(table, {})
        if not isinstance(values, dict):
            raise InputError(f"{change!r}: {table} is a value, not a table")
    values[key] = value


def from_values(cls: Any, values: Any, where: str = "") -> Any:
    """A dataclass of nested dicts, strictly.

    Args:
      cls: with fields of numbers, strings, booleans, literals, tuples of them, and dataclasses.
      values: for some of the fields.
      where: the dotted name of the table, for messages.

    Raises:
      InputError: a key is unknown, or a value has the wrong type.
    """
    if not isinstance(values, dict):
        raise InputError(f"{where} must be a table, not {values!r}")
    hints = typing.get_type_hints(cls)
    given = {}
    for key, value in values.items():
        name = f"{where}.{key}" if where else key
        if key not in hints:
            near = difflib.get_close_matches(key, hints, n=1)
            meant = f"did you mean {near[0]}?" if near else f"there are {', '.join(hints)}"
            raise InputError(f"{name} is unknown; {meant}")
        given[key] = _value(hints[key], value, name)
    return cls(**given)


def _value(hint: Any, value: Any, name: str) -> Any:
    if dataclasses.is_dataclass(hint):
        return from_values(hint, value, name)
    origin = typing.get_origin(hint)
    if origin is Literal:
        choices = typing.get_args(hint)
        if not any(value == one and type(value) is type(one) for one in choices):
            named = ", ".join(map(str, choices))
            raise InputError(f"{name} must be one of {named}, not {value!r}")
        return value
    if origin is tuple:
        if not isinstance(value, list):
            raise InputError(f"{name} must be a list, not {value!r}")
        item = typing.get_args(hint)[0]
        return tuple(_value(item, v, f"{name}[{i}]") for i, v in enumerate(value))
    assert not isinstance(hint, types.UnionType), hint
    accepted = (int, float) if hint is float else hint
    if not isinstance(value, accepted) or (hint is not bool and isinstance(value, bool)):
        kind = {int: "a whole number", float: "a number", str: "a string", bool: "true or false"}
        raise InputError(f"{name} must be {kind[hint]}, not {value!r}")
    try:
        finite = math.isfinite(value) if hint is float else True
    except OverflowError:
        finite = False
    if not finite:
        raise InputError(f"{name} must be a number that is finite, not {str(value)[:20]}")
    return hint(value)


def check_rules(rules: dict[str, bool]) -> None:
    """Refuses the first that does not hold.

    Raises:
      InputError: its text.
    """
    for rule, holds in rules.items():
        if not holds:
            raise InputError(rule)


def optimizer_rules(options: OptimizerOptions, values: dict[str, Any]) -> dict[str, bool]:
    """What must hold of how parameters are updated.

    Args:
      options: of the run.
      values: of the whole run, as they were written.
    """
    return {
        "optimizer.steps must be from 1 to 2147483647": 1 <= options.steps < 1 << 31,
        "optimizer.learning_rate must be above 0": options.learning_rate > 0,
        "optimizer.warmup_steps must be at least 0": options.warmup_steps >= 0,
        "optimizer.warmup_start must be from 0 to 1": 0 <= options.warmup_start <= 1,
        "optimizer.layer_decay must be above 0 and at most 1": 0 < options.layer_decay <= 1,
        "optimizer.weight_decay must be at least 0": options.weight_decay >= 0,
        "optimizer.clip_norm must be at least 0": options.clip_norm >= 0,
        "optimizer.decay_steps must be at least 0": all(at >= 0 for at in options.decay_steps),
        "optimizer.decay_factor must be above 0 and at most 1": 0 < options.decay_factor <= 1,
        "optimizer.momentum must be at least 0 and below 1": 0 <= options.momentum < 1,
        "optimizer.beta1 and beta2 must be from 0 to 1": 0 <= options.beta1 < 1
        and 0 <= options.beta2 < 1,
        **schedule_rules(options, values.get("optimizer", {})),
    }


def run_rules(options: RunOptions) -> dict[str, bool]:
    """What must hold of how a run is done."""
    return {
        "run.accumulate must be at least 1": options.accumulate >= 1,
        "run.data must be at least 0": options.data >= 0,
        "run.model must be at least 1": options.model >= 1,
        "run.checkpoint_every must be at least 1": options.checkpoint_every >= 1,
        "run.keep must be at least 2": options.keep >= 2,
        "run.keep_every must be at least 0": options.keep_every >= 0,
        "run.log_every must be at least 1": options.log_every >= 1,
        "run.picture_every must be at least 0": options.picture_every >= 0,
        "run.seed must be from 0 to 4294967295": 0 <= options.seed < 1 << 32,
    }


def _rules(config: TrainConfig) -> dict[str, bool]:
    model, data, simulation = config.model, config.data, config.simulation
    known = model.name in CONFIGS
    patch = config.sam.image_encoder.patch_size if known else 1
    patch_based = not known or isinstance(config.sam.image_encoder, ImageEncoderConfig)
    return {
        f"model.name must be one of {', '.join(CONFIGS)}": model.name in CONFIGS,
        "model.checkpoint and model.mae exclude each other": not (model.checkpoint and model.mae),
        "model.mae is for models with a plain ViT; tiny has none": not model.mae or patch_based,
        "model.drop_path must be at least 0 and below 1": 0 <= model.drop_path < 1,
        "model.decoder_dropout must be at least 0 and below 1": 0 <= model.decoder_dropout < 1,
        "data.path is missing: a folder, or scenes": bool(data.path),
        "data.batch_size must be at least 1": data.batch_size >= 1,
        "data.image_size must be 0 or a multiple of the model's patch size": data.image_size >= 0
        and data.image_size % patch == 0,
        "data.max_masks must be at least 1": data.max_masks >= 1,
        "data.max_mask_area must be above 0 and at most 1": 0 < data.max_mask_area <= 1,
        "data.jitter must be a least and a greatest factor, 0 < least <= greatest <= 16": (
            not data.jitter
            or (len(data.jitter) == 2 and 0 < data.jitter[0] <= data.jitter[1] <= 16)
        ),
        **_scene_rules(config),
        "data.workers must be at least 0": data.workers >= 0,
        "data.overfit must be 0 or data.batch_size": data.overfit in (0, data.batch_size),
        "simulation.correction_points must be at least 0": simulation.correction_points >= 0,
        "simulation.box_probability must be from 0 to 1": 0 <= simulation.box_probability <= 1,
        "simulation.box_noise and max_box_noise must be at least 0": simulation.box_noise >= 0
        and simulation.max_box_noise >= 0,
        **_loss_rules(config.losses),
        **_tune_rules(config),
    }


def _loss_rules(losses: LossOptions) -> dict[str, bool]:
    weights = (losses.focal_weight, losses.dice_weight, losses.iou_weight)
    return {
        "losses.focal_weight, dice_weight and iou_weight must be at least 0, and not all 0": min(
            weights
        )
        >= 0
        and max(weights) > 0,
        "losses.focal_alpha must be at most 1; below 0 is none": losses.focal_alpha <= 1,
        "losses.focal_gamma must be at least 0": losses.focal_gamma >= 0,
        "losses.others_weight must be from 0 to 1": 0 <= losses.others_weight <= 1,
    }


def _scene_rules(config: TrainConfig) -> dict[str, bool]:
    data, drawn = config.data, config.data.path == SCENES
    own_masks = not data.annotations and data.max_mask_area == DataOptions.max_mask_area
    return {
        "scenes.image_size and scenes.masks come from the model and data.max_masks": (
            config.scenes.image_size,
            config.scenes.masks,
        )
        == (SceneOptions.image_size, SceneOptions.masks),
        f"data.path {data.path!r} is for evaluation, never trained on; give scenes": not (
            data.path.startswith(f"{SCENES}:")
        ),
        "[scenes] is for data.path scenes alone": drawn or config.scenes == SceneOptions(),
        "procedural scenes have their own variety: no data.jitter, no data.flip": not (
            drawn and (data.jitter or data.flip)
        ),
        "procedural scenes have their own masks: no data.annotations, no data.max_mask_area": (
            own_masks or not drawn
        ),
    }


def _tune_rules(config: TrainConfig) -> dict[str, bool]:
    tune, model, data = config.tune, config.model, config.data
    changing = bool(data.jitter) or data.flip or model.drop_path > 0 or data.path == SCENES
    unused = [
        f"tune.{field.name}"
        for field in dataclasses.fields(tune)
        if field.name.startswith("lora_") and getattr(tune, field.name) != field.default
    ]
    return {
        "tune.method decoder and lora need model.checkpoint: the model to go on from": tune.method
        == "full"
        or bool(model.checkpoint),
        f"{', '.join(unused)} needs tune.method lora": not unused or tune.method == "lora",
        "tune.lora_rank must be at least 1": tune.lora_rank >= 1,
        "tune.lora_alpha must be above 0": tune.lora_alpha > 0,
        "tune.lora_targets must name q, k or v, each once": bool(tune.lora_targets)
        and len(set(tune.lora_targets)) == len(tune.lora_targets),
        "tune.lora_patterns must have at least one": bool(tune.lora_patterns),
        "tune.cached_embeddings needs tune.method decoder": not tune.cached_embeddings
        or tune.method == "decoder",
        "tune.cached_embeddings needs images that stay the same: no data.jitter, no data.flip, "
        "model.drop_path 0, and a dataset that is no scenes": not (
            tune.cached_embeddings and changing
        ),
    }
