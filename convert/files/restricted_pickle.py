"""Reads the pickle inside a PyTorch file: tensors in plain containers; all else stays inert.

An interpreter of its own, because `pickle.Unpickler` runs what a file tells it to run and, even
with `find_class` overridden, lets a few bytes claim gigabytes. `pickletools` takes the bytes apart,
a small stack machine carries out the few opcodes that PyTorch writes, and a global is a name to
look up in a table of our own. Nothing is imported, and only what stands there is called. An object
of any other class, such as the options of a run beside its weights, becomes a `Placeholder`, which
knows the class's name and nothing more; a call of any other function is refused.
"""

import io
import pickletools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sam_jax.errors import CheckpointError

# A tensor takes about 200 bytes, so this is enough for twenty thousand. A byte can take a hundred
# in memory (an empty list), so it must not be much more.
MAX_PICKLE_BYTES = 4 << 20

SAVE_WEIGHTS = "in PyTorch, save its weights alone: torch.save(model.state_dict(), FILE)"

_MARK = object()
_PUSHED_AS_READ = frozenset(
    "BININT BININT1 BININT2 INT LONG LONG1 LONG4 FLOAT BINFLOAT BINUNICODE SHORT_BINUNICODE "
    "BINUNICODE8 UNICODE SHORT_BINSTRING BINSTRING STRING SHORT_BINBYTES BINBYTES".split()
)
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_EMPTY: dict[str, Callable[[], Any]] = {"EMPTY_DICT": dict, "EMPTY_LIST": list}
_NOTHING_TO_DO = frozenset({"PROTO", "FRAME"})


@dataclass(frozen=True)
class Global:
    """A name that a pickle may use, and what calling it gives; None where it is only a name."""

    name: str
    call: Callable[..., Any] | None = None


@dataclass(frozen=True, eq=False)
class Placeholder:
    """Stands for an object that is no tensor, and was not made: only its class's name is kept."""

    class_name: str


@dataclass(frozen=True, eq=False)
class _Unknown:
    """A global that is not in the table; as a value it is as inert as a `Placeholder`."""

    name: str


def loads(data: bytes, allowed: Mapping[str, Global], load_persistent: Callable[[Any], Any]) -> Any:
    """The object in a pickle, with a `Placeholder` for whatever is no tensor or plain value.

    Args:
      data: the pickle.
      allowed: the globals it may name, by dotted name.
      load_persistent: turns a persistent id (in PyTorch's files, a storage) into an object.

    Raises:
      CheckpointError: the pickle is damaged, calls something that is not allowed, or holds an
        object of a class of its own where the tensors should be.
    """
    if len(data) > MAX_PICKLE_BYTES:
        raise CheckpointError(f"its pickle of {len(data)} bytes is too large to be of tensors only")
    machine = _Machine(allowed, load_persistent)
    try:
        for opcode, argument, _ in pickletools.genops(io.BytesIO(data)):
            if opcode.name == "STOP":
                return _whole(machine.pop())
            machine.step(opcode.name, argument)
    except CheckpointError:
        raise
    # What a wrong operand, an empty stack, a missing memo entry or a bad number ends in.
    except (ValueError, TypeError, IndexError, KeyError, OverflowError, RecursionError) as error:
        raise CheckpointError(f"its pickle is damaged ({type(error).__name__})") from error
    raise CheckpointError("its pickle is damaged: it has no end")


def _whole(value: Any) -> Any:
    if isinstance(value, _Unknown):
        raise _refusal(value.name)
    if isinstance(value, Placeholder):
        raise CheckpointError(
            f"it is a whole object of the class {value.class_name[:200]!r}, not a table of "
            f"tensors; {SAVE_WEIGHTS}"
        )
    return value


def _refusal(name: str) -> CheckpointError:
    return CheckpointError(
        f"refuses to load {name[:200]!r}: a checkpoint may hold tensors and nothing else; "
        f"{SAVE_WEIGHTS}"
    )


