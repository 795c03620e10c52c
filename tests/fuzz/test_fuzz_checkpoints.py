"""Hundreds of damaged files: each is read right or ends in one clear error.

Seeded: case `i` is the same in every run.
"""

import gc
import json
import pickletools
import resource
import shutil
import signal
import struct
import sys
import zipfile
import zlib
from collections import Counter
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import convert
from convert.sam.reference import build_original
from sam_jax.checkpoints.native import flat_shapes, load_checkpoint
from sam_jax.configs import TEST
from sam_jax.errors import CheckpointError

pytestmark = pytest.mark.slow

SMALL = replace(
    TEST,
    name="custom",
    image_encoder=replace(TEST.image_encoder, depth=2, embed_dim=16, mlp_dim=16),
    decoder_depth=1,
    decoder_num_heads=8,
)
# A case that takes so long does not end.
HANG_SECONDS = 60
# Good files of this size need next to nothing; gigabytes are what must not happen.
MEMORY_BOUND = 400 << 20


@pytest.fixture(scope="module")
def state():
    torch.manual_seed(0)
    model = build_original(SMALL)
    return {
        name: tensor + 0.1 * torch.randn(tensor.shape)
        for name, tensor in model.state_dict().items()
    }


@contextmanager
def bounded():
    """Fails where the cases of a test take gigabytes."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert (after - before) * 1024 < MEMORY_BOUND


def outcome(read, path):
    """What reading gives, or None where it ends in a CheckpointError as it should."""

    def hang(*_):
        pytest.fail(f"{path} hangs")

    signal.signal(signal.SIGALRM, hang)
    signal.alarm(HANG_SECONDS)
    try:
        return read(path)
    except CheckpointError as error:
        first, *rest = str(error).split("\n")
        assert 10 < len(first) < 1000
        assert all(line.startswith("  ") for line in rest)
        return None
    finally:
        signal.alarm(0)


def flip_bits(rng, data):
    data = bytearray(data)
    for _ in range(rng.integers(1, 9)):
        data[rng.integers(len(data))] ^= 1 << rng.integers(8)
    return bytes(data)


def truncate(rng, data):
    return data[: rng.integers(len(data))]


def cut_out(rng, data):
    start = rng.integers(len(data))
    return data[:start] + data[start + rng.integers(1, 200) :]


def splice_in(rng, data):
    start = rng.integers(len(data))
    return data[:start] + rng.bytes(rng.integers(1, 50)) + data[start:]


def repeat_part(rng, data):
    start = rng.integers(len(data))
    return data[:start] + data[start : start + rng.integers(1, 200)] + data[start:]


def large_number(rng, data):
    start = rng.integers(max(len(data) - 8, 1))
    number = int(rng.choice([0, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63 - 1]))
    return data[:start] + struct.pack("<Q", number) + data[start + 8 :]


ANYWHERE = [flip_bits, truncate, cut_out, splice_in, repeat_part, large_number]


def equal(a, b):
    return jax.tree.structure(a) == jax.tree.structure(b) and all(
        jax.tree.leaves(jax.tree.map(np.array_equal, a, b))
    )


def is_whole(config, variables):
    """Whether the variables are those of the configuration, whatever their values."""
    shapes = flat_shapes(config)
    leaves = jax.tree_util.tree_leaves_with_path(variables)
    found = {"/".join(key.key for key in path): leaf for path, leaf in leaves}
    return found.keys() == shapes.keys() and all(
        found[name].shape == shapes[name].shape and found[name].dtype == np.float32
        for name in shapes
    )


def test_pth_files_damaged_anywhere(state, tmp_path):
    torch.save(state, tmp_path / "good.pth")
    data = (tmp_path / "good.pth").read_bytes()
    config, good, _, _ = convert.read_source(tmp_path / "good.pth")
    assert config == SMALL
    directory = data.index(b"PK\x01\x02")
    read = Counter()
    with bounded():
        for case in range(200):
            rng = np.random.default_rng([1, case])
            mutate = ANYWHERE[case % len(ANYWHERE)]
            if case % 2:  # near the end, where the zip file's directory is
                damaged = data[:directory] + mutate(rng, data[directory:])
            else:
                damaged = mutate(rng, data)
            path = tmp_path / "damaged.pth"
            path.write_bytes(damaged)
            found = outcome(convert.read_source, path)
            read[found is not None] += 1
            # Checksums and strictness let nothing through but what changes nothing.
            assert found is None or (found[0] == SMALL and equal(found[1], good)), case
    assert read[True] and read[False] > 100


def pickle_of(path):
    with zipfile.ZipFile(path) as archive:
        name = next(n for n in archive.namelist() if n.endswith("/data.pkl"))
        return name, {n: archive.read(n) for n in archive.namelist()}


def other_opcodes(rng, data):
    """Opcodes put in between, taken out or replaced where an opcode begins."""
    starts = [position for _, _, position in pickletools.genops(data)]
    codes = [opcode.code.encode("latin-1") for opcode in pickletools.opcodes]
    for _ in range(rng.integers(1, 4)):
        if len(starts) < 2:
            break
        i = rng.integers(len(starts) - 1)
        new = codes[rng.integers(len(codes))] + rng.bytes(rng.integers(0, 6))
        end = starts[i + 1] if rng.integers(2) else starts[i]
        data = data[: starts[i]] + (new if rng.integers(3) else b"") + data[end:]
        starts = starts[:i]
    return data


def test_pth_files_whose_pickle_says_something_else(state, tmp_path):
    """With right checksums, so that it is the pickle's reader that must cope."""
    torch.save(state, tmp_path / "good.pth")
    name, entries = pickle_of(tmp_path / "good.pth")
    read = Counter()
    with bounded():
        for case in range(200):
            rng = np.random.default_rng([2, case])
            mutate = [*ANYWHERE, other_opcodes, other_opcodes][case % 8]
            path = tmp_path / "damaged.pth"
            with zipfile.ZipFile(path, "w") as archive:
                for entry, content in entries.items():
                    archive.writestr(entry, mutate(rng, content) if entry == name else content)
            found = outcome(convert.read_source, path)
            read[found is not None] += 1
            assert found is None or is_whole(found[0], found[1]), case
    assert read[False] > 100


