"""GFF and GTF: positions against the sequence itself, coding frames, strands, tiles."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pysam
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hyenadna.alphabet import IGNORED, decode, encode
from hyenadna.config import ModelConfig
from hyenadna.data.annotation import (
    FeatureChoice,
    contig_notes,
    match_contigs,
    parse_track,
    read_annotation,
)
from hyenadna.data.annotation_classes import FRAME_NAMES, frame_classes, gene_classes
from hyenadna.data.cuts import Cut
from hyenadna.data.labelled import LabelledData, read_labelled
from hyenadna.data.labelled_batches import make_batch
from hyenadna.data.labelled_data import Task, turned_classes
from hyenadna.data.splits import hold_out
from hyenadna.data.tracks import base_classes
from hyenadna.errors import InputError
from hyenadna.genome.fasta import Genome
from hyenadna.genome.intervals import Interval
from hyenadna.model.backbone import HyenaDNA
from hyenadna.model.heads import TaskModel
from hyenadna.task_kinds import strand_twins

STARTS = {"ATG", "GTG", "TTG"}


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def gff(*rows: str) -> str:
    """GFF rows from `contig type first last strand phase attributes`."""
    lines = []
    for row in rows:
        contig, kind, first, last, strand, phase, attributes = row.split(maxsplit=6)
        lines.append("\t".join([contig, "x", kind, first, last, ".", strand, phase, attributes]))
    return "##gff-version 3\n" + "\n".join(lines) + "\n"


@pytest.fixture(scope="module")
def genome(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(0)
    text = "".join(rng.choice(list("ACGT"), 200))
    return write(tmp_path_factory.mktemp("g") / "g.fa", f">c1\n{text}\n>chr9\n{text[:60]}\n")


def classes(genome: Path, at: str, **options: object) -> tuple[tuple[str, ...], list[str]]:
    """Names of the task, and of the class of each base of an interval such as `c1:1-10`."""
    reverse, at = at.startswith("-"), at.lstrip("-")
    interval = Interval.parse(at)
    folder = Path(str(genome)).parent
    strand = "-" if reverse else "+"
    bed = f"{interval.contig}\t{interval.start}\t{interval.stop}\tx\t0\t{strand}\n"
    data = read_labelled(write(folder / "at.bed", bed), genome=genome, **options)  # type: ignore[arg-type]
    return data.task.names, named(data.task, data.targets[0])


def named(task: Task, row: npt.NDArray[np.int64]) -> list[str]:
    return [task.names[c] if c != IGNORED else "?" for c in row.tolist()]


def message(*args: object, **options: object) -> str:
    with pytest.raises(InputError) as error:
        read_labelled(*args, **options)  # type: ignore[arg-type]
    assert "\n" not in str(error.value)
    return str(error.value)


# -- reading ---------------------------------------------------------------------------------------

GFF3 = gff(
    "c1 gene 11 40 + . ID=gene:g1;biotype=rRNA;Note=a%3Bb,c",
    "c1 rRNA 11 40 + . ID=t1;Parent=gene:g1",
    "c1 exon 11 40 + . Parent=t1",
    "c1 gene 101 120 - . ID=gene:g2;biotype=protein_coding",
    "c1 mRNA 101 120 - . ID=t2;Parent=gene:g2",
    "c1 exon 101 120 - . Parent=t2",
)
GTF = gff(
    'c1 gene 11 40 + . gene_id "g1"; gene_biotype "rRNA"; note "a;b"; tag "x"; tag "y"; level 2;',
    'c1 exon 11 40 + . gene_id "g1"; transcript_id "t1"; gene_biotype "rRNA";',
    'c1 gene 101 120 - . gene_id "g2"; gene_type "protein_coding";',
    'c1 exon 101 120 - . gene_id "g2"; transcript_id "t2"; gene_type "protein_coding";',
)


def test_a_row_says_what_it_is(tmp_path: Path) -> None:
    first = read_annotation(write(tmp_path / "x.gff3", GFF3)).features[0]
    assert first.interval == Interval("c1", 10, 40) and (first.strand, first.phase) == ("+", None)
    assert first.attributes["Note"] == ("a;b", "c") and first.first("no", "ID") == "gene:g1"
    other = read_annotation(write(tmp_path / "x.gtf", GTF)).features[0]
    assert other.interval == first.interval
    assert other.attributes == {
        "gene_id": ("g1",), "gene_biotype": ("rRNA",), "note": ("a;b",), "tag": ("x", "y"),
        "level": ("2",),
    }  # fmt: skip


@pytest.mark.parametrize("text", [GFF3, GTF], ids=["gff3", "gtf"])
def test_packed_files_are_the_same(tmp_path: Path, text: str) -> None:
    plain = read_annotation(write(tmp_path / "x.gff", text))
    (tmp_path / "gz.gff.gz").write_bytes(gzip.compress(text.encode()))
    with pysam.BGZFile(str(tmp_path / "bgz.gff.gz"), "w") as stream:
        stream.write(text.encode())
    windows = write(tmp_path / "crlf.gff", "\ufeff" + text.replace("\n", "\r\n"))
    for path in (tmp_path / "gz.gff.gz", tmp_path / "bgz.gff.gz", windows):
        assert read_annotation(path).features == plain.features
    with_sequence = write(tmp_path / "y.gff", text + "##FASTA\n>c1\nACGT\n")
    assert read_annotation(with_sequence).features == plain.features


def test_bad_rows_are_named(tmp_path: Path) -> None:
    wrong = {
        "c1 exon 11 40": "y.gff:1: a row of GFF or GTF has 9 columns",
        "c1\tx\texon\t0\t40\t.\t+\t.\tID=a": "y.gff:1: start '0' and end '40'; they count from 1",
        "c1\tx\texon\t9\t4\t.\t+\t.\tID=a": "y.gff:1: start '9' and end '4'",
        "#\nc1\tx\texon\t4\t9\t.\tx\t.\tID=a": "y.gff:2: strand is 'x'",
        "c1\tx\tCDS\t4\t9\t.\t+\t3\tID=a": "y.gff:1: phase is '3'; it must be 0, 1, 2",
        "# nothing": "y.gff: holds no feature",
    }
    for text, said in wrong.items():
        with pytest.raises(InputError) as error:
            read_annotation(write(tmp_path / "y.gff", text + "\n"))
        assert said in str(error.value) and "\n" not in str(error.value)


def test_lines_for_browsers_are_passed_over_and_contigs_named_so_are_not(tmp_path: Path) -> None:
    rows = gff("track_1 exon 3 5 + . ID=a", "browser exon 3 5 + . ID=b", "track exon 3 5 + . ID=c")
    text = 'track name="x"\nbrowser position c1:1-9\ntrack\tname=y\n' + rows
    found = read_annotation(write(tmp_path / "x.gff3", text))
    assert found.contigs == ("track_1", "browser", "track") and len(found.features) == 3
    with pytest.raises(InputError, match="has 9 columns"):
        read_annotation(write(tmp_path / "y.gff3", "tracks\tname\n" + rows))


def test_what_a_track_option_means(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "a:b.gff3", GFF3)
    write(tmp_path / "x.bed", "c1\t0\t4\n")
    assert parse_track("x.bed") == Path("x.bed")
    assert parse_track("a:b.gff3:exon") == FeatureChoice(Path("a:b.gff3"), "exon")
    # the value holds a colon too
    one = parse_track("a:b.gff3:mRNA,Parent=gene:g1|gene:g2,biotype=protein_coding")
    assert one == FeatureChoice(
        Path("a:b.gff3"), "mRNA",
        (("Parent", ("gene:g1", "gene:g2")), ("biotype", ("protein_coding",))),
    )  # fmt: skip
    wrong = {
        "no.gff:exon": "no such file",
        "x.bed:exon": "only GFF and GTF have types",
        "a:b.gff3": "say which features are meant, such as a:b.gff3:exon; it has exon, gene",
        "a:b.gff3:exon,rRNA": "'rRNA' is not NAME=VALUE",
    }
    for text, said in wrong.items():
        with pytest.raises(InputError, match=said):
            parse_track(text)
    with pytest.raises(InputError, match="no feature of type 'CDS'; it has exon, gene, mRNA"):
        FeatureChoice(Path("a:b.gff3"), "CDS").read()
    choice = FeatureChoice(Path("a:b.gff3"), "exon", (("biotype", ("tRNA",)),))
    with pytest.raises(InputError, match=r"no exon has biotype=tRNA; .* is protein_coding, rRNA"):
        choice.read()


@pytest.mark.parametrize(("name", "text"), [("x.gff3", GFF3), ("x.gtf", GTF)])
def test_tracks_by_type_and_biotype(tmp_path: Path, genome: Path, name: str, text: str) -> None:
    path = write(tmp_path / name, text)
    names, row = classes(genome, "c1:1-130", tracks={"rrna": f"{path}:exon,biotype=rRNA"})
    assert names == ("none", "rrna")
    assert [i + 1 for i, c in enumerate(row) if c == "rrna"] == list(range(11, 41))
    two = {"rrna": f"{path}:exon,biotype=rRNA", "mrna": f"{path}:exon,biotype=protein_coding"}
    _, row = classes(genome, "c1:1-130", tracks=two, background=None)
    expected = ["?"] * 10 + ["rrna"] * 30 + ["?"] * 60 + ["mrna"] * 20 + ["?"] * 10
    assert row == expected
    assert classes(genome, "-c1:1-130", tracks=two, background=None)[1] == expected[::-1]


# -- names of contigs ------------------------------------------------------------------------------


def test_contigs_with_and_without_chr(tmp_path: Path, genome: Path) -> None:
    path = write(tmp_path / "x.gff3", gff("9 exon 3 5 + . ID=a", "7 exon 3 5 + . ID=b"))
    annotation, reader = read_annotation(path), Genome.open(genome)
    assert match_contigs(annotation, reader) == {"9": "chr9"}
    notes = contig_notes(annotation, reader)
    assert "named in another way: 9 is chr9" in notes[0] and notes[1].endswith("passed over: 7")
    _, row = classes(genome, "chr9:1-6", tracks={"exon": f"{path}:exon"})
    assert row == ["none", "none", "exon", "exon", "exon", "none"]

    # an annotation with both names means two contigs
    both = write(tmp_path / "y.gff3", gff("9 exon 3 5 + . ID=a", "chr9 exon 3 5 + . ID=b"))
    assert match_contigs(read_annotation(both), reader) == {"chr9": "chr9"}

    other = write(tmp_path / "z.gff3", gff("XII exon 3 5 + . ID=a"))
    with pytest.raises(InputError) as error:
        match_contigs(read_annotation(other), reader)
    assert "contigs are XII, but" in str(error.value) and "has c1, chr9" in str(error.value)


def test_tracks_need_a_feature_on_the_genome(tmp_path: Path, genome: Path) -> None:
    rows = gff("c1 exon 3 5 + . ID=a", "c7 tRNA 3 5 + . ID=b")
    path = write(tmp_path / "x.gff3", rows)
    tracks = {"exon": f"{path}:exon", "trna": f"{path}:tRNA"}
    assert "has no tRNA as asked for on" in message(None, genome=genome, tracks=tracks, tile=50)


def test_features_past_the_end(tmp_path: Path, genome: Path) -> None:
    over = "c1 CDS 196 206 + 0 ID=a"
    path = write(tmp_path / "x.gff3", gff(over))
    said = message(None, genome=genome, frames=path, tile=50)
    assert "x.gff3:2: c1:196-206 runs past the end of c1" in said and "200 bases" in said
    # over the origin of a circle: the frame goes on
    path = write(tmp_path / "y.gff3", gff("c1 region 1 200 . . ID=c;Is_circular=true", over))
    _, row = classes(genome, "c1:1-200", frames=path)
    assert row[195:] == ["+1", "+2", "+3", "+1", "+2"]
    assert row[:7] == ["+3", "+1", "+2", "+3", "+1", "+2", "none"]
    back = write(tmp_path / "z.gff3", (tmp_path / "y.gff3").read_text().replace("\t+\t", "\t-\t"))
    _, row = classes(genome, "c1:1-200", frames=back)
    assert (row[195:] + row[:6])[::-1] == ["-1", "-2", "-3"] * 3 + ["-1", "-2"]


# -- frames ----------------------------------------------------------------------------------------


def test_frames_of_a_spliced_gene(tmp_path: Path, genome: Path) -> None:
    rows = [
        "c1 CDS 11 14 + {} Parent=t",
        "c1 CDS 21 22 + {} Parent=t",
        "c1 CDS 31 36 + {} Parent=t",
    ]
    spliced = ["+1", "+2", "+3", "+1"], ["+2", "+3"], ["+1", "+2", "+3", "+1", "+2", "+3"]
    for phases in ((0, 2, 0), (".", ".", ".")):
        text = gff(*(row.format(phase) for row, phase in zip(rows, phases, strict=True)))
        _, row = classes(genome, "c1:1-40", frames=write(tmp_path / "x.gff", text))
        assert (row[10:14], row[20:22], row[30:36]) == spliced
        assert {row[i] for i in (9, 14, 19, 22, 29, 36)} == {"none"}
        minus = write(tmp_path / "y.gff", text.replace("\t+\t", "\t-\t"))
        if phases[0] == ".":  # given phases would be those of the other end
            _, row = classes(genome, "-c1:1-40", frames=minus)
            assert [c for c in row if c != "none"] == ["+1", "+2", "+3"] * 4
            assert named_positions(row) == [40 - p for p in named_positions_of(rows)]


def named_positions(row: list[str]) -> list[int]:
    return [i for i, c in enumerate(row) if c != "none"]


def named_positions_of(rows: list[str]) -> list[int]:
    """Positions (from 1) of all bases of some rows, the last first."""
    return sorted(
        (p for r in rows for p in range(int(r.split()[2]), int(r.split()[3]) + 1)), reverse=True
    )


def test_frames_of_two_genes_at_odds_are_masked(tmp_path: Path, genome: Path) -> None:
    text = gff(
        "c1 CDS 11 22 + 0 ID=a", "c1 CDS 19 30 + 0 ID=b", "c1 CDS 11 16 + 0 ID=c",
        "c1 CDS 41 46 - 0 ID=d", "c1 CDS 45 50 + 0 ID=e",
    )  # fmt: skip
    _, row = classes(genome, "c1:11-50", frames=write(tmp_path / "x.gff", text))
    start, minus = ["+1", "+2", "+3"], ["-3", "-2", "-1"]
    # b begins at base 19 = 11 + 8, a codon's third base of a
    assert row[:8] == (start * 3)[:8] and row[8:12] == ["?"] * 4
    assert row[12:20] == (start * 4)[4:12]
    assert row[30:34] == (minus * 2)[:4] and row[34:36] == ["?"] * 2


def test_stop_codons_beside_the_cds_are_coding(tmp_path: Path, genome: Path) -> None:
    """GTF leaves them out of the CDS, GFF3 does not; the classes are the same."""
    text = gff(
        'c1 CDS 11 16 + 0 transcript_id "t";', 'c1 stop_codon 17 17 + . transcript_id "t";',
        'c1 stop_codon 21 22 + . transcript_id "t";',
    )  # fmt: skip
    whole = gff(
        "c1 CDS 11 17 + 0 Parent=t", "c1 CDS 21 22 + 2 Parent=t", "c1 stop_codon 21 22 + . Parent=t"
    )
    _, row = classes(genome, "c1:1-30", frames=write(tmp_path / "x.gtf", text))
    assert row[16] == "+1" and row[20:22] == ["+2", "+3"]
    assert classes(genome, "c1:1-30", frames=write(tmp_path / "x.gff", whole))[1] == row


def test_a_cds_of_several_transcripts_is_read_in_each(tmp_path: Path, genome: Path) -> None:
    """Without phases: the last CDS goes on in the frame of its own transcript."""
    text = gff(
        "c1 CDS 11 14 + . ID=x;Parent=t1,t2", "c1 CDS 21 22 + . ID=y;Parent=t1",
        "c1 CDS 31 36 + . ID=z;Parent=t2", "c1 CDS 41 43 + . ID=w;Parent=t1,t2",
    )  # fmt: skip
    path = write(tmp_path / "x.gff", text)
    _, row = classes(genome, "c1:1-50", frames=path)
    assert row[10:14] == ["+1", "+2", "+3", "+1"] and row[20:22] == ["+2", "+3"]
    assert row[30:36] == ["+2", "+3", "+1", "+2", "+3", "+1"]
    assert row[40:43] == ["?"] * 3  # +1 in t1, +2 in t2
    notes = frame_classes(Genome.open(genome), path).notes
    assert "1 coding sequences" in notes[0] and "4 CDS have no phase" in notes[1]


def test_products_that_lie_over_each_other_are_chains_of_their_own(
    tmp_path: Path, genome: Path
) -> None:
    text = gff(
        "c1 CDS 11 22 + 0 ID=tau;Parent=g", "c1 CDS 11 15 + 0 ID=gamma;Parent=g",
        "c1 CDS 31 34 + . ID=tau;Parent=g",
    )  # fmt: skip
    path = write(tmp_path / "x.gff", text)
    _, row = classes(genome, "c1:1-40", frames=path)
    assert row[10:22] == ["+1", "+2", "+3"] * 4 and row[30:34] == ["+1", "+2", "+3", "+1"]
    notes = frame_classes(Genome.open(genome), path).notes
    assert "2 coding sequences" in notes[0]
    assert not any("do not go on" in note for note in notes)


@st.composite
def transcripts(draw: st.DrawFn) -> tuple[str, list[tuple[int, int]], int]:
    """Strand, exons (first, last from 1) of a transcript on c1, and the bases before its codons."""
    count = draw(st.integers(1, 4))
    ends = draw(st.lists(st.integers(1, 200), min_size=2 * count, max_size=2 * count, unique=True))
    ends.sort()
    exons = list(zip(ends[::2], ends[1::2], strict=True))
    return draw(st.sampled_from("+-")), exons, draw(st.integers(0, 2))


@given(transcripts(), st.booleans())
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_frames_count_the_spliced_bases(
    genome: Path, transcript: tuple[str, list[tuple[int, int]], int], phased: bool
) -> None:
    strand, exons, phase = transcript
    phase = phase if phased else 0
    read = [p for first, last in exons for p in range(first, last + 1)]
    read = read if strand == "+" else read[::-1]
    expected = ["none"] * 200
    for i, p in enumerate(read):
        expected[p - 1] = f"{strand}{(i - phase) % 3 + 1}"
    rows, done = [], 0
    for first, last in exons if strand == "+" else exons[::-1]:
        rows.append(
            f"c1 CDS {first} {last} {strand} {(phase - done) % 3 if phased else '.'} Parent=t"
        )
        done += last - first + 1
    path = write(genome.parent / "h.gff", gff(*sorted(rows)))
    assert classes(genome, "c1:1-200", frames=path)[1] == expected


@given(transcripts(), transcripts(), st.integers(1, 150), st.integers(10, 50))
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_other_strand_is_the_turned_genome(
    genome: Path,
    one: tuple[str, list[tuple[int, int]], int],
    two: tuple[str, list[tuple[int, int]], int],
    first: int,
    length: int,
) -> None:
    """A window read on - is that of the mirrored annotation read on +; turning is the same."""
    rows, mirrored = [], []
    for name, (strand, exons, _) in enumerate((one, two)):
        turned = "-" if strand == "+" else "+"
        for a, b in exons:
            rows.append(f"c1 CDS {a} {b} {strand} . Parent=t{name}")
            mirrored.append(f"c1 CDS {201 - b} {201 - a} {turned} . Parent=t{name}")
    reader = Genome.open(genome)
    forward = Cut(
        Interval("c1", first - 1, first - 1 + length), first - 1, first - 1 + length, False
    )
    reverse = Cut(forward.interval, forward.start, forward.stop, True)
    twin = Cut(forward.interval, 200 - forward.stop, 200 - forward.start, False)
    here = frame_classes(reader, write(genome.parent / "h.gff", gff(*rows)))
    task, (plus, minus) = base_classes([forward, reverse], reader, here)
    there = frame_classes(reader, write(genome.parent / "m.gff", gff(*mirrored)))
    _, (other,) = base_classes([twin], reader, there)
    assert minus.tolist() == other.tolist() == turned_classes(plus, task).tolist()
    assert turned_classes(minus, task).tolist() == plus.tolist()


def test_frames_need_cds_with_a_strand(tmp_path: Path, genome: Path) -> None:
    path = write(tmp_path / "x.gff3", GFF3)
    assert "has no CDS" in message(None, genome=genome, frames=path, tile=50)
    path = write(tmp_path / "y.gff3", gff("c1 CDS 3 8 . 0 ID=a"))
    assert "y.gff3:2: CDS has no strand" in message(None, genome=genome, frames=path, tile=50)


# -- genes -----------------------------------------------------------------------------------------


def test_exon_intron_intergenic(tmp_path: Path, genome: Path) -> None:
    rows = [
        'c1 exon 11 14 + . gene_id "g"; transcript_id "t1";',
        'c1 exon 21 24 + . gene_id "g"; transcript_id "t1";',
        'c1 exon 17 18 + . gene_id "g"; transcript_id "t2";',
        # a copy of the gene elsewhere: no intron of 100 bases between
        'c1 exon 101 104 - . gene_id "g"; transcript_id "t3";',
    ]  # fmt: skip
    expected = ["intergenic"] * 120
    expected[10:24] = ["intron"] * 14
    for part in (slice(10, 14), slice(16, 18), slice(20, 24), slice(100, 104)):
        expected[part] = ["exon"] * (part.stop - part.start)
    path = write(tmp_path / "x.gtf", gff(*rows))
    assert classes(genome, "c1:1-120", genes=path) == (("exon", "intergenic", "intron"), expected)
    assert classes(genome, "-c1:1-120", genes=path)[1] == expected[::-1]
    # a row of a gene counts as well
    path = write(tmp_path / "y.gtf", gff(*rows, 'c1 gene 9 30 + . gene_id "g";'))
    expected[8:10], expected[24:30] = ["intron"] * 2, ["intron"] * 6
    assert classes(genome, "c1:1-120", genes=path)[1] == expected


def notes_of_genes(genome: Path, path: Path) -> str:
    return " | ".join(gene_classes(Genome.open(genome), path).notes)


def test_cds_are_the_exons_of_genes_without(tmp_path: Path, genome: Path) -> None:
    """As NCBI writes bacteria; the CDS of a gene with exons is none, whatever it hangs on."""
    path = write(
        tmp_path / "x.gff3",
        gff(
            "c1 gene 11 20 + . ID=g1", "c1 CDS 11 20 + 0 ID=c1;Parent=g1",
            "c1 gene 31 40 - . ID=g2", "c1 rRNA 31 40 - . ID=r2;Parent=g2",
            "c1 exon 31 40 - . ID=e2;Parent=r2",
            "c1 gene 51 60 + . ID=g3", "c1 mRNA 51 60 + . ID=r3;Parent=g3",
            "c1 exon 51 54 + . Parent=r3", "c1 exon 58 60 + . Parent=r3",
            "c1 CDS 51 60 + 0 ID=c3;Parent=g3",
            "c1 pseudogene 71 80 + . ID=g4", "c1 exon 79 85 - . Parent=r5",
            "c1 gene 91 96 + . ID=g6", "c1 CDS 91 92 + 0 Parent=g6", "c1 CDS 95 96 + 0 Parent=g6",
        ),
    )  # fmt: skip
    _, row = classes(genome, "c1:1-100", genes=path)
    expected = ["intergenic"] * 100
    expected[10:20] = expected[30:40] = ["exon"] * 10
    expected[50:60] = ["exon"] * 4 + ["intron"] * 3 + ["exon"] * 3
    expected[70:85] = ["?"] * 8 + ["exon"] * 7
    expected[90:96] = ["exon"] * 2 + ["intron"] * 2 + ["exon"] * 2
    assert row == expected
    notes = notes_of_genes(genome, path)
    assert "3 CDS of genes without an exon" in notes and "1 genes without an exon or" in notes
    path = write(
        tmp_path / "y.gtf",
        gff(
            'c1 gene 11 20 + . gene_id "a";', 'c1 CDS 11 17 + 0 gene_id "a"; transcript_id "";',
            'c1 stop_codon 18 20 + 0 gene_id "a"; transcript_id "";',
            'c1 exon 31 40 - . gene_id "b"; transcript_id "t";',
            'c1 CDS 31 40 - 0 gene_id "b"; transcript_id "u";',
        ),
    )  # fmt: skip
    _, row = classes(genome, "c1:1-40", genes=path)
    assert row == ["intergenic"] * 10 + ["exon"] * 10 + ["intergenic"] * 10 + ["exon"] * 10


def test_a_transcript_over_the_origin_is_no_intron_of_the_whole(
    tmp_path: Path, genome: Path
) -> None:
    rows = gff("c1 exon 191 200 + . Parent=t", "c1 exon 1 10 + . Parent=t",
               "c1 exon 21 30 + . Parent=u", "c1 exon 41 50 + . Parent=u")  # fmt: skip
    circle = gff("c1 region 1 200 . . ID=c;Is_circular=true") + rows
    path = write(tmp_path / "x.gff3", circle)
    _, row = classes(genome, "c1:1-200", genes=path)
    assert [i + 1 for i, c in enumerate(row) if c == "intron"] == list(range(31, 41))
    assert row[:10] == row[190:] == ["exon"] * 10 and row[100] == "intergenic"
    assert "1 transcripts run over the origin" in notes_of_genes(genome, path)
    line = write(tmp_path / "y.gff3", rows)
    assert classes(genome, "c1:1-200", genes=line)[1].count("intron") == 160
    assert "origin" not in notes_of_genes(genome, line)


def test_stranded_genes_and_tracks(tmp_path: Path, genome: Path) -> None:
    rows = [
        "c1 exon 11 14 + . Parent=t1", "c1 exon 21 24 + . Parent=t1",
        "c1 exon 13 22 - . Parent=t2", "c1 exon 31 34 - . Parent=t2",
    ]  # fmt: skip
    path = write(tmp_path / "x.gff3", gff(*rows))
    names, row = classes(genome, "c1:11-34", genes=path, stranded=True)
    assert names == ("+exon", "+intron", "-exon", "-intron", "intergenic")
    expected = (
        ["+exon"] * 2 + ["?"] * 2 + ["-exon"] * 6 + ["?"] * 2 + ["+exon"] * 2 + ["-intron"] * 6
        + ["-exon"] * 4
    )  # fmt: skip
    assert row == expected
    swap = {"+": "-", "-": "+"}
    turned = [swap.get(c[0], c[0]) + c[1:] for c in expected[::-1]]
    assert classes(genome, "-c1:11-34", genes=path, stranded=True)[1] == turned
    names, row = classes(genome, "c1:9-14", tracks={"exon": f"{path}:exon"}, stranded=True)
    assert names == ("+exon", "-exon", "none")
    assert row == ["none"] * 2 + ["+exon"] * 2 + ["?"] * 2
    bed = write(tmp_path / "x.bed", "c1\t0\t4\n")
    assert "BED tracks have no strand" in message(
        None, genome=genome, tracks={"a": bed}, stranded=True, tile=50
    )
    loose = write(tmp_path / "y.gff3", gff("c1 exon 11 14 . . ID=a"))
    assert "y.gff3:2: exon has no strand" in message(
        None, genome=genome, genes=loose, stranded=True, tile=50
    )


# -- classes with a strand -------------------------------------------------------------------------


def test_twins() -> None:
    assert strand_twins("tokens", FRAME_NAMES) == (3, 4, 5, 0, 1, 2, 6)
    assert strand_twins("tokens", ("exon", "xon", "none")) is None
    assert strand_twins("tokens", ("+1", "+2", "-1", "-3")) == (2, 1, 0, 3)
    assert strand_twins("classes", ("+1", "-1")) is None
    assert strand_twins("tokens", ("+", "-")) is None
    assert strand_twins("tokens", ("+", "+a", "-", "-a")) == (0, 3, 2, 1)


def test_augmentation_turns_classes_with_their_strand() -> None:
    task = Task("tokens", FRAME_NAMES)
    row = np.array([0, 1, 2, 6, IGNORED, 5, 4, 3], dtype=np.int64)
    data = LabelledData("x", (encode("ATGCNTAC"),), (row,), task, np.array(["train"]), ("a",))
    batch = make_batch(data, np.array([0]), np.array([True]))
    assert batch.tokens[0].tolist() == encode("GTANGCAT").tolist()
    assert batch.targets[0].tolist() == [0, 1, 2, IGNORED, 6, 5, 4, 3]
    same = make_batch(data, np.array([0]), np.array([False]))
    assert same.targets[0].tolist() == row.tolist()


def test_averaging_strands_is_refused_for_them() -> None:
    model = HyenaDNA(ModelConfig(d_model=16, n_layer=1, max_seq_len=18, filter_order=16))
    with pytest.raises(InputError, match=r"strands is 'average'; it cannot tell \+ classes from -"):
        TaskModel(model, Task("tokens", FRAME_NAMES), strands="average")
    TaskModel(model, Task("tokens", FRAME_NAMES), strands="concatenate")
    TaskModel(model, Task("tokens", ("exon", "none")), strands="average")


# -- tiles -----------------------------------------------------------------------------------------


def test_tiles_lie_side_by_side(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    texts = ["".join(rng.choice(list("ACGT"), n)) for n in (95, 44, 14, 60)]
    texts[0] = texts[0][:20] + "N" * 11 + texts[0][31:40] + "N" * 10 + texts[0][50:]
    fasta = "".join(f">c{i}\n{text}\n" for i, text in enumerate(texts))
    path = write(tmp_path / "g.fa", fasta)
    annotated = gff(*(f"c{i} exon 3 9 + . ID=a{i}" for i in range(3)))
    genes = write(tmp_path / "x.gff3", annotated)
    data = read_labelled(None, genome=path, genes=genes, tile=20)
    # c0: the window of 11 N of 20 goes, that of 10 stays, so does the end of 15
    # c1: the end of 4 goes; c2: 14 of 20 stay; c3 is not in the annotation
    wanted = [("c0", 0, 20), ("c0", 40, 60), ("c0", 60, 80), ("c0", 80, 95),
              ("c1", 0, 20), ("c1", 20, 40), ("c2", 0, 14)]  # fmt: skip
    assert data.ids == tuple(f"{c}:{a + 1}-{b}" for c, a, b in wanted)
    for ids, (contig, a, b) in zip(data.sequences, wanted, strict=True):
        assert decode(ids) == texts[int(contig[1])][a:b]
    assert any("1 windows with more than 50% N, and 1 ends" in note for note in data.notes)
    assert any("without annotation left out: 1 (c3)" in note for note in data.notes)
    assert data.name == "g"
    bed = write(tmp_path / "x.bed", "c0\t3\t9\n")
    assert len(read_labelled(None, genome=path, tracks={"a": bed}, tile=20)) == 10


def test_tiles_are_held_out_in_stretches(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    text = "".join(rng.choice(list("ACGT"), 620_000))
    path = write(tmp_path / "g.fa", f">c\n{text}\n")
    genes = write(tmp_path / "x.gff3", gff("c exon 3 9 + . ID=a"))
    data = read_labelled(None, genome=path, genes=genes, tile=2000)
    data = hold_out(data, "test", seed=1, fraction=0.2, by="group")
    data = hold_out(data, "valid", seed=1, fraction=0.2, by="group")
    by_stretch = [set(data.splits[i : i + 25].tolist()) for i in range(0, 310, 25)]
    assert all(len(splits) == 1 for splits in by_stretch)
    assert {"train", "valid", "test"} == set.union(*by_stretch)
    assert any("stretches of 50,000 bases" in note for note in data.notes)
    small = write(tmp_path / "phage.fa", f">c\n{text[:48_000]}\n")
    phage = read_labelled(None, genome=small, genes=genes, tile=500)
    assert len(set(phage.groups or ())) >= 10  # one stretch of 50,000 bases could not be split
    again = hold_out(unsplit(data), "test", seed=2, fraction=0.2, by="group")
    assert (again.splits == "test").sum() and (again.splits != data.splits).any()


def unsplit(data: LabelledData) -> LabelledData:
    """The data without its splits."""
    return LabelledData(
        data.name, data.sequences, data.targets, data.task, np.full(len(data), ""), data.ids,
        data.groups,
    )  # fmt: skip


def test_tiles_need_targets_over_the_genome(tmp_path: Path, genome: Path) -> None:
    path = write(tmp_path / "x.gff3", GFF3)
    bed = write(tmp_path / "x.bed", "c1\t0\t4\n")
    assert "tile needs a genome" in message(None, genome=genome, tile=20)
    assert "leave out files and window" in message(bed, genome=genome, genes=path, tile=20)
    assert "it must be at least 1" in message(None, genome=genome, genes=path, tile=-1)
    assert "tracks and genes are given" in message(
        bed, genome=genome, genes=path, tracks={"a": bed}
    )
    assert "stranded is for tracks and genes" in message(
        bed, genome=genome, frames=path, stranded=True
    )


# -- the real thing --------------------------------------------------------------------------------


def own_rows(path: Path, kind: str) -> list[list[str]]:
    """Rows of a type, read here in another way than the package does."""
    with gzip.open(path, "rt") as text:
        rows = [line.rstrip("\n").split("\t") for line in text if not line.startswith("#")]
    return [row for row in rows if row[2] == kind]


def test_bacterial_frames_begin_with_start_codons(shared: Path) -> None:
    folder = shared / "data" / "bacteria_4"
    reader = Genome.open(folder / "Myco.fa.gz").load()
    (contig, length), *_ = reader.contigs.items()
    whole = Interval(contig, 0, length)
    cuts = [Cut(whole, 0, length, False), Cut(whole, 0, length, True)]
    annotated = frame_classes(reader, folder / "Myco.gff.gz")
    _, (plus, minus) = base_classes(cuts, reader, annotated)
    text = decode(reader.tokens(contig, 0, length))
    table = str.maketrans("ACGT", "TGCA")
    codons: list[str] = []
    begins: dict[str, set[int]] = {"+": set(), "-": set()}
    frame = np.array([FRAME_NAMES.index(name) for name in ("+1", "+2", "+3")])
    rows = own_rows(folder / "Myco.gff.gz", "CDS")
    assert len(rows) == 476
    for row in rows:
        first, last, strand = int(row[3]), int(row[4]), row[6]
        at = first - 1 if strand == "+" else length - last  # on the strand that is read
        found = (plus if strand == "+" else minus)[at : at + 3]
        known = found != IGNORED  # masked where two genes overlap
        assert (found[known] == frame[known]).all()
        codon = text[at : at + 3] if strand == "+" else text[last - 3 : last][::-1]
        codons.append(codon if strand == "+" else codon.translate(table))
        begins[strand].add(at)
    assert set(codons) <= STARTS
    # a stop in frame is the end of a gene: none is followed by more of it, but the next may begin
    read = text.translate(table)[::-1]
    for strand, row, letters in (("+", plus, text), ("-", minus, read)):
        starts = np.flatnonzero((row[:-2] == 0) & (row[1:-1] == 1) & (row[2:] == 2)).tolist()
        stops = [at for at in starts if letters[at : at + 3] in {"TAA", "TAG"}]
        assert len(starts) > 50_000 and len(stops) > 100
        assert all(row[at + 3] != 0 or at + 3 in begins[strand] for at in stops)


def test_human_start_codons_and_spliced_frames(shared: Path, tmp_path: Path) -> None:
    data = shared / "data"
    fasta = data / "human_hg19_chr22_6Mb" / "chr22_1-22000000.fa.gz"
    gtf = data / "human_hg19_chr22_transcripts" / "refseq_hg19_chr22.gtf.gz"
    reader = Genome.open(fasta)
    assert list(reader.contigs) == ["22"]
    with gzip.open(gtf, "rt") as text:
        inside = [line for line in text if int(line.split("\t")[4]) <= 22_000_000]
    path = write(tmp_path / "inside.gtf", "".join(inside))
    with pytest.raises(InputError, match="runs past the end of 22"):
        frame_classes(reader, gtf)
    annotated = frame_classes(reader, path)
    assert any("chr22 is 22" in note for note in annotated.notes)
    starts = read_annotation(path, {"start_codon"}).features
    assert len(starts) == 132
    cuts = [
        Cut(Interval("22", *ends), *ends, s.strand == "-")
        for s in starts
        for ends in [(s.interval.start, s.interval.stop)]
    ]
    _, found = base_classes(cuts, reader, annotated)
    right = sum(row.tolist() in ([0, 1, 2], [IGNORED] * 3) for row in found)
    assert right >= 131
    # the three bases of the stop codons, which GTF leaves out of the CDS
    stops = read_annotation(path, {"stop_codon"}).features
    last = [
        Cut(Interval("22", *ends), *ends, s.strand == "-")
        for s in stops
        for ends in [(s.interval.start, s.interval.stop)]
        if ends[1] - ends[0] == 3
    ]
    _, found = base_classes(last, reader, annotated)
    whole = [i for i, row in enumerate(found) if (row != IGNORED).all()]
    assert len(whole) > 80 and np.mean([found[i].tolist() == [0, 1, 2] for i in whole]) > 0.97


def test_ensembl_contig_named_without_chr(shared: Path) -> None:
    folder = shared / "data" / "human_hg38_chr9_1Mb"
    data = read_labelled(
        None, genome=folder / "chr9_1-1000000.fa.gz",
        genes=folder / "ensembl91_chr9_1-1000000.gtf.gz", tile=10_000,
    )  # fmt: skip
    flat = np.concatenate(list(data.targets))
    share = np.bincount(flat, minlength=3) / len(flat)
    exons = {p for row in own_rows(folder / "ensembl91_chr9_1-1000000.gtf.gz", "exon")
             for p in range(int(row[3]) - 1, int(row[4]))}  # fmt: skip
    assert data.lengths.sum() == 990_000
    assert share[0] * 990_000 == pytest.approx(len({p for p in exons if p >= 10_000}))
