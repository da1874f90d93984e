"""Scores of variants: the shared windows equal plain passes over each haplotype."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hyenadna.alphabet import N, decode, encode, reverse_complement, reverse_complement_ids
from hyenadna.config import ModelConfig
from hyenadna.errors import InputError
from hyenadna.genome.fasta import Genome
from hyenadna.genome.variants import Allele, AlleleReader, Note, applied, trimmed
from hyenadna.infer.score import NO_CHANGE, Score, Scorer, Windows, plan_windows, score
from hyenadna.model.backbone import HyenaDNA

CONFIG = ModelConfig(d_model=8, n_layer=2, max_seq_len=80, filter_order=8, num_heads=2)
RNG = np.random.default_rng(0)
LETTERS = decode(RNG.integers(7, 11, 300))
LETTERS = LETTERS[:120] + "NNNNN" + LETTERS[125:]
LENGTH = 64


def made(**changes):
    torch.manual_seed(0)
    model = HyenaDNA(CONFIG.replace(**changes)).eval()
    with torch.no_grad():  # far from the uniform start, so that scores are not near 0
        for p in model.parameters():
            p.add_(0.3 * torch.randn_like(p) * p.std().nan_to_num(0.1).clamp(min=0.02))
    return model


MODEL = made()


@pytest.fixture(scope="module")
def genome(tmp_path_factory):
    path = tmp_path_factory.mktemp("genome") / "g.fa"
    path.write_text(f">a\n{LETTERS}\n>b\n{LETTERS[40:47]}\n")
    return Genome.open(path)


@pytest.fixture(scope="module")
def turned(tmp_path_factory):
    """The reverse complement of the genome."""
    path = tmp_path_factory.mktemp("genome") / "g.fa"
    path.write_text(
        f">a\n{reverse_complement(LETTERS)}\n>b\n{reverse_complement(LETTERS[40:47])}\n"
    )
    return Genome.open(path)


def drawn(genome, count, seed=1):
    """Alleles of all kinds, everywhere, of A C G T only."""
    rng = np.random.default_rng(seed)
    out = []
    while len(out) < count:
        contig = "ab"[int(rng.random() < 0.1)]
        size = genome.contigs[contig]
        r, a = rng.integers(0, 9, 2) if rng.random() < 0.6 else (1, 1)
        start = int(rng.integers(0, size + 1))
        stop = min(size, start + int(r))
        ref = genome.tokens(contig, start, stop)
        if (ref == N).any():
            continue
        out.append(trimmed(contig, start, ref, rng.integers(7, 11, a).astype(np.uint8)))
    ends = [(0, "A"), (1, "C"), (297, ""), (299, ""), (300, "ACGT"), (298, "GG"), (0, "ACGTACGTA")]
    for start, alt in ends:
        ref = genome.tokens("a", start, min(300, start + 3))
        out.append(trimmed("a", start, ref, encode(alt)))
    return out


def haplotypes(model, genome, allele, windows, reverse):
    """(llr, of the allele, distance), by two passes over whole windows, written out plainly."""
    whole = genome.tokens(allele.contig, 0, genome.contigs[allele.contig])
    ref, alt = whole, applied(whole, allele)
    at = allele.start
    if reverse:
        ref, alt = reverse_complement_ids(ref), reverse_complement_ids(alt)
        at = len(whole) - allele.stop
    start = windows.start(at, max(len(allele.ref), len(allele.alt)))
    if at == 0 or start is None:
        return None
    found = []
    for haplotype, size in ((ref, len(allele.ref)), (alt, len(allele.alt))):
        tokens = haplotype[start : at + size + windows.after]
        with torch.inference_mode():
            hidden = model.embed(torch.from_numpy(tokens)[None])[0]
            log_p = model.logits(hidden).log_softmax(-1).double()
        p = [float(log_p[i - 1, t]) if t < N else 0.0 for i, t in enumerate(tokens)]
        first = at - start
        own, behind = sum(p[first : first + size]), sum(p[first + size :])
        found.append((own, behind, hidden[first + size :].double()))
    (own, behind, states), (own2, behind2, states2) = found
    dist = float((states2.mean(0) - states.mean(0)).norm()) if len(states) else math.nan
    return own2 + behind2 - own - behind, own2 - own, dist


def plainly(model, genome, variants, windows):
    """The slow twin of all: scores on both strands."""
    out = []
    for allele in variants:
        if allele.kind == "none":
            out.append(NO_CHANGE)
            continue
        rows = [haplotypes(model, genome, allele, windows, r) for r in (False, True)]
        there = [row for row in rows if row]
        each = [row[0] if row else math.nan for row in rows]
        if not there:
            out.append(Score())
            continue
        own = np.mean([row[1] for row in there])
        dist = [row[2] for row in there if not math.isnan(row[2])]
        equal = len(allele.ref) == len(allele.alt)
        out.append(
            Score(
                float(np.mean([row[0] for row in there])),
                *each,
                float(own) if equal else math.nan,
                float(np.mean(dist)) if dist else math.nan,
            )
        )
    return out


def close(found, want, tolerance=2e-4):
    got = np.array([row[:-1] for row in found], dtype=float)
    expected = np.array([row[:-1] for row in want], dtype=float)
    np.testing.assert_allclose(got, expected, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("method", ["shared", "whole"])
@pytest.mark.parametrize("changes", [{}, {"hyena_order": 3}, {"mixer": "attention"}], ids=str)
def test_equals_the_slow_twin(genome, method, changes):
    model = made(**changes)
    variants = drawn(genome, 24)
    windows = plan_windows(CONFIG, length=LENGTH)
    assert {a.kind for a in variants} >= {"snv", "mnv", "insertion", "deletion", "indel"}
    found = list(score(model, genome, variants, windows=windows, method=method))
    want = plainly(model, genome, variants, windows)
    close(found, want)
    assert np.nanstd([s.llr for s in want]) > 0.1  # there is something to compare


@pytest.mark.parametrize(
    "plan", [{"length": 16}, {"context": 1, "after": 1}, {"after": 20}], ids=str
)
def test_any_windows(genome, plan):
    windows = plan_windows(CONFIG, **plan)
    variants = drawn(genome, 12, seed=2)
    close(
        score(MODEL, genome, variants, windows=windows), plainly(MODEL, genome, variants, windows)
    )


def test_order_chunks_and_company_make_no_difference(genome):
    variants = drawn(genome, 24)
    windows = plan_windows(CONFIG, length=LENGTH)
    scorer = Scorer(MODEL, genome, windows=windows)
    want = scorer.scores(variants)
    alone = [scorer.scores([v])[0] for v in variants]
    close(alone, want, 2e-5)
    order = np.random.default_rng(3).permutation(len(variants))
    mixed = scorer.scores([variants[i] for i in order])
    close(mixed, [want[i] for i in order], 2e-5)
    assert [s.note for s in mixed] == [want[i].note for i in order]
    twice = scorer.scores([*variants, *variants])
    close(twice, [*want, *want], 2e-5)


@settings(max_examples=10)
@given(st.integers(1, 298), st.text("ACGT", min_size=1, max_size=3))
def test_no_change_scores_nothing(genome_path, start, pad):
    genome = Genome.open(genome_path)
    reader = AlleleReader(genome)
    letters = LETTERS[start : start + len(pad)]
    allele = reader.allele("a", start, letters, letters)
    if isinstance(allele, Note):
        assert "N" in letters
        return
    (found,) = score(MODEL, genome, [allele], windows=plan_windows(CONFIG, length=LENGTH))
    assert found == NO_CHANGE


@pytest.fixture(scope="module")
def genome_path(genome):
    return genome.path


def test_the_other_strand_of_the_genome_swaps_the_strands(genome, turned):
    variants = drawn(genome, 16, seed=4)
    mirrored = [
        Allele(
            v.contig,
            genome.contigs[v.contig] - v.stop,
            reverse_complement_ids(v.ref),
            reverse_complement_ids(v.alt),
        )
        for v in variants
    ]
    windows = plan_windows(CONFIG, length=LENGTH)
    here = list(score(MODEL, genome, variants, windows=windows))
    there = list(score(MODEL, turned, mirrored, windows=windows))
    swapped = [s._replace(llr_forward=s.llr_reverse, llr_reverse=s.llr_forward) for s in there]
    close(swapped, here)
    for strand, other in (("forward", "reverse"), ("reverse", "forward")):
        one = list(score(MODEL, genome, variants, windows=windows, strands=strand))
        two = list(score(MODEL, turned, mirrored, windows=windows, strands=other))
        close([s._replace(llr_forward=s.llr_reverse, llr_reverse=s.llr_forward) for s in two], one)


def test_both_strands_are_the_mean_of_each(genome):
    variants = drawn(genome, 20, seed=5)
    windows = plan_windows(CONFIG, length=LENGTH)
    both, forward, reverse = (
        list(score(MODEL, genome, variants, windows=windows, strands=s))
        for s in ("average", "forward", "reverse")
    )
    for b, f, r in zip(both, forward, reverse, strict=True):
        np.testing.assert_allclose(b.llr_forward, f.llr, atol=1e-5)
        np.testing.assert_allclose(b.llr_reverse, r.llr, atol=1e-5)
        values = [x for x in (f.llr, r.llr) if not math.isnan(x)]
        np.testing.assert_allclose(b.llr, np.mean(values) if values else math.nan, atol=1e-5)


def test_ends_of_a_contig(genome):
    first = trimmed("a", 0, genome.tokens("a", 0, 1), encode("ACGT"["ACGT".index(LETTERS[0]) - 1]))
    windows = plan_windows(CONFIG, length=LENGTH)
    both, forward, reverse = (
        next(score(MODEL, genome, [first], windows=windows, strands=s))
        for s in ("average", "forward", "reverse")
    )
    assert both.note == Note.ONE_STRAND and math.isnan(both.llr_forward)
    assert both.llr == both.llr_reverse and not math.isnan(both.llr)
    assert math.isnan(both.dist) and math.isnan(reverse.dist)  # no base behind on that strand
    assert forward.note == Note.NO_CONTEXT and math.isnan(forward.llr)
    assert reverse.note is None and reverse.llr == pytest.approx(both.llr)


def test_long_alleles_have_windows_of_their_own(genome):
    windows = plan_windows(CONFIG, length=LENGTH)
    assert windows.allele == 4 and windows.context == 32 and windows.after == 16
    fits, too_long = (
        trimmed("a", 200, genome.tokens("a", 200, 201), encode(LETTERS[200] + "ACG" * n))
        for n in (10, 11)
    )
    found = list(score(MODEL, genome, [fits, too_long], windows=windows))
    close(found[:1], plainly(MODEL, genome, [fits], windows))
    assert not math.isnan(found[0].llr)
    assert found[1].note == Note.ALLELE_TOO_LONG and math.isnan(found[1].llr)


@given(st.integers(0, 10**6), st.integers(0, 40), st.integers(8, 300))
def test_windows_are_a_function_of_the_position(at, longest, length):
    windows = plan_windows(ModelConfig(d_model=8, n_layer=1, max_seq_len=400), length=length)
    start = windows.start(at, longest)
    assert start is not None and 0 <= start <= at
    assert at - start >= min(at, windows.context)
    assert at + longest + windows.after - start <= max(
        length, windows.context + longest + windows.after
    )


def test_windows_that_do_not_fit_are_refused():
    for plan in ({"length": 81}, {"length": 3}, {"context": 76}, {"after": 0}, {"context": 0}):
        with pytest.raises(InputError, match="--length"):
            plan_windows(CONFIG, **plan)
    assert plan_windows(ModelConfig(max_seq_len=34_000)) == Windows(
        length=8192, context=4096, after=128, allele=512, limit=34_000
    )


def test_a_variant_off_the_genome_is_refused(genome):
    for contig, start in (("c", 0), ("a", 300)):
        with pytest.raises(InputError, match="is not on the genome"):
            list(score(MODEL, genome, [Allele(contig, start, encode("A"), encode("C"))]))


def test_the_mode_of_the_model_is_kept(genome):
    model = made()
    model.train()
    variants = drawn(genome, 3)
    windows = plan_windows(CONFIG, length=LENGTH)
    close(score(model, genome, variants, windows=windows),
          score(MODEL, genome, variants, windows=windows))  # fmt: skip
    assert model.training


def test_real_genome(shared):
    """Real bases and a model of usual width, shared against whole."""
    genome = Genome.open(shared / "data" / "human_hg19_chr22_6Mb" / "chr22_1-22000000.fa.gz")
    torch.manual_seed(0)
    model = HyenaDNA(ModelConfig(d_model=64, n_layer=2, max_seq_len=1026)).eval()
    reader = AlleleReader(genome)
    letters = genome.letters("22", 17_500_000, 17_504_000).decode().upper()
    rng = np.random.default_rng(0)
    variants = []
    for at in rng.integers(0, 3990, 25).tolist():
        ref = letters[at : at + int(rng.integers(1, 5))]
        variants.append(reader.allele("chr22", 17_500_000 + at, ref, ref[0] + "ACGT"[at % 4]))
    found = list(score(model, genome, variants))
    close(found, score(model, genome, variants, method="whole"))
