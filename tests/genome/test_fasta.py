"""Genomes from FASTA: the right bases in every packing, and one clear line for every bad file."""

from __future__ import annotations

import gzip
import multiprocessing
import os
import pickle
import random
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pysam
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hyenadna import alphabet
from hyenadna.errors import InputError
from hyenadna.genome import faidx
from hyenadna.genome.fasta import Genome, LoadedGenome

RECORDS = {"one": "ACGTNacgtnRYK" * 9, "two": "T", "three": "GATTACA" * 30}


def fasta(records: dict[str, str], width: int = 10, end: str = "\n") -> bytes:
    lines = []
    for name, letters in records.items():
        lines.append(f">{name} some words")
        lines += [letters[i : i + width] for i in range(0, len(letters), width)]
    return (end.join(lines) + end).encode()


def bgzip(path: Path, text: bytes) -> Path:
    with pysam.BGZFile(str(path), "w") as stream:
        stream.write(text)
    return path


def write(path: Path, text: bytes) -> Path:
    path.write_bytes(text)
    return path


def make(folder: Path, packing: str, text: bytes) -> Path:
    if packing == "bgzip":
        return bgzip(folder / "g.fa.gz", text)
    return write(folder / "g.fa", gzip.compress(text) if packing == "gzip" else text)


