"""A walk through a design reaches every sequence that meets it, no other, and no dead end."""

from __future__ import annotations

import itertools
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hyenadna.alphabet import BASES, N, decode, encode, reverse_complement
from hyenadna.errors import InputError
from hyenadna.infer import design_motifs, design_tables
from hyenadna.infer.design import Design

CLASSES = {
    "A": "A", "C": "C", "G": "G", "T": "T", "R": "AG", "Y": "CT", "S": "CG", "W": "AT", "K": "GT",
    "M": "AC", "B": "CGT", "D": "AGT", "H": "ACT", "V": "ACG", "N": "ACGT",
}  # fmt: skip
WITH_N = (*BASES, N)


def pattern(motif, n="ACGT"):
    return re.compile("".join(f"[{n if x == 'N' else CLASSES[x]}]" for x in motif.upper()))


def meets(design, prompt, new):
    """Whether new bases after a prompt meet a design: by text search, with nothing of the code."""
    text = prompt + new
    if design.template and not pattern(design.template, "ACGTN").fullmatch(new):
        return False
    for position, motif in dict(design.fixed).items():
        if not pattern(motif, "ACGTN").fullmatch(new[position : position + len(motif)]):
            return False
    for motif in design.forbidden:
        for end in range(len(prompt) + 1, len(text) + 1):
            part = text[max(end - len(motif), 0) : end]
            if pattern(motif).fullmatch(part) or pattern(motif).fullmatch(reverse_complement(part)):
                return False
    if design.max_homopolymer:
        for run in re.finditer(r"A+|C+|G+|T+", text):
            if run.end() > len(prompt) and len(run.group()) > design.max_homopolymer:
                return False
    if design.gc:
        share = sum(x in "GC" for x in new) / len(new)
        return design.gc[0] - 1e-9 <= share <= design.gc[1] + 1e-9
    return True


def expected(design, prompt, length, letters=BASES):
    every = ("".join(x) for x in itertools.product(decode(letters), repeat=length))
    return {new for new in every if meets(design, prompt, new)}


def reachable(plan, prompt):
    """Every sequence that a walk can take; no row is ever without a letter."""
    walk = plan.start([encode(prompt)])
    texts = [""]
    for _ in range(plan.length):
        allowed = walk.allowed()
        assert allowed.shape == (len(texts), len(plan.letters))
        assert allowed.any(1).all(), "a dead end"
        rows, choice = allowed.nonzero()
        walk = walk.select(rows)
        walk.take(choice)
        texts = [texts[r] + decode([plan.letters[c]]) for r, c in zip(rows, choice, strict=True)]
    assert len(set(texts)) == len(texts)
    return set(texts)


def check(design, prompt, length, letters=BASES):
    """Compare walks with brute force; returns the plan, None where the design was refused."""
    want = expected(design, prompt, length, letters)
    try:
        plan = design.plan(length, letters)
        got = reachable(plan, prompt)
    except InputError as error:
        assert "\n" not in str(error)
        assert str(error).startswith("design: ")
        # only a gap in the counts of G and C may refuse what is possible
        assert not want or "for certain" in str(error)
        return None
    if plan.exact:
        assert got == want
    else:
        assert got and got <= want
    return plan


def texts(letters, low, high):
    return st.text(alphabet=letters, min_size=low, max_size=high)


IUPAC = "".join(CLASSES)
MOTIF = texts("ACGTACGTACGTRYSWKMN", 1, 4) | texts("ACGT", 2, 4)


@st.composite
def designs(draw, gc=False):
    length = draw(st.integers(1, 5))
    template = draw(st.none() | texts("NNNNNNNN" + IUPAC, length, length))
    fixed = {}
    for _ in range(draw(st.integers(0, 2))):
        motif = draw(texts("ACGTN" + IUPAC, 1, min(length, 3)))
        fixed[draw(st.integers(0, length - len(motif)))] = motif
    bounds = sorted((draw(st.integers(0, 10)) / 10, draw(st.integers(0, 10)) / 10))
    return length, Design(
        template=template,
        fixed=fixed,
        forbidden=draw(st.lists(MOTIF, max_size=3)),
        gc=tuple(bounds) if gc else None,
        max_homopolymer=draw(st.none() | st.integers(1, 3)),
    )


