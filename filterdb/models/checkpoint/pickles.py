"""Interpret a pickle without importing or calling anything that it names.

Python's own unpickler is not used. The operations build plain dictionaries, lists and tuples here; a class or function
is only its name; and what the pickle makes with it is an inert `Instance`, unless a function of ours stands for it.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Mapping
from typing import IO, Any, ClassVar

from filterdb.models.parse_errors import MAX_NAME, shortened

MAX_OPERATIONS = 2**22
"""Most operations of one pickle. The largest checkpoint tried, a detector with its optimizer's state, has 60,000."""

MAX_BYTES = 2**27
"""Most bytes of one pickle."""

_RENAMED = {"__builtin__": "builtins", "copy_reg": "copyreg", "exceptions": "builtins"}
"""Modules of Python 2 by their names in Python 3."""


class Name:
    """A class or function that the pickle names, as `module.name`."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = shortened(name, MAX_NAME)


class Instance:
    """What the pickle makes with a class or function: its name, the arguments, and what is set later."""

    __slots__ = ("args", "elements", "items", "name", "state")

    def __init__(self, name: str, args: object = ()) -> None:
        self.name = name
        self.args = args
        self.state: object = None
        self.items: dict[Any, Any] | None = None
        self.elements: list[Any] | None = None

    def attributes(self) -> dict[Any, Any]:
        """Return the attributes that the pickle sets; empty if its state is something else."""
        state = self.state
        if isinstance(state, tuple) and len(state) == 2 and isinstance(state[0], dict):
            state = state[0]  # the second has the values of __slots__
        return state if isinstance(state, dict) else {}


class _Key:
    """A key of a dictionary that is neither a short text nor a small number. Python would hash it, at any cost."""

    __slots__ = ()


def load(stream: IO[bytes], functions: Mapping[str, Callable[..., Any]], persistent: Callable[[Any], Any]) -> Any:
    """Return what the pickle at the start of a stream describes.

    A call of a name in `functions` is replaced by that of our function. `persistent` returns what stands for a
    persistent id. Raises one of PARSE_ERRORS for a damaged pickle and for one that has too much.
    """
    return _Machine(functions, persistent).run(stream)


def _safe_key(key: Any) -> Any:
    """Return a key that can be hashed and compared at once; a new object for any other."""
    if type(key) in (str, bytes):
        return key if len(key) <= MAX_NAME else _Key()
    if type(key) is int:
        return key if -(2**63) <= key < 2**64 else _Key()
    return key if key is None or type(key) in (bool, float) else _Key()


class _Machine:
    """A stack, the stacks below its marks, and a memo. Every operation takes constant time for each object it takes."""

    def __init__(self, functions: Mapping[str, Callable[..., Any]], persistent: Callable[[Any], Any]) -> None:
        self.functions = functions
        self.persistent = persistent
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.room = MAX_OPERATIONS

    def run(self, stream: IO[bytes]) -> Any:
        """Take the operations one by one, up to STOP, and return the object that is left."""
        for number, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
            if number >= MAX_OPERATIONS:
                raise ValueError(f"a pickle of more than {MAX_OPERATIONS:,} operations")
            name = opcode.name
            if name in _VALUES:
                self.stack.append(argument)
            elif name == "STOP":
                break
            elif name in self.OPERATIONS:
                self.OPERATIONS[name](self, argument)
            else:
                raise ValueError(f"a pickle with the operation {name}")
        return self.stack.pop()

    def mark(self, _: Any) -> None:
        """Put a mark on the stack: start a new one above it."""
        self.below.append(self.stack)
        self.stack = []

    def marked(self) -> list[Any]:
        """Return what stands above the last mark, and remove it."""
        values = self.stack
        self.stack = self.below.pop()
        return values

    def push(self, value: Any) -> None:
        """Put an object on the stack, which is the one that `marked` brings back."""
        self.stack.append(value)

    def pop(self, _: Any) -> None:
        """Remove the object at the top, or the mark."""
        if self.stack:
            self.stack.pop()
        else:
            self.marked()

    def drop_marked(self, _: Any) -> None:
        """Remove what stands above the last mark."""
        self.marked()

    def remember(self, number: int | None) -> None:
        """Keep the object at the top in the memo, under the next number if none is given."""
        self.memo[len(self.memo) if number is None else number] = self.stack[-1]

    def tuple_of(self, count: int) -> None:
        """Make a tuple of the objects at the top."""
        if len(self.stack) < count:
            raise ValueError("a pickle that takes more objects than it has")
        self.stack[-count:] = [tuple(self.stack[-count:])]

    def set_items(self, values: list[Any]) -> None:
        """Put keys and values, which alternate, into the dictionary at the top."""
        target = self.stack[-1]
        if isinstance(target, Instance):
            target.items = {} if target.items is None else target.items
            target = target.items
        if not isinstance(target, dict) or len(values) % 2:
            raise TypeError(f"items for a {type(target).__name__}")
        for key, value in zip(values[::2], values[1::2], strict=True):
            target[_safe_key(key)] = value

    def extend(self, values: list[Any]) -> None:
        """Append values to the list at the top."""
        target = self.stack[-1]
        if isinstance(target, Instance):
            target.elements = [] if target.elements is None else target.elements
            target = target.elements
        if not isinstance(target, list):
            raise TypeError(f"elements for a {type(target).__name__}")
        target += values

    def dictionary(self, values: list[Any]) -> None:
        """Make a dictionary of keys and values, which alternate."""
        self.stack.append({})
        self.set_items(values)

    def name(self, module: Any, name: Any) -> None:
        """Put a class or function on the stack, by its name."""
        if type(module) is not str or type(name) is not str:
            raise TypeError("a class whose name is no text")
        self.stack.append(Name(f"{_RENAMED.get(module, module)}.{name}"))

    def named(self, argument: str) -> None:
        """Put a class or function on the stack that the operation names as `module name`."""
        module, _, name = argument.partition(" ")
        self.name(module, name)

    def call(self, function: Any, args: Any) -> None:
        """Put on the stack what stands for a call: what our own function returns, or else an instance."""
        if isinstance(function, Name) and isinstance(args, tuple):
            own = self.functions.get(function.name)
            if own is not None:
                self.stack.append(own(*args))
                return
            if function.name in _PAIRS:
                self.stack.append(self.mapping(args[1:] if function.name.endswith("defaultdict") else args))
                return
            if function.name in _SETS and args and isinstance(args[0], list):
                self.stack.append(args[0])
                return
            if function.name in _MAKERS and args and isinstance(args[0], Name):
                self.stack.append(Instance(args[0].name, args[1:]))
                return
        self.stack.append(Instance(getattr(function, "name", ""), args))

    def mapping(self, args: tuple[Any, ...]) -> dict[Any, Any]:
        """Return a dictionary made from another, or from pairs as Python 2 pickled them."""
        source = args[0] if args else ()
        if not isinstance(source, dict | list | tuple):
            return {}
        self.room -= len(source)
        if self.room < 0:
            raise ValueError(f"a pickle that copies more than {MAX_OPERATIONS:,} items")
        if isinstance(source, dict):
            return dict(source)
        if not all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in source):
            raise TypeError("a dictionary that is not made of pairs")
        return {_safe_key(key): value for key, value in source}

    def two(self) -> tuple[Any, Any]:
        """Remove two objects from the top and return them, the lower first."""
        last = self.stack.pop()
        return self.stack.pop(), last

    def new_with_keywords(self, _: Any) -> None:
        """Make an instance of a class with arguments and keywords."""
        keywords = self.stack.pop()
        function, args = self.two()
        self.stack.append(Instance(getattr(function, "name", ""), (args, keywords)))

    def object_of(self, values: list[Any]) -> None:
        """Make an instance of the first of the values, with the others as arguments."""
        self.call(values[0], tuple(values[1:]))

    def build(self, _: Any) -> None:
        """Set the state of an instance. What other objects have besides their values is not needed."""
        state = self.stack.pop()
        target = self.stack[-1]
        if isinstance(target, Instance):
            target.state = state

    OPERATIONS: ClassVar[dict[str, Callable[[_Machine, Any], None]]] = {
        "PROTO": lambda _, __: None,
        "FRAME": lambda _, __: None,
        "MARK": mark,
        "POP": pop,
        "POP_MARK": drop_marked,
        "DUP": lambda self, _: self.stack.append(self.stack[-1]),
        "NONE": lambda self, _: self.stack.append(None),
        "NEWTRUE": lambda self, _: self.stack.append(True),
        "NEWFALSE": lambda self, _: self.stack.append(False),
        "PUT": remember,
        "BINPUT": remember,
        "LONG_BINPUT": remember,
        "MEMOIZE": remember,
        "GET": lambda self, number: self.stack.append(self.memo[number]),
        "BINGET": lambda self, number: self.stack.append(self.memo[number]),
        "LONG_BINGET": lambda self, number: self.stack.append(self.memo[number]),
        "EMPTY_DICT": lambda self, _: self.stack.append({}),
        "EMPTY_LIST": lambda self, _: self.stack.append([]),
        "EMPTY_SET": lambda self, _: self.stack.append([]),
        "EMPTY_TUPLE": lambda self, _: self.stack.append(()),
        "DICT": lambda self, _: self.dictionary(self.marked()),
        "LIST": lambda self, _: self.push(self.marked()),
        "FROZENSET": lambda self, _: self.push(self.marked()),
        "TUPLE": lambda self, _: self.push(tuple(self.marked())),
        "TUPLE1": lambda self, _: self.tuple_of(1),
        "TUPLE2": lambda self, _: self.tuple_of(2),
        "TUPLE3": lambda self, _: self.tuple_of(3),
        "APPEND": lambda self, _: self.extend([self.stack.pop()]),
        "APPENDS": lambda self, _: self.extend(self.marked()),
        "ADDITEMS": lambda self, _: self.extend(self.marked()),
        "SETITEM": lambda self, _: self.set_items(list(self.two())),
        "SETITEMS": lambda self, _: self.set_items(self.marked()),
        "GLOBAL": named,
        "STACK_GLOBAL": lambda self, _: self.name(*self.two()),
        "EXT1": lambda self, code: self.stack.append(Name(f"extension {code}")),
        "EXT2": lambda self, code: self.stack.append(Name(f"extension {code}")),
        "EXT4": lambda self, code: self.stack.append(Name(f"extension {code}")),
        "REDUCE": lambda self, _: self.call(*self.two()),
        "NEWOBJ": lambda self, _: self.call(*self.two()),
        "NEWOBJ_EX": new_with_keywords,
        "OBJ": lambda self, _: self.object_of(self.marked()),
        "INST": lambda self, argument: self.object_of([Name(argument.replace(" ", ".", 1)), *self.marked()]),
        "BUILD": build,
        "BINPERSID": lambda self, _: self.stack.append(self.persistent(self.stack.pop())),
    }


_VALUE_NAMES = """
    INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT STRING BINSTRING SHORT_BINSTRING BINBYTES SHORT_BINBYTES
    BINBYTES8 BYTEARRAY8 UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8
"""
_VALUES = frozenset(_VALUE_NAMES.split())
"""Operations that push their argument."""

_PAIRS = frozenset({"collections.OrderedDict", "collections.defaultdict", "collections.Counter", "builtins.dict"})
"""Classes that stand for a plain dictionary."""

_SETS = frozenset({"builtins.set", "builtins.frozenset"})
"""Classes that the list of their elements stands for: its objects need no hash."""

_MAKERS = frozenset({"copyreg._reconstructor", "copyreg.__newobj__", "copyreg.__newobj_ex__"})
"""Functions that make an instance of the class that is their first argument."""
