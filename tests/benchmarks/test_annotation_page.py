"""The benchmark of annotations: its stretches, figures and page; what is kept is not redone."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from benchmarks.annotation.cells import BASELINES, Cell, measure
from benchmarks.annotation.page import section, verdict
from benchmarks.annotation.picture import frame_probabilities, frames_picture, reading_frame
from benchmarks.annotation.tasks import Task, join, prepare, some_stretches

from hyenadna.alphabet import decode, encode, reverse_complement_ids
from hyenadna.data.annotation import read_annotation
from hyenadna.data.annotation_classes import FRAME_NAMES
from hyenadna.data.labelled import LabelledData, read_labelled
from hyenadna.training_config import FinetuneConfig

LENGTH = 400_000
GENES = range(100, LENGTH - 2000, 2000)


@pytest.fixture(scope="module")
def bacteria(tmp_path_factory) -> Path:
    """Data as in the shared folder, small: `bacteria_4/Bacillus` with a gene every 2,000 bases."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "bacteria_4").mkdir()
    rng = np.random.default_rng(0)
    ids = rng.integers(7, 11, LENGTH).astype(np.uint8)
    for i, at in enumerate(GENES):
        codons = encode("".join(rng.choice(["GCA", "GCC", "AAG", "GAT"], 500)))
        ids[at : at + 1500] = codons if i % 2 == 0 else reverse_complement_ids(codons)
    (folder / "bacteria_4" / "Bacillus.fa.gz").write_text(f">c\n{decode(ids)}\n")
    rows = [
        "\t".join(("c", "x", "CDS", str(at + 1), str(at + 1500), ".", "+-"[i % 2], "0", f"ID=g{i}"))
        for i, at in enumerate(GENES)
    ]
    (folder / "bacteria_4" / "Bacillus.gff.gz").write_text("\n".join(rows) + "\n")
    return folder


def read(data: Path, work: Path, tile: int) -> list[LabelledData]:
    folder = data / "bacteria_4"
    frames = folder / "Bacillus.gff.gz"
    return [read_labelled(None, genome=folder / "Bacillus.fa.gz", frames=frames, tile=tile)]


TASK = Task("frames", "Frames", "What.", read)


def test_whole_stretches_are_drawn_and_held_out(bacteria, tmp_path):
    (whole,) = read(bacteria, tmp_path, 1000)
    some = some_stretches(whole, 0.7, 3)
    stretches = len(set(whole.groups))
    assert set(some.ids) < set(whole.ids) and len(set(some.groups)) == round(0.7 * stretches)
    for group in set(some.groups):
        assert some.groups.count(group) == whole.groups.count(group)
    data = prepare(TASK, bacteria, tmp_path, tile=1000, windows=250, seed=1)
    again = prepare(TASK, bacteria, tmp_path, tile=1000, windows=250, seed=1)
    assert data.digest() == again.digest()
    splits = {group: set() for group in data.groups}
    for group, split in zip(data.groups, data.splits.tolist(), strict=True):
        splits[group].add(split)
    assert all(len(each) == 1 for each in splits.values())
    assert set.union(*splits.values()) == {"train", "valid", "test"}
    two = join("two", [whole, whole.select(np.arange(3))])
    assert len(two) == len(whole) + 3 and two.ids[0] == f"Bacillus {whole.ids[0]}"


def test_hills_have_the_colour_of_their_arrows(bacteria, tmp_path):
    """Classes that are right put all probability into the frame of the annotated gene."""
    (data,) = read(bacteria, tmp_path, 1000)
    classes = np.concatenate(data.targets)
    outputs = np.eye(7, dtype=np.float32)[classes]
    genes = read_annotation(bacteria / "bacteria_4" / "Bacillus.gff.gz", {"CDS"}).features
    for start in (0, 1, 5000):
        for gene in genes[3:7]:
            found = frame_probabilities(outputs[start:], start, gene.strand)
            inside = found[gene.interval.start - start : gene.interval.stop - start]
            assert (inside[:, reading_frame(gene)] == 1).all() and inside.sum() == 1500


def test_results_are_kept_and_the_page_shows_them(bacteria, tmp_path, monkeypatch):
    data = prepare(TASK, bacteria, tmp_path, tile=1000, windows=300, seed=0)
    config = FinetuneConfig(epochs=1)
    cells = [Cell(key, BASELINES[key]) for key in ("majority", "hmm")]
    measured = [measure(cell, data, config, tmp_path / cell.key) for cell in cells]
    record = json.loads((tmp_path / "hmm" / "record.json").read_text())
    assert record["f1"].keys() == set(FRAME_NAMES)
    test = data.part("test")
    assert measured[0].outputs.shape == (test.lengths.sum(), 7)

    import benchmarks.annotation.cells as module

    def fail(*_: object) -> None:
        raise AssertionError("fitted again")

    monkeypatch.setattr(module, "fit_baseline", fail)
    kept = measure(cells[1], data, config, tmp_path / "hmm")
    assert kept.record == measured[1].record
    np.testing.assert_allclose(kept.outputs, measured[1].outputs, atol=1e-3)
    with pytest.raises(AssertionError, match="fitted again"):  # other data, another result
        measure(cells[1], data.select(np.arange(len(data))[::-1]), config, tmp_path / "hmm")

    model = dataclasses.replace(measured[0], cell=Cell("0-x", "a model", "random:x"))
    page = section(TASK, data, [*measured, model])
    table = [line for line in page if line.startswith("| ")]
    assert len(table) == 4 and len({line.count("|") for line in table}) == 1
    assert "(a model, 0.000) does not reach the best baseline" in verdict([*measured, model])
    better = dataclasses.replace(model, record=measured[1].record)
    assert "is above the best baseline (constant" in verdict([measured[0], better])
    where = frames_picture(data, measured, bacteria, tmp_path / "x.png")
    assert where.startswith("Bacillus, bases") and (tmp_path / "x.png").stat().st_size > 10_000
