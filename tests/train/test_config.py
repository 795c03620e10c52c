"""Configuration files: strict, with the paper's numbers in the recipes."""

from dataclasses import asdict, replace
from pathlib import Path

import pytest

from sam_jax import InputError
from sam_jax.configs import TINY, VIT_B, ImageEncoderConfig
from sam_jax.train.config import config_from_values, differences, read_values
from sam_jax.train.mae.pretrain import pretrain_config

DATA = {"data": {"path": "photos"}}


def read(source, *changes):
    return config_from_values(read_values(source, ["data.path=photos", *changes]))


def test_recipes_have_the_papers_numbers():
    """Appendix A of the paper; the fractions of the schedule are ViT-H's where it is silent."""
    expected = {
        "vit_h": (256, 90_000, (60_000, 86_666), 8e-4, 0.8, 0.4),
        "vit_l": (128, 180_000, (120_000, 173_333), 4e-4, 0.8, 0.4),
        "vit_b": (128, 180_000, (120_000, 173_333), 8e-4, 0.6, 0.6),
    }
    for name, numbers in expected.items():
        config = read(name)
        o, m = config.optimizer, config.model
        found = (config.data.batch_size, o.steps, o.decay_steps, o.learning_rate, o.layer_decay)
        assert (*found, m.drop_path) == numbers
        assert (m.name, m.dtype, m.decoder_dropout) == (name, "bfloat16", 0.1)
        assert (o.warmup_steps, o.weight_decay, o.beta1, o.beta2) == (250, 0.1, 0.9, 0.999)
        assert (o.schedule, o.decay_factor, o.clip_norm, o.frozen) == ("step", 0.1, 0.0, ())
        assert (config.data.max_masks, config.data.max_mask_area) == (64, 0.9)
        assert (config.data.jitter, config.data.flip) == ((), False)
        s, losses = config.simulation, config.losses
        assert (s.correction_points, s.box_probability) == (8, 0.5)
        assert (s.box_noise, s.max_box_noise, s.box_noise_kind) == (0.1, 20.0, "gaussian")
        assert (losses.focal_weight, losses.dice_weight, losses.iou_weight) == (20.0, 1.0, 1.0)
        assert (losses.focal_alpha, losses.focal_gamma, losses.iou_of) == (0.25, 2.0, "chosen")
        assert not config.detach_feedback


@pytest.mark.parametrize("name, patch", [("vit_b", 16), ("vit_l", 16), ("vit_h", 14)])
def test_pre_training_recipes_have_the_papers_numbers(name, patch):
    config = pretrain_config(read_values(f"mae_{name}", ["data.path=photos"], "mae_*"))
    o = config.optimizer
    assert config.architecture.name == name and config.architecture.patch_size == patch
    assert (config.data.batch_size, config.model.mask_ratio) == (4096, 0.75)
    assert (o.learning_rate, o.beta1, o.beta2, o.weight_decay) == (2.4e-3, 0.9, 0.95, 0.05)
    assert (o.schedule, o.warmup_start, o.layer_decay, o.clip_norm) == ("cosine", 0.0, 1.0, 0.0)
    updates = 1_281_167 // 4096
    assert (o.steps, o.warmup_steps) == (1600 * updates, 40 * updates)


def test_changes_are_toml_or_plain_text():
    config = read(
        "vit_b",
        "optimizer.steps=7",
        "data.jitter=[0.1, 2]",
        "data.flip=true",
        "model.name=vit_l",
        'optimizer.frozen=["^image_encoder/"]',
        "detach_feedback=true",
    )
    assert config.optimizer.steps == 7 and config.model.name == "vit_l"
    assert config.data.jitter == (0.1, 2.0) and config.data.flip and config.detach_feedback
    assert config.optimizer.frozen == ("^image_encoder/",)


