"""Averages the parameters of two runs of one model, where one began from the other.

    python examples/tiny/average.py RUN/5/model RUN/3/model --share 0.7 --output RUN/model

Runs that end with a falling learning rate, in one valley of the loss, have a mean that is better
than either (Wortsman et al. 2022, "Model soups").
"""

import argparse
from pathlib import Path

import jax

from sam_jax.checkpoints.native import load_checkpoint, save_checkpoint


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("first", type=Path)
    parser.add_argument("second", type=Path)
    parser.add_argument("--share", type=float, default=0.5, help="of the first, from 0 to 1")
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    first, second = load_checkpoint(arguments.first), load_checkpoint(arguments.second)
    if first.config != second.config:
        parser.error(f"{arguments.first} and {arguments.second} have different configurations")
    if not 0 <= arguments.share <= 1:
        parser.error(f"--share is from 0 to 1, not {arguments.share}")
    share = arguments.share
    mean = jax.tree.map(lambda x, y: share * x + (1 - share) * y, first.params, second.params)
    source = {"averaged": [str(arguments.first), str(arguments.second)], "share": share}
    save_checkpoint(arguments.output, first.config, mean, source, overwrite=True)


if __name__ == "__main__":
    main()