@given(designs(), texts("ACGTN", 0, 6), st.sampled_from([BASES, WITH_N, (10, 7), (N, 9, 8)]))
@settings(max_examples=150, derandomize=True)
def test_reaches_exactly_what_meets_the_design(drawn, prompt, letters):
    check(drawn[1], prompt, drawn[0], letters)


@given(designs(gc=True), texts("ACGTN", 0, 4), st.sampled_from([BASES, WITH_N]))
@settings(max_examples=150, derandomize=True)
def test_gc_too(drawn, prompt, letters):
    check(drawn[1], prompt, drawn[0], letters)


@pytest.mark.parametrize(
    ("design", "prompt"),
    [
        (Design(), ""),
        (Design(template="NNRYNN", max_homopolymer=2), "ACC"),
        (Design(forbidden=["GATC", "CCWGG"]), "TTCCA"),
        (Design(forbidden=["GNNC"], max_homopolymer=3, gc=(0.3, 0.7)), "G"),
        (Design(fixed={1: "gu", 4: "NA"}, gc=(0.5, 0.5)), ""),
        (Design(max_homopolymer=1, gc=(0.5, 1)), "A"),
        (Design(forbidden=["A"]), ""),  # and so no T
        (Design(max_homopolymer=4), "AAAAAAA"),
    ],
)
def test_six_bases(design, prompt):
    plan = check(design, prompt, 6)
    assert plan is not None and plan.exact


def test_n_matches_no_motif_and_stands_only_where_all_is_free():
    sequences = reachable(Design("NRN", forbidden=["AN"]).plan(3, WITH_N), "")
    assert {x[1] for x in sequences} == {"A", "G"}
    assert {"NAN", "NGN"} <= sequences and "NAC" not in sequences
    assert reachable(Design("NN", max_homopolymer=1, forbidden=["S"]).plan(2, WITH_N), "A") == {
        "TA", "TN", "NA", "NN", "NT",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("design", "kept", "fitting"),
    [
        (Design("NNNN", forbidden=["BT", "TG"], gc=(0.2, 0.8)), 14, 16),
        (Design("NNNNW", forbidden=["AT", "CW"], gc=(0.1, 0.7)), 43, 49),
        (Design("NSNNW", forbidden=["YC", "RK"], gc=(0.5, 1.0)), 1, 2),
    ],
)
def test_a_gap_in_the_counts_is_cut_without_dead_ends(design, kept, fitting):
    length = len(design.template)
    plan = check(design, "", length)
    assert plan is not None and not plan.exact
    assert (len(reachable(plan, "")), len(expected(design, "", length))) == (kept, fitting)


def test_a_gap_in_the_counts_can_refuse_and_says_that_it_may_be_wrong():
    """Forbidden on both strands: no change between A or T and C or G, so 0 or 4, nothing else."""
    design = Design(forbidden=["SW"], gc=(0.5, 1))
    assert len(expected(design, "", 4)) == 16
    with pytest.raises(InputError, match="the rest of the design leaves for certain 0 to 0"):
        design.plan(4)


@pytest.mark.parametrize("with_n", [False, True])
def test_long_random_walks_meet_everything(with_n):
    length, letters = 2000, WITH_N if with_n else BASES
    design = Design(
        template="N" * 700 + "RYSWKMBDHV" * 10 + "N" * 1200,
        fixed={0: "ATG", 100: "TATAAANNNNGC", 1997: "TAA"},
        forbidden=("GAATTC", "GGTCTC", "GANTC", "CCWGG"),
        gc=(0.6, 0.62),
        max_homopolymer=4,
    )
    prompts = ["", "ACGTACGAAT", "TTTT", "GGTCT"]
    plan = design.plan(length, letters)
    assert plan.exact
    walk = plan.start([encode(prompt) for prompt in prompts])
    rng = np.random.default_rng(4)
    taken = []
    weights = np.array([0.4, 0.1, 0.1, 0.4, 0.05])[: len(letters)]  # pulls away from the range
    for _ in range(length):
        allowed = walk.allowed()
        assert allowed.any(1).all()
        choice = (allowed * weights * rng.random(allowed.shape)).argmax(1)
        walk.take(choice)
        taken.append(np.array(letters)[choice])
    assert walk.position == length
    sequences = [decode(row) for row in np.array(taken).T]
    assert len(set(sequences)) == len(prompts)
    for prompt, new in zip(prompts, sequences, strict=True):
        assert meets(design, prompt, new)
    with pytest.raises(InputError, match=r"^design: all 2000 new bases have been taken$"):
        walk.allowed()