@pytest.mark.parametrize(
    "change, message",
    [
        ("optimizer.step=7", r"optimizer.step is unknown; did you mean steps"),
        ("optimiser.steps=7", r"optimiser is unknown; did you mean optimizer"),
        ("optimizer.steps=7.5", r"optimizer.steps must be a whole number, not 7.5"),
        ("optimizer.steps=true", r"optimizer.steps must be a whole number, not True"),
        ("optimizer.learning_rate=fast", r"optimizer.learning_rate must be a number, not 'fast'"),
        ("optimizer.schedule=linear", r"must be one of step, cosine, not 'linear'"),
        ("simulation.mask_only_passes=3", r"must be one of 0, 1, 2, not 3"),
        ("simulation.mask_only_passes=true", r"must be one of 0, 1, 2, not True"),
        ("optimizer.decay_steps=5", r"optimizer.decay_steps must be a list, not 5"),
        ("optimizer.learning_rate=0", r"learning_rate must be above 0"),
        ("data.path.more=1", r"path is a value, not a table"),
        ("model.name=vit_x", r"model.name must be one of vit_b"),
        ("data.jitter=[2, 0.1]", r"0 < least <= greatest"),
        ("data.jitter=[0.1, 20]", r"data.jitter must be .* <= 16"),
        ("losses.focal_weight=-20", r"focal_weight, dice_weight and iou_weight must be at least 0"),
        ("losses.focal_gamma=-1", r"focal_gamma must be at least 0"),
        ("losses.focal_alpha=7", r"focal_alpha must be at most 1"),
        ("optimizer.decay_factor=-1", r"decay_factor must be above 0"),
        ("optimizer.decay_steps=[-5]", r"decay_steps must be at least 0"),
        ("optimizer.steps=99999999999999", r"optimizer.steps must be from 1 to 2147483647"),
        ("run.keep=1", r"run.keep must be at least 2"),
        ("data.image_size=100", r"multiple of the model's patch size"),
        ("scenes.kinds=['cat']", r"kinds has cat: choose from thing, "),
        ("scenes.masks=3", r"scenes.masks come from"),
        ("scenes.objects=3", r"\[scenes\] is for data.path scenes alone"),
        ("data.path=scenes:held-out", r"'scenes:held-out' is for evaluation, never trained on"),
        ("tune.lora_rank=8", r"tune.lora_rank needs tune.method lora"),
        ("optimizer.learning_rate=inf", r"learning_rate must be a number that is finite, not inf"),
        ("steps", r"'steps' is no change; write table.key=value"),
        ("model.mae=x", None),
    ],
)
def test_what_cannot_be_meant_is_refused_in_one_line(change, message):
    if message is None:
        assert read("vit_b", change).model.mae == "x"
        return
    with pytest.raises(InputError, match=message) as error:
        read("vit_b", change)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "change, message",
    [
        ("data.jitter=[0.1, 2]", "no data.jitter"),
        ("data.max_mask_area=0.5", "no data.max_mask_area"),
        ("data.annotations=instances.json", "no data.annotations"),
    ],
)
def test_procedural_scenes_take_no_options_of_files(change, message):
    assert read("vit_b", "data.path=scenes", "scenes.objects=3").scenes.objects == 3
    with pytest.raises(InputError, match=message):
        read("vit_b", "data.path=scenes", change)


@pytest.mark.parametrize("recipes, others", [("vit_*", "mae_vit_b"), ("mae_*", "vit_b")])
def test_recipes_of_another_kind_of_run_are_no_names(recipes, others):
    with pytest.raises(InputError, match="give a TOML file, or one of") as error:
        read_values(others, recipes=recipes)
    assert f" {others}" not in str(error.value).partition("one of")[2]