def assert_holds(genome: Genome, records: dict[str, str]) -> None:
    assert genome.contigs == {name: len(letters) for name, letters in records.items()}
    loaded = genome.load()
    for name, letters in records.items():
        for start, stop in {(0, len(letters)), (len(letters) // 3, 2 * len(letters) // 3)}:
            expected = letters[start:stop]
            assert genome.letters(name, start, stop).decode() == expected
            for reader in (genome, loaded):
                assert np.array_equal(reader.tokens(name, start, stop), alphabet.encode(expected))
                lower = [x.islower() for x in expected]
                assert reader.soft_masked(name, start, stop).tolist() == lower


@pytest.mark.parametrize("packing", ["plain", "gzip", "bgzip"])
@pytest.mark.parametrize("width", [10, 7, 1000])
def test_every_packing_gives_the_bases(tmp_path: Path, packing: str, width: int) -> None:
    path = make(tmp_path, packing, fasta(RECORDS, width))
    genome = Genome.open(path, cache=tmp_path / "cache")
    assert_holds(genome, RECORDS)
    assert (genome.name, genome.path, genome.bases) == ("g", path, 328)


UNUSUAL = {
    "windows": fasta(RECORDS, end="\r\n"),
    "windows, bare last line": fasta(RECORDS, end="\r\n")[:-2],
    "no final newline": fasta(RECORDS)[:-1],
    "blank lines between": fasta(RECORDS).replace(b">", b"\n\n>"),
    "blank lines at the end": fasta(RECORDS) + b"\n\n",
    "blank line inside": fasta(RECORDS).replace(b"\n", b"\n\n"),
    "ragged lines": fasta(RECORDS).replace(b"ACGTN", b"ACG\nTN"),
    "longer last line": b">one\n"
    + RECORDS["one"].encode()
    + b"\n>two\nT\n>three\nGATTACA\n"
    + b"GATTACA" * 29
    + b"\n",
    "blanks in lines": fasta(RECORDS).replace(b"GAT", b"G A\tT").replace(b"NAC", b"NAC "),
    "byte order mark": b"\xef\xbb\xbf" + fasta(RECORDS),
    "mixed line ends": fasta(RECORDS).replace(b"\n", b"\r\n", 3),
}


@pytest.mark.parametrize("packing", ["plain", "gzip", "bgzip"])
@pytest.mark.parametrize("kind", UNUSUAL)
def test_unusual_layouts_give_the_bases(tmp_path: Path, packing: str, kind: str) -> None:
    path = make(tmp_path, packing, UNUSUAL[kind].replace(b" some words", b""))
    assert_holds(Genome.open(path, cache=tmp_path / "cache"), RECORDS)


@settings(max_examples=150, deadline=None)
@given(
    lines=st.lists(st.lists(st.text("ACGTNacgtn", max_size=6), max_size=5), min_size=1, max_size=4),
    end=st.sampled_from(["\n", "\r\n"]),
    last=st.booleans(),
    block=st.integers(1, 9),
)
def test_any_layout_gives_the_bases(
    tmp_path_factory: pytest.TempPathFactory,
    lines: list[list[str]],
    end: str,
    last: bool,
    block: int,
) -> None:
    """Whatever the lines and wherever the blocks are cut, the records are the joined lines."""
    folder = tmp_path_factory.mktemp("layout")
    text = end.join(line for i, rows in enumerate(lines) for line in [f">r{i}", *rows])
    path = write(folder / "g.fa", (text + end * last).encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(faidx, "PIECE_BYTES", block)
        genome = Genome.open(path, cache=folder)
        assert_holds(genome, {f"r{i}": "".join(rows) for i, rows in enumerate(lines)})


def test_existing_index_of_windows_line_ends_is_read_right(tmp_path: Path) -> None:
    path = write(tmp_path / "g.fa", fasta(RECORDS, end="\r\n"))
    pysam.faidx(str(path))
    assert_holds(Genome.open(path, cache=tmp_path / "cache"), RECORDS)
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("packing", ["plain", "bgzip"])
def test_index_equals_that_of_htslib(tmp_path: Path, packing: str) -> None:
    letters = random.Random(1)
    records = {f"c{i}": "".join(letters.choices("ACGT", k=70_000)) for i in range(3)}
    path = make(tmp_path, packing, fasta(records, 61))
    Genome.open(path)
    ours = {suffix: Path(f"{path}{suffix}").read_bytes() for suffix in _suffixes(packing)}
    for suffix in ours:
        Path(f"{path}{suffix}").unlink()
    pysam.faidx(str(path))
    assert ours == {suffix: Path(f"{path}{suffix}").read_bytes() for suffix in ours}
    assert_holds(Genome.open(path), records)


def _suffixes(packing: str) -> list[str]:
    return [".fai", ".gzi"] if packing == "bgzip" else [".fai"]


def test_index_goes_beside_the_file_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = write(tmp_path / "g.fa", fasta(RECORDS))
    Genome.open(path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["g.fa", "g.fa.fai"]


def test_read_only_folder_stays_untouched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, cache = tmp_path / "data", tmp_path / "cache"
    folder.mkdir()
    path = write(folder / "g.fa", fasta(RECORDS))
    folder.chmod(0o555)
    monkeypatch.setenv("HYENADNA_CACHE", str(cache))
    try:
        assert_holds(Genome.open(path), RECORDS)
        assert [p.name for p in folder.iterdir()] == ["g.fa"]
        (made,) = cache.iterdir()
        state = made.stat()
        Genome.open(path)
        assert [p.stat().st_mtime_ns for p in cache.iterdir()] == [state.st_mtime_ns]
    finally:
        folder.chmod(0o755)


def test_folder_that_only_looks_writable_falls_back_to_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "g.fa", fasta(RECORDS))
    monkeypatch.setenv("HYENADNA_CACHE", str(tmp_path / "cache"))
    (tmp_path / "g.fa.fai").mkdir()  # nothing can be renamed onto a folder
    assert_holds(Genome.open(path), RECORDS)
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_cache_that_cannot_be_written(tmp_path: Path) -> None:
    path = make(tmp_path, "gzip", fasta(RECORDS))
    with pytest.raises(InputError, match=r"cannot write the genome cache .*HYENADNA_CACHE"):
        Genome.open(path, cache=write(tmp_path / "a_file", b"") / "sub")


@pytest.mark.parametrize("packing", ["plain", "bgzip"])
def test_stale_index_is_made_anew(tmp_path: Path, packing: str) -> None:
    path = make(tmp_path, packing, fasta({"a": "AAAA"}))
    assert Genome.open(path).contigs == {"a": 4}
    later = path.stat().st_mtime + 10
    path = make(tmp_path, packing, fasta(RECORDS))
    os.utime(path, (later, later))
    assert_holds(Genome.open(path), RECORDS)
    made = Path(f"{path}.fai").stat().st_mtime_ns
    Genome.open(path)
    assert Path(f"{path}.fai").stat().st_mtime_ns == made  # not made again


def test_changed_gzip_is_unpacked_anew(tmp_path: Path) -> None:
    path = make(tmp_path, "gzip", fasta({"a": "AAAA"}))
    Genome.open(path, cache=tmp_path / "cache")
    path = make(tmp_path, "gzip", fasta(RECORDS))
    assert_holds(Genome.open(path, cache=tmp_path / "cache"), RECORDS)


@pytest.mark.parametrize("index", [b"", b"nonsense\n", b"one\t5\t6\n", b"\xff\xfe\n"])
def test_broken_index_is_made_anew(tmp_path: Path, index: bytes) -> None:
    path = write(tmp_path / "g.fa", fasta(RECORDS))
    write(tmp_path / "g.fa.fai", index)
    assert_holds(Genome.open(path), RECORDS)


def refused(path: Path, message: str) -> None:
    """The error is one line that names the file, whether found on opening or on checking."""
    with pytest.raises(InputError) as caught:
        Genome.open(path, cache=path.parent / "cache").check()
    text = str(caught.value)
    assert text.startswith(f"{path}")
    assert "\n" not in text
    assert re.search(message, text), text
    assert not list(path.parent.glob("cache/*.part"))


@pytest.mark.parametrize("packing", ["plain", "gzip", "bgzip"])
@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"ACGT\nACGT\n", "is not FASTA: it begins with 'ACGT"),
        (b"\n\n", "holds no FASTA record"),
        (b"@read\nACGT\n+\nIIII\n", "is not FASTA"),
        (b">a\nACGT\n>b\nAC\n>a\nA\n", r"two records are named 'a' \(the second is record 3\)"),
        (b">\nACGT\n", "record 1 has no name"),
        (b">a\nACGT\n> b\nACGT\n", "record 2 has no name"),
        (b">a\rACGT\r>b\rAC\r", "carriage returns alone"),
        (b">a\nACGT\n>p\nACGT\nACGEL\n", "p: letter 'E' at position 8 is not DNA"),
        (b">p\nMKVLA\n", "p: letter 'L' at position 4"),
        (b">a\nAC-T\n", "a: letter '-' at position 3"),
        (b">a\nACG>T\n", "a: letter '>' at position 4"),
    ],
)
def test_bad_text_is_one_clear_line(
    tmp_path: Path, packing: str, text: bytes, message: str
) -> None:
    refused(make(tmp_path, packing, text), message)


