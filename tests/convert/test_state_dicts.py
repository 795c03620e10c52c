"""State dicts as training code saves them: wrapped, behind prefixes, beside all kinds of things."""

import argparse
import datetime
import pathlib
import types
import warnings
from collections import Counter, OrderedDict, defaultdict

import jax
import numpy as np
import pytest
import torch

import convert
from convert.conversion import from_state_dict, load_source, to_state_dict
from convert.tables import HUGGING_FACE
from sam_jax.configs import TEST
from sam_jax.errors import CheckpointError


class Options:
    """An object of a class that only this test knows."""

    def __init__(self):
        self.rate, self.mask = 0.1, torch.ones(3)


@pytest.fixture(scope="module")
def tensors(state):
    return {name: torch.from_numpy(value) for name, value in state.items()}


@pytest.fixture(scope="module")
def averaged(tensors):
    return {name: 0.5 * tensor for name, tensor in tensors.items()}


def behind(prefix, tensors):
    return OrderedDict((prefix + name, tensor) for name, tensor in tensors.items())


def load(tmp_path, value, **options):
    """The source in a file of this value, and the warnings of reading it."""
    torch.save(value, tmp_path / "file.pth")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loaded = load_source(tmp_path / "file.pth", **options)
    return loaded, [str(warning.message) for warning in caught]


def refused(tmp_path, value, **options):
    with pytest.raises(CheckpointError) as error:
        load(tmp_path, value, **options)
    return str(error.value)


def assert_is(variables, state):
    expected = from_state_dict(TEST, {name: np.asarray(value) for name, value in state.items()})
    assert jax.tree.all(jax.tree.map(np.array_equal, variables, expected))


@pytest.mark.parametrize(
    "prefix, place",
    [
        ("module.", ""),
        ("_orig_mod.", ""),
        ("module._orig_mod.", ""),
        ("_orig_mod.module.", ""),
        ("_fsdp_wrapped_module.", ""),
        ("model.", "model.*"),
        ("sam.", "sam.*"),
        ("model.module.", "model.*"),
        ("module.model.", "model.*"),
        ("net.sam_model._orig_mod.", "net.sam_model.*"),
    ],
)
def test_a_prefix_of_all_names_is_seen_through(tmp_path, tensors, prefix, place):
    loaded, told = load(tmp_path, behind(prefix, tensors))
    assert_is(loaded.variables, tensors)
    assert (loaded.state_dict.place, told) == (place, [])


def test_parts_that_were_compiled_or_wrapped_alone_are_seen_through(tmp_path, tensors):
    renamed = {
        name.replace("image_encoder.", "image_encoder._orig_mod.").replace(
            "mask_decoder.transformer.", "mask_decoder.transformer.module."
        ): tensor
        for name, tensor in tensors.items()
    }
    assert_is(load(tmp_path, renamed)[0].variables, tensors)


def test_hugging_faces_names_may_have_a_prefix_too(tmp_path, tensors, state):
    names = to_state_dict(TEST, from_state_dict(TEST, state), HUGGING_FACE)
    theirs = {f"model.{name}": torch.from_numpy(np.array(value)) for name, value in names.items()}
    loaded, _ = load(tmp_path, {"state_dict": theirs})
    assert loaded.naming == HUGGING_FACE
    assert_is(loaded.variables, tensors)


@pytest.mark.parametrize(
    "wrapper",
    ["model", "model_state_dict", "model_state", "state_dict", "net", "teacher", "ema", "weights"],
)
def test_wrappers_are_seen_through_whatever_lies_beside(tmp_path, tensors, wrapper):
    parameter = torch.nn.Parameter(torch.ones(3))
    optimiser = torch.optim.AdamW([parameter])
    parameter.sum().backward()
    optimiser.step()
    value = {
        "epoch": 3,
        "optimizer": optimiser.state_dict(),
        "args": argparse.Namespace(lr=0.1, path=pathlib.Path("x"), when=datetime.datetime.now()),
        "options": Options(),
        "best": np.float64(0.5),
        "history": defaultdict(list, loss=[np.ones(3)]),
        "counts": Counter("abca"),
        "kinds": {"a", "b"},
        "more": types.SimpleNamespace(a=1),
        "random": np.random.default_rng(0),
        "device": torch.device("cpu"),
        "dtype": torch.bfloat16,
        "decoder_state": {"out.weight": torch.ones(2, 2)},
        wrapper: behind("module.", tensors),
    }
    loaded, told = load(tmp_path, value)
    assert_is(loaded.variables, tensors)
    assert (loaded.state_dict.place, told) == (wrapper, [])
    assert loaded.origin()["state_dict"] == wrapper


def test_wrappers_in_wrappers_are_seen_through(tmp_path, tensors):
    value = {"checkpoint": {"net": {"state_dict": behind("sam.", tensors)}, "step": 1}}
    loaded, _ = load(tmp_path, value)
    assert_is(loaded.variables, tensors)
    assert loaded.state_dict.place == "checkpoint.net.state_dict: sam.*"


