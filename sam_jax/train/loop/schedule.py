"""The plan of the learning rate: fitted to the run's length where it is not given, and in words.

The paper's numbers are for 90,000 updates. What a configuration does not set is scaled to its own
number of updates; what it sets and what cannot happen in so many is refused.
"""

from collections.abc import Mapping
from typing import Any

from sam_jax.train.loop.optimizer import OptimizerOptions, learning_rate

# Of a run, where the default warm-up is longer.
_WARMUP_PART = 10
# The paper's ViT-H: the learning rate falls after 60,000 and 86,666 of 90,000 updates.
_DECAYS = ((2, 3), (26, 27))


def fitted_schedule(given: Mapping[str, Any]) -> dict[str, Any]:
    """The table [optimizer] with a warm-up and decays that fit its steps, where it has none.

    The warm-up is 250 updates, and at most a tenth of the run or of what comes before the first
    decay. The learning rate falls after 2/3 and 26/27 of the run, if `schedule` is "step".

    Args:
      given: the table as it was written; values of wrong types are left to be refused later.
    """
    table = dict(given)
    steps = table.get("steps", OptimizerOptions.steps)
    if type(steps) is not int or steps < 1:
        return table
    if table.get("schedule", OptimizerOptions.schedule) == "step":
        fitting = sorted({steps * part // whole for part, whole in _DECAYS} - {0})
        table.setdefault("decay_steps", fitting)
    if "warmup_steps" not in table:
        decays = table.get("decay_steps")
        decays = decays if isinstance(decays, list) else []
        before = min([steps, *(at for at in decays if type(at) is int)])
        table["warmup_steps"] = min(OptimizerOptions.warmup_steps, max(before, 0) // _WARMUP_PART)
    return table


def fitted_recipe(
    recipe: Mapping[str, Any], changed: Mapping[str, Any], changes: set[str]
) -> dict[str, Any]:
    """A packaged recipe's table [optimizer] after changes, its schedule scaled to the new length.

    Args:
      recipe: the table as the package has it.
      changed: the same after the changes.
      changes: the keys that were changed: these stay as they are.
    """
    table = dict(changed)
    before, steps = recipe["steps"], table.get("steps")
    if type(steps) is not int or steps < 1:
        return table
    if table.get("schedule") == "cosine" and "decay_steps" not in changes:
        table.pop("decay_steps", None)
    if steps == before:
        return table
    if "decay_steps" in table and "decay_steps" not in changes:
        scaled = {at * steps // before for at in recipe["decay_steps"]} - {0}
        table["decay_steps"] = sorted(scaled)
    if "warmup_steps" not in changes:
        table["warmup_steps"] = min(recipe["warmup_steps"], steps // _WARMUP_PART)
    return table


def schedule_rules(options: OptimizerOptions, given: Mapping[str, Any]) -> dict[str, bool]:
    """What must hold, so that the learning rate asked for is reached and every decay happens.

    Args:
      options: of the run.
      given: the table [optimizer] as it was written: what is not there was fitted.
    """
    warmup, steps = options.warmup_steps, options.steps
    never = f"so that optimizer.learning_rate {options.learning_rate:g} is never reached"
    rules = {
        f"optimizer.warmup_steps {warmup} is not below optimizer.steps {steps}, {never}; lower it, "
        "or leave it out (a tenth of the run)": warmup < steps or warmup == 0
    }
    if options.schedule == "cosine":
        unused = [name for name in ("decay_steps", "decay_factor") if given.get(name)]
        names = " and ".join(f"optimizer.{name}" for name in unused)
        rules[f'{names}: only with optimizer.schedule = "step"; leave it out'] = not unused
        return rules
    late = [at for at in options.decay_steps if at >= steps]
    rules[
        f"optimizer.decay_steps has {', '.join(map(str, late))}, which is not below "
        f"optimizer.steps {steps}: this decay never happens; lower it, or leave decay_steps out "
        "(2/3 and 26/27 of the run)"
    ] = not late
    early = [at for at in options.decay_steps if at <= warmup]
    rules[
        f"optimizer.decay_steps has {', '.join(map(str, early))}, which is not above "
        f"optimizer.warmup_steps {warmup}, {never}; raise it, or lower warmup_steps"
    ] = not early
    rules[
        "optimizer.decay_factor 1 leaves the learning rate as it is; lower it, or set "
        "optimizer.decay_steps to []"
    ] = options.decay_factor < 1 or not options.decay_steps
    rules["optimizer.decay_factor has no effect without optimizer.decay_steps; leave it out"] = (
        bool(options.decay_steps) or "decay_factor" not in given
    )
    return rules


def schedule_text(options: OptimizerOptions) -> str:
    """The plan of the learning rate, in one line."""
    rate = learning_rate(options)

    def at(step: int) -> str:
        return f"{float(rate(step)):.3g}"

    text = f"{options.learning_rate:.3g}"
    if options.warmup_steps:
        text = f"{at(0)} to {text} in {options.warmup_steps} steps"
    if options.schedule == "cosine":
        return f"learning rate: {text}, then along a cosine to 0 at step {options.steps}"
    falls = [f"{at(step)} from step {step} on" for step in sorted(options.decay_steps)]
    if not falls:
        return f"learning rate: {text}, the same to step {options.steps}"
    return f"learning rate: {text}, then {', '.join(falls)}, to step {options.steps}"
