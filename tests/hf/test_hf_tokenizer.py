"""The tokenizer class: our ids by default, the published ones on request."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("transformers")

from hf_examples import published_folder, small_model
from transformers import AutoTokenizer

import hyenadna
from hyenadna.alphabet import TOKENS, encode
from hyenadna.errors import InputError
from hyenadna.reference_tokenizer import ReferenceTokenizer
from hyenadna.transformers import HyenaDNATokenizer

OURS = HyenaDNATokenizer()
PUBLISHED = HyenaDNATokenizer(compat="published", model_max_length=1026)


@settings(max_examples=50, deadline=None)
@given(st.text("ACGTNUacgtnuRYKMSWBDHVrykmswbdhv", max_size=30))
def test_ids_are_those_of_the_alphabet(text):
    ids = encode(text).tolist()
    assert OURS(text)["input_ids"] == [*ids, 1]
    assert OURS(text)["attention_mask"] == [1] * (len(ids) + 1)
    assert OURS(text, add_special_tokens=False)["input_ids"] == ids
    assert HyenaDNATokenizer(add_sep=False)(text)["input_ids"] == ids
    assert OURS.decode(OURS(text)["input_ids"], skip_special_tokens=True) == (
        "".join(TOKENS[i] for i in ids)
    )


@pytest.mark.parametrize("text", ["AC GT", "AC[SEP]", "[MASK]", "ACX", "AC-", "é"])
def test_what_is_no_dna_is_refused(text):
    with pytest.raises(InputError, match="is not DNA"):
        OURS(text)


def test_padding_sides_pairs_and_truncation():
    batch = OURS(["ACGT", "A"], padding=True, return_tensors="pt")
    assert batch["input_ids"].tolist() == [[7, 8, 9, 10, 1], [7, 1, 4, 4, 4]]
    assert batch["attention_mask"].tolist() == [[1] * 5, [1, 1, 0, 0, 0]]
    left = HyenaDNATokenizer(padding_side="left")(["ACGT", "A"], padding=True)
    assert left["input_ids"][1] == [4, 4, 4, 7, 1] and left["attention_mask"][1] == [0, 0, 0, 1, 1]
    assert OURS("ACGTACGT", truncation=True, max_length=4)["input_ids"] == [7, 8, 9, 1]
    assert OURS("AC", "G")["input_ids"] == [7, 8, 1, 9, 1]
    pair = OURS("AC", "G", return_token_type_ids=True, return_special_tokens_mask=True)
    assert pair["token_type_ids"] == [0, 0, 0, 1, 1]
    assert pair["special_tokens_mask"] == [0, 0, 1, 0, 1]
    assert OURS.get_special_tokens_mask([7, 1, 4], already_has_special_tokens=True) == [0, 1, 1]


def test_table():
    assert OURS.get_vocab() == {token: i for i, token in enumerate(TOKENS)}
    assert (OURS.vocab_size, len(OURS), len(PUBLISHED)) == (12, 12, 12)
    named = ("cls", "sep", "bos", "mask", "pad", "unk", "eos")
    assert [getattr(OURS, f"{n}_token_id") for n in named] == [0, 1, 2, 3, 4, 6, 1]
    assert OURS.decode([7, 8, 1, 4]) == "AC[SEP][PAD]"
    assert OURS.decode(torch.tensor([7, 8, 11])) == "ACN"
    assert OURS.convert_tokens_to_ids(["A", "[PAD]", "?"]) == [7, 4, 6]
    with pytest.raises(InputError, match="token id 12 is outside"):
        OURS.decode([12])


def test_options_are_checked():
    with pytest.raises(InputError, match="compat is 'hf'"):
        HyenaDNATokenizer(compat="hf")
    with pytest.raises(InputError, match="only A C G T N exist"):
        HyenaDNATokenizer(characters=["A", "C"])


# -- the published ids -----------------------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(st.text("ACGTNacgu[]SEPMKDRV .é", max_size=30) | st.sampled_from(TOKENS))
def test_published_ids_equal_our_reference(text):
    reference = ReferenceTokenizer("hf")
    assert PUBLISHED(text)["input_ids"] == reference.encode(text)
    assert set(PUBLISHED(text)) == {"input_ids"}


@pytest.fixture(scope="module")
def golden(shared):
    return json.loads((shared / "golden" / "tokenizer.json").read_text())["hf"]


def test_golden_single_pairs_and_decode(golden):
    for case in golden["single"]:
        assert PUBLISHED(case["text"])["input_ids"] == case["ids"], case
        ids = PUBLISHED(case["text"], add_special_tokens=False)["input_ids"]
        assert ids == case["ids_no_special"], case
    for case in golden["pairs"]:
        assert PUBLISHED(case["text"], case["pair"])["input_ids"] == case["ids"], case
    for case in golden["decode"]:
        if "error" in case:
            with pytest.raises(InputError, match="outside"):
                PUBLISHED.decode(case["ids"])
        else:
            assert PUBLISHED.decode(case["ids"]) == case["text"]
            assert PUBLISHED.decode(case["ids"], skip_special_tokens=True) == case["skip"]


def test_golden_batches(golden):
    for case in golden["batch"]:
        tokenizer = HyenaDNATokenizer(
            compat="published", model_max_length=1026, padding_side=case["padding_side"]
        )
        assert tokenizer(case["texts"], **case["kwargs"])["input_ids"] == case["input_ids"], case


def test_golden_attributes(golden):
    wanted = golden["attrs"]
    found = {n: getattr(PUBLISHED, f"{n}_token_id") for n in
             ("pad", "unk", "sep", "cls", "eos", "bos", "mask")}  # fmt: skip
    found |= {"vocab_size": PUBLISHED.vocab_size, "len": len(PUBLISHED)}
    found |= {n: getattr(PUBLISHED, n) for n in
              ("padding_side", "truncation_side", "model_input_names")}  # fmt: skip
    assert found == {name: wanted[name] for name in found} and len(found) == len(wanted)


# -- folders ---------------------------------------------------------------------------------------


def test_folder_without_tokenizer_files(tmp_path):
    hyenadna.save(small_model(), tmp_path / "m")
    assert sorted(p.name for p in (tmp_path / "m").iterdir()) == [
        "config.json", "model.safetensors",
    ]  # fmt: skip
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "m")
    assert type(tokenizer) is HyenaDNATokenizer
    assert tokenizer.model_max_length == 34
    assert tokenizer("acgt")["input_ids"] == [7, 8, 9, 10, 1]
    assert len(tokenizer("A" * 50, truncation=True)["input_ids"]) == 34


def test_published_folder_needs_no_remote_code(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("remote code was asked for")

    monkeypatch.setattr("builtins.input", refuse)
    published_folder(tmp_path / "m", small_model())
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "m")
    assert type(tokenizer) is HyenaDNATokenizer
    assert (tokenizer.model_max_length, tokenizer.padding_side) == (34, "left")
    assert tokenizer("acgt")["input_ids"] == [7, 8, 9, 10, 1]
    old = AutoTokenizer.from_pretrained(tmp_path / "m", compat="published")
    assert old("acgT")["input_ids"] == [6, 6, 6, 10, 1]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"add_sep": False, "padding_side": "left", "model_max_length": 77},
        {"compat": "published", "model_max_length": 1026},
    ],
)
def test_round_trip(tmp_path, options):
    tokenizer = HyenaDNATokenizer(**options)
    tokenizer.save_pretrained(tmp_path / "t")
    saved = json.loads((tmp_path / "t" / "tokenizer_config.json").read_text())
    assert "config_file" not in saved
    model = small_model()
    hyenadna.save(model, tmp_path / "m")
    for name in ("config.json", "model.safetensors"):
        (tmp_path / "m" / name).rename(tmp_path / "t" / name)
    again = AutoTokenizer.from_pretrained(tmp_path / "t")
    assert type(again) is HyenaDNATokenizer
    alone = HyenaDNATokenizer.from_pretrained(tmp_path / "t")
    texts = ["ACGT", "AN"]
    for other in (again, alone):
        assert dict(other(texts, padding=True)) == dict(tokenizer(texts, padding=True))
        assert (other.compat, other.add_sep) == (tokenizer.compat, tokenizer.add_sep)
        assert other.get_vocab() == tokenizer.get_vocab()
        if "model_max_length" in options:
            assert other.model_max_length == options["model_max_length"]