def test_files_that_are_none(tmp_path: Path) -> None:
    refused(tmp_path / "none.fa", "no such file")
    refused(write(tmp_path / "empty.fa", b""), "is empty")
    refused(write(tmp_path / "empty.fa.gz", gzip.compress(b"")), "holds no FASTA record")
    refused(write(tmp_path / "g.zip", b"PK\x03\x04" + bytes(50)), "packed as zip")
    refused(write(tmp_path / "g.fa.zst", b"\x28\xb5\x2f\xfd" + bytes(50)), "packed as zstd")
    (tmp_path / "folder").mkdir()
    refused(tmp_path / "folder", "is a folder")
    os.mkfifo(tmp_path / "pipe")
    refused(tmp_path / "pipe", "is no regular file")


@pytest.mark.parametrize("packing", ["gzip", "bgzip"])
@pytest.mark.parametrize("keep", [0.2, 0.6, 0.99])
def test_truncated_file(tmp_path: Path, packing: str, keep: float) -> None:
    letters = "".join(random.Random(2).choices("ACGT", k=200_000))
    path = make(tmp_path, packing, fasta({"a": letters}, 60))
    whole = path.read_bytes()
    write(path, whole[: int(keep * len(whole))])
    refused(path, "truncated or damaged .*download it again")


def test_bgzip_cut_between_blocks(tmp_path: Path) -> None:
    path = make(tmp_path, "bgzip", fasta({"a": "ACGT" * 50_000}, 60))
    write(path, path.read_bytes()[:-28])
    refused(path, "end of the bgzip file is missing")


@pytest.mark.parametrize("packing", ["gzip", "bgzip"])
def test_damaged_file(tmp_path: Path, packing: str) -> None:
    letters = "".join(random.Random(3).choices("ACGT", k=200_000))
    path = make(tmp_path, packing, fasta({"a": letters}, 60))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    write(path, bytes(data))
    refused(path, "truncated or damaged .*download it again")


def test_damage_behind_a_good_index_is_found_on_reading(tmp_path: Path) -> None:
    letters = "".join(random.Random(3).choices("ACGT", k=200_000))
    path = make(tmp_path, "bgzip", fasta({"a": letters}, 60))
    Genome.open(path)
    state, data = path.stat(), bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    write(path, bytes(data))
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    genome = Genome.open(path)
    with pytest.raises(InputError, match="truncated"):
        for start in range(0, 200_000, 1000):
            genome.tokens("a", start, start + 1000)


def test_plain_file_shorter_than_its_index(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / "g.fa", fasta(RECORDS))
    Genome.open(path)
    state = path.stat()
    write(path, fasta(RECORDS)[:-50])
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    genome = Genome.open(path)
    with pytest.raises(InputError, match=r"three cannot be read at 1 .*truncated"):
        genome.tokens("three", 0, 210)
    assert capfd.readouterr().err == ""  # htslib keeps quiet
    refused(path, "records are not those of its index")


