"""Exact decoding: a model reads a sequence that still grows, and never computes its past again.

`Decoder` holds what all sequences share, `DecodingState` where some of them stand.
"""

from hyenadna.model.decoding.decoder import Decoder
from hyenadna.model.decoding.state import DecodingState

__all__ = ["Decoder", "DecodingState"]
