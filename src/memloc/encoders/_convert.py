"""Take the tensors out of a checkpoint that holds Python objects, in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from memloc.errors import CheckpointError, DataNotFoundError, TrustError
from memloc.results import replacing

_TAKE_OUT = """
import pickle
import sys
import types
import torch
from safetensors.torch import save_file

class Unpickler(pickle.Unpickler):
    def find_class(self, module, name):
        try:
            return super().find_class(module, name)
        except (AttributeError, ImportError):  # a class of the script that wrote the file
            lost.append(module + "." + name)
            return type(name, (), {"__init__": lambda self, *a, **k: None, "__setstate__": lambda self, state: None})

def load(file, **options):
    return Unpickler(file, **options).load()

lost = []
reader = types.SimpleNamespace(Unpickler=Unpickler, load=load, __name__="pickle")

def tensors(value, path=""):
    if isinstance(value, torch.nn.Module):
        value = value.state_dict()
    if isinstance(value, torch.Tensor):
        yield path, value.detach().cpu().contiguous().clone()
    elif hasattr(value, "items"):
        for key, each in value.items():
            yield from tensors(each, f"{path}.{key}" if path else str(key))
    elif isinstance(value, (list, tuple)):
        for key, each in enumerate(value):
            yield from tensors(each, f"{path}.{key}" if path else str(key))

pairs = list(tensors(torch.load(sys.argv[1], map_location="cpu", weights_only=False, pickle_module=reader)))
found = dict(pairs)
if not found:
    sys.exit("it holds no tensors")
if len(found) < len(pairs):
    sys.exit("two of its tensors have one name, once names are joined by dots")
save_file(found, sys.argv[2], metadata={"format": "pt"})
print(len(found))
"""


def convert_checkpoint(path: str | Path, out: str | Path, *, trust: bool = False) -> int:
    """Write the tensors of a checkpoint, and of modules that were pickled whole, as safetensors; how many there are.

    Opening such a file runs whatever code it brings, with your rights. It is done in a process of its own, which keeps
    this one from crashing, and keeps nothing else from harm.

    Args:
        path: a PyTorch file. out: a .safetensors file. trust: that you know who made it.
    Raises:
        TrustError: without trust. DataNotFoundError: no such file. CheckpointError: it cannot be opened, or holds none.
    """
    path, out = Path(path).expanduser(), Path(out).expanduser()
    if not path.is_file():
        raise DataNotFoundError(f"there is no checkpoint {str(path)!r}. Expected a PyTorch file. Check the path.")
    if out.suffix != ".safetensors":
        raise CheckpointError(
            f"out is {str(out)!r}. Expected a name that ends in .safetensors. Pass --out {out.stem}.safetensors."
        )
    if out.exists():
        raise CheckpointError(f"there is {str(out)!r} already. Expected a new file. Pass another --out, or remove it.")
    if not trust:
        raise TrustError(
            f"opening {str(path)!r} runs the code that it brings, with your rights. Expected a file whose maker you"
            " know. If you do, pass --trust."
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    with replacing(out) as temporary:
        command = [sys.executable, "-c", _TAKE_OUT, str(path), str(temporary)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1][:300]
            raise CheckpointError(
                f"{path} cannot be converted ({reason}). Expected a file that torch.load opens here. Install what it"
                " needs, or save model.state_dict() where it was made."
            )
    return int(done.stdout.split()[-1])