def test_plain_file_with_other_lines_than_its_index(tmp_path: Path) -> None:
    path = write(tmp_path / "g.fa", fasta(RECORDS))
    Genome.open(path)
    state = path.stat()
    write(path, fasta(RECORDS).replace(b"TACAG", b"TA\n\nG"))
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    with pytest.raises(InputError, match=r"is not as its index says; .*changed since .*g.fa.fai"):
        Genome.open(path).tokens("three", 0, 210)


def test_plain_file_longer_than_its_index(tmp_path: Path) -> None:
    path = write(tmp_path / "g.fa", fasta({"a": "ACGT"}))
    Genome.open(path)
    state = path.stat()
    write(path, fasta({"a": "ACGT"}) + b"ACGT\n>b\nAC\n")
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    with pytest.raises(InputError, match="records are not those of its index"):
        Genome.open(path).load()


def test_empty_records_are_kept_and_told(tmp_path: Path) -> None:
    text = b">a\n>b\nACGT\n>c\n\n>d"
    for packing in ("plain", "gzip", "bgzip"):
        folder = tmp_path / packing
        folder.mkdir()
        genome = Genome.open(make(folder, packing, text), cache=folder)
        assert_holds(genome, {"a": "", "b": "ACGT", "c": "", "d": ""})
        (warning,) = genome.check().warnings
        assert "3 of the records are empty: a, c, d" in warning


def test_summary_counts(tmp_path: Path) -> None:
    letters = "A" * 2 + "c" * 3 + "G" * 5 + "T" * 7 + "u" * 2 + "n" * 11 + "N" + "R" * 4 + "y"
    genome = Genome.open(write(tmp_path / "g.fa", fasta({"a": letters, "b": letters})), name="toy")
    told: list[tuple[int, int]] = []
    summary = genome.check(progress=lambda done, total: told.append((done, total)))
    assert (summary.name, summary.contigs, summary.bases) == ("toy", 2, 72)
    counts = (summary.a, summary.c, summary.g, summary.t, summary.n, summary.ambiguous)
    assert counts == (4, 6, 10, 18, 24, 10)
    assert summary.lower_case == 2 * (3 + 2 + 11 + 1)
    assert any("4 letters are U" in warning for warning in summary.warnings)
    assert told == [(36, 72), (72, 72)]
    loaded = genome.load()
    assert isinstance(loaded, LoadedGenome)
    assert loaded.summary == summary


@given(st.integers(0, 400_000), st.integers(0, 1000))
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_long_texts_are_counted_like_short_ones(length: int, seed: int) -> None:
    from hyenadna.genome.fasta import _histogram

    letters = np.random.default_rng(seed).integers(0, 256, length, dtype=np.uint8)
    assert np.array_equal(_histogram(letters.tobytes()), np.bincount(letters, minlength=256))


def test_ranges_and_names_are_checked(tmp_path: Path) -> None:
    genome = Genome.open(write(tmp_path / "g.fa", fasta(RECORDS)))
    for reader in (genome, genome.load()):
        for start, stop in [(-1, 5), (5, 4), (0, 118)]:
            with pytest.raises(InputError, match="not within one, which has 117"):
                reader.tokens("one", start, stop)
        with pytest.raises(InputError, match=r"no contig 'chrone'; it has one, two, three"):
            reader.tokens("chrone", 0, 1)
        assert reader.tokens("one", 7, 7).shape == (0,)


def test_bad_letter_on_random_access_has_its_place(tmp_path: Path) -> None:
    genome = Genome.open(write(tmp_path / "g.fa", b">a\nACGT\nAC*T\n"))
    assert genome.tokens("a", 0, 6).tolist() == [7, 8, 9, 10, 7, 8]
    with pytest.raises(InputError, match=r"g.fa: a: letter '\*' at position 7"):
        genome.tokens("a", 5, 8)


def test_large_genome_stays_on_disk_but_is_checked(tmp_path: Path) -> None:
    genome = Genome.open(write(tmp_path / "g.fa", fasta(RECORDS)))
    assert genome.load(max_bytes=327) is genome
    assert isinstance(genome.load(max_bytes=328), LoadedGenome)
    bad = Genome.open(write(tmp_path / "bad.fa", b">a\nACXT\n"))
    with pytest.raises(InputError, match="letter 'X' at position 3"):
        bad.load(max_bytes=1)


