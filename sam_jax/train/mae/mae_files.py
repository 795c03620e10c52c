"""A masked autoencoder as one file: its arrays by path, and its configuration."""

import json
from dataclasses import asdict
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from sam_jax.configs import MaeConfig, check_mae_config
from sam_jax.errors import InputError
from sam_jax.files import written_aside
from sam_jax.train.config import from_values
from sam_jax.types import Params


def save_mae(path: Path, config: MaeConfig, variables: Params) -> None:
    """Writes an autoencoder to a .npz file, whole or not at all."""
    flat = {name: np.asarray(x) for name, x in flatten_dict(variables, sep="/").items()}
    with written_aside(path) as file:
        np.savez(file, config=np.array(json.dumps(asdict(config))), **flat)  # type: ignore[arg-type]


def load_mae(path: Path) -> tuple[MaeConfig, Params]:
    """An autoencoder that `save_mae` wrote.

    Raises:
      InputError: there is no such file, it is damaged, or it is something else.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            values = json.loads(file["config"].item())
            variables = {name: file[name] for name in file.files if name != "config"}
        config = from_values(MaeConfig, values)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from None
    # An empty file, a single array, another archive: NumPy has an error of its own for each.
    except (BadZipFile, EOFError, ValueError, TypeError, KeyError, InputError) as error:
        raise InputError(
            f"{path} is no file that sam-jax pretrain wrote, or is damaged ({error})"
        ) from None
    check_mae_config(config)
    return config, unflatten_dict(variables, sep="/")
