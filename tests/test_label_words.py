"""Words of classes: the paper's letters, longer words for more classes, spellings of the user's."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyenadna.alphabet import decode
from hyenadna.errors import InputError
from hyenadna.label_words import LabelWords, label_words, spelled_words


def test_the_papers_letters():
    assert label_words(["a", "b"]).words == ("A", "N")
    assert label_words(["a", "b", "c"]).words == ("A", "G", "N")
    assert label_words("abcde").words == tuple("ACGTN")
    assert label_words("abcdef").words == ("AA", "AC", "AG", "AT", "AN", "CA")


@given(st.integers(2, 300))
def test_words_are_different_and_each_has_its_beginning(count):
    words = label_words([str(i) for i in range(count)])
    assert len(set(words.words)) == count and words.ids.shape == (count, words.length)
    for word, at in zip(words.words, words.beginning_of, strict=True):
        assert decode(words.beginnings[at]) == word[:-1]
    assert len({row.tobytes() for row in words.beginnings}) == len(words.beginnings)


def test_a_spelling_of_the_users():
    names = ["a=b", "other"]
    assert label_words(names, "other=tt, a=b=GA").words == ("GA", "TT")
    for spelling, message in {
        "other=T": "no word for the class 'a=b'",
        "x=A,other=T": "cannot use 'x=A'",
        "other=T,other=A": "cannot use 'other=A'",
        "a=b=A,other=TT": "differ in length",
        "a=b=A,other=A": "stands for two",
        "a=b=X,other=A": "letters of ACGTN",
        "a=b=,other=A": "letters of ACGTN",
    }.items():
        with pytest.raises(InputError, match=message):
            label_words(names, spelling)
    with pytest.raises(InputError, match="two or more"):
        LabelWords(("a",), ("A",))


def test_a_spelling_of_names_with_commas():
    names = ["kinase", "kinase, putative", "a=b, c"]
    words = label_words(names, "a=b, c = T, kinase, putative=g,kinase=A")
    assert words.words == ("A", "G", "T")
    for spelling, message in {
        "kinase, putative=G,kinase=A": "no word for the class 'a=b, c'",
        "kinase, putative=G,putative=A": "cannot use 'putative=A'",
        "kinase=G,kinase, putativ=A": "cannot use 'kinase'",
        "kinase=G,": "cannot use ''",
    }.items():
        with pytest.raises(InputError, match=message):
            label_words(names, spelling)
    with pytest.raises(InputError, match="no name may hold a comma"):
        spelled_words("kinase, putative=G,other=A")


def test_a_spelling_can_name_the_classes():
    words = spelled_words("b = GT, a=ac")
    assert (words.names, words.words) == (("b", "a"), ("GT", "AC"))
    for spelling in ("", "A", "=A,b=C", "a=A,,b=C"):
        with pytest.raises(InputError, match="give NAME=WORD"):
            spelled_words(spelling)
    with pytest.raises(InputError, match="two classes"):
        spelled_words("a=A,b=A")
