import os
import pickle
import struct
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convert.files.restricted_pickle import MAX_PICKLE_BYTES, Global, loads
from sam_jax.errors import CheckpointError

ALLOWED = {
    "collections.OrderedDict": Global("collections.OrderedDict", dict),
    "torch.FloatStorage": Global("torch.FloatStorage"),
}


def read(data):
    return loads(data, ALLOWED, lambda persistent_id: ("storage", persistent_id))


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary(),
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.dictionaries(st.text() | st.integers(), inner)
    ),
    max_leaves=20,
)


# Protocols 0 to 2 write bytes as a call of a codec, which is refused like any other call.
@given(plain, st.integers(3, 5))
def test_plain_values_come_back(value, protocol):
    assert read(pickle.dumps(value, protocol)) == value


class Calls:
    """Pickles as a call of anything."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    "function, argument, name",
    [
        (os.system, "touch {}", "system"),
        (eval, "open({!r}, 'w')", "eval"),
        (exec, "open({!r}, 'w')", "exec"),
        (open, "{}", "open"),
        (__import__, "os", "__import__"),
        (getattr, "{}", "getattr"),
        (pickle.loads, b"cos\nsystem\n(S'true'\ntR.", "loads"),
    ],
)
def test_a_function_is_refused_by_name_and_never_called(
    tmp_path, protocol, function, argument, name
):
    trap = tmp_path / "trap"
    argument = argument.format(str(trap)) if isinstance(argument, str) else argument
    data = pickle.dumps({"weight": Calls(function, argument)}, protocol)
    with pytest.raises(CheckpointError, match=rf"refuses to load '\w+\.{name}'"):
        read(data)
    assert not trap.exists()


@pytest.mark.parametrize(
    "data, says",
    [
        (b"(S'true'\nios\nsystem\n.", "refuses to load 'os.system'"),
        (b"\x80\x04\x8c\x02os\x8c\x06system\x93.", "refuses to load 'os.system'"),
        (b"ccollections.abc\nMapping\n.", "'collections.abc.Mapping'"),
        # Names that only look like an allowed one.
        (b"ccollections\nOrderedDict.__init__\n.", "'collections.OrderedDict.__init__'"),
        (b"\x80\x04\x8c\x0ccollections \x8c\x0bOrderedDict\x93.", "'collections .OrderedDict'"),
        (b"\x80\x02\x82\x01.", "opcode EXT1"),
        (b"\x80\x02ccollections\nOrderedDict\n)\x81.", "opcode NEWOBJ"),
        (b"\x80\x02(ccollections\nOrderedDict\no.", "opcode OBJ"),
        (b"Psome id\n.", "opcode PERSID"),
        # Calling what is no function: a storage type, text, a dictionary.
        (b"\x80\x02ctorch\nFloatStorage\n)R.", "refuses to call"),
        (b"\x80\x02X\x02\x00\x00\x00os)R.", "refuses to call"),
        (b"\x80\x02})R.", "refuses to call"),
        (b"\x80\x02}K\x01K\x02sK\x01K\x03s.", "stands in it twice"),
    ],
)
def test_what_no_tensor_file_needs_is_refused(data, says):
    with pytest.raises(CheckpointError) as error:
        read(data)
    assert says in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x80\x02",
        b".",
        b"(.",
        b"t.",
        b"0.",
        b"\x85.",
        b"h\x00.",
        b"r\x00\x00\x00\x00.",
        b"Nb.",
        b"]K\x01s.",
        b"}](u.",
        b"}(K\x01u.",
        b"})K\x01s.",  # a tuple as a key
        b"K\x01a.",
        b"K\x01K\x02\x93.",
        b"I99x\n.",
        b"\xff.",
        b"X\xff\xff\xff\xffshort.",
        b"\x8d" + struct.pack("<Q", 1 << 62) + b"short.",
        b"\x8b" + struct.pack("<i", 0x7FFFFFFF) + b"short.",
        b"I" + b"9" * 100_000 + b"\n.",
    ],
)
def test_damage_ends_in_one_line(data):
    with pytest.raises(CheckpointError) as error:
        read(data)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "data",
    [
        # A memo index that an array of that length would be made for.
        b"\x80\x02Nr\xff\xff\xff\x7f.",
        # Claims of gigabytes.
        b"\x80\x05\x96" + struct.pack("<Q", 1 << 36) + b".",
        b"\x80\x04\x95" + struct.pack("<Q", 1 << 40) + b"N.",
        # Deeply nested, and as a key, which would be hashed all the way down.
        b"\x80\x02)" + b"\x85" * 10_000 + b".",
        b"\x80\x02})" + b"\x85" * 10_000 + b"Ns.",
        b"\x80\x02" + b"]" * 10_000 + b"a" * 9_999 + b".",
        # Each tuple twice in the next: 2^60 leaves, if anyone walked through them.
        b"\x80\x02)q\x00" + b"h\x00\x86q\x00" * 60 + b".",
        b"\x80\x02)q\x00" + b"h\x00\x86q\x00" * 60 + b"Q.",
    ],
)
def test_a_small_pickle_takes_little_memory(data):
    tracemalloc.start()
    try:
        read(data)
    except CheckpointError:
        pass
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 50e6


def test_a_huge_pickle_is_refused_unread():
    with pytest.raises(CheckpointError, match="too large"):
        read(bytes(MAX_PICKLE_BYTES + 1))


def test_attributes_of_dictionaries_are_read_and_dropped():
    from collections import OrderedDict

    value = OrderedDict(a=1)
    value._metadata = OrderedDict(version=1)
    assert read(pickle.dumps(value, 2)) == {"a": 1}
