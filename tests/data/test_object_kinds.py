import numpy as np
import pytest

from sam_jax.data.scenes.blueprints import CHOICES, RANGES, SLOTS, kind_tables
from sam_jax.data.scenes.object_kinds import (
    BACKGROUNDS,
    HELD_OUT_KINDS,
    KIND_NAMES,
    KINDS,
    TRAINING_KINDS,
)
from sam_jax.data.scenes.outlines import FAMILIES, HALF_PLANES

EVERY = [pytest.param(kind, id=kind.name) for kind in KINDS + BACKGROUNDS]


def test_training_and_held_out_kinds_share_none_and_miss_none():
    assert not set(TRAINING_KINDS) & set(HELD_OUT_KINDS)
    assert set(TRAINING_KINDS) | set(HELD_OUT_KINDS) == set(KIND_NAMES)
    assert len(set(KIND_NAMES)) == len(KINDS)


@pytest.mark.parametrize("kind", EVERY)
def test_parts_name_each_other_rightly(kind):
    names = [part.name for part in kind.parts]
    assert len(set(names)) == len(names) <= SLOTS
    assert "body" in names
    for part in kind.parts:
        assert part.parent in {"", *names} - {part.name}
        assert part.twin in {"", *names} - {part.name}
        assert 1 <= len(part.outline) <= CHOICES and set(part.outline) <= set(FAMILIES)
        most = np.max(part.lobes)
        assert "polygon" not in part.outline or 3 <= np.min(part.lobes) <= most <= HALF_PLANES


@pytest.mark.parametrize("kind", EVERY)
def test_what_is_painted_inside_a_part_follows_it_before_anything_stands_in_front(kind):
    # Painting is limited to pixels that show the parent or what was painted after it.
    names = [part.name for part in kind.parts]
    for slot, part in enumerate(kind.parts):
        if part.inside:
            parent = names.index(part.parent or "body")
            assert parent < slot
            assert all(between.inside for between in kind.parts[parent + 1 : slot])


def test_tables_hold_ranges_parents_and_generations():
    row = KIND_NAMES.index("animal")
    tables = kind_tables(KINDS)
    names = [part.name for part in KINDS[row].parts]
    head, ear, pupil, body = (names.index(n) for n in ("head", "ear", "eye pupil", "body"))
    assert tables.body[row] == body
    assert tables.parent[row, head] == body and tables.parent[row, ear] == head
    # An ear is a part of the head, which is a part of the animal; a pupil is of the eye's.
    assert tables.part[row, ear] == head and tables.part_of_part[row, ear] == ear
    assert tables.part[row, pupil] == head
    assert tables.part_of_part[row, pupil] == names.index("eye")
    assert tables.part[row, body] == body and tables.part_of_part[row, body] == -1
    length = RANGES.index("length")
    assert tables.low[row, head, length] == np.float32(KINDS[row].parts[head].length[0])
    # Slots beyond a kind's parts are never there.
    assert (tables.high[:, :, RANGES.index("chance")] == 0).sum() == sum(
        SLOTS - len(kind.parts) for kind in KINDS
    )