class _Machine:
    """The stack and memo of one pickle."""

    def __init__(self, allowed: Mapping[str, Global], load_persistent: Callable[[Any], Any]):
        self._allowed = allowed
        self._load_persistent = load_persistent
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def pop(self) -> Any:
        value = self._stack.pop()
        if value is _MARK:
            raise ValueError("a mark is no value")
        return value

    def step(self, name: str, argument: Any) -> None:
        """Carries out one opcode."""
        if name in _PUSHED_AS_READ:
            self._stack.append(argument)
        elif name in _CONSTANTS:
            self._stack.append(_CONSTANTS[name])
        elif name in _EMPTY:
            self._stack.append(_EMPTY[name]())
        elif name in _TUPLES:
            items = [self.pop() for _ in range(_TUPLES[name])]
            self._stack.append(tuple(reversed(items)))
        elif name not in _NOTHING_TO_DO:
            action = getattr(self, f"_do_{name.lower()}", None)
            if action is None:
                raise CheckpointError(
                    f"refuses the pickle opcode {name}, which no file of tensors needs"
                )
            action(argument)

    def _pop_to_mark(self) -> list[Any]:
        items = []
        while (value := self._stack.pop()) is not _MARK:
            items.append(value)
        return items[::-1]

    def _push_global(self, name: str) -> None:
        self._stack.append(self._allowed.get(name) or _Unknown(name))

    def _do_global(self, argument: str) -> None:
        self._push_global(argument.replace(" ", ".", 1))

    def _do_stack_global(self, _: None) -> None:
        attribute, module = self.pop(), self.pop()
        self._push_global(f"{_text(module)}.{_text(attribute)}")

    def _do_inst(self, argument: str) -> None:
        name = argument.replace(" ", ".", 1)
        if name not in self._allowed:
            raise _refusal(name)
        raise CheckpointError("refuses the pickle opcode INST, which no file of tensors needs")

    def _do_reduce(self, _: None) -> None:
        arguments, function = self.pop(), self.pop()
        if isinstance(function, _Unknown):
            # The outermost of nested calls, which this one's result would have gone to.
            outer = (value for value in self._stack if isinstance(value, _Unknown))
            raise _refusal(next(outer, function).name)
        if not isinstance(function, Global) or function.call is None:
            raise CheckpointError("refuses to call something that is no function of a tensor file")
        if not isinstance(arguments, tuple):
            raise TypeError("arguments must be a tuple")
        self._stack.append(function.call(*arguments))

    def _do_newobj(self, _: None) -> None:
        self.pop()
        made = self.pop()
        if not isinstance(made, _Unknown):
            raise CheckpointError(
                "refuses the pickle opcode NEWOBJ, which no file of tensors needs"
            )
        self._stack.append(Placeholder(made.name))

    def _do_newobj_ex(self, _: None) -> None:
        self.pop()
        self._do_newobj(None)

    def _do_build(self, _: None) -> None:
        # State dicts carry their modules' versions as an attribute; nothing here has any.
        self.pop()
        if not isinstance(self._stack[-1], dict | Placeholder):
            raise TypeError("only dictionaries carry attributes")

    def _do_empty_set(self, _: None) -> None:
        self._stack.append(Placeholder("builtins.set"))

    def _do_additems(self, _: None) -> None:
        self._pop_to_mark()
        if not isinstance(self._top(), Placeholder):
            raise TypeError("not a set")

    def _do_frozenset(self, _: None) -> None:
        self._pop_to_mark()
        self._stack.append(Placeholder("builtins.frozenset"))

    def _do_binpersid(self, _: None) -> None:
        self._stack.append(self._load_persistent(self.pop()))

    def _do_mark(self, _: None) -> None:
        self._stack.append(_MARK)

    def _do_tuple(self, _: None) -> None:
        self._stack.append(tuple(self._pop_to_mark()))

    def _do_list(self, _: None) -> None:
        self._stack.append(self._pop_to_mark())

    def _do_dict(self, _: None) -> None:
        items = self._pop_to_mark()
        self._stack.append({})
        self._set_items(items)

    def _do_append(self, _: None) -> None:
        value = self.pop()
        self._extend([value])

    def _do_appends(self, _: None) -> None:
        self._extend(self._pop_to_mark())

    def _do_setitem(self, _: None) -> None:
        value, key = self.pop(), self.pop()
        self._set_items([key, value])

    def _do_setitems(self, _: None) -> None:
        self._set_items(self._pop_to_mark())

    def _do_memoize(self, _: None) -> None:
        self._do_binput(len(self._memo))

    def _do_binput(self, argument: int) -> None:
        # A dictionary: an array would have to be as long as the largest number in the file.
        self._memo[argument] = self._top()

    _do_put = _do_long_binput = _do_binput

    def _do_binget(self, argument: int) -> None:
        self._stack.append(self._memo[argument])

    _do_get = _do_long_binget = _do_binget

    def _top(self) -> Any:
        if self._stack[-1] is _MARK:
            raise ValueError("a mark is no value")
        return self._stack[-1]

    def _extend(self, values: list[Any]) -> None:
        target = self._top()
        if isinstance(target, list):
            target.extend(values)
        elif not isinstance(target, Placeholder):
            raise TypeError("not a list")

    def _set_items(self, flat: list[Any]) -> None:
        if isinstance(self._top(), Placeholder):
            return
        if not isinstance(self._top(), dict) or len(flat) % 2:
            raise TypeError("not a dictionary, or a key without a value")
        for key, value in zip(flat[::2], flat[1::2], strict=True):
            # Hashing a deeply nested tuple would exhaust the interpreter's own stack.
            if not isinstance(key, str | int):
                raise TypeError("keys must be text or numbers")
            if key in self._stack[-1]:
                raise CheckpointError(f"the name {str(key)[:200]!r} stands in it twice")
            self._stack[-1][key] = value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("a global's name must be text")
    return value