def test_files_that_are_missing_or_no_toml_are_refused(tmp_path):
    with pytest.raises(InputError, match="give a TOML file, or one of .*vit_b"):
        read_values("nowhere.toml")
    path = tmp_path / "bad.toml"
    path.write_text("[model\n")
    with pytest.raises(InputError, match="no TOML file"):
        read_values(str(path))
    with pytest.raises(InputError, match=r"data.path is missing"):
        config_from_values({})
    with pytest.raises(InputError, match=r"both|exclude"):
        config_from_values({**DATA, "model": {"checkpoint": "tiny", "mae": "x.npz"}})
    with pytest.raises(InputError, match=r"model must be a table"):
        config_from_values({**DATA, "model": 3})


def test_differences_are_named_by_table_and_key():
    one = config_from_values(DATA)
    other = read("vit_b", "run.log_every=3")
    found = differences(asdict(one), asdict(other))
    assert "run.log_every" in found and "model.name" in found and "data.path" not in found


def test_scenes_vary_by_themselves():
    config = read("vit_b", "data.path=scenes", "scenes.difficulty=1")
    assert config.scenes.difficulty == 1
    with pytest.raises(InputError, match="no data.flip"):
        read("vit_b", "data.path=scenes", "data.flip=true")


def test_another_size_of_a_model():
    config = read(
        "vit_b",
        *("architecture.width=64", "architecture.depth=4", "architecture.num_heads=2"),
        *("architecture.patch_size=8", "architecture.image_size=128", "architecture.mlp_dim=128"),
        *("architecture.global_attention_indexes=[1, 3]", "architecture.embed_dim=64"),
    ).sam
    assert config.image_encoder == ImageEncoderConfig(8, 64, 4, 2, 128, 14, (1, 3), (16, 16))
    assert (config.image_size, config.embed_dim) == (128, 64)
    assert config.name == "vit_b of another size" and config.decoder_depth == VIT_B.decoder_depth
    assert read("vit_b").sam == VIT_B
    with pytest.raises(InputError, match="architecture: global_attention_indexes must be below"):
        read("vit_b", "architecture.depth=4")


def test_another_size_of_a_hybrid_model():
    config = read(
        *("vit_b", "model.name=tiny", "architecture.width=64", "architecture.depth=4"),
        *("architecture.image_size=128", "architecture.mlp_dim=128", "architecture.embed_dim=64"),
    ).sam
    expected = replace(TINY.image_encoder, embed_dim=64, depth=4, mlp_dim=128, table_size_hw=(8, 8))
    assert config.image_encoder == expected
    assert config == replace(
        TINY, name="tiny of another size", image_encoder=expected, image_size=128, embed_dim=64
    )
    assert read("vit_b", "model.name=tiny").sam == TINY


@pytest.mark.parametrize(
    "changes, message",
    [
        (["patch_size=8"], "tiny has a hybrid image encoder, which has no patch_size; take that"),
        (
            ["window_size=8", "global_attention_indexes=[1]", "depth=4"],
            "which has no global_attention_indexes, window_size; take that out of .architecture.$",
        ),
        (["image_size=100"], "architecture: image_size must be a multiple of patch_size"),
        (["width=190"], "architecture: num_heads must divide"),
    ],
)
def test_what_a_hybrid_model_lacks_or_cannot_be_is_refused_in_one_line(changes, message):
    with pytest.raises(InputError, match=message) as error:
        read("vit_b", "model.name=tiny", *(f"architecture.{change}" for change in changes))
    assert "\n" not in str(error.value)


def test_a_hybrid_model_starts_from_no_masked_autoencoder():
    with pytest.raises(InputError, match="^model.mae is for models with a plain ViT; tiny has no"):
        read("vit_b", "model.name=tiny", "model.mae=x")


@pytest.mark.parametrize(
    "name", ["learn_scenes", "tiny/1_first_prompts", "tiny/2_corrections", "tiny/3_larger_pictures"]
)
def test_the_examples_are_configurations(name):
    path = Path(__file__).parents[2] / "examples" / f"{name}.toml"
    assert config_from_values(read_values(str(path))).data.path == "scenes"