def other_json(rng, value):
    """The same JSON with one value in it exchanged."""
    odd = [None, True, -1, 0, 3, 2**40, 10**400, 1e308, "", "F16", [], {}, [[]], "x" * 1000]
    if isinstance(value, (dict, list)) and value and rng.integers(8):
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        key = keys[rng.integers(len(keys))]
        changed = value.copy()
        if rng.integers(6):
            changed[key] = other_json(rng, value[key])
        else:
            del changed[key]
        return changed
    if type(value) is int and rng.integers(2):
        return int(value + rng.choice([-4, -1, 1, 4]))
    return odd[rng.integers(len(odd))]


def test_safetensors_files(state, tmp_path):
    save_file(state, tmp_path / "good.safetensors")
    data = (tmp_path / "good.safetensors").read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    header, values = json.loads(data[8 : 8 + length]), data[8 + length :]
    read = Counter()
    with bounded():
        for case in range(150):
            rng = np.random.default_rng([3, case])
            mutate = ANYWHERE[case % len(ANYWHERE)]
            if case % 3 == 0:
                text = json.dumps(other_json(rng, header)).encode()
                damaged = struct.pack("<Q", len(text)) + text + values
            elif case % 3 == 1:
                damaged = mutate(rng, data[: 8 + length]) + values
            else:
                damaged = mutate(rng, data)
            path = tmp_path / "damaged.safetensors"
            path.write_bytes(damaged)
            found = outcome(convert.read_source, path)
            read[found is not None] += 1
            # The format has no checksum: changed values are values.
            assert found is None or is_whole(found[0], found[1]), case
    assert read[True] and read[False] > 75


def sign(path):
    """Writes the checksums of the files as they are, so that Orbax gets to see them."""
    record = json.loads((path / "config.json").read_text())
    record["files"] = {
        file.relative_to(path / "params").as_posix(): f"{zlib.crc32(file.read_bytes()):08x}"
        for file in (path / "params").rglob("*")
        if file.is_file()
    }
    (path / "config.json").write_text(json.dumps(record))


def test_native_checkpoints(state, tmp_path, monkeypatch):
    # Where one array cannot be read, Orbax's threads find their event loop closed, and say so.
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)
    torch.save(state, tmp_path / "good.pth")
    good = tmp_path / "good"
    convert.convert_checkpoint(tmp_path / "good.pth", good)
    before = load_checkpoint(good)
    files = sorted(file.relative_to(good) for file in good.rglob("*") if file.is_file())
    parameters = [name for name in files if name.parts[0] == "params"]
    read = Counter()
    with bounded():
        for case in range(150):
            rng = np.random.default_rng([4, case])
            damaged = tmp_path / "damaged"
            shutil.rmtree(damaged, ignore_errors=True)
            shutil.copytree(good, damaged)
            damage_native(rng, case, damaged, files, parameters)
            found = outcome(load_checkpoint, damaged)
            read[found is not None] += 1
            if found is not None:
                assert found.config == before.config, case
                assert equal(found.params, before.params), case
    gc.collect()
    assert read[True] and read[False] > 75


def damage_native(rng, case: int, path: Path, files, parameters) -> None:
    config = path / "config.json"
    if case % 3 == 0:
        config.write_text(json.dumps(other_json(rng, json.loads(config.read_text()))))
        return
    chosen = path / (files if case % 3 == 1 else parameters)[rng.integers(0, len(parameters))]
    data = chosen.read_bytes()
    if rng.integers(10) == 0:
        chosen.unlink()
    else:
        mutate = ANYWHERE[rng.integers(len(ANYWHERE))]
        chosen.write_bytes(mutate(rng, data) if data else b"x")
    if case % 3 == 2:
        sign(path)
