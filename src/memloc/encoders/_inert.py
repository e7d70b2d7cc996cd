"""Read PyTorch checkpoints that hold settings and numbers beside tensors, without building anything else.

Nothing that a file names is imported or called: tensors are rebuilt by PyTorch's own few functions, containers by
stand-ins that are dictionaries and lists, and whatever else is known to be inert (dates, paths, numbers of NumPy,
random states) by an empty stand-in. A name outside the list is refused, and said.
"""

from __future__ import annotations

import io
import pickle
import sys
import tarfile
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import torch
from torch import nn

_REBUILD: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch.nn.parameter", "Parameter"): nn.Parameter,
    ("torch", "Size"): torch.Size,
    ("torch", "device"): torch.device,
    ("torch.serialization", "_get_layout"): torch.serialization._get_layout,
    **{
        ("torch._utils", name): getattr(torch._utils, name)
        for name in ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_parameter", "_rebuild_parameter_with_state")
        if hasattr(torch._utils, name)
    },
}
_INERT = (  # modules whose objects say nothing of weights
    *("numpy", "datetime", "pathlib", "decimal", "fractions", "uuid", "argparse", "types", "random", "time"),
    *("pandas", "omegaconf", "yacs", "addict", "easydict", "mmengine", "mmcv", "zoneinfo", "dateutil", "re", "enum"),
    *("collections", "lightning", "pytorch_lightning", "lightning_fabric", "lightning_utilities", "ml_collections"),
    *("hydra", "torch.torch_version", "torch.serialization", "_codecs", "copyreg", "copy_reg"),
)
_STORAGES = {
    "UntypedStorage": torch.uint8,
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128,
}
_BUILTINS = (
    *("set", "frozenset", "list", "dict", "tuple", "int", "float", "str", "bool", "complex", "slice", "range"),
    *("bytes", "bytearray", "object", "unicode", "long", "xrange"),
)
_MAPPINGS = ("defaultdict", "Counter", "AttributeDict", "dict")


class Refused(pickle.UnpicklingError):
    """A file names an object that is not known to be inert.

    Attributes:
        what: the object, as module.name.
    """

    def __init__(self, what: str) -> None:
        super().__init__(f"{what} is not known to be inert")
        self.what = what


@dataclass(frozen=True)
class _Storage:
    """Stands for the type of a storage, which nothing can call."""

    dtype: torch.dtype


class _Nothing:
    """Stands for an object of which nothing is kept."""

    def __new__(cls, *_: Any, **__: Any) -> _Nothing:
        return object.__new__(cls)

    def __setitem__(self, *_: Any) -> None: ...

    def __setstate__(self, _: Any) -> None: ...

    def append(self, _: Any) -> None: ...

    def extend(self, _: Iterable[Any]) -> None: ...

    def add(self, _: Any) -> None: ...

    def update(self, *_: Any) -> None: ...


class _Mapping(dict[Any, Any]):
    """Stands for a kind of dictionary, of which the items are kept."""

    def __new__(cls, *_: Any, **__: Any) -> _Mapping:
        return dict.__new__(cls)

    def __init__(self, *given: Any) -> None:
        super().__init__(given[0] if given and isinstance(given[0], dict) else {})

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, dict):
            self.update(state)


_Base: Any = pickle._Unpickler