def test_rows_do_not_depend_on_each_other():
    plan = Design(forbidden=["GATC"], max_homopolymer=2, gc=(0.4, 0.6)).plan(30)
    prompts = [encode(x) for x in ("", "GAT", "AA", "CCGAT")]
    together = plan.start(prompts)
    alone = [plan.start([prompt]) for prompt in prompts]
    rng = np.random.default_rng(0)
    for _ in range(30):
        allowed = together.allowed()
        choice = (allowed * rng.random(allowed.shape)).argmax(1)
        for row, walk in enumerate(alone):
            np.testing.assert_array_equal(walk.allowed(), allowed[row : row + 1])
            walk.take(choice[row : row + 1])
        together.take(choice)


def test_branches_go_their_own_ways():
    plan = Design(max_homopolymer=2, gc=(0.5, 0.5)).plan(6)
    walk = plan.start([encode("A"), encode("CC")])
    walk.take([0, 2])  # AA, CCG
    branch = walk.select([1, 0, 0])
    assert (walk.batch, branch.batch, branch.position) == (2, 3, 1)
    before = walk.allowed()
    np.testing.assert_array_equal(branch.allowed(), before[[1, 0, 0]])
    assert before[0].tolist() == [False, True, True, True]
    branch.take([2, 1, 3])
    branch.take([0, 1, 2])
    np.testing.assert_array_equal(walk.allowed(), before)
    assert branch.allowed()[1].tolist() == [True, False, True, True]
    assert walk.select(np.array([], dtype=int)).batch == 0


def test_what_allowed_gives_is_the_callers():
    walk = Design(max_homopolymer=1).plan(2).start([encode("A")])
    walk.allowed()[:] = True
    with pytest.raises(InputError, match="row 0 took letter 0 at new base 1"):
        walk.take([0])


def test_free_plan_needs_no_tables():
    assert Design().plan(5).free
    assert Design("nnnnn", gc=(0, 1)).plan(5, WITH_N).free
    assert not Design("NNNNR").plan(5).free
    walk = Design().plan(1_000_000).start([encode("ACG")] * 3)
    assert walk.allowed().all() and walk.allowed().shape == (3, 4)
    walk.take(np.array([0, 3, 2]))
    assert walk.position == 1


def test_prompts_may_hold_special_tokens_and_whole_motifs():
    plan = Design(forbidden=["AA", "TAAC"]).plan(1)
    prompts = [[7, 7], [10, 7, 7], [7, 0], [7, 1, 7]]
    assert plan.start([np.array(x, dtype=np.int64) for x in prompts]).allowed().tolist() == [
        [False, True, True, True],
        [False, False, True, True],  # TAAC begins with what was in the prompt
        [True, True, True, True],
        [False, True, True, True],
    ]


@pytest.mark.parametrize("share", [0.07, 0.29])
def test_gc_bounds_are_whole_bases_whatever_the_rounding(share):
    """0.07 × 100 is a little more than 7 in binary, and 0.29 × 100 a little less than 29."""
    walk = Design(gc=(share, share)).plan(100).start([[]])
    rng = np.random.default_rng(1)
    taken = []
    for _ in range(100):
        allowed = walk.allowed()
        taken.append((allowed * rng.random(allowed.shape)).argmax(1))
        walk.take(taken[-1])
    assert np.isin(taken, [1, 2]).sum() == round(100 * share)


def test_states_stay_bounded(monkeypatch):
    assert Design(forbidden=["GNNNNNNNNC"]).plan(20)._automaton.sink == 512
    with pytest.raises(InputError, match=r"^design: .* more than 20,000 states; forbid fewer"):
        Design(forbidden=["A" + "N" * 20 + "C"]).plan(20)
    monkeypatch.setattr(design_motifs, "MAX_STATES", 10)
    Design(max_homopolymer=2).plan(5)
    with pytest.raises(InputError, match="more than 10 states"):
        Design(max_homopolymer=3).plan(5)
    monkeypatch.setattr(design_tables, "MAX_BYTES", 1000)
    with pytest.raises(InputError, match="100 new bases with 9 states need tables of more than"):
        Design(max_homopolymer=2, gc=(0.4, 0.6)).plan(100)


