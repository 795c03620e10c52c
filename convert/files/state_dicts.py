"""The state dict in what a file holds: under wrappers, behind prefixes, among other models.

Training code saves weights under a key of its own ("model_state_dict", "ema") and wraps the model
in others, which puts something before every name ("module.", "model."). Both are seen through.
Nothing is guessed where it matters: of several models in a file one is taken by a fixed rule, and
named; tensors that belong to something else than the model are refused.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from convert.files.restricted_pickle import SAVE_WEIGHTS, Placeholder
from sam_jax.errors import CheckpointError

_PARTS = (
    re.compile(r"(image|vision)_encoder\."),
    re.compile(r"(sam_)?prompt_encoder\."),
    re.compile(r"(sam_)?mask_decoder\."),
)
# Where a model's own names begin.
_ANCHOR = re.compile(
    r"(?:^|(?<=\.))(?:(?:image|vision|memory)_encoder|(?:sam_)?prompt_encoder"
    r"|(?:sam_)?mask_decoder|memory_attention|shared_image_embedding)\."
)
# What torch's wrappers put into names, in front or between: DataParallel, compile, FSDP, ...
_WRAPPER_PARTS = re.compile(
    r"(?:^|(?<=\.))(?:module|_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\."
)
# Tensors of a training wrapper that are no part of any model's result.
_OF_TRAINING = re.compile(r"n_averaged$|(.*[._])?(loss|losses|loss_fn|criterion|metrics?|lpips)\b")
# An optimizer's averages may stand under the weights' names.
_NOT_WEIGHTS = re.compile(r"optim|grad|scheduler")
_AVERAGED = frozenset({"ema", "teacher", "swa", "averaged", "average"})
_STUDENT = frozenset({"student", "online"})
# Keys under which a table of tensors that is no Segment Anything model is looked for.
_WRAPPERS = (
    "model", "state_dict", "model_state_dict", "model_state", "net", "network", "module", "weights",
    "params",
)  # fmt: skip
_COMMON_PREFIXES = ("model.", "net.", "network.")
_MAX_DEPTH = 5
_MAX_MODELS = 16


@dataclass(frozen=True, eq=False)
class StateDict:
    """The tensors of one model by name, and where in the file they were.

    Attributes:
      tensors: under the model's own names.
      place: keys and prefix, "model" or "state_dict: teacher.*"; empty where neither is there.
      others: the places of other models in the file.
      left_out: names of entries beside them that are no part of a model.
      prefix: what stood before their names.
    """

    tensors: dict[str, np.ndarray]
    place: str = ""
    others: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    prefix: str = ""


def find_state_dict(value: Any, place: str | None = None) -> StateDict:
    """The state dict in what a file holds.

    Where there are several models, one that is complete comes before one that is not, then averaged
    weights ("ema", "teacher", "swa") before others, and others before a "student".

    Args:
      value: from `read_values`.
      place: the one to take, as `StateDict.place` names it; None for the rule above.

    Raises:
      CheckpointError: there is none, several that the rule does not tell apart, or none at `place`.
    """
    tables = list(_tables(value, (), set()))
    found = [one for keys, table in tables for one in _models(keys, table)]
    if place is not None:
        chosen = [one for one in found if one.place == place]
        if not chosen:
            places = ", ".join(repr(one.place) for one in found) or "none"
            raise CheckpointError(f"it holds no model at {place!r}; models in it: {places}")
        return chosen[0]
    if not found:
        return _other_table(value)
    candidates = [one for one in found if _is_whole(one.tensors)]
    if not candidates:
        return found[0] if len(found) == 1 else _all_of(found)
    best = min(_rank(one) for one in candidates)
    first, *rest = [one for one in candidates if _rank(one) == best]
    if any(not _equal(first.tensors, one.tensors) for one in rest):
        places = ", ".join(repr(one.place) for one in (first, *rest))
        raise CheckpointError(f"it holds several models, {places}; choose one with --state-dict")
    others = [one for one in candidates if not _equal(first.tensors, one.tensors)]
    return replace(first, others=tuple(one.place for one in others))


def _tables(
    value: Any, keys: tuple[str, ...], seen: set[int]
) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    """Every dictionary with names of a Segment Anything model, once, and the keys to it."""
    if not isinstance(value, dict) or len(keys) > _MAX_DEPTH or id(value) in seen:
        return
    seen.add(id(value))
    if any(isinstance(v, np.ndarray) and _ANCHOR.search(str(name)) for name, v in value.items()):
        yield keys, value
        return
    for key, inner in value.items():
        if isinstance(key, str) and not _NOT_WEIGHTS.search(key.lower()):
            yield from _tables(inner, (*keys, key), seen)


def _models(keys: tuple[str, ...], table: Mapping[Any, Any]) -> list[StateDict]:
    """The models in a table: one for each prefix that names of a model have in it."""
    tensors, left_out = {}, []
    for name, value in table.items():
        if isinstance(name, str) and isinstance(value, np.ndarray):
            plain = _WRAPPER_PARTS.sub("", name)
            if plain in tensors:
                raise CheckpointError(f"the name {plain[:200]!r} stands in it twice")
            tensors[plain] = value
        else:
            left_out.append(str(name)[:200])
    matches = [match for match in map(_ANCHOR.search, tensors) if match]
    prefixes = sorted({match.string[: match.start()] for match in matches}, key=len, reverse=True)
    if len(prefixes) > _MAX_MODELS:
        raise CheckpointError(f"its names have {len(prefixes)} different prefixes")
    groups: dict[str, dict[str, np.ndarray]] = {prefix: {} for prefix in prefixes}
    outside: list[str] = []
    for name, tensor in tensors.items():
        # The longest prefix first: the empty one, if it is one, takes what is left.
        prefix = next((one for one in prefixes if name.startswith(one)), None)
        if prefix is None or (not prefix and _OF_TRAINING.match(name)):
            outside.append(name)
        else:
            groups[prefix][name[len(prefix) :]] = tensor
    foreign = [name for name in outside if not _OF_TRAINING.match(name)]
    left_out += [name for name in outside if name not in foreign]
    return [
        StateDict(
            # What belongs to nothing known stays, under its whole name, to be refused with it.
            {**group, **{name: tensors[name] for name in foreign}} if len(groups) == 1 else group,
            _place(keys, prefix),
            left_out=tuple(left_out),
            prefix=prefix,
        )
        for prefix, group in groups.items()
    ]


def _place(keys: Sequence[str], prefix: str) -> str:
    return ": ".join([*([".".join(keys)] if keys else []), *([f"{prefix}*"] if prefix else [])])


def _is_whole(tensors: Mapping[str, Any]) -> bool:
    return all(any(part.match(name) for name in tensors) for part in _PARTS)


def _all_of(found: Sequence[StateDict]) -> StateDict:
    """Parts of models as one, under their names in the file, to be told by these."""
    names = ((one.prefix + name, value) for one in found for name, value in one.tensors.items())
    return StateDict(dict(names))


def _rank(one: StateDict) -> int:
    words = set(re.split(r"[^a-z0-9]+", one.place.lower()))
    return 0 if words & _AVERAGED else 2 if words & _STUDENT else 1


def _equal(a: Mapping[str, np.ndarray], b: Mapping[str, np.ndarray]) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


def _other_table(value: Any) -> StateDict:
    """A table of tensors that has no names of Segment Anything: a masked autoencoder's, ..."""
    keys: list[str] = []
    while isinstance(value, dict):
        key = next((one for one in _WRAPPERS if isinstance(value.get(one), dict)), None)
        if key is None or len(keys) > _MAX_DEPTH:
            break
        keys.append(key)
        value = value[key]
    if not isinstance(value, dict) or not value:
        raise CheckpointError("holds no state dict")
    for name, tensor in value.items():
        if isinstance(tensor, Placeholder):
            raise CheckpointError(
                f"holds no state dict: its {str(name)[:200]!r} is a whole object of the class "
                f"{tensor.class_name[:200]!r}; {SAVE_WEIGHTS}"
            )
    for name, tensor in value.items():
        if not isinstance(name, str) or not isinstance(tensor, np.ndarray):
            raise CheckpointError(
                f"holds no state dict: the value of {str(name)[:200]!r} is no tensor"
            )
    tensors = {_WRAPPER_PARTS.sub("", name): tensor for name, tensor in value.items()}
    if len(tensors) < len(value):
        tensors = dict(value)
    # A number behind it is a layer of a sequence, which is what the name says.
    prefix = next(
        (
            one
            for one in _COMMON_PREFIXES
            if all(n.startswith(one) and not n[len(one) :][:1].isdigit() for n in tensors)
        ),
        "",
    )
    tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return StateDict(tensors, _place(keys, prefix))
