#!/usr/bin/env bash
# Trains the model in the package from nothing, by five runs, each from the result of the one before:
#
#     examples/tiny/train.sh
#
# Stopped at any moment, the same command goes on where it was. The result is RUN/model.
set -euo pipefail
cd "$(dirname "$0")/../.."
sam-jax train examples/tiny/1_first_prompts.toml --output RUN/1
sam-jax train examples/tiny/2_corrections.toml --output RUN/2
sam-jax train examples/tiny/3_larger_pictures.toml --output RUN/3
sam-jax train examples/tiny/4_more_pictures.toml --output RUN/4
sam-jax train examples/tiny/5_full_size.toml --output RUN/5
python examples/tiny/average.py RUN/5/model RUN/3/model --share 0.7 --output RUN/model