BAD_VALUES = [
    ({"template": "ACXG"}, "the template has 'X' at letter 3; use the IUPAC letters ABCDG"),
    ({"template": ""}, "the template is ''; give at least one IUPAC letter"),
    ({"fixed": {3: "AC-"}}, "fixed motif 'AC-' has '-' at letter 3"),
    ({"fixed": {3: ""}}, "fixed motif '' is ''; give at least one"),
    ({"fixed": {-1: "AC"}}, "fixed motif 'AC' is at position -1; the first new base is 0"),
    ({"fixed": {"x": "AC"}}, "the position of fixed motif 'AC' is 'x'; give a whole number"),
    ({"fixed": ["ACGT"]}, "fixed is ['ACGT']; give motifs by position"),
    ({"forbidden": "GAATTC"}, "forbidden is one text, 'GAATTC'; give a sequence of motifs"),
    ({"forbidden": ["GA TC"]}, "forbidden motif 'GA TC' has ' ' at letter 3"),
    ({"gc": (0.6, 0.4)}, "gc is 0.6 to 0.4; it must be 0 <= low <= high <= 1"),
    ({"gc": (-0.1, 0.4)}, "gc is -0.1 to 0.4; it must be"),
    ({"gc": (0.4, float("nan"))}, "gc is 0.4 to nan; it must be"),
    ({"gc": 0.4}, "gc is 0.4; give two fractions, such as (0.4, 0.6)"),
    ({"max_homopolymer": 0}, "max_homopolymer is 0; it must be at least 1"),
    ({"max_homopolymer": 2.5}, "max_homopolymer is 2.5; give a whole number"),
]

IMPOSSIBLE = [
    ({"template": "ACG"}, 20, "the template has 3 letters for 20 new bases; give one letter for"),
    (
        {"fixed": {18: "ACG"}},
        20,
        "fixed motif ACG at new base 19 ends at new base 21, but there are only",
    ),
    (
        {"fixed": [(2, "ACG"), (3, "gg")]},
        20,
        "fixed motif GG at new base 4 does not agree with fixed motif ACG at new base 3: G against "
        "C at new base 4",
    ),
    (
        {"template": "NNNNY", "fixed": {3: "CR"}},
        5,
        "fixed motif CR at new base 4 does not agree with the template: R against Y at new base 5",
    ),
    (
        {"fixed": {12: "GAATTC"}, "forbidden": ["GAATTC"]},
        20,
        "fixed motif GAATTC at new base 13 contains the forbidden motif GAATTC, at new base 13",
    ),
    (
        {"fixed": {2: "AAGAGACCAA"}, "forbidden": ["GGTCTC"]},
        20,
        "fixed motif AAGAGACCAA at new base 3 contains the forbidden motif GAGACC, which is GGTCTC "
        "on the other strand, at new base 5",
    ),
    (
        {"fixed": {2: "GAA", 5: "TTC"}, "forbidden": ["GAATTC"]},
        20,
        "fixed motif GAA at new base 3 and fixed motif TTC at new base 6 together contain the "
        "forbidden motif GAATTC, at new base 3",
    ),
    (
        {"template": "NNAAAAN", "max_homopolymer": 3},
        7,
        "the template contains the forbidden motif run of 4 A, at new base 3",
    ),
    (
        {"template": "NAWT", "forbidden": ["AA", "AT"]},
        4,
        "no base can stand at new base 3, where W is asked for: each of AT ends a forbidden motif "
        "(AA; AT); ask for less there or before, or forbid less",
    ),
    ({"forbidden": ["NN"]}, 4, "forbidden motif NN forbids every sequence"),
    (
        {"forbidden": ["A", "C"]},
        4,
        "no base can stand at new base 1: each of ACGT ends a forbidden",
    ),
    (
        {"template": "NNWWWWWWWW", "gc": (0.5, 0.7)},
        10,
        "gc 0.5 to 0.7 of 10 new bases is 5 to 7 G and C, but the rest of the design leaves 0 to 2 "
        "(0 to 0.2)",
    ),
    ({"gc": (0.51, 0.52)}, 10, "gc 0.51 to 0.52 of 10 new bases holds no whole number of bases"),
    ({}, 0, "0 new bases; there must be at least 1"),
    ({}, 1.5, "the length is 1.5; give a whole number"),
]


