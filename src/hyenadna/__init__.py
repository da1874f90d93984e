"""Learn from DNA at single-nucleotide resolution over long distances.

The public names load on first use, so that importing the package costs nothing:

    import hyenadna

    model = hyenadna.load("starter-1k")             # or a run, a folder, a published name
    logits = model(hyenadna.encode("ACGTNacgt"))    # (1, 9, 16)
    hidden = model.embed(hyenadna.encode("ACGT"))   # (1, 4, D)
    hyenadna.decode([7, 8, 9, 10])                  # "ACGT"
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from hyenadna.alphabet import decode as decode
    from hyenadna.alphabet import encode as encode
    from hyenadna.alphabet import reverse_complement as reverse_complement
    from hyenadna.checkpoint.load import load as load
    from hyenadna.checkpoint.save import save as save
    from hyenadna.config import ModelConfig as ModelConfig
    from hyenadna.config import preset as preset
    from hyenadna.errors import InputError as InputError
    from hyenadna.genome.fasta import Genome as Genome
    from hyenadna.infer.design import Design as Design
    from hyenadna.infer.generate import generate as generate
    from hyenadna.infer.generate import stream as stream
    from hyenadna.infer.mutate import mutate as mutate
    from hyenadna.infer.sampling import Sampling as Sampling
    from hyenadna.model.backbone import HyenaDNA as HyenaDNA
    from hyenadna.model.decoding import Decoder as Decoder
    from hyenadna.model.one_hot import OneHotModel as OneHotModel
    from hyenadna.model.one_hot import one_hot as one_hot

_HOMES = {
    "decode": "alphabet",
    "encode": "alphabet",
    "reverse_complement": "alphabet",
    "load": "checkpoint.load",
    "save": "checkpoint.save",
    "ModelConfig": "config",
    "preset": "config",
    "InputError": "errors",
    "Genome": "genome.fasta",
    "Design": "infer.design",
    "generate": "infer.generate",
    "stream": "infer.generate",
    "mutate": "infer.mutate",
    "Sampling": "infer.sampling",
    "HyenaDNA": "model.backbone",
    "Decoder": "model.decoding",
    "OneHotModel": "model.one_hot",
    "one_hot": "model.one_hot",
}

__all__ = [*_HOMES, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'hyenadna' has no attribute {name!r}")
    return getattr(import_module(f"hyenadna.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
