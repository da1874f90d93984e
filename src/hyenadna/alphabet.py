"""Letters, token ids, complement: the only vocabulary.

Token ids are those of the published models (a fixed table of 12, one id per character):

    0 [CLS]  1 [SEP]  2 [BOS]  3 [MASK]  4 [PAD]  5 [RESERVED]  6 [UNK]  7 A  8 C  9 G  10 T  11 N

The published tokenizers turn every lower-case letter into `[UNK]`, so that a soft-masked genome
becomes a run of sixes without a word. Here lower case is the same base as upper case, an IUPAC
ambiguity code is N, U is T, and anything else is an error that says where. Special tokens are never
parsed out of sequence text. `hyenadna.reference_tokenizer` reproduces the published behaviour.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from hyenadna.errors import InputError

TOKENS: Final = (
    "[CLS]", "[SEP]", "[BOS]", "[MASK]", "[PAD]", "[RESERVED]", "[UNK]", "A", "C", "G", "T", "N",
)  # fmt: skip
CLS, SEP, BOS, MASK, PAD, RESERVED, UNK, A, C, G, T, N = range(12)
VOCAB_SIZE: Final = len(TOKENS)
BASES: Final = (A, C, G, T)
IGNORED: Final = -100
"""Target that does not count in a loss (torch's `ignore_index`)."""

IUPAC_AMBIGUITY: Final = "RYKMSWBDHV"
INVALID: Final = 255

Ids = npt.NDArray[np.uint8]


def _byte_table() -> Ids:
    table = np.full(256, INVALID, dtype=np.uint8)
    letters = {"A": A, "C": C, "G": G, "T": T, "U": T, "N": N} | dict.fromkeys(IUPAC_AMBIGUITY, N)
    for letter, token in letters.items():
        table[ord(letter)] = token
        table[ord(letter.lower())] = token
    return table


def _complement_table() -> Ids:
    table = np.arange(256, dtype=np.uint8)
    table[[A, C, G, T]] = [T, G, C, A]
    return table


BYTE_TO_ID: Final = _byte_table()
COMPLEMENT: Final = _complement_table()
_COMPLEMENT_LETTERS: Final = bytes.maketrans(
    b"ACGTUNRYKMSWBDHVacgtunrykmswbdhv", b"TGCAANYRMKSWVHDBtgcaanyrmkswvhdb"
)


def encode(
    sequence: str | bytes,
    *,
    cls: bool = False,
    sep: bool = False,
    name: str = "sequence",
    offset: int = 0,
) -> Ids:
    """Token ids of a DNA text: uint8, shape (L,), or more with `cls` or `sep`.

    `cls` puts `[CLS]` in front, `sep` puts `[SEP]` behind; the models were pretrained without
    `[CLS]`. `name` and `offset` (0-based position of the first letter in the record) only serve the
    error message.

    Raises InputError at the first letter that is no base, naming record and 1-based position.
    """
    raw = sequence.encode("latin-1", "replace") if isinstance(sequence, str) else sequence
    letters = np.frombuffer(raw, dtype=np.uint8)
    ids = BYTE_TO_ID[letters]
    if (ids == INVALID).any():
        at = int((ids == INVALID).argmax())
        letter = sequence[at] if isinstance(sequence, str) else chr(sequence[at])
        raise InputError(
            f"{name}: letter {letter!r} at position {offset + at + 1} is not DNA "
            f"(A C G T U N and the ambiguity codes {IUPAC_AMBIGUITY}, upper or lower case)"
        )
    if cls or sep:
        front = [CLS] if cls else []
        back = [SEP] if sep else []
        ids = np.concatenate([np.array(front, np.uint8), ids, np.array(back, np.uint8)])
    return ids


def decode(ids: npt.ArrayLike, *, specials: bool = False) -> str:
    """Text of token ids, any integer array of shape (L,).

    Special tokens are left out, or with `specials` written by name (`[SEP]`).

    Raises InputError for an id outside 0..11 or an array that is not one-dimensional.
    """
    array = np.asarray(ids)
    if array.ndim != 1:
        raise InputError(f"decode: ids have shape {array.shape}; give one sequence of shape (L,)")
    if array.size and (array.min() < 0 or array.max() >= VOCAB_SIZE):
        bad = int(array[(array < 0) | (array >= VOCAB_SIZE)][0])
        raise InputError(f"decode: token id {bad} is outside 0..{VOCAB_SIZE - 1}")
    return "".join(TOKENS[i] for i in array.tolist() if specials or i >= A)


def reverse_complement_ids(ids: Ids) -> Ids:
    """Token ids of the other strand, read in its own direction; special tokens stay themselves.

    Works on the last axis of an array of any shape.
    """
    return COMPLEMENT[ids[..., ::-1]]


def reverse_complement(sequence: str) -> str:
    """Text of the other strand, case and ambiguity codes kept (R becomes Y, and so on).

    Raises InputError at a letter that is no base, as `encode` does.
    """
    encode(sequence)
    return sequence.encode("latin-1").translate(_COMPLEMENT_LETTERS)[::-1].decode("latin-1")
