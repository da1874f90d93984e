"""The tokenizer class of `transformers`: one token per base, the ids of `hyenadna.alphabet`."""

# The library types its methods for itself, differently in each release.

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar, Final, Literal

from transformers import PreTrainedTokenizer

from hyenadna.alphabet import SEP, TOKENS, UNK, VOCAB_SIZE, A, encode
from hyenadna.errors import InputError
from hyenadna.reference_tokenizer import ReferenceTokenizer

_IDS: Final = {token: index for index, token in enumerate(TOKENS)}
_SPECIALS: Final = {
    "bos_token": "[BOS]",
    "eos_token": "[SEP]",
    "sep_token": "[SEP]",
    "cls_token": "[CLS]",
    "pad_token": "[PAD]",
    "mask_token": "[MASK]",
    "unk_token": "[UNK]",
}


class HyenaDNATokenizer(PreTrainedTokenizer):
    """DNA text to token ids and back.

    Lower case is the same base as upper case, an IUPAC ambiguity code is N, U is T, and anything
    else raises InputError; text that spells a special token is no exception. A sequence becomes
    `x [SEP]`, a pair `x [SEP] y [SEP]`, as the published heads were trained; prompts for `generate`
    want `add_special_tokens=False` in the call, or `add_sep=False` here. Padding stands on the
    right, where it costs nothing, unless `padding_side="left"`.

    config_file: the model's `config.json`, which `from_pretrained` finds, for its length.
    model_max_length: in tokens, that of the model when left out. compat: `"published"` gives the
    ids, the left padding and the fields of the published tokenizer instead, in which every
    character but upper-case A C G T N is `[UNK]` and special tokens are read out of the text.
    add_sep: whether special tokens are added at all. characters: accepted as published files have
    it, and nothing but A C G T N. kwargs: those of `PreTrainedTokenizer`.

    Raises InputError for an unknown `compat` or other characters.
    """

    # With this entry a folder without any tokenizer file is a whole one, and the length is known.
    vocab_files_names: ClassVar[dict[str, str]] = {"config_file": "config.json"}
    model_input_names: ClassVar[list[str]] = ["input_ids", "attention_mask"]
    padding_side = "right"

    def __init__(
        self,
        config_file: str | None = None,
        *,
        model_max_length: int | None = None,
        compat: Literal["published"] | None = None,
        add_sep: bool = True,
        characters: Any = None,
        **kwargs: Any,
    ) -> None:
        if compat not in (None, "published"):
            raise InputError(f"tokenizer: compat is {compat!r}; it is 'published' or None")
        if characters is not None and "".join(characters) != "".join(TOKENS[A:]):
            raise InputError(f"tokenizer: characters are {characters!r}; only A C G T N exist")
        self.compat, self.add_sep = compat, add_sep
        self._published = ReferenceTokenizer("hf")
        if compat == "published":
            kwargs = {"padding_side": "left", "model_input_names": ["input_ids"]} | kwargs
        kwargs.pop("add_special_tokens", None)  # never had an effect in the published classes
        if model_max_length is None:
            model_max_length = _max_seq_len(config_file)
        super().__init__(
            **(_SPECIALS | {"clean_up_tokenization_spaces": False} | kwargs),
            model_max_length=model_max_length,
            compat=compat,
            add_sep=add_sep,
        )

    @property
    def vocab_size(self) -> int:
        """12."""
        return VOCAB_SIZE

    def get_vocab(self) -> dict[str, int]:
        """Token to id."""
        return dict(_IDS)

    def tokenize(self, text: str, **kwargs: Any) -> list[str]:
        """One token per letter. Raises InputError at the first letter that is no base."""
        return self._tokenize(text)

    def _tokenize(self, text: str, **kwargs: Any) -> list[str]:
        if self.compat == "published":
            ids = self._published.encode(text, add_special_tokens=False)
        else:
            ids = encode(text).tolist()
        return [TOKENS[index] for index in ids]

    def _convert_token_to_id(self, token: str) -> int:
        return _IDS.get(token, UNK)

    def _convert_id_to_token(self, index: int) -> str:
        if not 0 <= index < VOCAB_SIZE:
            raise InputError(f"decode: token id {index} is outside 0..{VOCAB_SIZE - 1}")
        return TOKENS[index]

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        """The tokens, joined."""
        return "".join(tokens)

    def build_inputs_with_special_tokens(
        self, token_ids_0: list[int], token_ids_1: list[int] | None = None
    ) -> list[int]:
        """`x [SEP]`, or `x [SEP] y [SEP]`; without `add_sep` the ids alone."""
        end = [SEP] if self.add_sep else []
        return token_ids_0 + end + ([] if token_ids_1 is None else token_ids_1 + end)

    def get_special_tokens_mask(
        self,
        token_ids_0: list[int],
        token_ids_1: list[int] | None = None,
        already_has_special_tokens: bool = False,
    ) -> list[int]:
        """1 at special tokens and 0 at bases, for ids before or after special tokens are added."""
        ids = token_ids_0
        if not already_has_special_tokens:
            ids = self.build_inputs_with_special_tokens(token_ids_0, token_ids_1)
        return [int(index < A) for index in ids]

    def create_token_type_ids_from_sequences(
        self, token_ids_0: list[int], token_ids_1: list[int] | None = None
    ) -> list[int]:
        """0 for the first sequence and its `[SEP]`, 1 for the second."""
        first = len(self.build_inputs_with_special_tokens(token_ids_0))
        both = len(self.build_inputs_with_special_tokens(token_ids_0, token_ids_1))
        return [0] * first + [1] * (both - first)

    def save_vocabulary(
        self, save_directory: str, filename_prefix: str | None = None
    ) -> tuple[str, ...]:
        """No file: the vocabulary is fixed."""
        return ()


def _max_seq_len(config_file: str | None) -> int | None:
    """The length in a model's `config.json`, if it is there and says one."""
    if config_file is None:
        return None
    values = json.loads(Path(config_file).read_text(encoding="utf-8"))
    length = values.get("max_seq_len")
    return length if isinstance(length, int) else None
