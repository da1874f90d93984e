"""Values of every base: equal to each base by its own window, whatever the regions and batches."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hyenadna.alphabet import BASES, IGNORED, decode, encode, reverse_complement
from hyenadna.config import ModelConfig
from hyenadna.data.windows import Regions, tile
from hyenadna.errors import InputError
from hyenadna.genome.fasta import Genome
from hyenadna.genome.intervals import Interval
from hyenadna.infer.track import channels, track, track_interval
from hyenadna.infer.track_windows import TrackPlan
from hyenadna.model.backbone import HyenaDNA
from hyenadna.model.likelihood import target_nats

CONFIG = ModelConfig(d_model=8, n_layer=2, max_seq_len=34, filter_order=8)
EVERYTHING = ("surprisal", "entropy", "probabilities")
CLOSE = {"rtol": 0, "atol": 2e-5}


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    model = HyenaDNA(CONFIG)
    with torch.no_grad():  # far from even, so that a wrong letter or strand shows
        for parameter in model.parameters():
            parameter.mul_(3 if parameter.ndim == 2 else 1)
    return model.eval()


def make_genome(folder, **contigs: str) -> Genome:
    path = folder / "g.fa"
    path.write_text("".join(f">{name}\n{text}\n" for name, text in contigs.items()))
    return Genome.open(path)


def some_bases(length: int, seed: int = 0) -> str:
    return decode(np.random.default_rng(seed).integers(7, 11, length))


@pytest.fixture
def genome(tmp_path):
    text = list(some_bases(150))
    text[40:44], text[97], text[149] = "NNRN", "N", "N"
    text[60:70] = "".join(text[60:70]).lower()
    return make_genome(tmp_path, a="".join(text), one="A", two="GT", b=some_bases(35, seed=1))


def slow_twin(model, text: str, length: int, context: int) -> dict[str, np.ndarray]:
    """Each base of a strand by a window of its own, from the plain modules."""
    ids = encode(text)
    names = channels(EVERYTHING)
    found = {name: np.full(len(ids), np.nan) for name in names}
    model.set_engine("plain")
    for base in range(1, len(ids)):
        start = 0
        while base > start + length:  # the first window of the grid that reaches the base
            start += length - context
        with torch.inference_mode():
            logits = model(torch.from_numpy(ids[start:base].astype(np.int64))[None])[0, -1].double()
        if ids[base] in BASES:
            found["surprisal"][base] = -logits.log_softmax(0)[int(ids[base])] / math.log(2)
        chances = logits[list(BASES)].softmax(0)
        found["entropy"][base] = -(chances * chances.log2()).sum()
        for name, chance in zip(names[2:], chances.tolist(), strict=True):
            found[name][base] = chance
    model.set_engine("auto")
    return found


def slow_reverse(model, text: str, length: int, context: int) -> dict[str, np.ndarray]:
    """The other strand, put at the bases, and the letters, of this one."""
    turned = slow_twin(model, reverse_complement(text), length, context)
    pairs = dict(zip("ACGT", "TGCA", strict=True))
    return {
        name: turned[name[:-1] + pairs[name[-1]] if "_" in name else name][::-1] for name in turned
    }


@pytest.mark.parametrize(("length", "context"), [(32, 16), (20, 0), (20, 19), (34, 5), (1, 0)])
def test_every_base_equals_its_own_window(model, genome, length, context):
    for contig, size in genome.contigs.items():
        text = genome.letters(contig, 0, size).decode()
        fast = track_interval(
            model, genome, Interval(contig, 0, size), values=EVERYTHING,
            length=length, context=context,
        )  # fmt: skip
        for strand, slow in (("forward", slow_twin), ("reverse", slow_reverse)):
            twin = slow(model, text, length, context)
            assert list(fast[strand]) == list(twin)
            for name, values in twin.items():
                np.testing.assert_allclose(fast[strand][name], values, **CLOSE, err_msg=name)


def test_surprisal_is_the_loss_in_bits(model, genome):
    text = genome.tokens("a", 0, 33)
    inputs = torch.from_numpy(text[:-1].astype(np.int64))[None]
    targets = torch.from_numpy(text[1:].astype(np.int64))[None]
    nats = target_nats(model, inputs, targets)[0].detach().numpy()
    found = track_interval(model, genome, Interval("a", 0, 33), length=32)["forward"]["surprisal"]
    np.testing.assert_allclose(found[1:], nats / math.log(2), **CLOSE)
    assert IGNORED not in targets


def test_n_and_the_ends_of_contigs(model, genome):
    found = track_interval(model, genome, Interval("a", 0, 150), values=EVERYTHING)
    missing = {strand: np.flatnonzero(np.isnan(v["surprisal"])) for strand, v in found.items()}
    assert missing["forward"].tolist() == [0, 40, 41, 42, 43, 97, 149]
    assert missing["reverse"].tolist() == [40, 41, 42, 43, 97, 149]
    for strand, first in (("forward", 0), ("reverse", 149)):
        for name in channels(EVERYTHING)[1:]:
            assert np.flatnonzero(np.isnan(found[strand][name])).tolist() == [first]
        total = sum(found[strand][f"probability_{letter}"] for letter in "ACGT")
        np.testing.assert_allclose(np.delete(total, first), 1, atol=1e-5)
    for contig in ("one", "two"):
        values = track_interval(model, genome, Interval(contig, 0, genome.contigs[contig]))
        assert np.isnan(values["forward"]["surprisal"][0])
        assert np.isnan(values["reverse"]["surprisal"][-1])
    assert np.isfinite(values["forward"]["surprisal"][1])


def test_the_other_strand_mirrors(model, tmp_path):
    """Tracks of the reverse complement are those of the genome, turned round."""
    text = some_bases(120)
    (tmp_path / "t").mkdir()
    genome = make_genome(tmp_path, a=text)
    turned = make_genome(tmp_path / "t", a=reverse_complement(text))
    whole = Interval("a", 0, 120)
    here, there = (track_interval(model, g, whole, values=EVERYTHING) for g in (genome, turned))
    pairs = dict(zip("ACGT", "TGCA", strict=True))
    for strand, other in (("forward", "reverse"), ("reverse", "forward")):
        for name, values in here[strand].items():
            twin = name[:-1] + pairs[name[-1]] if "_" in name else name
            np.testing.assert_allclose(values, there[other][twin][::-1], **CLOSE)


def test_case_makes_no_difference(model, tmp_path):
    (tmp_path / "l").mkdir()
    text = some_bases(90)
    upper, lower = make_genome(tmp_path, a=text), make_genome(tmp_path / "l", a=text.lower())
    one, other = (track_interval(model, g, Interval("a", 0, 90)) for g in (upper, lower))
    np.testing.assert_array_equal(one["reverse"]["surprisal"], other["reverse"]["surprisal"])


@settings(max_examples=25)
@given(st.data())
def test_regions_and_batches_change_no_value(model, tmp_path_factory, data):
    """A base has the value that it has in the whole contig."""
    size = 150
    genome = make_genome(tmp_path_factory.mktemp("g"), a=some_bases(size))
    length = data.draw(st.integers(2, 34))
    context = data.draw(st.integers(0, length - 1))
    start = data.draw(st.integers(0, size - 1))
    stop = data.draw(st.integers(start + 1, size))
    batch_tokens = data.draw(st.sampled_from([1, 40, 100, 32768]))
    windows = {"length": length, "context": context, "values": EVERYTHING}
    whole = track_interval(model, genome, Interval("a", 0, size), **windows)
    part = track_interval(
        model, genome, Interval("a", start, stop), batch_tokens=batch_tokens, **windows
    )
    for strand, found in part.items():
        for name, values in found.items():
            np.testing.assert_allclose(values, whole[strand][name][start:stop], **CLOSE)


def test_windows_in_another_order_and_threads(model, genome):
    plan = TrackPlan(genome.contigs, (Interval("a", 0, 150), Interval("b", 0, 35)), 20, 10)
    windows = list(plan.windows())

    def values(windows):
        found = {}
        for batch in track(model, genome, windows, batch_tokens=60):
            for each in batch.tracked:
                found[each.contig, each.strand, each.start] = each.values
        return found

    one = values(windows)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    other = values(windows[::-1])
    torch.set_num_threads(threads)
    assert one.keys() == other.keys()
    for key, found in one.items():
        np.testing.assert_allclose(found, other[key], **CLOSE)


@settings(max_examples=60)
@given(st.data())
def test_windows_are_those_of_tile(data):
    """The grid on a whole contig is the one that evaluation has; and each base is in one window."""
    size = data.draw(st.integers(2, 200))
    length = data.draw(st.integers(1, 40))
    context = data.draw(st.integers(0, length - 1))
    plan = TrackPlan({"a": size}, (Interval("a", 0, size),), length, context, ("forward",))
    windows = list(plan.windows())
    whole = Regions("g", (Interval("a", 0, size),))
    tiles = list(tile(whole, length, stride=length - context))
    assert [(w.start, w.stop, w.first) for w in windows] == [
        (t.start, t.stop, t.start + t.score_from + 1 if t.start else 0) for t in tiles
    ]
    assert [base for w in windows for base in range(w.first, w.last)] == list(range(size))
    for w in windows[1:]:
        assert w.first - w.start > context and w.length <= length


@settings(max_examples=60)
@given(st.data())
def test_plans_count_what_they_give(data):
    size = data.draw(st.integers(1, 300))
    length = data.draw(st.integers(1, 40))
    context = data.draw(st.integers(0, length - 1))
    cuts = sorted(data.draw(st.sets(st.integers(0, size), min_size=2, max_size=8)))
    regions = tuple(
        Interval("a", start, stop) for start, stop in zip(cuts[::2], cuts[1::2], strict=False)
    )
    plan = TrackPlan({"a": size}, regions, length, context)
    windows = list(plan.windows())
    assert plan.count == len(windows)
    assert plan.tokens == sum(w.length for w in windows)
    assert plan.longest == max([1, *(w.length for w in windows)])
    for strand in plan.strands:
        mine = [b for w in windows if w.strand == strand for b in range(w.first, w.last)]
        assert len(mine) == len(set(mine))
        assert {b for r in regions for b in range(r.start, r.stop)} <= set(mine)


def test_a_run_can_go_on_behind_any_batch(model, genome):
    """With the same passes, so that the values are the same to the last bit."""
    plan = TrackPlan(genome.contigs, (Interval("a", 0, 150), Interval("b", 0, 35)), 20, 10)
    windows = list(plan.windows())
    batches = list(track(model, genome, windows, batch_tokens=60))
    done = batches[0].windows + batches[1].windows
    for whole, again in zip(
        batches[2:], track(model, genome, windows[done:], batch_tokens=60), strict=True
    ):
        for one, other in zip(whole.tracked, again.tracked, strict=True):
            assert one[:3] == other[:3]
            np.testing.assert_array_equal(one.values, other.values)


def test_windows_of_n_alone_are_not_read(model, tmp_path, monkeypatch):
    genome = make_genome(tmp_path, a="N" * 3000 + some_bases(50))
    read, embed = [], HyenaDNA.embed

    def watched(network, tokens):
        read.append(tokens.numel())
        return embed(network, tokens)

    monkeypatch.setattr(HyenaDNA, "embed", watched)
    whole = Interval("a", 0, 3050)
    found = track_interval(model, genome, whole, length=20, strands=("forward",))
    assert sum(read) < 300
    assert np.isnan(found["forward"]["surprisal"][:3000]).all()
    assert np.isfinite(found["forward"]["surprisal"][3000:]).all()
    read.clear()
    track_interval(model, genome, whole, length=20, strands=("forward",), values=("entropy",))
    assert sum(read) > 3000


def test_the_model_is_as_before(model, genome):
    model.train()
    track_interval(model, genome, Interval("a", 0, 40))
    assert model.training
    model.eval()


def test_bad_lengths(model, genome):
    for more, message in (({"length": 35}, "1 to 34"), ({"context": 32}, "0 .. 31")):
        with pytest.raises(InputError, match=message):
            track_interval(model, genome, Interval("a", 0, 40), **more)
    with pytest.raises(InputError, match="not within a"):
        track_interval(model, genome, Interval("a", 0, 151))
    with pytest.raises(InputError, match="must be below the length"):
        TrackPlan({"a": 5}, (), 3, 3)
