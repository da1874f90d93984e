"""The published tokenizers, to the letter, quirks included: for comparisons with published numbers.

Everything else in this package encodes with `hyenadna.alphabet`, which reads lower case as bases
and refuses what is no DNA. Here, as in the published code, every character that is not an
upper-case A C G T N becomes `[UNK]`, one id per Unicode character, and padding stands on the left.

Three kinds, which differ in their special tokens (facts: shared specification, section (a)):

    kind        one sequence     text that spells a special token   returned fields
    hf          x [SEP]          one id ([RESERVED] is split)       input_ids
    training    x [SEP]          split into characters              input_ids, token_type_ids,
    standalone  [CLS] x [SEP]    split into characters              attention_mask
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, Literal

from hyenadna.alphabet import BOS, CLS, MASK, PAD, RESERVED, SEP, TOKENS, UNK, VOCAB_SIZE, A
from hyenadna.errors import InputError

Kind = Literal["hf", "training", "standalone"]
Side = Literal["left", "right"]
Row = dict[str, list[int]]

_BASE_IDS: Final = {letter: token for token, letter in enumerate(TOKENS) if token >= A}
_SPECIAL_IDS: Final = {
    TOKENS[token]: token for token in range(A) if token != RESERVED
}  # [RESERVED] is in the table but was never declared special
_SPECIAL_TEXT: Final = re.compile("(" + "|".join(map(re.escape, _SPECIAL_IDS)) + ")")


class ReferenceTokenizer:
    """Token ids exactly as a published tokenizer gives them.

    kind: which one (see the module). model_max_length: the length in tokens, special tokens
    included, that `max_length=None` stands for. padding_side: `left` as published, or `right`.

    Raises InputError for an unknown kind or side.
    """

    vocab_size: Final = VOCAB_SIZE
    pad_token_id: Final = PAD
    unk_token_id: Final = UNK
    sep_token_id: Final = SEP
    eos_token_id: Final = SEP
    cls_token_id: Final = CLS
    bos_token_id: Final = BOS
    mask_token_id: Final = MASK
    truncation_side: Final = "right"

    def __init__(
        self,
        kind: Kind = "hf",
        *,
        model_max_length: int | None = None,
        padding_side: Side = "left",
    ) -> None:
        if kind not in ("hf", "training", "standalone"):
            raise InputError(f"tokenizer kind {kind!r}; there are hf, training, standalone")
        if padding_side not in ("left", "right"):
            raise InputError(f"padding_side is {padding_side!r}; it is 'left' or 'right'")
        self.kind: Kind = kind
        self.model_max_length = model_max_length
        self.padding_side: Side = padding_side

    def __len__(self) -> int:
        return VOCAB_SIZE

    @property
    def model_input_names(self) -> list[str]:
        """The fields that a call returns."""
        if self.kind == "hf":
            return ["input_ids"]
        return ["input_ids", "token_type_ids", "attention_mask"]

    def __call__(
        self,
        text: str | Sequence[str],
        pair: str | Sequence[str] | None = None,
        *,
        add_special_tokens: bool = True,
        padding: bool | Literal["longest", "max_length"] = False,
        truncation: bool = False,
        max_length: int | None = None,
    ) -> dict[str, list[int]] | dict[str, list[list[int]]]:
        """Ids of one text as lists (L,), or of a list of texts as lists (B)(L).

        pair: a second text, or as many as there are texts. padding: True or 'longest' to the
        longest of the batch, 'max_length' to `max_length`. truncation: cut the text on the right so
        that it fits `max_length` with its special tokens; of a pair, the longer text first.

        The type ids of the original classes count a `[CLS]` also where there is none, so that they
        are one longer than the ids of the training repository; so they are here.

        Raises InputError for pairs that do not match, or a padding or cut without a length.
        """
        one = isinstance(text, str)
        texts = [text] if isinstance(text, str) else list(text)
        pairs: list[str | None]
        if pair is None or isinstance(pair, str):
            pairs = [pair] * len(texts)
        else:
            pairs = list(pair)
        if len(pairs) != len(texts) or (one and not isinstance(pair, str | None)):
            raise InputError(f"tokenizer: {len(texts)} texts but {len(pairs)} pairs; give one each")
        limit = self._limit(padding=padding, truncation=truncation, max_length=max_length)
        rows = [
            self._row(a, b, specials=add_special_tokens, limit=limit if truncation else None)
            for a, b in zip(texts, pairs, strict=True)
        ]
        if padding:
            longest = max((len(row["input_ids"]) for row in rows), default=0)
            width = limit if padding == "max_length" else longest
            rows = [self._pad(row, width or 0) for row in rows]
        if one:
            return rows[0]
        return {name: [row[name] for row in rows] for name in self.model_input_names}

    def encode(
        self, text: str, pair: str | None = None, *, add_special_tokens: bool = True
    ) -> list[int]:
        """Ids of one text (or pair), without padding."""
        return self._row(text, pair, specials=add_special_tokens, limit=None)["input_ids"]

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = False) -> str:
        """Text of ids, special tokens by name or left out; `[RESERVED]` counts as no special.

        Raises InputError for an id outside the table, where the published classes raise KeyError.
        """
        for token in ids:
            if not 0 <= token < VOCAB_SIZE:
                raise InputError(f"decode: token id {token} is outside 0..{VOCAB_SIZE - 1}")
        hidden = set(_SPECIAL_IDS.values()) if skip_special_tokens else set()
        return "".join(TOKENS[token] for token in ids if token not in hidden)

    def _limit(
        self, *, padding: bool | str, truncation: bool, max_length: int | None
    ) -> int | None:
        if padding not in (False, True, "longest", "max_length"):
            raise InputError(f"padding is {padding!r}; it is a bool, 'longest' or 'max_length'")
        limit = self.model_max_length if max_length is None else max_length
        if limit is None and (truncation or padding == "max_length"):
            raise InputError("tokenizer: padding or truncation to no length; give max_length")
        return limit

    def _row(self, text: str, pair: str | None, *, specials: bool, limit: int | None) -> Row:
        first = self._ids(text)
        second = None if pair is None else self._ids(pair)
        if limit is not None:
            empty: list[int] | None = None if second is None else []
            reserved = len(self._with_specials([], empty)) if specials else 0
            first, second = _cut(first, second, limit - reserved)
        ids = self._with_specials(first, second) if specials else first + (second or [])
        row: Row = {"input_ids": ids}
        if self.kind != "hf":
            row["token_type_ids"] = _type_ids(first, second) if specials else [0] * len(ids)
            row["attention_mask"] = [1] * len(ids)
        return row

    def _ids(self, text: str) -> list[int]:
        if self.kind != "hf":
            return [_BASE_IDS.get(letter, UNK) for letter in text]
        ids: list[int] = []
        for piece in _SPECIAL_TEXT.split(text):
            if piece in _SPECIAL_IDS:
                ids.append(_SPECIAL_IDS[piece])
            else:
                ids.extend(_BASE_IDS.get(letter, UNK) for letter in piece)
        return ids

    def _with_specials(self, first: list[int], second: list[int] | None) -> list[int]:
        front = [CLS] if self.kind == "standalone" else []
        ids = [*front, *first, SEP]
        return ids if second is None else [*ids, *second, SEP]

    def _pad(self, row: Row, width: int) -> Row:
        missing = width - len(row["input_ids"])
        if missing <= 0:
            return row
        filler = {"input_ids": PAD, "token_type_ids": 0, "attention_mask": 0}
        if self.padding_side == "left":
            return {name: [filler[name]] * missing + values for name, values in row.items()}
        return {name: values + [filler[name]] * missing for name, values in row.items()}


def _cut(
    first: list[int], second: list[int] | None, room: int
) -> tuple[list[int], list[int] | None]:
    """Both texts cut on the right to `room` ids together, the longer one first."""
    room = max(room, 0)
    if second is None:
        return first[:room], None
    a, b = len(first), len(second)
    while a + b > room:
        if a > b:
            a -= 1
        else:
            b -= 1
    return first[:a], second[:b]


def _type_ids(first: list[int], second: list[int] | None) -> list[int]:
    counted = [0] * (len(first) + 2)  # [CLS] and [SEP], whether or not there is a [CLS]
    return counted if second is None else counted + [1] * (len(second) + 1)