class _Unpickler(_Base):
    """In Python, so that what may be called and changed is looked at for every opcode."""

    dispatch: ClassVar[dict[int, Any]] = dict(_Base.dispatch)

    def find_class(self, module: str, name: str) -> Any:
        """What stands for a name; nothing is imported."""
        if (module, name) in _REBUILD:
            return _REBUILD[module, name]
        if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
            return getattr(torch, name)
        if module.startswith("torch") and name in _STORAGES:
            return _Storage(_STORAGES[name])
        if module in ("builtins", "__builtin__"):
            known = name in _BUILTINS
        else:
            known = any(module == each or module.startswith(f"{each}.") for each in _INERT)
        if not known:
            raise Refused(f"{module}.{name}")
        return _Mapping if name in _MAPPINGS else _Nothing

    def load_build(self) -> None:
        """Give a state to what takes one: stand-ins and ordered dictionaries."""
        state = self.stack.pop()
        into = self.stack[-1]
        if isinstance(into, (_Nothing, _Mapping)):
            into.__setstate__(state)
        elif not isinstance(into, (OrderedDict, torch.Tensor)):
            raise Refused(f"a state for {type(into).__name__}")

    def load_reduce(self) -> None:
        """Call what rebuilds tensors and stand-ins, and nothing else."""
        arguments = self.stack.pop()
        function = self.stack[-1]
        if not _may_be_called(function):
            raise Refused(str(getattr(function, "__qualname__", function)))
        self.stack[-1] = function(*arguments)

    def load_newobj(self) -> None:
        """Make an empty stand-in, or an ordered dictionary."""
        arguments = self.stack.pop()
        self.stack[-1] = _made(self.stack[-1], arguments)

    def load_newobj_ex(self) -> None:
        """The same, with arguments by name, which nothing that is made here takes."""
        self.stack.pop()
        arguments = self.stack.pop()
        self.stack[-1] = _made(self.stack[-1], arguments)

    def _instantiate(self, kind: Any, arguments: Any) -> None:
        """The same, as the oldest pickles ask for it."""
        self.append(_made(kind, arguments))

    dispatch[pickle.BUILD[0]] = load_build
    dispatch[pickle.REDUCE[0]] = load_reduce
    dispatch[pickle.NEWOBJ[0]] = load_newobj
    dispatch[pickle.NEWOBJ_EX[0]] = load_newobj_ex


def _made(kind: Any, arguments: Any) -> Any:
    if kind is OrderedDict:
        return OrderedDict()
    if isinstance(kind, type) and issubclass(kind, (_Nothing, _Mapping)):
        return kind(*arguments) if isinstance(arguments, (tuple, list)) else kind()
    raise Refused(str(getattr(kind, "__qualname__", type(kind).__name__)))


def _may_be_called(function: Any) -> bool:
    if isinstance(function, type) and issubclass(function, (_Nothing, _Mapping)):
        return True
    return any(function is known for known in _REBUILD.values())


def _load(file: Any, **options: Any) -> Any:
    return _Unpickler(file, **options).load()


_PICKLE = SimpleNamespace(Unpickler=_Unpickler, load=_load, __name__="memloc.encoders._inert")


def read_inert(path: Path) -> Any:
    """What a checkpoint holds, with stand-ins for everything but tensors, containers, text and numbers.

    Raises:
        Refused: an object that is not known to be inert, or a program rather than weights. Others as `torch.load`.
    """
    with path.open("rb") as file:
        zipped = file.read(4) == b"PK\x03\x04"  # as torch.load tells, which would run a program in such a file
    if zipped:
        return _from_zip(path)
    if tarfile.is_tarfile(path):
        raise Refused("a checkpoint of PyTorch before 0.2")
    load: Callable[..., Any] = torch.load
    return load(path, map_location="cpu", pickle_module=_PICKLE, weights_only=False)


def _from_zip(path: Path) -> Any:
    """The pickle of an archive as PyTorch's own reader finds it, its storages read as they are named."""
    reader = torch._C.PyTorchFileReader(str(path))
    records = set(reader.get_all_records())
    if "constants.pkl" in records or "data.pkl" not in records:
        raise Refused("a TorchScript program" if "constants.pkl" in records else "no weights")
    if "byteorder" in records and reader.get_record("byteorder") != sys.byteorder.encode():
        raise Refused("numbers in another byte order")
    storages: dict[str, Any] = {}

    def storage(saved: Any) -> Any:
        what, kind, key, _, number = saved
        if what != "storage" or not isinstance(kind, _Storage) or f"data/{key}" not in records:
            raise Refused(f"a storage {str(key)[:40]!r} that the file lacks")
        if key not in storages:
            size = int(number) * kind.dtype.itemsize
            held = reader.get_storage_from_record(f"data/{key}", size, torch.UntypedStorage)  # type: ignore[arg-type]
            storages[key] = torch.storage.TypedStorage(
                wrap_storage=held._typed_storage()._untyped_storage, dtype=kind.dtype, _internal=True
            )
        return storages[key]

    unpickler = _Unpickler(io.BytesIO(reader.get_record("data.pkl")), encoding="utf-8")
    unpickler.persistent_load = storage
    return unpickler.load()
