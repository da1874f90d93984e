"""Suites: each layout is read as it is told, counts are those of the sources, windows are exact."""

from __future__ import annotations

import csv
import dataclasses
import gzip
import io
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.io import savemat
from tests.chromatin_rows import matrix_rows, one_hot

from hyenadna.alphabet import decode, encode, reverse_complement
from hyenadna.data.benchmarks import (
    chromatin,
    genomic_benchmarks,
    gue,
    lentimpra,
    promoters,
    species,
)
from hyenadna.data.benchmarks import nucleotide_transformer as nt
from hyenadna.data.benchmarks.published import PUBLISHED, best_known, figure_columns, published
from hyenadna.data.benchmarks.suites import SUITES, suite
from hyenadna.data.genome_windows import ContigSource, GenomeWindows, WindowedData
from hyenadna.data.labelled_batches import labelled_batches
from hyenadna.data.labelled_data import LabelledData, Task, fit_length
from hyenadna.data.splits import with_valid
from hyenadna.errors import InputError
from hyenadna.genome.fasta import Genome, GenomeReader


def random_dna(rng, length, gc=0.5):
    p = [(1 - gc) / 2, gc / 2, gc / 2, (1 - gc) / 2]
    return "".join(rng.choice(list("ACGT"), size=length, p=p))


def write_fasta(path: Path, records: dict[str, str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f">{name}\n{text}\n" for name, text in records.items()))
    return path


def write_csv(path: Path, header, rows) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with io.StringIO() as text:
        csv.writer(text).writerows([header, *rows])
        raw = text.getvalue().encode()
    path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)
    return path


class Counting(GenomeReader):
    """A genome in memory that counts what is read of it."""

    def __init__(self, records: dict[str, str]) -> None:
        self.path, self.name, self.reads = Path("toy.fa"), "toy", 0
        self._ids = {name: encode(text) for name, text in records.items()}
        self.contigs = {name: len(ids) for name, ids in self._ids.items()}

    def cased_tokens(self, contig, start, stop):
        self.require_range(contig, start, stop)
        self.reads += 1
        return self._ids[contig][start:stop]


def counts(data, split):
    part = data.splits == split
    return {
        name: int((data.targets[part] == i).sum()) for i, name in enumerate(data.task.names)
    } | {"n": int(part.sum())}


# --- windows over genomes ---------------------------------------------------------------------


def test_windows_are_the_bases_of_the_genome_and_n_outside():
    text = random_dna(np.random.default_rng(0), 100)
    genome = Counting({"one": "A" * 10, "two": text})
    sources = [ContigSource(genome, "one"), ContigSource(genome, "two")]
    windows = GenomeWindows(sources, [1, 1, 1, 1], [3, -5, 90, 3], [40, 7, 104, 40], [0, 0, 0, 1])
    assert decode(windows[0]) == text[3:40]
    assert decode(windows[1]) == "N" * 5 + text[:7]
    assert decode(windows[2]) == text[90:] + "N" * 4
    assert decode(windows[3]) == reverse_complement(text[3:40])
    assert windows.lengths.tolist() == [37, 12, 14, 37] and len(windows) == 4
    assert decode(windows[-1]) == decode(windows[3])
    assert [decode(ids) for ids in windows[1:3]] == [decode(windows[1]), decode(windows[2])]
    with pytest.raises(IndexError):
        windows[4]
    assert len(list(windows)) == 4  # the protocol of a sequence ends the loop


