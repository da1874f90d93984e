"""The reference tokenizers give the ids of the published ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyenadna.alphabet import encode
from hyenadna.errors import InputError
from hyenadna.reference_tokenizer import ReferenceTokenizer

KINDS = ("hf", "training", "standalone")


@pytest.fixture(scope="module")
def golden(shared: Path) -> dict[str, Any]:
    cases: dict[str, Any] = json.loads((shared / "golden" / "tokenizer.json").read_text())
    return cases


@pytest.mark.parametrize("kind", KINDS)
def test_single_texts(golden: dict[str, Any], kind: Any) -> None:
    tokenizer = ReferenceTokenizer(kind)
    assert golden[kind]["single"]
    for case in golden[kind]["single"]:
        assert tokenizer.encode(case["text"]) == case["ids"], case["text"]
        plain = tokenizer.encode(case["text"], add_special_tokens=False)
        assert plain == case["ids_no_special"], case["text"]


@pytest.mark.parametrize("kind", KINDS)
def test_batches(golden: dict[str, Any], kind: Any) -> None:
    assert golden[kind]["batch"]
    for case in golden[kind]["batch"]:
        tokenizer = ReferenceTokenizer(kind, padding_side=case["padding_side"])
        out = tokenizer(case["texts"], **case["kwargs"])
        assert out["input_ids"] == case["input_ids"], case
        assert out.get("attention_mask") == case["attention_mask"], case


@pytest.mark.parametrize("kind", KINDS)
def test_pairs(golden: dict[str, Any], kind: Any) -> None:
    for case in golden[kind]["pairs"]:
        out = ReferenceTokenizer(kind)(case["text"], case["pair"])
        assert out["input_ids"] == case["ids"]
        assert out.get("token_type_ids") == case["token_type_ids"]


@pytest.mark.parametrize("kind", KINDS)
def test_decode(golden: dict[str, Any], kind: Any) -> None:
    tokenizer = ReferenceTokenizer(kind)
    for case in golden[kind]["decode"]:
        if "error" in case:
            with pytest.raises(InputError, match=r"12 is outside 0\.\.11"):
                tokenizer.decode(case["ids"])
        else:
            assert tokenizer.decode(case["ids"]) == case["text"]
            assert tokenizer.decode(case["ids"], skip_special_tokens=True) == case["skip"]


@pytest.mark.parametrize("kind", KINDS)
def test_attributes(golden: dict[str, Any], kind: Any) -> None:
    tokenizer, attrs = ReferenceTokenizer(kind), golden[kind]["attrs"]
    assert len(tokenizer) == attrs["len"]
    assert tokenizer.vocab_size == attrs["vocab_size"]
    for name in ("pad", "unk", "sep", "cls", "eos", "bos", "mask"):
        assert getattr(tokenizer, f"{name}_token_id") == attrs[name]
    for name in ("padding_side", "truncation_side", "model_input_names"):
        assert getattr(tokenizer, name) == attrs[name]


@pytest.mark.parametrize(
    ("kind", "text", "ids"),
    [
        ("hf", "ACGTN", [7, 8, 9, 10, 11, 1]),
        ("hf", "acgU-\n", [6, 6, 6, 6, 6, 6, 1]),
        ("hf", "A[MASK]C", [7, 3, 8, 1]),
        ("hf", "[RESERVED]", [6] * 10 + [1]),
        ("training", "[MASK]", [6, 6, 7, 6, 6, 6, 1]),
        ("standalone", "ACG", [0, 7, 8, 9, 1]),
        ("standalone", "", [0, 1]),
    ],
)
def test_cases_of_the_specification(kind: Any, text: str, ids: list[int]) -> None:
    assert ReferenceTokenizer(kind).encode(text) == ids


def test_the_cut_keeps_sep_and_the_pad_stands_left() -> None:
    out = ReferenceTokenizer("hf", model_max_length=4)(
        ["ACGTN", "A"], padding="max_length", truncation=True
    )
    assert out == {"input_ids": [[7, 8, 9, 1], [4, 4, 7, 1]]}


def test_a_pair_is_cut_at_its_longer_text() -> None:
    out = ReferenceTokenizer("standalone")("AAAA", "CC", truncation=True, max_length=7)
    assert out["input_ids"] == [0, 7, 7, 1, 8, 8, 1]


def test_a_limit_below_the_special_tokens_leaves_them() -> None:
    out = ReferenceTokenizer("standalone")("ACGT", truncation=True, max_length=1)
    assert out["input_ids"] == [0, 1]


@given(st.text("ACGTN"))
def test_upper_case_dna_agrees_with_our_alphabet(text: str) -> None:
    ours = encode(text, sep=True).tolist()
    assert ReferenceTokenizer("hf").encode(text) == ours
    assert ReferenceTokenizer("training").encode(text) == ours
    assert ReferenceTokenizer("standalone").encode(text) == [0, *ours]


@given(st.text())
def test_original_classes_give_one_id_per_character(text: str) -> None:
    ids = ReferenceTokenizer("training").encode(text, add_special_tokens=False)
    assert len(ids) == len(text)


def test_what_cannot_be_done_is_said() -> None:
    with pytest.raises(InputError, match="there are hf, training, standalone"):
        ReferenceTokenizer("bert")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="'left' or 'right'"):
        ReferenceTokenizer(padding_side="middle")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="give max_length"):
        ReferenceTokenizer()("A", truncation=True)
    with pytest.raises(InputError, match="2 texts but 1 pairs"):
        ReferenceTokenizer()(["A", "C"], ["G"])
