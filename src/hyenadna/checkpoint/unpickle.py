"""What a pickle says, as plain data, without running any of it.

A pickle is a small program, and `torch.load` of a downloaded file runs it. This reader is its own
stack machine over the opcodes (`pickletools.genops` cuts them apart): it builds dicts, lists,
numbers and text, and never imports, calls or sets an attribute of anything. A class or function
that the file names must stand on a list; it becomes a `Global`, its instances become `Inert`, and
only the few callables that make tensors and containers have a meaning here. Every other name ends
the reading with an error. The list is what PyTorch-Lightning 1.8 checkpoints hold (shared
specification, section (c)) and its harmless neighbours.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from hyenadna.errors import InputError


@dataclass(frozen=True, slots=True)
class Global:
    """The name of a class or function in a pickle; nothing was imported for it."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(slots=True, eq=False)
class Inert:
    """An object of a class that we only know by name: what was passed to it, and nothing else."""

    kind: Global
    args: tuple[Any, ...] = ()
    state: Any = None
    items: list[Any] = field(default_factory=list)


Persistent = Callable[[Any], Any]
Constructor = Callable[[tuple[Any, ...]], Any]

_BUILTINS: Final = ("dict", "list", "tuple", "set", "frozenset", "int", "long", "float", "bool",
                    "str", "unicode", "bytes", "complex", "object", "slice")  # fmt: skip
_STORAGES: Final = tuple(
    f"{kind}Storage"
    for kind in ("Double", "Float", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte",
                 "Bool", "ComplexFloat", "ComplexDouble")
)  # fmt: skip
_DTYPES: Final = ("float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8",
                  "uint8", "bool")  # fmt: skip
_NUMPY: Final = ("scalar", "_reconstruct")
ALLOWED: Final[dict[str, frozenset[str]]] = {
    module: frozenset(names)
    for module, names in {
        "__builtin__": (*_BUILTINS, "xrange"),
        "builtins": (*_BUILTINS, "range"),
        "collections": ("OrderedDict", "defaultdict", "deque", "Counter"),
        "copy_reg": ("_reconstructor",),
        "copyreg": ("_reconstructor",),
        "_codecs": ("encode",),
        "argparse": ("Namespace",),
        "pathlib": ("Path", "PosixPath", "PurePath", "PurePosixPath", "WindowsPath"),
        "datetime": ("datetime", "timedelta", "date"),
        "typing": ("Any", "Union", "Optional", "Dict", "List", "Tuple"),
        "torch": (*_STORAGES, *_DTYPES, "Size", "device"),
        "torch._utils": ("_rebuild_tensor_v2", "_rebuild_parameter"),
        "omegaconf.base": ("ContainerMetadata", "Metadata"),
        "omegaconf.dictconfig": ("DictConfig",),
        "omegaconf.listconfig": ("ListConfig",),
        "omegaconf.nodes": (
            "AnyNode", "BooleanNode", "BytesNode", "EnumNode", "FloatNode", "IntegerNode",
            "PathNode", "StringNode",
        ),
        "numpy": ("dtype", "ndarray"),
        "numpy.core.multiarray": _NUMPY,
        "numpy._core.multiarray": _NUMPY,
    }.items()
}  # fmt: skip
_ALLOWED_PACKAGES: Final = ("pytorch_lightning", "lightning", "lightning_fabric")
_MAPPINGS: Final = ("OrderedDict", "defaultdict", "dict", "Counter")


def is_allowed(name: Global) -> bool:
    """Whether a pickle may name this class or function."""
    if name.name in ALLOWED.get(name.module, ()):
        return True
    return name.module.partition(".")[0] in _ALLOWED_PACKAGES and name.name.isidentifier()


def unpickle(
    data: bytes,
    *,
    source: str,
    persistent: Persistent | None = None,
    constructors: dict[Global, Constructor] | None = None,
) -> Any:
    """The value that a pickle describes, as plain data, `Global` and `Inert`.

    data: the pickle, protocols 0 to 5. source: its file, for messages. persistent: what stands for
    an external reference (in torch files: a storage). constructors: for some names, what a call of
    them yields.

    Raises InputError for a name that is not on the list, for anything that is called and is no such
    name, and for a pickle that is cut short or malformed.
    """
    machine = _Machine(source, persistent, constructors or {})
    try:
        return machine.run(data)
    except InputError:
        raise
    except (ValueError, IndexError, KeyError, TypeError, OverflowError, MemoryError) as error:
        raise InputError(
            f"{source}: damaged pickle ({type(error).__name__}: {error}); fetch the file again"
        ) from error


class _Mark:
    """The bottom of an unfinished container on the stack."""


_MARK: Final = _Mark()


