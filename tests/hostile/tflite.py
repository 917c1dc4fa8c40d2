"""Hostile TensorFlow Lite models: tables that lie about offsets and lengths, graphs that blow up.

A case is a model of the good convolution and an odd one, written by an honest writer and then damaged in one place.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tests.hostile.case import GOOD, Case, End, W
from tests.models.tflite.writing import G, Op, S, T, Writer, conv, ohwi

OPERATOR_CODES, GRAPHS, BUFFERS = 1, 2, 4
TENSORS, INPUTS, OPERATORS = 0, 1, 3
SHAPE, BUFFER, NAME, QUANTIZATION, SPARSITY = 0, 2, 3, 4, 6
"""Fields of the root table, of a graph and of a tensor."""

BIG = 0x7FFF_FFF0
GOOD_W, ODD_W = ohwi(GOOD), ohwi(W)


class Damaged(NamedTuple):
    """A file, and the expected end of its ingest. `kept` and `odd` are the weights that are stored (`Case`)."""

    data: bytes
    end: End
    layer: str = "odd"
    kept: tuple[np.ndarray, ...] = (GOOD,)
    odd: tuple[np.ndarray, ...] | None = None


def model(odd: T | None = None, *more: T, ops: tuple[Op, ...] = (), **kwargs: Any) -> G:
    """The good convolution and the odd one, whose weight's tensor is the third."""
    tensors = [T("x", (1, 8, 8, 3)), T("good", GOOD_W.shape, GOOD_W), odd or T("odd", ODD_W.shape, ODD_W)]
    tensors += [T("y", (1, 8, 8, 4)), T("z", (1, 8, 8, 4)), *more]
    return G(tensors, [conv("good", y="y"), *ops, conv(kwargs.pop("used", tensors[2].name), y="z")], **kwargs)


class Damage:
    """A file to damage. Tables are found by the fields and indices that lead there, from the root on."""

    def __init__(self, graph: G | None = None) -> None:
        self.data = bytearray(Writer([graph or model()]).finish())

    def get(self, place: int, kind: str = "<I") -> int:
        return int(struct.unpack_from(kind, self.data, place)[0])

    def put(self, place: int, value: int, kind: str = "<I") -> bytes:
        struct.pack_into(kind, self.data, place, value)
        return bytes(self.data)

    def follow(self, place: int) -> int:
        return place + self.get(place)

    def table(self, *path: int) -> int:
        """The position of a table: `path` has, in turn, the number of a field and an index of its vector."""
        place = self.follow(0)
        for field, index in zip(path[::2], path[1::2], strict=True):
            place = self.follow(self.vector(place, field) + 4 + 4 * index)
        return place

    def fields(self, table: int) -> int:
        """The position of a table's list of fields."""
        return table - self.get(table, "<i")

    def entry(self, table: int, field: int) -> int:
        """The position in the list of fields that says where in the table a field is."""
        return self.fields(table) + 4 + 2 * field

    def place(self, table: int, field: int) -> int:
        return table + self.get(self.entry(table, field), "<H")

    def vector(self, table: int, field: int) -> int:
        """The position of a vector's length."""
        return self.follow(self.place(table, field))


def _own(table: list[int], change: Callable[[Damage, int, int], bytes], field: int) -> bytes:
    """A file in which a table is damaged. Its list of fields, which others share, is copied behind the end before."""
    damage = Damage()
    place = damage.table(*table)
    fields = damage.fields(place)
    copy = bytes(damage.data[fields : fields + damage.get(fields, "<H")])
    damage.put(place, place - len(damage.data), "<i")
    damage.data += copy
    return change(damage, place, field)


ROOT: list[int] = []
GRAPH = [GRAPHS, 0]
ODD_TENSOR = [GRAPHS, 0, TENSORS, 2]
ODD_OPERATOR = [GRAPHS, 0, OPERATORS, 1]


