"""The learning rate's plan: what is asked for is reached, every decay happens, and it is told."""

import pytest

from sam_jax import InputError
from sam_jax.train.clips.runs import clip_config_from_values
from sam_jax.train.config import config_from_values, read_values
from sam_jax.train.loop.optimizer import OptimizerOptions, learning_rate
from sam_jax.train.loop.schedule import schedule_text
from sam_jax.train.mae.pretrain import pretrain_config

KINDS = {
    "train": (config_from_values, {}),
    "tune": (config_from_values, {"model": {"checkpoint": "tiny"}, "tune": {"method": "decoder"}}),
    "clips": (clip_config_from_values, {"model": {"name": "sam2.1_tiny"}}),
    "pretrain": (pretrain_config, {}),
}


def optimizer(kind="train", **table):
    read, values = KINDS[kind]
    return read({"data": {"path": "photos"}, "optimizer": table, **values}).optimizer


def rates(options):
    rate = learning_rate(options)
    return [float(rate(step)) for step in range(options.steps)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("schedule", ["step", "cosine"])
@pytest.mark.parametrize("steps", [1, 2, 3, 7, 60, 1000])
def test_a_short_run_reaches_the_rate_that_was_asked_for_and_ends_below_it(kind, schedule, steps):
    options = optimizer(kind, steps=steps, schedule=schedule, learning_rate=1e-3)
    found = rates(options)
    assert max(found) == pytest.approx(1e-3)
    if steps > 2:
        assert found[-1] < 0.5e-3


@pytest.mark.parametrize("kind", KINDS)
def test_a_long_run_keeps_the_papers_warm_up(kind):
    assert optimizer(kind, steps=90_000, schedule="step").warmup_steps == 250


def test_decays_are_at_the_papers_fractions_of_any_run():
    for steps, expected in ((90_000, (60_000, 86_666)), (180_000, (120_000, 173_333))):
        assert optimizer(steps=steps).decay_steps == expected
    assert optimizer(steps=60).decay_steps == (40, 57)
    # One of the user's own stays, and the warm-up ends before it.
    given = optimizer(steps=1000, decay_steps=[50])
    assert (given.decay_steps, given.warmup_steps) == ((50,), 5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "table, message",
    [
        ({"steps": 60, "warmup_steps": 250}, "warmup_steps 250 is not below optimizer.steps 60"),
        ({"steps": 60, "warmup_steps": 60}, "warmup_steps 60 is not below"),
        ({"steps": 60, "decay_steps": [30, 90]}, "has 90, which is not below optimizer.steps 60"),
        ({"steps": 60, "decay_steps": [60]}, "this decay never happens"),
        (
            {"steps": 60, "warmup_steps": 20, "decay_steps": [15]},
            "has 15, which is not above optimizer.warmup_steps 20",
        ),
        ({"steps": 60, "schedule": "cosine", "decay_steps": [30]}, 'only with .* "step"'),
        ({"steps": 60, "decay_steps": [], "decay_factor": 0.5}, "decay_factor has no effect"),
        ({"steps": 60, "decay_factor": 1.0}, "decay_factor 1 leaves the learning rate as it is"),
    ],
)
def test_what_cannot_happen_is_refused_in_one_line(kind, table, message):
    with pytest.raises(InputError, match=message) as error:
        optimizer(kind, **table)
    assert "\n" not in str(error.value)


def of_recipe(name, *changes):
    kind = "mae_*" if name.startswith("mae") else "vit_*"
    read = pretrain_config if name.startswith("mae") else config_from_values
    changes = ["data.path=photos", *(f"optimizer.{change}" for change in changes)]
    return read(read_values(name, changes, kind)).optimizer


def test_a_recipe_that_is_made_shorter_is_scaled_as_a_whole():
    short = of_recipe("vit_b", "steps=60")
    assert (short.warmup_steps, short.decay_steps) == (6, (40, 57))
    assert of_recipe("vit_b", "steps=90000").decay_steps == (60_000, 86_666)
    assert of_recipe("mae_vit_b", "steps=1000").warmup_steps == 100
    # Half as long, it has the recipe's own: less than a tenth of it.
    assert of_recipe("mae_vit_b", "steps=249600").warmup_steps == 12_480
    assert of_recipe("vit_b", "schedule=cosine", "steps=60").warmup_steps == 6
    with pytest.raises(InputError, match="warmup_steps 250 is not below optimizer.steps 60"):
        of_recipe("vit_b", "steps=60", "warmup_steps=250")


def test_a_whole_table_that_is_given_stays_as_it_was_given():
    table = 'optimizer={steps=100,warmup_steps=40,schedule="step",decay_steps=[80]}'
    values = read_values("vit_b", ["data.path=photos", table])
    assert values["optimizer"]["warmup_steps"] == 40 and values["optimizer"]["decay_steps"] == [80]


def test_the_plan_is_told_in_one_line():
    cosine = OptimizerOptions(1e-4, 60, 6, schedule="cosine", warmup_start=0.0)
    assert schedule_text(cosine) == (
        "learning rate: 0 to 0.0001 in 6 steps, then along a cosine to 0 at step 60"
    )
    steps = OptimizerOptions(8e-4, 100, 0, decay_steps=(60, 90))
    assert schedule_text(steps) == (
        "learning rate: 0.0008, then 8e-05 from step 60 on, 8e-06 from step 90 on, to step 100"
    )
    constant = OptimizerOptions(8e-4, 100, 0, decay_steps=())
    assert schedule_text(constant) == "learning rate: 0.0008, the same to step 100"