class _Machine:
    """The stack and the memo of one reading."""

    def __init__(
        self, source: str, persistent: Persistent | None, constructors: dict[Global, Constructor]
    ) -> None:
        self.source = source
        self.persistent = persistent
        self.constructors = constructors
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self, data: bytes) -> Any:
        for opcode, argument, _ in pickletools.genops(data):
            name = opcode.name
            if name == "STOP":
                return self._pop()
            if name in _PUSHED:
                self.stack.append(argument)
            elif name in _STEPS:
                _STEPS[name](self, argument)
            else:
                raise InputError(f"{self.source}: the pickle uses opcode {name}; refused")
        raise ValueError("no STOP")

    def _pop(self) -> Any:
        value = self.stack.pop()
        if value is _MARK:
            raise ValueError("a mark where a value belongs")
        return value

    def _pop_to_mark(self) -> list[Any]:
        at = len(self.stack) - 1
        while self.stack[at] is not _MARK:
            at -= 1
            if at < 0:
                raise ValueError("no mark")
        values = self.stack[at + 1 :]
        del self.stack[at:]
        return values

    def _top(self) -> Any:
        if not self.stack or self.stack[-1] is _MARK:
            raise ValueError("a mark where a value belongs")
        return self.stack[-1]

    # -- memo and stack ---------------------------------------------------------------------------

    def put(self, index: int) -> None:
        self.memo[index] = self._top()

    def memoize(self, _: None) -> None:
        self.memo[len(self.memo)] = self._top()

    def get(self, index: int) -> None:
        self.stack.append(self.memo[index])

    def mark(self, _: None) -> None:
        self.stack.append(_MARK)

    def pop(self, _: None) -> None:
        self.stack.pop()

    def pop_mark(self, _: None) -> None:
        self._pop_to_mark()

    def dup(self, _: None) -> None:
        self.stack.append(self._top())

    # -- containers -------------------------------------------------------------------------------

    def tuple_of(self, count: int) -> None:
        values = [self._pop() for _ in range(count)]
        self.stack.append(tuple(reversed(values)))

    def marked_tuple(self, _: None) -> None:
        self.stack.append(tuple(self._pop_to_mark()))

    def marked_list(self, _: None) -> None:
        self.stack.append(self._pop_to_mark())

    def marked_dict(self, _: None) -> None:
        values = self._pop_to_mark()
        self.stack.append({})
        self._set(values)

    def append(self, _: None) -> None:
        self._extend([self._pop()])

    def appends(self, _: None) -> None:
        self._extend(self._pop_to_mark())

    def set_item(self, _: None) -> None:
        value, key = self._pop(), self._pop()
        self._set([key, value])

    def set_items(self, _: None) -> None:
        self._set(self._pop_to_mark())

    def _extend(self, values: list[Any]) -> None:
        target = self._top()
        if isinstance(target, Inert):
            target = target.items
        if not isinstance(target, list):
            raise ValueError(f"items added to {_describe(target)}")
        target.extend(values)

    def _set(self, values: list[Any]) -> None:
        target = self._top()
        pairs = list(zip(values[::2], values[1::2], strict=True))
        if isinstance(target, Inert):
            target.items.extend(pairs)
        elif isinstance(target, dict):
            target.update({_key(key): value for key, value in pairs})
        else:
            raise ValueError(f"keys set on {_describe(target)}")

    # -- names, objects, references ---------------------------------------------------------------

    def global_(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        self._name(module, name)

    def stack_global(self, _: None) -> None:
        name, module = self._pop(), self._pop()
        self._name(module, name)

    def _name(self, module: Any, name: Any) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            raise ValueError("a name that is no text")
        found = Global(module, name)
        if not is_allowed(found):
            raise InputError(
                f"{self.source}: the file asks for {str(found)!r}, which no checkpoint needs and "
                "which could run code; nothing was run. Take the weights as .safetensors"
            )
        self.stack.append(found)

    def reduce(self, _: None) -> None:
        arguments, called = self._pop(), self._pop()
        self.stack.append(self._call(called, arguments))

    def new_object_ex(self, _: None) -> None:
        keywords, arguments, called = self._pop(), self._pop(), self._pop()
        if not isinstance(keywords, dict):
            raise ValueError("keywords that are no dict")
        made = self._call(called, arguments)
        if keywords and isinstance(made, Inert):
            made.items.extend(keywords.items())
        self.stack.append(made)

    def _call(self, called: Any, arguments: Any) -> Any:
        if not isinstance(called, Global):
            raise ValueError(f"a call of {_describe(called)}")
        if not isinstance(arguments, tuple):
            raise ValueError(f"a call of {called} with {_describe(arguments)}")
        if called in self.constructors:
            return self.constructors[called](arguments)
        if called.name in _MAPPINGS:
            return _mapping(called, arguments)
        if called == Global("_codecs", "encode"):
            return _encoded(arguments)
        if (
            called.name == "bytes"
            and called.module in ("__builtin__", "builtins")
            and not arguments
        ):
            return b""  # as protocol 2 writes it
        return Inert(called, arguments)

    def build(self, _: None) -> None:
        state, target = self._pop(), self._top()
        if isinstance(target, Inert):
            target.state = state
        elif not isinstance(target, dict):  # a dict's state is the attributes of an OrderedDict
            raise ValueError(f"state set on {_describe(target)}")

    def reference(self, _: None) -> None:
        if self.persistent is None:
            raise ValueError("a reference out of the pickle")
        self.stack.append(self.persistent(self._pop()))


def _describe(value: Any) -> str:
    return str(value) if isinstance(value, Global) else f"a value of type {type(value).__name__}"


def _key(key: Any) -> Any:
    """The key, if hashing it is cheap and harmless: hashing nested tuples can take for ever."""
    parts = key if isinstance(key, tuple) else (key,)
    if not all(p is None or isinstance(p, str | int | float | bytes | Global) for p in parts):
        raise ValueError(f"a dict key of type {type(key).__name__}")
    return key


def _mapping(called: Global, arguments: tuple[Any, ...]) -> dict[Any, Any]:
    """An empty dict, or one of the pairs that Python 2 passes; a default factory is dropped."""
    if called.name == "defaultdict":
        if arguments and not (arguments[0] is None or isinstance(arguments[0], Global)):
            raise ValueError("a defaultdict whose factory is no name")
        arguments = arguments[1:]
    filled: dict[Any, Any] = {}
    for argument in arguments:
        if isinstance(argument, dict):
            filled.update(argument)
        elif isinstance(argument, list):
            for key, value in argument:
                filled[_key(key)] = value
        else:
            raise ValueError(f"{called} of {_describe(argument)}")
    return filled


def _encoded(arguments: tuple[Any, ...]) -> bytes:
    """Bytes as protocol 2 writes them: a text and the name of its encoding."""
    text, *rest = arguments
    if not isinstance(text, str) or rest not in ([], ["latin1"], ["utf-8"]):
        raise ValueError("bytes in an unknown encoding")
    return text.encode(rest[0] if rest else "utf-8")


# Opcodes that push their argument as it was parsed.
_PUSHED: Final = frozenset(
    ("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT",
     "STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE",
     "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8")
)  # fmt: skip


def _push(value: Callable[[], Any]) -> Callable[[_Machine, Any], None]:
    def step(machine: _Machine, _: Any) -> None:
        machine.stack.append(value())

    return step


def _tuple(count: int) -> Callable[[_Machine, Any], None]:
    def step(machine: _Machine, _: Any) -> None:
        machine.tuple_of(count)

    return step


def _nothing(machine: _Machine, _: Any) -> None:
    """PROTO and FRAME say how the pickle is written, not what is in it."""


# All other opcodes that are read. Missing on purpose: INST, OBJ (Python 1 objects), EXT* (names out
# of a process-wide registry), PERSID, sets and out-of-band buffers, which no checkpoint holds.
_STEPS: Final[dict[str, Callable[[_Machine, Any], None]]] = {
    "PROTO": _nothing,
    "FRAME": _nothing,
    "NONE": _push(lambda: None),
    "NEWTRUE": _push(lambda: True),
    "NEWFALSE": _push(lambda: False),
    "EMPTY_LIST": _push(list),
    "EMPTY_DICT": _push(dict),
    "EMPTY_TUPLE": _push(tuple),
    "TUPLE1": _tuple(1),
    "TUPLE2": _tuple(2),
    "TUPLE3": _tuple(3),
    "TUPLE": _Machine.marked_tuple,
    "LIST": _Machine.marked_list,
    "DICT": _Machine.marked_dict,
    "APPEND": _Machine.append,
    "APPENDS": _Machine.appends,
    "SETITEM": _Machine.set_item,
    "SETITEMS": _Machine.set_items,
    "MARK": _Machine.mark,
    "POP": _Machine.pop,
    "POP_MARK": _Machine.pop_mark,
    "DUP": _Machine.dup,
    "PUT": _Machine.put,
    "BINPUT": _Machine.put,
    "LONG_BINPUT": _Machine.put,
    "MEMOIZE": _Machine.memoize,
    "GET": _Machine.get,
    "BINGET": _Machine.get,
    "LONG_BINGET": _Machine.get,
    "GLOBAL": _Machine.global_,
    "STACK_GLOBAL": _Machine.stack_global,
    "REDUCE": _Machine.reduce,
    "NEWOBJ": _Machine.reduce,
    "NEWOBJ_EX": _Machine.new_object_ex,
    "BUILD": _Machine.build,
    "BINPERSID": _Machine.reference,
}