def _tables() -> dict[str, Damaged]:
    """Lying tables and vectors: of the root, a graph, an operator (the file is rejected), a tensor (it is not)."""
    cases: dict[str, Damaged] = {
        "root behind the end": Damaged(Damage().put(0, BIG), "rejected"),
        "root at its own offset": Damaged(Damage().put(0, 0), "rejected"),
        "no graph": Damaged(Writer([]).finish(), "rejected"),
        "another version": Damaged(Writer([model()], version=2).finish(), "rejected"),
    }
    whole = bytes(Damage().data)
    for length in (8, 12, 20, 60, len(whole) // 2, len(whole) - 40):
        cases[f"truncated at {length}"] = Damaged(whole[:length], "rejected")
    for name, table in {"root": ROOT, "graph": GRAPH, "operator": ODD_OPERATOR, "tensor": ODD_TENSOR}.items():
        end: End = "skipped" if name == "tensor" else "rejected"
        field = {"root": GRAPHS, "graph": OPERATORS, "operator": 1, "tensor": SHAPE}[name]
        lies: dict[str, Callable[[Damage, int, int], bytes]] = {
            "its fields far away": lambda d, t, _: d.put(t, -BIG, "<i"),
            "its fields before the file": lambda d, t, _: d.put(t, BIG, "<i"),
            "its fields are itself": lambda d, t, _: d.put(t, 0, "<i"),
            "a long list of fields": lambda d, t, _: d.put(d.fields(t), 0xFFFE, "<H"),
            "an odd list of fields": lambda d, t, _: d.put(d.fields(t), 7, "<H"),
            "no list of fields": lambda d, t, _: d.put(d.fields(t), 0, "<H"),
            "a long table": lambda d, t, _: d.put(d.fields(t) + 2, 0xFFFF, "<H"),
            "a short table": lambda d, t, _: d.put(d.fields(t) + 2, 2, "<H"),
            "a field outside": lambda d, t, f: d.put(d.entry(t, f), 0xFFF0, "<H"),
            "a field in its head": lambda d, t, f: d.put(d.entry(t, f), 2, "<H"),
            "a vector behind the end": lambda d, t, f: d.put(d.place(t, f), BIG),
            "a vector of 4 billion": lambda d, t, f: d.put(d.vector(t, f), 0xFFFF_FFFF),
            "a vector of 500 million": lambda d, t, f: d.put(d.vector(t, f), BIG // 4),
        }  # fmt: skip
        for lie, change in lies.items():
            # Without its list of fields a tensor has no name: the layer is called after the operator.
            layer = "CONV_2D_0_1" if re.search("list of fields|its fields|table", lie) else "odd"
            cases[f"{name}, {lie}"] = Damaged(_own(table, change, field), end, layer)
    return cases


def _references() -> dict[str, Damaged]:
    """Numbers of tensors, operators and buffers that do not exist."""
    damage = Damage()
    inputs = damage.vector(damage.table(*ODD_OPERATOR), INPUTS) + 4
    far = Damage()
    far.put(far.vector(far.table(*GRAPH), OPERATORS) + 4, BIG)
    return {
        "an input of no tensor": Damaged(damage.put(inputs + 4, 5), "rejected"),
        "a negative input": Damaged(Damage().put(inputs, -2, "<i"), "rejected"),
        "an operator of no kind": Damaged(
            Writer([model(ops=(Op("ADD", ["x", "x"], ["z"], code=9),))]).finish(), "rejected"
        ),
        "an operator behind the end": Damaged(bytes(far.data), "rejected"),
        "a buffer of no number": Damaged(Writer([model(T("odd", ODD_W.shape, buffer=77))]).finish(), "skipped"),
        "the buffer of another": Damaged(
            Writer([model(T("odd", ODD_W.shape, buffer=1))]).finish(), "stored", odd=(GOOD,)
        ),
        "the empty buffer": Damaged(Writer([model(T("odd", ODD_W.shape, buffer=0))]).finish(), "skipped"),
        "a buffer without bytes": Damaged(Writer([model(T("odd", ODD_W.shape, raw=b""))]).finish(), "skipped"),
    }  # fmt: skip


def _weights() -> dict[str, Damaged]:
    """Weights that are not what their tensors say."""

    def odd(*args: Any, **kwargs: Any) -> bytes:
        return Writer([model(T("odd", *args, **kwargs))]).finish()

    damage = Damage()
    length = bytes(damage.data).index(ODD_W.tobytes()) - 4
    behind = Writer([model()], behind=True).finish()
    place = behind.index(behind.index(ODD_W.tobytes()).to_bytes(8, "little"))
    start = behind.index(GOOD_W.tobytes()) + 4
    shifted = np.frombuffer(behind, "<f4", W.size, start).reshape(ODD_W.shape).transpose(0, 3, 1, 2)
    names = [
        T(b"caf\xe9\x00\x1b[2J", ODD_W.shape, ODD_W),
        T("n" * 100_000, ODD_W.shape, ODD_W),
        T("", ODD_W.shape, ODD_W),
    ]
    twice = model(T("good", (4, 3, 3, 3), ODD_W))
    twice.ops[1].inputs[1] = 2
    return {
        "a buffer of 4 billion bytes": Damaged(damage.put(length, 0xFFFF_FFFF), "skipped"),
        "a buffer of 3 bytes": Damaged(damage.put(length, 3), "skipped"),
        "shape negative": Damaged(odd((-4, 3, 3, -3), ODD_W), "skipped"),
        "shape huge": Damaged(odd((2**31 - 1, 3, 3, 2**31 - 1), ODD_W), "skipped"),
        "shape huge, sparse": Damaged(
            odd((2**31 - 1, 3, 3, 2**31 - 1), ODD_W, sparsity=S([0, 1, 2, 3], [4, 3, 3, 3])), "skipped"
        ),
        "shape of 10,000 sizes": Damaged(odd((1,) * 10_000, ODD_W), "skipped"),
        "shape empty": Damaged(odd((), ODD_W), "skipped"),
        "type of no number": Damaged(odd(ODD_W.shape, ODD_W, kind=99), "skipped"),
        "type negative": Damaged(odd(ODD_W.shape, ODD_W, kind=-128), "skipped"),
        "strings": Damaged(odd(ODD_W.shape, ODD_W, kind=5), "skipped"),
        "scales of the wrong number": Damaged(odd(ODD_W.shape, ODD_W.astype(np.int8), scale=[1.0] * 3), "skipped"),
        "scale NaN": Damaged(odd(ODD_W.shape, ODD_W.astype(np.int8), scale=[float("nan")]), "skipped"),
        "scales along dimension 2³¹ − 1": Damaged(
            odd(ODD_W.shape, ODD_W.astype(np.int8), scale=[1.0] * 4, axis=2**31 - 1), "skipped"
        ),
        "bytes that overlap another's": Damaged(
            behind[:place] + start.to_bytes(8, "little") + behind[place + 8 :], "stored", odd=(shifted,)
        ),
        "bytes behind the file": Damaged(
            behind[:place] + (2**62).to_bytes(8, "little") + behind[place + 8 :], "skipped"
        ),
        "bytes around the end of 64 bits": Damaged(
            behind[:place] + (2**64 - 50).to_bytes(8, "little") + behind[place + 8 :], "skipped"
        ),
        "a name twice": Damaged(Writer([twice]).finish(), "stored", odd=(W,)),
        **{f"name {i}": Damaged(Writer([model(name)]).finish(), "stored", odd=(W,)) for i, name in enumerate(names)},
    }  # fmt: skip


def _graphs() -> dict[str, Damaged]:
    """Graphs that are no graphs."""
    cycle = model(ops=(Op("ADD", ["x", "z"], ["c"]),), used="odd")
    cycle.tensors.append(T("c", (1, 8, 8, 3)))
    cycle.ops[-1].inputs[0] = "c"
    own = model(T("odd", ODD_W.shape), ops=(Op("RESHAPE", ["odd"], ["odd"]),))
    return {
        "a cycle": Damaged(Writer([cycle]).finish(), "skipped"),
        "a weight that is made of itself": Damaged(Writer([own]).finish(), "skipped"),
        "no operators": Damaged(Writer([G([T("x", (1,))], [])]).finish(), "stored", kept=()),
    }


def _bombs() -> dict[str, Damaged]:
    """What is small in the file and large in memory or time."""
    chain = [T("r", ODD_W.shape, ODD_W), *(T(f"r{i}", ODD_W.shape) for i in range(50_000)), T("odd", ODD_W.shape)]
    steps = tuple(Op("RESHAPE", [a.name], [b.name]) for a, b in pairwise(chain))
    crowd = model(ops=tuple(Op("ADD", ["x", "x"], ["t"]) for _ in range(40_000)), used="odd")
    crowd.tensors.append(T("t", (1, 8, 8, 3)))
    crowd.ops = [*crowd.ops[:-1], *(Op("ADD", ["t", "t"], ["t"]) for _ in range(40_000)), crowd.ops[-1]]
    many = model(T("odd", (256, 3, 3, 256), np.ones((256, 3, 3, 256), np.float32)))
    many.ops += [conv("odd", y="z")] * 20_000
    # One number in the first of the segments of (height, width).
    first, last = (
        (np.array([0, 1], np.int32), np.zeros(1, np.int32)),
        (np.array([0] + [1] * 9, np.int32), np.ones(1, np.int32)),
    )
    wide = model(T("odd", (2**13, 3, 3, 2**13), np.ones(1, np.float32), sparsity=S([0, 1, 2, 3], [first, 3, 3, last])))
    inputs = model(ops=(Op("ADD", ["x"] * 100_000, ["z"]),) * 400)
    return {
        "1,000,000 references to one graph": Damaged(Writer([model()], repeat=1_000_000).finish(), "rejected"),
        "150,000 references to an empty graph": Damaged(
            Writer([G([T("x", (1,))], [])], repeat=150_000).finish(), "stored", kept=()
        ),
        "a chain of 50,000 reshapes": Damaged(
            Writer([model(chain[0], *chain[1:], ops=steps, used="odd")]).finish(), "skipped"
        ),
        "80,000 operators on one tensor": Damaged(Writer([crowd]).finish(), "stored"),
        "20,000 convolutions of one weight": Damaged(Writer([many]).finish(), "rejected"),
        "a sparse weight of 2 GB": Damaged(Writer([wide]).finish(), "skipped"),
        "40,000,000 inputs": Damaged(Writer([inputs]).finish(), "rejected"),
    }


FAMILIES: dict[str, Callable[[], dict[str, Damaged]]] = {
    "table": _tables, "reference": _references, "weight": _weights, "graph": _graphs, "bomb": _bombs,
}  # fmt: skip


def write_corpus(folder: Path) -> dict[str, Case]:
    """Write every case below a folder; gives them by name."""
    cases = {}
    for family, write in FAMILIES.items():
        for name, (data, end, layer, kept, odd) in write().items():
            path = folder / f"{family}-{name}".replace(" ", "-") / "m.tflite"
            path.parent.mkdir(parents=True)
            path.write_bytes(data)
            # What is left of a truncated file may be whole, up to the weights.
            more: tuple[End, ...] = ("skipped",) if name.startswith("truncated") else ()
            shown = "good" if more else layer
            is_bomb = family == "bomb"
            cases[f"{family}/{name}"] = Case(path, end, "", more, shown, () if more else kept, odd, bomb=is_bomb)
    return cases