def test_loaded_genome_cannot_be_written_to(tmp_path: Path) -> None:
    loaded = Genome.open(write(tmp_path / "g.fa", fasta(RECORDS))).load()
    with pytest.raises(ValueError, match="read-only"):
        loaded.cased_tokens("one", 0, 5)[0] = 1


def test_digest_is_of_names_and_bases_only(tmp_path: Path) -> None:
    def digest(name: str, text: bytes) -> str:
        genome = Genome.open(write(tmp_path / name, text))
        assert genome.digest() == genome.load().digest()
        return genome.digest()

    first = digest("a.fa", fasta(RECORDS, 10))
    assert first == digest("b.fa", fasta({k: v.lower() for k, v in RECORDS.items()}, 7))
    assert first == digest("c.fa.gz", gzip.compress(fasta(RECORDS)))
    assert first != digest("d.fa", fasta(RECORDS | {"two": "A"}))
    assert first != digest("e.fa", fasta({k + "x": v for k, v in RECORDS.items()}))
    assert first != digest("f.fa", fasta(dict(reversed(RECORDS.items()))))
    # The border between records counts too.
    assert digest("g.fa", b">a\nAC\n>b\nGT\n") != digest("h.fa", b">a\nACG\n>b\nT\n")


@pytest.fixture(autouse=True)
def _cache_in_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYENADNA_CACHE", str(tmp_path / "default_cache"))


def _read_all(genome: Genome) -> list[int]:
    return [int(genome.tokens("a", i, i + 50).sum()) for i in range(0, 20_000, 97)]


def test_forked_processes_and_threads_do_not_disturb_each_other(tmp_path: Path) -> None:
    letters = "".join(random.Random(4).choices("ACGT", k=20_100))
    genome = Genome.open(bgzip(tmp_path / "g.fa.gz", fasta({"a": letters}, 60)))
    expected = _read_all(genome)
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.map(_read_all, [genome] * 4) == [expected] * 4
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(_read_all, [genome] * 8)) == [expected] * 8
    assert _read_all(genome) == expected


def test_pickled_genomes_read_the_same(tmp_path: Path) -> None:
    genome = Genome.open(write(tmp_path / "g.fa", fasta(RECORDS)))
    for reader in (genome, genome.load()):
        copy = pickle.loads(pickle.dumps(reader))
        assert copy.contigs == reader.contigs
        assert np.array_equal(copy.cased_tokens("one", 3, 90), reader.cased_tokens("one", 3, 90))


def test_names_with_other_letters(tmp_path: Path) -> None:
    records = {"gi|9626243|ref|NC_001416.1|": "ACGT", "chromosomé": "GGCC", "a:1-5": "TT"}
    assert_holds(Genome.open(write(tmp_path / "g.fa", fasta(records))), records)


def test_yeast(shared: Path, tmp_path: Path) -> None:
    path = shared / "data/yeast_R64/Saccharomyces_cerevisiae.R64-1-1.fa.gz"
    genome = Genome.open(path, cache=tmp_path)
    assert len(genome.contigs) == 17
    assert genome.contigs["I"] == 230_218
    with gzip.open(path, "rt") as stream:
        text = stream.read().split(">")[1:]
    name, letters = text[3].split("\n", 1)
    letters = letters.replace("\n", "")
    assert list(genome.contigs)[3] == name.split()[0]
    loaded = genome.load()
    assert np.array_equal(loaded.tokens(name.split()[0], 0, len(letters)), alphabet.encode(letters))
    assert genome.digest() == loaded.digest()


def test_soft_masked_human(shared: Path, tmp_path: Path) -> None:
    path = shared / "data/human_hg38_chr9_1Mb/chr9_1-1000000.fa.gz"
    with gzip.open(path, "rt") as stream:
        letters = "".join(stream.read().split("\n")[1:])
    genome = Genome.open(path, cache=tmp_path)
    summary = genome.check()
    assert (summary.bases, summary.contigs) == (len(letters), 1)
    assert summary.lower_case == sum(x.islower() for x in letters) > 0
    assert summary.n == letters.upper().count("N")
    (contig,) = genome.contigs
    masked = genome.load().soft_masked(contig, 0, len(letters))
    assert np.array_equal(masked, [x.islower() for x in letters])


def test_bacteria_in_one_contig(shared: Path, tmp_path: Path) -> None:
    genome = Genome.open(shared / "data/bacteria_4/Myco.fa.gz", cache=tmp_path)
    assert genome.contigs == {"Chromosome": 580_076}
    assert genome.check().bases == 580_076