@pytest.mark.parametrize(
    "value_of, taken, other",
    [
        (lambda a, b: {"model": a, "ema": b}, "ema", "model"),
        (
            lambda a, b: {"model": behind("module.", a), "model_ema": behind("module.", b)},
            "model_ema",
            "model",
        ),
        (
            lambda a, b: {
                "state_dict": a,
                "swa": {**behind("module.", b), "n_averaged": torch.tensor(3)},
            },
            "swa",
            "state_dict",
        ),
        (lambda a, b: {"student": a, "teacher": b, "center": torch.ones(3)}, "teacher", "student"),
        (lambda a, b: {**behind("student.", a), **behind("teacher.", b)}, "teacher.*", "student.*"),
        (
            lambda a, b: {"state_dict": {**behind("model.", a), **behind("ema_model.", b)}},
            "state_dict: ema_model.*",
            "state_dict: model.*",
        ),
    ],
)
def test_averaged_weights_are_taken_and_named(tmp_path, tensors, averaged, value_of, taken, other):
    loaded, (told,) = load(tmp_path, value_of(tensors, averaged))
    assert_is(loaded.variables, averaged)
    assert f"{taken!r} is taken, not {other!r}" in told and "\n" not in told
    loaded, _ = load(tmp_path, value_of(tensors, averaged), state_dict=other)
    assert_is(loaded.variables, tensors)
    assert loaded.state_dict.place == other


def test_averages_of_a_part_do_not_hide_the_whole_model(tmp_path, tensors, averaged):
    part = {name: value for name, value in averaged.items() if name.startswith("mask_decoder.")}
    assert_is(load(tmp_path, {"model": tensors, "ema": part})[0].variables, tensors)


def test_the_same_weights_twice_are_one_model(tmp_path, tensors):
    twice = {"model": tensors, "net": {name: value.clone() for name, value in tensors.items()}}
    loaded, told = load(tmp_path, twice)
    assert (loaded.state_dict.place, told) == ("model", [])


def test_models_that_no_rule_tells_apart_are_refused_with_their_places(tmp_path, tensors, averaged):
    value = {"first": tensors, "second": averaged}
    assert "'first', 'second'; choose one with --state-dict" in refused(tmp_path, value)
    assert_is(load(tmp_path, value, state_dict="second")[0].variables, averaged)
    line = refused(tmp_path, value, state_dict="third")
    assert "no model at 'third'; models in it: 'first', 'second'" in line


def test_what_training_adds_is_left_out_and_what_a_model_might_need_is_not(tmp_path, tensors):
    value = behind("model.", tensors) | {"loss_fn.weight": torch.ones(1), "epoch": 3}
    loaded, _ = load(tmp_path, value)
    assert_is(loaded.variables, tensors)
    assert sorted(loaded.state_dict.left_out) == ["epoch", "loss_fn.weight"]
    value["head.weight"] = torch.ones(1)
    assert refused(tmp_path, value).endswith("\n  unexpected: head.weight")


def test_an_optimisers_averages_under_the_weights_names_are_no_model(tmp_path, tensors, averaged):
    value = {"model": tensors, "optimizer_state": {"exp_avg": averaged}}
    loaded, told = load(tmp_path, value)
    assert_is(loaded.variables, tensors)
    assert told == []


def test_names_that_fall_together_without_their_prefix_are_refused(tmp_path, tensors):
    value = {**tensors, "module.image_encoder.pos_embed": torch.ones(3)}
    assert "'image_encoder.pos_embed' stands in it twice" in refused(tmp_path, value)


class Model(torch.nn.Module):
    """A module of which a file may hold the whole object."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 2)


@pytest.mark.parametrize("value", [Model(), {"model": Model(), "epoch": 3}])
def test_a_whole_object_is_named_by_its_class(tmp_path, value):
    torch.save(value, tmp_path / "file.pth")
    with pytest.raises(CheckpointError) as error:
        convert.read_source(tmp_path / "file.pth")
    line = str(error.value)
    assert "\n" not in line and "test_state_dicts.Model'" in line
    assert "torch.save(model.state_dict(), FILE)" in line


def test_a_torchscript_program_is_named(tmp_path):
    torch.jit.script(torch.nn.Linear(2, 2)).save(tmp_path / "program.pt")
    with pytest.raises(CheckpointError, match="is a TorchScript program"):
        convert.read_source(tmp_path / "program.pt")


def test_small_files_of_many_names_take_no_time(tmp_path):
    """Dictionaries within dictionaries, and a prefix of its own for each name."""
    shared = {}
    for _ in range(6):
        shared = {f"k{i}": shared for i in range(100)}
    assert "holds no state dict" in refused(tmp_path, {"a": shared, "b": shared})
    one = torch.ones(1)
    many = {f"{i}.image_encoder.x": one[:] for i in range(2)} | {
        f"p{i}.mask_decoder.x": one.clone() for i in range(50)
    }
    assert "different prefixes" in refused(tmp_path, many)
