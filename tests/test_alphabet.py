"""Letters and token ids."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyenadna import alphabet
from hyenadna.alphabet import decode, encode, reverse_complement, reverse_complement_ids
from hyenadna.errors import InputError

DNA = st.text("ACGTN", max_size=60)
ANY_CASE = st.text("ACGTNacgtnRYKMSWBDHVryk", max_size=60)


def test_the_published_table():
    assert encode("ACGTN").tolist() == [7, 8, 9, 10, 11]
    assert encode("ACGT", cls=True, sep=True).tolist() == [0, 7, 8, 9, 10, 1]
    assert encode("").tolist() == [] and encode("", sep=True).tolist() == [1]
    assert encode("Uu").tolist() == [10, 10]
    assert encode("RYKMSWBDHVN").tolist() == [11] * 11
    assert encode(b"acgt").dtype == np.uint8
    assert alphabet.TOKENS[:7] == (
        "[CLS]",
        "[SEP]",
        "[BOS]",
        "[MASK]",
        "[PAD]",
        "[RESERVED]",
        "[UNK]",
    )


@given(DNA)
def test_decode_undoes_encode(text):
    assert decode(encode(text)) == text
    assert decode(encode(text, cls=True, sep=True)) == text
    assert decode(encode(text, sep=True), specials=True) == text + "[SEP]"


@given(ANY_CASE)
def test_lower_case_equals_upper_case(text):
    assert encode(text).tolist() == encode(text.upper()).tolist() == encode(text.lower()).tolist()


@given(ANY_CASE)
def test_reverse_complement_twice_is_the_identity(text):
    assert reverse_complement(reverse_complement(text)) == text
    ids = encode(text)
    assert reverse_complement_ids(reverse_complement_ids(ids)).tolist() == ids.tolist()


@given(ANY_CASE)
def test_text_and_ids_have_the_same_other_strand(text):
    assert (
        encode(reverse_complement(text)).tolist() == reverse_complement_ids(encode(text)).tolist()
    )


def test_reverse_complement_keeps_specials_and_case():
    assert reverse_complement("AACGTNnRa") == "tYnNACGTT"
    assert reverse_complement_ids(np.array([7, 8, 1], np.uint8)).tolist() == [1, 9, 10]


@pytest.mark.parametrize("letter", [*"XEFIJLOPQZ*.-1 \n[é", "😀"])
def test_other_letters_are_an_error_that_says_where(letter):
    with pytest.raises(InputError, match=r"^chr2: letter .* at position 1004 is not DNA"):
        encode("ACG" + letter + "A", name="chr2", offset=1000)


def test_special_tokens_are_not_parsed_out_of_text():
    with pytest.raises(InputError, match=r"letter '\[' at position 2"):
        encode("A[SEP]")


def test_decode_errors():
    with pytest.raises(InputError, match=r"token id 12 is outside 0\.\.11"):
        decode([7, 12])
    with pytest.raises(InputError, match=r"shape \(1, 2\)"):
        decode([[7, 8]])


def test_the_other_strand_of_no_dna():
    with pytest.raises(InputError, match="letter 'X' at position 2"):
        reverse_complement("AXZ")
