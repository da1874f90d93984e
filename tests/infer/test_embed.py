"""Embeddings are the means they say they are, whatever the batch, and survive an interruption."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from hyenadna.alphabet import decode
from hyenadna.config import ModelConfig
from hyenadna.data.labelled_data import Task
from hyenadna.errors import InputError
from hyenadna.genome.fasta import Genome
from hyenadna.genome.intervals import Interval
from hyenadna.infer import embed as embed_module
from hyenadna.infer.embed import batches, bin_means, embed, last_boundary, tile_genome
from hyenadna.infer.embeddings_file import EmbeddingsFile, require_free
from hyenadna.infer.interrupted import stored_settings
from hyenadna.label_words import label_words
from hyenadna.model.backbone import HyenaDNA
from hyenadna.model.prompting.prompted import PromptedModel
from hyenadna.model.prompting.shared_prefix import joint_states

CONFIG = ModelConfig(d_model=8, n_layer=2, max_seq_len=66, filter_order=8)
SETTINGS = {"model": "toy", "weights": "abc", "bin": 10}


@pytest.fixture(scope="module")
def genome(tmp_path_factory):
    path = tmp_path_factory.mktemp("g") / "g.fa"
    text = decode(np.random.default_rng(3).integers(7, 12, 500))
    path.write_text(f">a\n{text}\n>empty\n>b\n{text[:33].lower()}\n>chr_long\n{text[100:265]}\n")
    return Genome.open(path)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    model = HyenaDNA(CONFIG)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def all_rows(model, genome, tiling, **options):
    windows = embed(model, genome, tiling.windows(), bin=tiling.bin, **options)
    return np.concatenate([each.embeddings for each in windows])


def by_hand(model, genome, tiling):
    """Each window alone through the model, each bin by numpy."""
    rows = []
    model.eval()
    for contig, bases in tiling.contigs.items():
        for start in range(0, bases, tiling.length):
            ids = genome.tokens(contig, start, min(start + tiling.length, bases))
            with torch.no_grad():
                states = model.embed(ids)[0].numpy().astype(np.float64)
            rows += [states[i : i + tiling.bin].mean(0) for i in range(0, len(states), tiling.bin)]
    return np.array(rows)


@pytest.mark.parametrize(("length", "bin"), [(64, None), (64, 16), (60, 7), (64, 1), (5, 5)])
def test_rows_are_means_of_the_hidden_states(genome, model, length, bin):
    tiling = tile_genome(CONFIG, genome, length=length, bin=bin)
    rows = all_rows(model, genome, tiling)
    assert rows.dtype == np.float32 and rows.shape == (tiling.rows, 8)
    np.testing.assert_allclose(rows, by_hand(model, genome, tiling), rtol=1e-4, atol=1e-5)


def test_default_is_one_row_a_window(genome, model):
    tiling = tile_genome(CONFIG, genome)
    assert (tiling.length, tiling.bin, tiling.rows) == (64, 64, tiling.count)
    windows = list(tiling.windows())
    assert windows[0] == Interval("a", 0, 64) and windows[7] == Interval("a", 448, 500)
    free = np.concatenate([e.embeddings for e in embed(model, genome, windows)])
    np.testing.assert_array_equal(free, all_rows(model, genome, tiling))


def test_batches_change_nothing(genome, model):
    tiling = tile_genome(CONFIG, genome, length=30, bin=10)
    alone, together = (all_rows(model, genome, tiling, batch_tokens=n) for n in (1, 4000))
    np.testing.assert_allclose(alone, together, rtol=1e-4, atol=1e-5)


def test_the_model_is_as_it_was(genome, model):
    model.train()
    all_rows(model, genome, tile_genome(CONFIG, genome, contigs=["b"]))
    assert model.training
    model.eval()


def test_short_windows_go_together_and_padding_is_bounded():
    windows = [Interval("a", 0, n) for n in (10, 10, 6, 4, 100, 30, 30, 20)]
    lengths = [[w.length for w in batch] for batch in batches(windows, 60)]
    assert lengths == [[10, 10, 6], [4], [100], [30, 30], [20]]


def test_a_batch_depends_on_nothing_before_it():
    lengths = np.random.default_rng(0).integers(1, 50, 200).tolist()
    windows = [Interval("a", 0, n) for n in lengths]
    whole = list(batches(windows, 120))
    done = sum(map(len, whole[:7]))
    assert list(batches(windows[done:], 120)) == whole[7:]


@pytest.mark.parametrize(("length", "bin"), [(20_000, 7), (20_000, 9000), (9_001, 20_000)])
def test_means_of_long_bins_are_exact(length, bin):
    states = torch.randn(length, 3, generator=torch.Generator().manual_seed(0)) + 100
    wanted = [piece.double().mean(0) for piece in states.split(bin)]
    torch.testing.assert_close(bin_means(states, bin), torch.stack(wanted).float())


def test_means_need_no_second_tensor_of_that_size(monkeypatch):
    largest = 0
    means = embed_module._means

    def watched(groups):
        nonlocal largest
        largest = max(largest, groups[:, : embed_module._SUMMED_AT_ONCE].numel())
        return means(groups)

    monkeypatch.setattr(embed_module, "_means", watched)
    monkeypatch.setattr(embed_module, "_SUMMED_AT_ONCE", 64)
    for bin in (1, 10, 64, 1000, 5000):
        bin_means(torch.ones(5000, 2), bin)
    assert largest <= 64 * 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"length": 67}, "--length is 67; this model reads 1 to 66 bases"),
        ({"length": 0}, "--length is 0; this model reads"),
        ({"length": 20, "bin": 21}, "--bin is 21; it must be 1 to the length of a window, 20"),
        ({"bin": 0}, "--bin is 0"),
        ({"contigs": ["c"]}, "has no contig 'c'; it has a, empty, b, chr_long"),
        ({"contigs": ["empty"]}, "no base to embed in 1 contigs"),
    ],
)
def test_bad_options(genome, options, message):
    with pytest.raises(InputError, match=message):
        tile_genome(CONFIG, genome, **options)


def test_bad_windows(genome, model):
    for window in (Interval("a", 0, 67), Interval("a", 490, 501), Interval("x", 0, 5)):
        with pytest.raises(InputError):
            list(embed(model, genome, [window]))
    with pytest.raises(InputError, match="bin is 0"):
        list(embed(model, genome, [Interval("a", 0, 5)], bin=0))


def write(path, model, genome, tiling, *, stop_after=None, settings=SETTINGS, resume=False):
    """What the command does; `stop_after` rows it is gone, in the middle of a row."""
    if resume:
        file, note = EmbeddingsFile.resume(path, tiling, 8, settings)
    else:
        file, note = EmbeddingsFile.start(path, tiling, 8, settings), ""
    windows, rows, _ = last_boundary(tiling, file.rows_done, 128)
    file.keep(rows)
    left = list(tiling.windows())[windows:]
    for each in embed(model, genome, left, bin=tiling.bin, batch_tokens=128):
        file.append(each.embeddings)
        if stop_after is not None and file.rows_done >= stop_after:
            with (path.with_name(path.name + ".part") / "embeddings.npy").open("ab") as stream:
                stream.write(b"half")
            return rows, note
    file.finish()
    return rows, note


def test_the_file_holds_rows_places_and_settings(tmp_path, genome, model):
    tiling = tile_genome(CONFIG, genome, length=30, bin=10)
    write(tmp_path / "e.npz", model, genome, tiling)
    assert [p.name for p in tmp_path.iterdir()] == ["e.npz"]
    with np.load(tmp_path / "e.npz") as stored:
        found = dict(stored)
    assert set(found) == {"embeddings", "contig", "start", "stop", "model", "settings"}
    assert found["embeddings"].dtype == np.float32
    np.testing.assert_allclose(
        found["embeddings"], by_hand(model, genome, tiling), rtol=1e-4, atol=1e-5
    )
    places = list(zip(found["contig"], found["start"], found["stop"], strict=True))
    wanted = [
        (contig, start, min(start + 10, bases))
        for contig, bases in genome.contigs.items()
        for start in range(0, bases, 10)
    ]
    assert places == wanted
    assert str(found["model"]) == "toy" and json.loads(str(found["settings"])) == SETTINGS


@pytest.mark.parametrize("stop_after", [1, 8, 40, 60])
def test_a_resumed_run_equals_an_unbroken_one(tmp_path, genome, model, stop_after):
    tiling = tile_genome(CONFIG, genome, length=30, bin=10)
    write(tmp_path / "whole.npz", model, genome, tiling)
    path = tmp_path / "broken.npz"
    write(path, model, genome, tiling, stop_after=stop_after)
    assert not path.exists()
    settings = SETTINGS | {"model": "another name of it"}
    rows, note = write(path, model, genome, tiling, settings=settings, resume=True)
    assert note == "" and rows <= stop_after and (rows > 0) == (stop_after > 8)
    with np.load(tmp_path / "whole.npz") as one, np.load(path) as other:
        for key in ("embeddings", "contig", "start", "stop"):
            np.testing.assert_array_equal(one[key], other[key])


def test_the_same_run_is_the_same_file(tmp_path, genome, model):
    tiling = tile_genome(CONFIG, genome, length=30, bin=10)
    for name in ("one", "two"):
        write(tmp_path / f"{name}.npz", model, genome, tiling)
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()


def test_rows_of_other_settings_are_not_mixed_in(tmp_path, genome, model):
    tiling = tile_genome(CONFIG, genome, length=30, bin=10)
    path = tmp_path / "e.npz"
    write(path, model, genome, tiling, stop_after=40)
    part = tmp_path / "e.npz.part"
    before = (part / "embeddings.npy").read_bytes()
    for other, message in (
        (
            {"bin": 9},
            "was made with bin 10, not 9; resume with the same, or remove .*part to",
        ),
        ({"weights": "x" * 80}, "was made with other weights; resume"),
        ({"batch_tokens": 64}, "was made with batch_tokens None, not 64; resume"),
    ):
        with pytest.raises(InputError, match=message):
            write(path, model, genome, tiling, settings=SETTINGS | other, resume=True)
        assert (part / "embeddings.npy").read_bytes() == before
    assert stored_settings(path) == SETTINGS
    rows, note = write(path, model, genome, tiling, resume=True)
    assert rows > 0 and note == "" and path.exists()


@pytest.mark.parametrize("name", ["embeddings.npy", "settings.json"])
@pytest.mark.parametrize("damage", [b"\x93NUMPY", b"[1]", None])
def test_a_damaged_run_starts_over(tmp_path, genome, model, name, damage):
    tiling = tile_genome(CONFIG, genome, length=30, bin=10)
    path = tmp_path / "e.npz"
    write(path, model, genome, tiling, stop_after=40)
    file = tmp_path / "e.npz.part" / name
    if damage is None:
        file.unlink()
    else:
        file.write_bytes(damage)
    rows, note = write(path, model, genome, tiling, resume=True)
    assert rows == 0 and "damaged, starting over" in note and path.exists()


def test_nothing_to_resume(tmp_path, genome, model):
    tiling = tile_genome(CONFIG, genome)
    rows, note = write(tmp_path / "e.npz", model, genome, tiling, resume=True)
    assert rows == 0 and "nothing to resume" in note and (tmp_path / "e.npz").exists()


def test_where_embeddings_may_go(tmp_path):
    (tmp_path / "there.npz").touch()
    (tmp_path / "half.npz.part").mkdir()
    for name, message in [
        ("there.npz", "exists; remove it"),
        ("e.parquet", "written as .npz"),
        ("no/e.npz", "there is no folder"),
        ("half.npz", "go on with --resume, or remove it"),
    ]:
        with pytest.raises(InputError, match=message):
            require_free(tmp_path / name)
    require_free(tmp_path / "half.npz", resume=True)


@pytest.mark.parametrize("mixer", ["hyena", "attention"])
@pytest.mark.parametrize("batch_tokens", [1, 4000])
def test_windows_behind_a_soft_prompt_are_those_of_one_whole_pass(genome, mixer, batch_tokens):
    torch.manual_seed(1)
    model = HyenaDNA(CONFIG.replace(mixer=mixer, num_heads=2))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    task = Task("classes", ("no", "yes"))
    prompted = PromptedModel(model, task, tokens=7, words=label_words(task.names), dropout=0.5)
    torch.nn.init.normal_(prompted.prompt)
    tiling = tile_genome(CONFIG, genome, bin=9, soft_tokens=7)
    assert tiling.length == 54  # of 66 - 7 - 2
    prompted.train()
    rows = all_rows(prompted, genome, tiling, batch_tokens=batch_tokens)
    assert prompted.training
    expected = []
    for window in tiling.windows():
        ids = torch.from_numpy(genome.tokens(window.contig, window.start, window.stop)).long()
        with torch.no_grad():
            states = joint_states(
                model.backbone, prompted.prompt, model.backbone.embeddings(ids[None])
            )[0]
        expected += [states[i : i + 9].mean(0).numpy() for i in range(0, len(states), 9)]
    np.testing.assert_allclose(rows, np.array(expected), rtol=1e-4, atol=1e-4)
    with pytest.raises(InputError, match="reads 1 to 59 bases behind 7 soft tokens"):
        tile_genome(CONFIG, genome, length=60, soft_tokens=7)