def test_widening_keeps_the_middle_on_both_strands():
    text = random_dna(np.random.default_rng(1), 60)
    genome = Counting({"c": text})
    windows = GenomeWindows([ContigSource(genome, "c")], [0, 0], [20, 20], [30, 30], [False, True])
    for length in (4, 10, 15, 40):
        wide = windows.resized(length)
        assert wide.lengths.tolist() == [length, length]
        for before, after in zip(windows, wide, strict=True):
            extra = length - len(before)
            if extra >= 0:
                assert (after[extra // 2 : extra // 2 + len(before)] == before).all()
            else:
                cut = -(extra // 2)
                assert (before[cut : cut + length] == after).all()


def test_parts_of_windowed_data_are_made_without_reading():
    genome = Counting({"c": random_dna(np.random.default_rng(2), 5000)})
    start = np.arange(1000) * 4
    windows = GenomeWindows([ContigSource(genome, "c")], np.zeros(1000, int), start, start + 50)
    splits = np.where(np.arange(1000) % 3 == 0, "test", "train")
    data = WindowedData.of("w", windows, np.arange(1000) % 2, Task("classes", ("a", "b")), splits)
    part = data.part("test").select(np.array([5, 0, 7]))
    assert isinstance(part, WindowedData) and genome.reads == 0
    assert part.lengths.tolist() == [50] * 3 and genome.reads == 0
    assert part.targets.tolist() == [15 % 2, 0, 21 % 2] and part.groups == ("c",) * 3
    assert len(set(data.ids)) == 1000
    assert (part.sequences[0] == windows[15]).all() and genome.reads == 2


def test_batches_and_digest_of_windows_are_those_of_the_same_sequences_in_memory():
    genome = Counting({"c": random_dna(np.random.default_rng(3), 2000)})
    rng = np.random.default_rng(4)
    start = rng.integers(-20, 1900, 60)
    stop = start + rng.integers(30, 90, 60)
    windows = GenomeWindows(
        [ContigSource(genome, "c")], np.zeros(60, int), start, stop, rng.random(60) < 0.5
    )
    targets = rng.integers(0, 2, 60)
    lazy = WindowedData.of("w", windows, targets, Task("classes", ("a", "b")), ["train"] * 60)
    plain = LabelledData("w", tuple(windows), targets, lazy.task, lazy.splits, lazy.ids)
    genome.reads = 0
    options = {"tokens": 500, "seed": 1, "reverse_complement": 0.5}
    batches = list(labelled_batches(lazy, **options))
    assert genome.reads == 60  # each window once
    for mine, theirs in zip(batches, labelled_batches(plain, **options), strict=True):
        for name in ("tokens", "lengths", "targets", "index"):
            assert torch.equal(getattr(mine, name), getattr(theirs, name))
    assert lazy.digest() == plain.digest()
    held = with_valid(lazy, seed=0, fraction=0.2)
    assert isinstance(held, WindowedData) and 4 <= (held.splits == "valid").sum() <= 20


def test_windows_that_cannot_be_are_told():
    source = [ContigSource(Counting({"c": "ACGT" * 5}), "c")]
    for start, stop in ((20, 30), (-5, 0), (4, 4)):
        with pytest.raises(InputError, match=r"window 1: .* of c in toy.fa, which has 20"):
            GenomeWindows(source, [0], [start], [stop])
    with pytest.raises(InputError, match="one each"):
        GenomeWindows(source, [0, 0], [1], [2])
    with pytest.raises(InputError, match=r"outside of 0 \.\. 0"):
        GenomeWindows(source, [1], [1], [2])


# --- the registry and the published figures ---------------------------------------------------


def test_every_suite_lists_its_tasks_and_says_where_its_data_is():
    wanted = {
        "genomic_benchmarks": 8, "nucleotide_transformer": 18, "gue": 28, "promoters": 6,
        "chromatin": 2, "species": 5, "lentimpra": 3,
    }  # fmt: skip
    assert {name: len(s.list_tasks()) for name, s in SUITES.items()} == wanted
    for one in SUITES.values():
        names = [name for task in one.list_tasks() for name in task.file_names]
        assert len(names) == len(set(names))
        assert "\n1. " in one.where_from()
        assert all(one.task(task.name) is not None for task in one.list_tasks())
    with pytest.raises(InputError, match="no benchmark suite 'x'; there are genomic_benchmarks"):
        suite("x")
    with pytest.raises(InputError, match="gue: no task 'H9'; there are H3"):
        gue.load("H9", ".")


def test_published_figures_are_of_tasks_that_exist_and_match_the_paper_means():
    for row in PUBLISHED:
        SUITES[row.suite].task(row.task)
        assert 0 < row.value < 1 and row.source
    keys = [(r.suite, r.task, r.model, r.metric, r.source) for r in PUBLISHED]
    assert len(keys) == len(set(keys))

    def mean(name, model, source):
        values = [
            r.value for r in PUBLISHED
            if (r.suite, r.model) == (name, model) and source in r.source
        ]  # fmt: skip
        return len(values), round(float(np.mean(values)), 3)

    # means that research/figures.md works out from the same tables
    assert mean("genomic_benchmarks", "HyenaDNA", "2306.15794") == (8, 0.885)
    assert mean("genomic_benchmarks", "CNN", "2306.15794") == (8, 0.792)
    assert mean("genomic_benchmarks", "HyenaDNA (rerun)", "2403.03234") == (8, 0.853)
    assert mean("genomic_benchmarks", "Caduceus-PS", "2403.03234") == (8, 0.869)
    assert mean("nucleotide_transformer", "HyenaDNA", "2306.15794") == (18, 0.759)
    assert mean("nucleotide_transformer", "NT 2.5B (850)", "2306.15794") == (18, 0.709)
    best = best_known("nucleotide_transformer", "H3K4me3")
    assert best is not None and (best.model, best.text) == ("JanusDNA-mlp", "0.688")
    assert best_known("gue", "H3") is None and figure_columns("gue", "H3") == []
    assert figure_columns("genomic_benchmarks", "human_ocr_ensembl") == [
        ("HyenaDNA, paper", "0.809"),
        ("HyenaDNA, rerun", "0.783"),
        ("best other", "0.828 Caduceus-Ph"),
    ]
    assert [r.value for r in published("chromatin", "8k", "auroc_median_HM")] == [0.887, 0.893]


# --- GenomicBenchmarks ------------------------------------------------------------------------


def test_genomic_benchmarks_from_the_package_folder(tmp_path):
    rng = np.random.default_rng(3)
    texts = {}
    for split in ("test", "train"):
        for name in ("worm", "human"):
            for i in range(3):
                text = random_dna(rng, 30)
                path = tmp_path / "demo_human_or_worm" / split / name / f"{i}.txt"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text.lower() if i else text)
                texts[text] = (split, name)
    data = genomic_benchmarks.load("demo_human_or_worm", tmp_path)
    assert data.task == Task("classes", ("human", "worm"))  # sorted, whatever the disk says
    found = {
        decode(ids): (str(split), data.task.names[target])
        for ids, split, target in zip(data.sequences, data.splits, data.targets, strict=True)
    }
    assert found == texts


def test_genomic_benchmarks_from_intervals_and_genomes(tmp_path):
    rng = np.random.default_rng(4)
    human, worm = random_dna(rng, 500), random_dna(rng, 400)
    genomes = [
        write_fasta(tmp_path / "human.fa", {"1": human}),
        write_fasta(tmp_path / "worm.fa", {"I": worm}),
    ]
    folder = tmp_path / "data" / "demo_human_or_worm"
    columns = ("id", "region", "start", "end", "strand")
    for split, at in (("train", 100), ("test", 200)):
        write_csv(folder / split / "worm.csv.gz", columns, [(0, "I", at, at + 50, "-")])
        write_csv(
            folder / split / "human.csv.gz",
            columns,
            [(0, "chr1", at, at + 50, "+"), (1, "chr1", 490, 520, "+")],
        )
    with pytest.raises(InputError, match="give the genomes"):
        genomic_benchmarks.load("demo_human_or_worm", tmp_path / "data")
    with pytest.raises(InputError, match=r"csv.gz:3: chr1:491-520 is on none of the genomes"):
        genomic_benchmarks.load("demo_human_or_worm", tmp_path / "data", genomes=genomes)
    data = genomic_benchmarks.load(
        "demo_human_or_worm", tmp_path / "data", genomes=genomes, absent="drop"
    )
    assert data.notes == ("2 intervals on none of the genomes dropped",)
    got = [
        (str(s), data.task.names[t], decode(ids))
        for s, t, ids in zip(data.splits, data.targets, data.sequences, strict=True)
    ]
    assert got == [
        ("train", "human", human[100:150]),
        ("train", "worm", reverse_complement(worm[100:150])),
        ("test", "human", human[200:250]),
        ("test", "worm", reverse_complement(worm[200:250])),
    ]
    with pytest.raises(InputError, match=r"contig 1 is in .* and in"):
        genomic_benchmarks.load(
            "demo_human_or_worm", tmp_path / "data", genomes=[genomes[0], genomes[0]]
        )


def test_genomic_benchmarks_intervals_give_the_sequences_that_are_shared(shared, tmp_path):
    genomes = [
        shared / "data/human_hg38_chr2_2.3Mb/chr2_1-2333275.fa.gz",
        shared / "data/human_hg38_chr9_1Mb/chr9_1-1000000.fa.gz",
    ]
    task, wanted = "human_ensembl_regulatory", {}
    rows: dict[tuple[str, str], list[tuple[object, ...]]] = {}
    with gzip.open(shared / f"data/gb_interval_subset/{task}.csv.gz", "rt") as stream:
        for i, row in enumerate(csv.DictReader(stream)):
            interval = (i, row["region"], row["start0"], row["end"], row["strand"])
            rows.setdefault((row["split"], row["class"]), []).append(interval)
            if row["region"] in ("chr2", "chr9"):
                wanted[f"{row['split']}/{row['class']}/{i}"] = row["sequence"]
    for (split, name), intervals in rows.items():
        columns = ("id", "region", "start", "end", "strand")
        write_csv(tmp_path / task / split / f"{name}.csv.gz", columns, intervals)
    data = genomic_benchmarks.load(task, tmp_path, genomes=genomes, absent="drop")
    assert data.task.names == ("enhancer", "ocr", "promoter") and len(wanted) > 100
    assert {i: decode(ids) for i, ids in zip(data.ids, data.sequences, strict=True)} == wanted


def test_genomic_benchmarks_from_csv_have_the_counts_that_are_stated(shared):
    folder = shared / "data/gb_interval_subset"
    data = genomic_benchmarks.load("human_ensembl_regulatory", folder)
    assert counts(data, "train") == {"0": 131, "1": 109, "2": 130, "n": 370}
    assert counts(data, "test") == {"0": 36, "1": 27, "2": 43, "n": 106}


# --- Nucleotide Transformer -------------------------------------------------------------------


def test_nucleotide_transformer_from_fasta_takes_the_last_character(tmp_path):
    rng = np.random.default_rng(5)
    texts = {}
    for split in ("train", "test"):
        records = {}
        for i in range(6):
            text = random_dna(rng, 20)
            records[f"seq{i} chr1:{i}00-{i}20 |{i % 3}"] = text
            texts[text] = (split, str(i % 3))
        write_fasta(tmp_path / "splice_sites_all" / f"splice_{split}.fasta", records)
    data = nt.load("splice_sites_all", tmp_path)
    assert {
        decode(ids): (str(s), data.task.names[t])
        for ids, s, t in zip(data.sequences, data.splits, data.targets, strict=True)
    } == texts


def test_nucleotide_transformer_takes_no_file_for_a_class(tmp_path):
    rows = ">a|0\nACGT\n>b|1\nACGG\n"
    for name in ("H3_train_seqs.fasta", "H3_test_seqs.fasta"):
        (tmp_path / "H3").mkdir(exist_ok=True)
        (tmp_path / "H3" / name).write_text(rows)
    data = nt.load("H3", tmp_path)
    assert data.task.names == ("0", "1") and data.splits.tolist() == ["test"] * 2 + ["train"] * 2
    (tmp_path / "H4").mkdir()
    for name in ("one.fasta", "two.fasta"):
        (tmp_path / "H4" / name).write_text(rows)
    with pytest.raises(InputError, match=r"one.fasta: its name would be the class 'one'"):
        nt.load("H4", tmp_path)


def test_nucleotide_transformer_from_csv_has_the_counts_that_are_stated(shared):
    data = nt.load("enhancer_types", shared / "data/ienhancer2l")
    assert counts(data, "train") == {"0": 1484, "1": 742, "2": 742, "n": 2968}
    assert set(data.lengths.tolist()) == {200}
    with pytest.raises(InputError, match="holds no H3 "):
        nt.load("H3", shared / "data/ienhancer2l")


# --- GUE and lentiMPRA ------------------------------------------------------------------------


def test_gue_from_its_own_folders(tmp_path):
    rng = np.random.default_rng(6)
    for split in ("train", "dev", "test"):
        rows = [(random_dna(rng, 40), i % 2) for i in range(4)]
        write_csv(tmp_path / "GUE/EMP/H3" / f"{split}.csv", ("sequence", "label"), rows)
        write_csv(tmp_path / "GUE/tf/0" / f"{split}.csv", ("sequence", "label"), rows[:2])
    data = gue.load("H3", tmp_path / "GUE")
    assert [str(s) for s in data.splits] == ["valid"] * 4 + ["test"] * 4 + ["train"] * 4
    assert len(gue.load("tf0", tmp_path / "GUE")) == 6


@pytest.mark.parametrize(
    ("folder", "tasks"),
    [
        ("gue_emp_yeast_histone", ("H3", "H3K14ac")),
        ("gue_splice", ("splice_reconstructed",)),
        ("gue_promoter", ("prom_core_tata",)),
        ("gue_tf_mouse", ("mouse3",)),
    ],
)
def test_gue_from_csv_has_the_counts_that_its_readme_states(shared, folder, tasks):
    folder = shared / "data" / folder
    readme = (folder / "README.md").read_text()
    for task in tasks:
        section = readme.split(f"## {task} ")[1].split("\n## ")[0]
        stated = re.findall(r"split (\w+): (\d+) sequences; labels ({.*?})", section)
        data = gue.load(task, folder)
        # a copy may lack parts that the README counts; those that are there are whole
        present = {str(split) for split in data.splits}
        checked = set()
        for split, n, labels in stated:
            part = {"dev": "valid"}.get(split, split)
            if part in present:
                labels_of = {name: int(c) for name, c in re.findall(r"'(\d)': (\d+)", labels)}
                assert counts(data, part) == labels_of | {"n": int(n)}
                checked.add(part)
        assert checked == present
    if task == "H3K14ac":
        assert data.groups is not None and {"I", gue.UNPLACED} < set(data.groups)


def test_lentimpra_is_regression_with_both_orientations_in_one_group(shared):
    data = lentimpra.load("HepG2", shared / "data/lentimpra")
    valid = data.part("valid")
    assert data.task.kind == "values" and valid.targets.shape == (12292, 1)
    assert valid.targets.mean() == pytest.approx(-0.212, abs=6e-4)
    assert valid.targets.std() == pytest.approx(0.775, abs=6e-4)
    assert set(data.lengths.tolist()) == {230} and data.groups is not None
    turned = [name for name in data.ids if name.endswith(lentimpra.REVERSED)]
    straight = set(data.ids) - set(turned)
    pairs = [name for name in turned if name.removesuffix(lentimpra.REVERSED) in straight]
    assert len(pairs) > 6000 and len(set(data.groups)) == len(data) - len(pairs)


@pytest.mark.parametrize("ids", [("a_F", "a_R"), ("a", "a_Reversed:"), ("one", "two"), None])
def test_the_orientations_of_an_element_are_one_group_whatever_their_names(ids, tmp_path):
    rng = np.random.default_rng(3)
    elements = [random_dna(rng, 40) for _ in range(30)]
    rows, header = [], ["sequence", "label", "split", "seq_id"]
    for i, element in enumerate(elements):
        for j, text in enumerate((element, reverse_complement(element))):
            name = f"{i}{ids[j]}" if ids else ""
            rows.append((f"GATTACA{text}CCGGT", i, "val" if i < 20 else "test", name))
    width = 4 if ids else 3
    write_csv(tmp_path / "K562.csv", header[:width], [row[:width] for row in rows])
    data = lentimpra.load("K562", tmp_path)
    assert data.groups is not None and len(set(data.groups)) == 30
    assert data.groups[::2] == data.groups[1::2]
    learned = dataclasses.replace(data, splits=np.where(data.splits == "valid", "train", "test"))
    split = with_valid(learned, seed=1, fraction=0.3, by="group")
    sides = [set(split.splits[np.array(data.groups) == group]) for group in set(data.groups)]
    assert all(len(side) == 1 for side in sides) and {"valid"} in sides and {"train"} in sides


def test_a_file_with_a_hash_in_its_name_parts_elements_as_any_other(tmp_path):
    rng = np.random.default_rng(3)
    rows = [(f"GATTACA{random_dna(rng, 40)}CCGGT", i, "val") for i in range(12)]
    (tmp_path / "K562").mkdir()
    write_csv(tmp_path / "K562" / "run#a.csv", ["sequence", "label", "split"], rows)
    groups = lentimpra.load("K562", tmp_path).groups
    assert groups is not None and len(set(groups)) == 12


def test_bases_between_adapters_are_what_not_all_sequences_have():
    between = lentimpra.between_adapters([encode(t) for t in ("ACGTTCC", "ACCAACC", "ACTC")])
    assert [decode(ids) for ids in between] == ["GTTC", "CAAC", "T"]
    same = lentimpra.between_adapters([encode("ACGT")] * 2)
    assert [len(ids) for ids in same] == [0, 0]


# --- promoters --------------------------------------------------------------------------------


def test_promoter_tables_are_those_of_their_source(shared):
    text = (shared / "data/cnnpromoter/README.md").read_text()
    for task in promoters.list_tasks():
        data = promoters.load(task.name, shared / "data/cnnpromoter")
        stated = re.search(rf"## {task.name} .*?labels {{'0': (\d+), '1': (\d+)}}", text, re.S)
        assert stated is not None
        assert counts(data, "") == {"0": int(stated[1]), "1": int(stated[2]), "n": task.train}
        assert set(data.lengths.tolist()) == {task.length} and data.task.names == ("0", "1")


def test_a_pair_of_fasta_is_the_same_rows_as_a_table(tmp_path):
    rows = [("AACC", "1"), ("ACGT", "1"), ("GGTT", "0")]
    write_csv(tmp_path / "table" / "mouse_tata.csv.gz", ("sequence", "label"), rows)
    pair = tmp_path / "pair"
    write_fasta(pair / "Mouse_tata.fa", {"a": "AACC", "b": "ACGT"})
    write_fasta(pair / "Mouse_nonprom.fa", {"c": "GGTT"})
    table, fasta = (promoters.load("mouse_tata", tmp_path / name) for name in ("table", "pair"))
    assert table.digest() == fasta.digest()
    with pytest.raises(InputError, match="holds no mouse_tata_dbtss or Mouse_tata_dbtss"):
        promoters.load("mouse_tata_dbtss", pair)


# --- folders named after a task ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("folder", "file", "task"),
    [
        ("gb_human_enhancers_cohn_test", "data.csv.gz", "human_enhancers_cohn"),
        ("human_enhancers_cohn", "train.csv", "human_enhancers_cohn"),
        ("gb_human_enhancers_cohn_test", "data.csv.gz", None),
        ("human_enhancers_cohn", "other.csv", None),
        ("human_enhancers", "data.csv", None),
    ],
)
def test_a_folder_may_be_named_after_its_task(folder, file, task, tmp_path, monkeypatch):
    write_csv(tmp_path / folder / file, ("sequence", "label"), [("ACGT", 0), ("AACC", 1)])
    if task is None:
        with pytest.raises(InputError, match="holds no human_"):
            wrong = "human_enhancers_ensembl" if file == "data.csv.gz" else "human_enhancers_cohn"
            genomic_benchmarks.load(wrong, tmp_path / folder)
        return
    assert len(genomic_benchmarks.load(task, tmp_path / folder)) == 2
    monkeypatch.chdir(tmp_path / folder)
    assert len(genomic_benchmarks.load(task, ".")) == 2


def test_shared_parts_of_genomic_benchmarks_are_read_as_they_lie(shared):
    data = genomic_benchmarks.load(
        "human_enhancers_cohn", shared / "data/gb_human_enhancers_cohn_test"
    )
    assert counts(data, "test") == {"0": 3474, "1": 3474, "n": 6948} and len(data) == 6948
    data = genomic_benchmarks.load("human_ensembl_regulatory", shared / "data/gb_interval_subset")
    assert counts(data, "test") == {"0": 36, "1": 27, "2": 43, "n": 106}


@pytest.mark.parametrize(("file", "task"), [("enhancers", "enhancer"), ("enhancers_types", "")])
def test_enhancers_of_iEnhancer_are_tasks(file, task, shared):
    data = nt.load(task or "enhancer_types", shared / "data/ienhancer2l")
    part = counts(data, "train")
    assert part.pop("n") == 2968 and sum(part.values()) == 2968 and len(part) == (2 if task else 3)


# --- chromatin --------------------------------------------------------------------------------


def chromatin_folder(folder: Path) -> tuple[Path, dict[str, str]]:
    rng = np.random.default_rng(7)
    genome = {"chr1": random_dna(rng, 3000), "chr3": random_dna(rng, 2500)}
    names = ("Chr_No", "Start", "End", "y_GM|DNase|None", "y_GM|CTCF|None", "y_GM|H3K27me3|None")
    tables = {
        "train": [(0, 1000, 2000, "True", "False", "False"), (2, 0, 1000, 1, 1, 0)],
        "val": [(2, 1400, 2400, 0, 0, 1)],
        "test": [(0, 2000, 3000, 0, 1, 1)],
    }
    for split, rows in tables.items():
        write_csv(folder / f"{split}_hg19_coords_targets.csv", names, rows)
    write_fasta(folder / "hg19.fa", genome)
    return folder, genome


def test_chromatin_windows_are_widened_about_their_middles(tmp_path):
    folder, genome = chromatin_folder(tmp_path)
    data = chromatin.load("2000", folder)
    places = {
        ("train", True): ("chr1", 500), ("train", False): ("chr3", -500),
        ("valid", True): ("chr3", 900), ("test", True): ("chr1", 1500),
    }  # fmt: skip
    seen = set()
    for i, split in enumerate(data.splits):
        contig, start = places[
            str(split), not (str(split) == "train" and (str(split), True) in seen)
        ]
        seen.add((str(split), True))
        padded = "N" * 5000 + genome[contig] + "N" * 5000
        assert decode(data.sequences[i]) == padded[5000 + start : 7000 + start]
        assert data.groups is not None and data.groups[i] == contig
    assert data.task.kind == "labels" and data.task.outputs == 3
    by_split = {str(s): data.targets[i].tolist() for i, s in enumerate(data.splits)}
    assert by_split["valid"] == [0, 0, 1] and by_split["test"] == [0, 1, 1]
    assert data.targets[data.splits == "train"].tolist() == [[1, 0, 0], [1, 1, 0]]
    narrow = chromatin.load("1000", folder)
    assert decode(narrow.part("test").sequences[0]) == genome["chr1"][2000:3000]


def test_chromatin_groups_by_name_or_by_place():
    names = ("y_A|DNase|None", "A|CTCF|None", "A|H3K4me1|None", "A|H2A.Z|None", "A|HSF1|None")
    assert chromatin.label_groups(names) == ("DHS", "TF", "HM", "HM", "TF")
    by_place = chromatin.label_groups([f"y_{i}" for i in range(919)])
    assert [by_place.count(g) for g in ("DHS", "TF", "HM")] == [125, 690, 104]
    assert (by_place[124], by_place[125], by_place[815]) == ("DHS", "TF", "HM")
    with pytest.raises(InputError, match="2 labels such as 'y_0' do not say their group"):
        chromatin.label_groups(["y_0", "y_1"])
    medians = chromatin.group_medians(names, [0.9, 0.8, np.nan, 0.7, 0.6])
    assert medians == pytest.approx({"DHS": 0.9, "TF": 0.7, "HM": 0.7})


def test_chromatin_tables_that_are_wrong_are_told(tmp_path):
    folder, _ = chromatin_folder(tmp_path)
    table = folder / "test_hg19_coords_targets.csv"
    good = table.read_text()
    for line, message in (
        ("0,2000,3001,0,1,1", "csv:2: Start..End is 1001 bases; it must be 1000"),
        ("x,2000,3000,0,1,1", "csv:2: Chr_No, Start, End are x, 2000, 3000"),
        ("0,2000,3000,0,1,maybe", r"y_GM\|H3K27me3\|None is 'maybe'; it must be 0 or 1"),
        ("7,2000,3000,0,1,1", "no chromosome 8"),
        ("0,9000,10000,0,1,1", "which has 3000 - is it on another assembly"),
    ):
        table.write_text(good.splitlines()[0] + "\n" + line + "\n")
        with pytest.raises(InputError, match=message):
            chromatin.load("1k", folder)
    table.write_text(good.replace("Chr_No", "chrom"))
    with pytest.raises(InputError, match="lacks Chr_No"):
        chromatin.load("1k", folder)
    with pytest.raises(InputError, match="a window of 1025 bases; it must be even"):
        chromatin.load("1025", folder)
    with pytest.raises(InputError, match="neither"):
        (tmp_path / "none").mkdir()
        chromatin.load("1k", tmp_path / "none")


def test_chromatin_from_matlab_reads_each_sequence_once(tmp_path):
    texts, both, targets = matrix_rows()
    savemat(tmp_path / "valid.mat", {"validxdata": one_hot(both), "validdata": targets})
    savemat(tmp_path / "test.mat", {"testxdata": one_hot(texts[:3]), "testdata": targets[:3]})
    data = chromatin.load("1k", tmp_path)
    assert [decode(ids) for ids in data.sequences] == [*texts, *texts[:3]]
    assert [str(s) for s in data.splits] == ["valid"] * 4 + ["test"] * 3
    assert data.targets.tolist() == [*targets[:4].tolist(), *targets[:3].tolist()]
    assert data.targets.dtype == np.bool_
    savemat(tmp_path / "test.mat", {"x": targets})
    with pytest.raises(InputError, match="has no pair such as trainxdata"):
        chromatin.load("1k", tmp_path)
    (tmp_path / "test.mat").write_bytes(b"MATLAB 5.0 MAT-file" + b" " * 200)
    with pytest.raises(InputError, match=r"test.mat: is no whole MATLAB file"):
        chromatin.load("1k", tmp_path)


def test_chromatin_from_hdf5(tmp_path):
    texts, both, targets = matrix_rows()
    path = tmp_path / "train.mat"
    try:
        import h5py
    except ImportError:
        path.write_bytes(b"MATLAB 7.3 MAT-file")
        with pytest.raises(InputError, match="read by h5py, which is not installed"):
            chromatin.load("1k", tmp_path)
        return
    with h5py.File(path, "w") as file:  # MATLAB writes its axes in reverse
        file["trainxdata"] = one_hot(both).transpose(2, 1, 0)
        file["traindata"] = targets.T
    data = chromatin.load("1k", tmp_path)
    assert [decode(ids) for ids in data.sequences] == texts
    assert data.targets.tolist() == targets[:4].tolist()


# --- species ----------------------------------------------------------------------------------


@pytest.fixture
def mammals(tmp_path):
    rng = np.random.default_rng(9)
    for name, gc in (("mouse", 0.4), ("human", 0.6)):
        for k in (1, 2, 5, 8, 13):
            text = random_dna(rng, 2000, gc)
            write_fasta(tmp_path / name / f"chr{k}.fna", {f"NC_{k}": text})
    return tmp_path


def test_species_test_is_chromosomes_1_3_12_13(mammals):
    data = species.load("300", mammals, windows={"train": 40, "valid": 11, "test": 20})
    assert data.task == Task("classes", ("human", "mouse"))
    assert {s: int((data.splits == s).sum()) for s in ("train", "valid", "test")} == {
        "train": 40, "valid": 11, "test": 20,
    }  # fmt: skip
    assert np.bincount(data.targets).tolist() == [36, 35]
    allowed = {"train": {2, 8}, "valid": {5}, "test": {1, 13}}
    for split, numbers in allowed.items():
        part = data.part(split)
        groups = part.groups or ()
        for i, group in enumerate(groups):
            name, _, contig = group.partition(":")
            assert int(contig.removeprefix("NC_")) in numbers
            assert name == part.task.names[part.targets[i]]
            k = contig.removeprefix("NC_")
            text = (mammals / name / f"chr{k}.fna").read_text().splitlines()[1]
            assert decode(part.sequences[i]) in text
        assert set(part.lengths.tolist()) == {300}


def test_species_windows_are_a_function_of_the_seed_and_reach_both_ends(mammals):
    wanted = {"train": 3000, "valid": 10, "test": 10}
    one, again = (species.load("1990", mammals, seed=5, windows=wanted) for _ in range(2))
    other = species.load("1990", mammals, seed=6, windows=wanted)
    assert (one.windows.start == again.windows.start).all()
    assert not (one.windows.start == other.windows.start).all()
    # 2,000 bases: starts 0 .. 10, all as likely; none of them padded
    found = np.bincount(one.part("train").windows.start, minlength=11)
    assert len(found) == 11 and found.min() > 200
    assert not any("N" in decode(one.sequences[i]) for i in range(50))
    # the parts draw apart from one another: fewer windows of one do not move the others
    fewer = species.load("1990", mammals, seed=5, windows=wanted | {"train": 10})
    assert (fewer.part("test").windows.start == one.part("test").windows.start).all()


def test_species_without_chromosomes_are_cut_into_stretches(tmp_path):
    rng = np.random.default_rng(10)
    texts = {name: random_dna(rng, 20_000) for name in ("coli", "subtilis")}
    for name, text in texts.items():
        write_fasta(tmp_path / f"{name}.fa", {f"{name}_1": text})
    data = species.load("500", tmp_path, windows=dict.fromkeys(species.PARTS, 400))
    covered = {}
    for split in species.PARTS:
        for label, text in enumerate(texts.values()):
            part = data.part(split)
            rows = np.flatnonzero(part.targets == label)
            seen = np.zeros(len(text), dtype=bool)
            for start in part.windows.start[rows]:
                seen[start : start + 500] = True
            covered[split, label] = seen
            assert decode(part.sequences[rows[0]]) in text
    for label in range(2):
        together = sum(covered[split, label].astype(int) for split in species.PARTS)
        assert together.max() == 1 and together.mean() > 0.95
    # one layout for several lengths, so that they are measured on the same bases
    short = species.load("100", tmp_path, region_length=500)
    for split in species.PARTS:
        part = short.part(split)
        for label in range(2):
            inside = part.windows.start[part.targets == label]
            assert covered[split, label][inside].mean() > 0.9


def test_species_pass_over_n_and_tell_what_is_too_short(tmp_path):
    rng = np.random.default_rng(11)
    gap = random_dna(rng, 3000) + "N" * 4000 + random_dna(rng, 3000)
    write_fasta(tmp_path / "a.fa", {"a": gap})
    write_fasta(tmp_path / "b.fa", {"b": random_dna(rng, 10_000)})
    data = species.load("100", tmp_path)
    assert max((ids == 11).mean() for ids in data.sequences) <= 0.5
    with pytest.raises(InputError, match="a, valid has no region of 5000 bases; take shorter"):
        species.load("5000", tmp_path)
    with pytest.raises(InputError, match="task '5kb' is no length; it is 1k, 32k"):
        species.load("5kb", tmp_path)
    with pytest.raises(InputError, match="region_length is 50, below the window of 100"):
        species.load("100", tmp_path, region_length=50)
    (tmp_path / "b.fa").unlink()
    with pytest.raises(InputError, match="holds 1 species"):
        species.load("100", tmp_path)
    write_fasta(tmp_path / "n.fa", {"n": "N" * 10_000})
    with pytest.raises(InputError, match="n, train: nearly all N"):
        species.load("100", tmp_path)


def test_species_read_from_disk_as_from_memory(mammals, monkeypatch):
    loaded = species.load("300", mammals)
    monkeypatch.setattr(species, "_IN_MEMORY", 0)
    on_disk = species.load("300", mammals)
    assert isinstance(on_disk.windows.sources[0].genome, Genome)
    assert not isinstance(loaded.windows.sources[0].genome, Genome)
    assert loaded.digest() == on_disk.digest()


def test_species_of_real_genomes(shared, tmp_path):
    names = {"genitalium": "bacteria_4/Myco.fa.gz", "human": "human_hg38_chr9_1Mb/*.fa.gz"}
    for name, pattern in names.items():
        (source,) = (shared / "data").glob(pattern)
        (tmp_path / f"{name}.fa.gz").symlink_to(source)
    data = species.load("4096", tmp_path, windows=dict.fromkeys(species.PARTS, 20))
    assert data.task.names == ("genitalium", "human") and len(data) == 60
    genome = Genome.open(tmp_path / "human.fa.gz")
    row = int(np.flatnonzero(data.targets == 1)[0])
    start = int(data.windows.start[row])
    assert (data.sequences[row] == genome.tokens("9", start, start + 4096)).all()


def test_windows_are_cut_to_their_middle_without_reading():
    genome = Counting({"c": random_dna(np.random.default_rng(3), 400)})
    start, stop = np.array([0, 50, 90]), np.array([31, 60, 127])
    windows = GenomeWindows([ContigSource(genome, "c")], [0, 0, 0], start, stop)
    task, targets = Task("classes", ("a", "b")), np.array([0, 1, 0])
    data = WindowedData.of("w", windows, targets, task, ["train"] * 3)
    reads = genome.reads
    cut = fit_length(data, 12, "centre")
    assert genome.reads == reads and cut.lengths.tolist() == [12, 10, 12]
    plain = LabelledData(
        data.name, tuple(windows), data.targets, data.task, data.splits, data.ids, data.groups
    )
    wanted = fit_length(plain, 12, "centre")
    assert [decode(ids) for ids in cut.sequences] == [decode(ids) for ids in wanted.sequences]
    assert cut.part("train").notes == wanted.notes


def test_damaged_matlab_files_are_refused_in_one_line(tmp_path):
    """Cut off or changed anywhere: the reader itself fails in half a dozen ways."""
    _, both, targets = matrix_rows()
    path = tmp_path / "valid.mat"
    savemat(path, {"validxdata": one_hot(both), "validdata": targets}, do_compression=True)
    whole, rng, refused = path.read_bytes(), np.random.default_rng(0), 0
    for trial in range(200):
        damaged = bytearray(whole)
        if trial % 2:
            del damaged[int(rng.integers(20, len(whole))) :]
        else:
            damaged[int(rng.integers(10, len(whole)))] ^= 0xFF
        path.write_bytes(damaged)
        try:
            chromatin.load("1k", tmp_path)
        except InputError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused > 100