@pytest.mark.parametrize(("values", "message"), BAD_VALUES)
def test_bad_values_say_so(values, message):
    with pytest.raises(InputError, match="^" + re.escape(f"design: {message}")) as caught:
        Design(**values)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("values", "length", "message"), IMPOSSIBLE)
def test_impossible_designs_name_the_culprit(values, length, message):
    design = Design(**values)
    with pytest.raises(InputError, match="^" + re.escape(f"design: {message}")) as caught:
        design.plan(length)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("letters", [(), (7, 7), (6, 7), (7, 12), "ACGT"])
def test_letters_are_bases(letters):
    with pytest.raises(InputError, match=r"^design: (a letter is|letters are)"):
        Design().plan(4, letters)


def test_letters_that_may_not_come():
    with pytest.raises(InputError, match=r"^design: S is asked for at new base 2, but only AT may"):
        Design("NSN").plan(3, (7, 10))


def test_a_prompt_can_make_a_design_impossible():
    plan = Design("AN", max_homopolymer=3, gc=(0, 0.5)).plan(2)
    good = encode("CAA")
    message = (
        r"^design: after prompt 2 \(which ends in CAAA\), no base can stand at new base 1, where A "
        r"is asked for: A ends a forbidden motif \(run of 4 A\)"
    )
    with pytest.raises(InputError, match=message):
        plan.start([good, encode("CAAA")])
    plan = Design("WN", forbidden=["CA", "TW"], gc=(0, 0.0)).plan(2)
    message = (
        r"^design: after prompt 1 \(which ends in C\), gc 0 to 0 of 2 new bases is 0 to 0 G and C, "
        r"but the rest of the design leaves 1 to 1 \(0.5 to 0.5\)"
    )
    with pytest.raises(InputError, match=message):
        plan.start([encode("C"), good])


@pytest.mark.parametrize("prompt", ["ACGT", [[7, 8]], [7.5], [300], [-1]])
def test_prompts_are_token_ids(prompt):
    with pytest.raises(InputError, match=r"^design: prompt 2 is .*; give token ids of shape"):
        Design(max_homopolymer=3).plan(3).start([encode("A"), prompt])
    with pytest.raises(InputError, match="no prompt"):
        Design().plan(3).start([])


@pytest.mark.parametrize("design", [Design(), Design(max_homopolymer=3)])
def test_choices_are_checked(design):
    walk = design.plan(3).start([encode("A")] * 2)
    for choice in ([0], [[0, 1]], [0.0, 1.0], 0):
        with pytest.raises(InputError, match=r"^design: choice is"):
            walk.take(choice)
    for row, choice in enumerate([(4, 0), (0, -1)]):
        with pytest.raises(InputError, match=f"^design: row {row} took letter"):
            walk.take(choice)
    for rows in ([2], [-1], [[0]]):
        with pytest.raises(InputError, match=r"^design: rows are"):
            walk.select(rows)
    assert walk.position == 0
    walk.take([0, 1])


def test_designs_are_values():
    once = Design("acgu", {1: "cg"}, ["gaattc"], (0, 1), 3)
    again = Design("ACGT", [(1, "CG")], ("GAATTC",), (0.0, 1.0), np.int64(3))
    assert once == again and hash(once) == hash(again)
    assert (once.template, once.placed, once.forbidden) == ("ACGT", ((1, "CG"),), ("GAATTC",))


def test_gc_stays_near_its_range_on_the_way():
    """Against letters drawn from T alone wherever they may come."""
    plan = Design(gc=(0.6, 0.65)).plan(400)
    walk = plan.start([[]])
    count = 0
    for t in range(400):
        choice = 3 if walk.allowed()[0, 3] else 1
        walk.take([choice])
        count += choice == 1
        assert 0.6 * (t + 1) - 25 <= count <= 0.65 * (t + 1) + 25
    assert 240 <= count <= 260


def test_what_fits_but_is_not_offered_may_be_taken():
    """`allowed` keeps the GC near its range; a walk of a known sequence may leave it."""
    plan = Design(gc=(0.5, 0.5)).plan(200)
    walk = plan.start([[]])
    for letter in [3] * 100 + [1] * 100:
        walk.take([letter])
    assert walk.position == 200
