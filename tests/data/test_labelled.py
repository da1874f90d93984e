"""Labelled tables and folders: each layout gives the same rows, each bad one a line that helps."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hyenadna.alphabet import IGNORED, SEP, decode, encode, reverse_complement
from hyenadna.data.cuts import make_cut
from hyenadna.data.labelled import LabelledData, Task, fit_length, read_labelled
from hyenadna.data.labelled_data import other_strand, split_named
from hyenadna.errors import InputError


def write(path: Path, text: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def texts(data: LabelledData) -> list[str]:
    return [decode(ids, specials=True) for ids in data.sequences]


def numbers(data: LabelledData) -> list[object]:
    assert isinstance(data.targets, np.ndarray)
    found: list[object] = data.targets.tolist()
    return found


def message(*args: object, **options: object) -> str:
    with pytest.raises(InputError) as caught:
        read_labelled(*args, **options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- tables ----------------------------------------------------------------------------------


TABLE = "sequence,label,split,id\nACGT,1,train,a\nacgu,0,dev,b\nGGNR,1,test,c\nCC,0,train,d\n"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("x.csv", TABLE.encode()),
        ("x.csv", TABLE.replace("\n", "\r\n").encode()),
        ("x.csv", b"\xef\xbb\xbf" + TABLE.encode()),
        ("x.csv.gz", gzip.compress(TABLE.encode(), mtime=0)),
        ("x.csv", TABLE.replace(",", ";").encode()),
        ("x.tsv", TABLE.replace(",", "\t").encode()),
        ("x.txt", TABLE.replace(",", "\t").encode()),
        ("x.csv", TABLE.replace("ACGT", '" ACGT "').replace("label", '"label"').encode()),
        ("x.csv", TABLE.replace("\nCC", "\n\nCC").encode()),
    ],
)
def test_one_table_in_many_writings(tmp_path: Path, name: str, content: bytes) -> None:
    data = read_labelled(write(tmp_path / name, content))
    assert data.name == "x" and data.ids == ("a", "b", "c", "d")
    assert texts(data) == ["ACGT", "ACGT", "GGNN", "CC"]  # lower case and U are the same bases
    assert data.task == Task("classes", ("0", "1")) and numbers(data) == [1, 0, 1, 0]
    assert data.splits.tolist() == ["train", "valid", "test", "train"]
    assert data.part("train").ids == ("a", "d") and len(data.part("")) == 0
    assert data.groups is None
    assert data.notes == ("task, by the look of the labels: classes (2: 0, 1)",)


def test_parquet_is_the_same_table(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    columns = {
        "seq": ["ACGT", "GG", "TTT"],
        "label_a": [0.5, None, float("nan")],
        "label_b": [1, -2, 3],
        "set": ["train", None, "test"],
    }
    parquet.write_table(pyarrow.table(columns), tmp_path / "x.parquet")
    data = read_labelled(tmp_path / "x.parquet")
    assert data.task == Task("values", ("label_a", "label_b"))
    np.testing.assert_array_equal(data.targets, np.array([[0.5, 1], [np.nan, -2], [np.nan, 3]]))
    assert data.splits.tolist() == ["train", "", "test"] and texts(data) == ["ACGT", "GG", "TTT"]
    assert data.targets.dtype == np.float32  # type: ignore[union-attr]
    assert "is no readable Parquet" in message(write(tmp_path / "y.parquet", "nonsense"))


def test_named_columns_and_patterns(tmp_path: Path) -> None:
    path = write(
        tmp_path / "x.csv",
        "key,dna2,m_b,m_a,fold,chr\nk1,AC,1,0,train,1\nk2,GT,0,,test,2\nk3,AA,1,1,test,2\n",
    )
    options = {"sequence": "dna2", "split": "fold", "id": "key"}
    data = read_labelled(path, labels=["m_*"], **options)  # type: ignore[arg-type]
    assert data.task == Task("labels", ("m_b", "m_a"))  # in the order of the file
    np.testing.assert_array_equal(data.targets, np.array([[1, 0], [0, np.nan], [1, 1]]))
    assert data.ids == ("k1", "k2", "k3") and data.groups == ("1", "2", "2")
    # a trained model's task: its names, in its order
    known = Task("labels", ("m_a", "m_b"))
    again = read_labelled(path, task=known, **options)  # type: ignore[arg-type]
    np.testing.assert_array_equal(again.targets, data.targets[:, ::-1])  # type: ignore[call-overload]
    assert "no column that fits 'y_*'; it has key, dna2" in message(path, labels=["y_*"], **options)
    assert "x.csv: has no column 'foo'; it has key, dna2, m_b" in message(path, sequence="foo")
    assert "has no column of sequences" in message(path)


def test_one_value_column_and_missing_values(tmp_path: Path) -> None:
    path = write(tmp_path / "x.csv", "sequence,label\nA,0.5\nC,\nG,-1e2\nT,NaN\n")
    data = read_labelled(path)
    assert data.task == Task("values", ("label",))
    np.testing.assert_array_equal(data.targets, np.array([[0.5], [np.nan], [-100], [np.nan]]))
    infinite = write(tmp_path / "y.csv", "sequence,label\nA,0.5\nC,inf\n")
    assert "y.csv:3: column 'label' is 'inf'; task values needs a finite number" in message(
        infinite, task="values"
    )


@pytest.mark.parametrize(
    ("values", "kind", "names"),
    [
        (["1.0", "0.0", "1.0"], "classes", ("0", "1")),
        (["10", "9", "-1"], "classes", ("-1", "9", "10")),  # by number, not by letter
        (["b", "a10", "a9"], "classes", ("a10", "a9", "b")),
        (["1", "x", "2"], "classes", ("1", "2", "x")),
        (["0.5", "1", "2"], "values", ("label",)),
        ([str(i) for i in range(60)], "values", ("label",)),
        (["True", "FALSE", "true", "1"], "classes", ("0", "1")),
        (["yes", "no", "Yes", "0"], "classes", ("0", "1")),
        (["yes", "no", "yes"], "classes", ("no", "yes")),
        (["none", "box", "none"], "classes", ("box", "none")),  # words, not missing
        ([str(i) for i in range(30)], "values", ("label",)),  # all different: no classes
        (["1" * 30, "2", "3"], "values", ("label",)),
    ],
)
def test_task_by_the_look_of_one_column(
    tmp_path: Path, values: list[str], kind: str, names: tuple[str, ...]
) -> None:
    lines = "".join(f"ACGT,{value}\n" for value in values)
    data = read_labelled(write(tmp_path / "x.csv", "sequence,label\n" + lines))
    assert data.task == Task(kind, names)  # type: ignore[arg-type]


def test_task_can_be_said(tmp_path: Path) -> None:
    path = write(tmp_path / "x.csv", "sequence,label\nA,1\nC,0\n")
    assert read_labelled(path, task="values").task == Task("values", ("label",))
    data = read_labelled(path, task="labels")
    assert data.task.kind == "labels" and numbers(data) == [[1.0], [0.0]]
    assert data.notes == ()
    three = read_labelled(path, task=Task("classes", ("-", "1", "0")))
    assert numbers(three) == [1, 2]
    assert "class '0' in column 'label' is not one of the task: 1, 2" in message(
        path, task=Task("classes", ("1", "2"))
    )
    bad = write(tmp_path / "y.csv", "sequence,label\nA,1\nC,2\n")
    assert "y.csv:3: column 'label' is '2'; task labels needs 0, 1" in message(bad, task="labels")


def test_missing_classes(tmp_path: Path) -> None:
    path = write(tmp_path / "x.csv", "sequence,label\nA,a\nC,\nG,b\n")
    assert "x.csv:3: no class in column 'label' (1 rows have none)" in message(path)
    assert numbers(read_labelled(path, missing="mask")) == [0, IGNORED, 1]
    bare = write(tmp_path / "y.csv", "sequence\nA\nC\n")
    assert "y: has no labels; name the column that holds them (--label); it has seq" in message(
        bare
    )
    task = Task("classes", ("a", "b"))
    assert numbers(read_labelled(bare, task=task, missing="mask")) == [IGNORED, IGNORED]
    assert numbers(read_labelled(path, task=task, missing="mask", labels=())) == [IGNORED] * 3
    values = read_labelled(bare, task=Task("values", ("u", "v")), missing="mask")
    assert np.isnan(values.targets).all() and np.shape(values.targets) == (2, 2)


def test_classes_that_train_lacks(tmp_path: Path) -> None:
    rows = "sequence,label,split\nA,0,train\nC,1,train\nG,2,test\nT,2,test\nT,0,test\n"
    path = write(tmp_path / "x.csv", rows)
    assert "x: test holds 2 rows of a class that train lacks: '2' at" in message(path)
    assert "x.csv:4" in message(path)
    whole = read_labelled(path, task=Task("classes", ("0", "1", "2")))
    assert whole.task.outputs == 3
    # the other way round is no error
    assert len(read_labelled(write(path, rows.replace("2,test", "1,test")))) == 5


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ("ACGT,1\nACXT,0\n", "x.csv:3: letter 'X' at position 3 is not DNA"),
        ("ACGT,1\n,0\n", "x.csv:3: the sequence is empty"),
        ("ACGT,1\nAC\n", "x.csv:3: the row has 1 columns, the header 2"),
        ("ACGT,1\nAC,0,\n", "x.csv:3: the row has 3 columns, the header 2"),
        ('ACGT,1\n"AC,0\n', "a quote may be open"),
        ("ACGT,1\nAC,1\n", "column 'label' holds 1 class (1); at least 2 are needed"),
        ("", "x: holds no rows"),
    ],
)
def test_bad_rows(tmp_path: Path, rows: str, expected: str) -> None:
    assert expected in message(write(tmp_path / "x.csv", "sequence,label\n" + rows))


def test_bad_tables(tmp_path: Path) -> None:
    no_header = write(tmp_path / "x.csv", "ACGTACGTACGT,1\nACGTACGTACGG,0\n")
    assert "the first line must name the columns" in message(no_header)
    assert "two columns are named 'label'" in message(
        write(tmp_path / "y.csv", "sequence,label,label\nA,1,2\n")
    )
    assert "is empty" in message(write(tmp_path / "z.csv", ""))
    assert "no such file" in message(tmp_path / "absent.csv")
    assert "not clear what this holds" in message(write(tmp_path / "x.doc", "A"))
    broken = write(tmp_path / "b.csv.gz", gzip.compress(TABLE.encode() + b"A,0,,\n" * 50)[:-9])
    assert "truncated or damaged" in message(broken)
    split = write(tmp_path / "s.csv", "sequence,label,split\nA,1,fold3\nC,0,train\n")
    assert "s.csv:2: split is 'fold3'; it must be train, valid or test" in message(split)
    words = "".join(f"A,name{i}\n" for i in range(80))
    names = write(tmp_path / "n.csv", "sequence,label\n" + words)
    assert "80 different words in 80 rows" in message(names)
    few = write(tmp_path / "few.csv", "sequence,label\n" + words[:98])
    assert "12 different words in 12 rows" in message(few)
    assert "--task classes" in message(few)
    assert read_labelled(names, task="classes").task.outputs == 80


def test_empty_rows_and_ids_that_come_again(tmp_path: Path) -> None:
    path = write(
        tmp_path / "x.csv", "sequence,label,id\nA,1,a\n,0,b\nC,0,a\nG,1,a#2\nT,0,\nT,1,a\n"
    )
    data = read_labelled(path, empty="drop")
    assert data.ids == ("a", "a#3", "a#2", "x:6", "a#4")
    assert data.notes[1] == "1 rows with an empty sequence dropped"
    assert "2 ids that come again" in data.notes[2]


def test_long_cells_are_read(tmp_path: Path) -> None:
    path = write(tmp_path / "x.csv", f"sequence,label\n{'ACGT' * 50_000},1\nA,0\n")
    assert read_labelled(path).lengths.tolist() == [200_000, 1]


# --- other targets ---------------------------------------------------------------------------


def test_label_for_each_base(tmp_path: Path) -> None:
    path = write(tmp_path / "x.csv", "sequence,label\nACGTACGTAC,IIIEEE..II\nAC,EI\n")
    data = read_labelled(path)
    assert data.task == Task("tokens", ("E", "I")) and isinstance(data.targets, tuple)
    assert data.targets[0].tolist() == [1, 1, 1, 0, 0, 0, IGNORED, IGNORED, 1, 1]
    assert data.targets[1].tolist() == [0, 1]
    short = write(tmp_path / "y.csv", "sequence,label\nACGTACGTAC,IIIEEE\n")
    assert "y.csv:2: 6 labels for 10 bases" in message(short, task="tokens")
    assert "label 'I' is not one of the task" in message(path, task=Task("tokens", ("E", "X")))


def test_one_wrong_row_of_labels_for_each_base(tmp_path: Path) -> None:
    """Most rows say what the labels are; the wrong one is named, however long it is."""
    for length in (12, 48, 5000):
        same = ["0" * length] * 3 + ["01"]
        lines = "".join(f"{'ACGT' * (length // 4)},{labels}\n" for labels in same)
        path = write(tmp_path / "same.csv", "sequence,label\n" + lines)
        assert length == 12 or f"same.csv:5: 2 labels for {length} bases" in message(path)
        rows = [
            ("ACGT" * (length // 4), "01" * (length // 2 - i) + "1" * (2 * i)) for i in range(7)
        ]
        rows.append((rows[0][0], "0101"))
        lines = "".join(f"{sequence},{labels}\n" for sequence, labels in rows)
        path = write(tmp_path / "x.csv", "sequence,label\n" + lines)
        assert f"x.csv:9: 4 labels for {length} bases" in message(path)
    decimals = "".join(f"ACGTACGTAC,0.{i:08d}\n" for i in range(1, 9)) + "ACGTACGTAC,0.5\n"
    path = write(tmp_path / "y.csv", "sequence,label\n" + decimals)
    assert read_labelled(path).task.kind == "values"


def test_words_that_say_nothing(tmp_path: Path) -> None:
    head = "sequence,label\n"
    for word in ("None", "null", "#N/A"):
        path = write(tmp_path / "x.csv", f"{head}A,0\nC,1\nG,{word}\nT,1\n")
        assert "x.csv:4: no class in column 'label' (1 rows have none)" in message(path)
        assert numbers(read_labelled(path, missing="mask")) == [0, 1, IGNORED, 1]
    odd = write(tmp_path / "y.csv", head + "A,0\nC,1\nG,?\nT,1\n")
    assert "warning: all classes are numbers but '?' (1 rows, the first at" in " ".join(
        read_labelled(odd).notes
    )


def test_split_columns_that_are_none(tmp_path: Path) -> None:
    head = "sequence,label,set\n"
    other = write(tmp_path / "x.csv", head + "A,0,A\nC,1,B\n")
    assert read_labelled(other).splits.tolist() == ["", ""]
    mixed = write(tmp_path / "y.csv", head + "A,0,train\nC,1,B\n")
    assert "y.csv:3: split is 'B'; it must be train, valid or test (or training" in message(mixed)
    assert "--split none" in message(mixed)
    assert read_labelled(mixed, split="none").splits.tolist() == ["", ""]


def test_rows_without_a_group(tmp_path: Path) -> None:
    path = write(tmp_path / "x.csv", "sequence,label,donor,chrom\nA,0,d1,1\nC,1,,\n")
    assert "x.csv:3: column 'donor' is empty" in message(path, group="donor")
    data = read_labelled(path)
    assert data.groups is None
    assert data.notes[-1].startswith("groups are not known: 1 rows have none, the first at ")


def test_lists_of_labels(tmp_path: Path) -> None:
    path = write(tmp_path / "x.csv", 'sequence,label\nA,"[0, 1]"\nC,"[1, 1]"\nG,\n')
    data = read_labelled(path)
    assert data.task == Task("labels", ("label_0", "label_1"))
    np.testing.assert_array_equal(data.targets, np.array([[0, 1], [1, 1], [np.nan, np.nan]]))
    ragged = write(tmp_path / "y.csv", 'sequence,label\nA,"[0.5, 1]"\nC,"[1]"\n')
    assert "y.csv:3: column 'label' is '[1]', not a list of 2 numbers" in message(ragged)
    bases = write(tmp_path / "z.csv", f'sequence,label\nACGTACGTAC,"{[0, 1] * 5}"\n')
    assert "a list of 10 labels, one for each base; write them as a text" in message(bases)
    words = write(tmp_path / "w.csv", "sequence,label\nA,[red]\nC,[blue]\n")
    assert read_labelled(words).task.names == ("[blue]", "[red]")
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    columns = {"sequence": ["A", "C"], "label": [[0.5, None], [1, 2]]}
    parquet.write_table(pyarrow.table(columns), tmp_path / "x.parquet")
    values = read_labelled(tmp_path / "x.parquet")
    np.testing.assert_array_equal(values.targets, np.array([[0.5, np.nan], [1, 2]]))


def test_damaged_parquet_is_named(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path = tmp_path / "x.parquet"
    sequences = ["ACGT"[i % 4] * 40 + "ACGT"[i // 4 % 4] * 7 for i in range(2000)]
    parquet.write_table(pyarrow.table({"sequence": sequences, "label": [0, 1] * 1000}), path)
    raw = bytearray(path.read_bytes())
    raw[5:60] = bytes(byte ^ 0x5A for byte in raw[5:60])
    path.write_bytes(raw)
    assert "x.parquet: the Parquet file is damaged (" in message(path)


def test_odd_writings_of_tables(tmp_path: Path) -> None:
    blank = write(tmp_path / "x.csv", '"sequence", "label"\n"A", "x, y"\n"C", "z"\n')
    assert read_labelled(blank).task.names == ("x, y", "z")
    case = write(tmp_path / "y.csv", "sequence,label,Label\nA,1,2\n")
    assert "columns 'label' and 'Label' differ in case alone" in message(case)
    wide = write(tmp_path / "z.csv", "sequence,label\nA,1\n".encode("utf-16"))
    assert "z.csv: is UTF-16; save it as UTF-8" in message(wide)
    latin = write(tmp_path / "l.csv", "sequence,label\nA,caf\xe9\nC,b\n".encode("latin-1"))
    assert "l.csv:2: label 'caf\ufffd' has letters that are not UTF-8" in message(latin)


def test_pairs(tmp_path: Path) -> None:
    path = write(tmp_path / "x.csv", "sequence,partner,label\nAACG,TTG,1\nC,A,0\n")
    data = read_labelled(path, pair="partner")
    assert texts(data) == ["AACG[SEP]TTG", "C[SEP]A"]
    assert decode(other_strand(data.sequences[0]), specials=True) == "CGTT[SEP]CAA"
    np.testing.assert_array_equal(other_strand(other_strand(data.sequences[0])), data.sequences[0])
    with pytest.raises(InputError, match="shorten it"):
        fit_length(data, 4, "centre")
    half = write(tmp_path / "y.csv", "sequence,partner,label\nAACG,,1\n")
    assert "y.csv:2: a sequence of the pair is empty" in message(half, pair="partner")
    assert (data.sequences[0] == SEP).sum() == 1


def test_length_limit(tmp_path: Path) -> None:
    path = write(tmp_path / "x.csv", "sequence,label\nAACGGT,aaabbb\nACGTACGTAC,bbbbbaaaaa\n")
    assert "sequence 'x:3' has 10 tokens, over the limit of 6 (1 sequences are)" in message(
        path, max_length=6
    )
    data = read_labelled(path, max_length=6, too_long="centre")
    assert texts(data) == ["AACGGT", "GTACGT"] and isinstance(data.targets, tuple)
    assert data.targets[1].tolist() == [1, 1, 1, 0, 0, 0]
    assert data.notes[-1] == "1 sequences cut to their middle 6 bases"


# --- FASTA and folders -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "options"),
    [
        (("a label=0", "b label=1"), {}),
        (("a label=0;split=train", "b split=test;label=1"), {"task": Task("classes", ("0", "1"))}),
        (("a|chr1|0", "b|chr2|1"), {}),
        (("a some 0", "b words 1"), {}),
        (("a0", "b1"), {"header": "last-character"}),
        (("a y=0", "b y=1"), {"labels": ["y"]}),
    ],
)
def test_labels_in_headers(
    tmp_path: Path, headers: tuple[str, str], options: dict[str, object]
) -> None:
    fasta = write(tmp_path / "x.fa", f">{headers[0]}\nACG\nT\n\n>{headers[1]}\r\nggg\r\n")
    data = read_labelled(fasta, **options)  # type: ignore[arg-type]
    assert texts(data) == ["ACGT", "GGG"] and numbers(data) == [0, 1]
    if "split" in headers[0]:
        assert data.splits.tolist() == ["train", "test"]
    assert [id[0] for id in data.ids] == ["a", "b"]


def test_bad_fasta(tmp_path: Path) -> None:
    bare = write(tmp_path / "x.fa", ">a\nACGT\n>b\nGG\n")
    assert "x.fa: no label in the header 'a'" in message(bare)
    task = Task("classes", ("0", "1"))
    assert numbers(read_labelled(bare, task=task, missing="mask")) == [IGNORED, IGNORED]
    some = write(tmp_path / "y.fa", ">a y=1\nACGT\n>b\nGG\n")
    assert "y.fa:3: the header has no y=…" in message(some, labels=["y"])
    letters = write(tmp_path / "z.fa", ">a label=1\nACGT\n>b label=0\nGE\n")
    assert "z.fa:3 b: letter 'E' at position 2 is not DNA" in message(letters)
    assert "is not FASTA" in message(write(tmp_path / "w.fa", "ACGT\n"))
    twice = write(tmp_path / "v.fa", ">a|1\nACGT\n>a|0\nGG\n>a|0\nGA\n")
    assert read_labelled(twice).ids == ("a|1", "a|0", "a|0#2")


def test_keys_and_splits_in_headers(tmp_path: Path) -> None:
    def read(*headers: str) -> LabelledData:
        text = "".join(f">{header}\n{'ACGT' * (i + 2)}\n" for i, header in enumerate(headers))
        return read_labelled(write(tmp_path / "x.fa", text))

    for key in ("Label", "class", "LABEL"):
        assert read(f"a {key}=1", f"b {key}=0").task.names == ("0", "1")
    strong = read("a label=strong enh", "b label=weak enh")
    assert strong.task.names == ("strong", "weak")
    assert any("end at the first blank" in note for note in strong.notes)
    quoted = read('a label="strong enh" split=train', 'b label="weak enh" split=train')
    assert quoted.task.names == ("strong enh", "weak enh")
    assert quoted.splits.tolist() == ["train", "train"]
    three = read("a|1|training", "b|0|training", "c|1|testing")
    assert three.task.names == ("0", "1") and three.splits.tolist() == ["train", "train", "test"]
    with pytest.raises(InputError, match=r"no label in the header 'a\|training'"):
        read("a|training", "b|testing")


FASTA_ROWS = ">a {}\nACGT\n>b {}\nGG\n"


@pytest.mark.parametrize(
    ("one", "other", "splits"),
    [
        ("H3_train_seqs.fa", "H3_test_seqs.fa", ["train", "test"]),
        ("a.train.1.fa", "a.test.1.fa", ["train", "test"]),
        ("train1.fa", "train2.fa", ["train", "train"]),
        ("mytrain.fa", "mytest.fa", None),
        ("train.csv", "heldout.csv", None),
        ("testset.fa", "rest.fa", None),
        ("train_test.fa", "test.fa", None),
        ("strain_A.fa", "strain_B.fa", []),
        ("testis.fa", "brain.fa", []),
    ],
)
def test_splits_in_the_names_of_files(
    tmp_path: Path, one: str, other: str, splits: list[str] | None
) -> None:
    """A split is never taken for a class, nor a held-out file for training rows."""
    for name in (one, other):
        table = "sequence,label\nACGT,0\nGG,1\n"
        write(tmp_path / "d" / name, table if name.endswith("csv") else FASTA_ROWS.format(0, 1))
    for source in (tmp_path / "d", [tmp_path / "d" / one, tmp_path / "d" / other]):
        if splits is None:
            assert "rename it, or give the files by --train, --valid and --test" in message(source)
            continue
        data = read_labelled(source)
        if splits:
            assert data.task.names == ("0", "1")
            assert sorted([data.splits[0], data.splits[2]]) == sorted(splits)
        else:  # the names are classes
            assert data.task.names == tuple(sorted((Path(one).stem, Path(other).stem)))
            assert read_labelled(source, header="last-word").task.names == ("0", "1")


def test_layouts_of_folders_agree(tmp_path: Path) -> None:
    """Files for each class and split, in all layouts, whatever the order of their making."""
    rows = {("train", "pos"): ["ACGT", "AA"], ("train", "neg"): ["CC"], ("test", "pos"): ["GT"]}
    many, classes, tables = tmp_path / "many", tmp_path / "classes", tmp_path / "tables"
    for (split, label), found in rows.items():
        for i, sequence in enumerate(found):
            header = ">s\n" * (split == "test")  # FASTA under another name
            write(many / split / label / f"{i}.txt", header + sequence + "\n")
        fasta = "".join(f">s{i}\n{sequence}\n" for i, sequence in enumerate(found))
        write(classes / split / f"{label}.fa", fasta)
    for split in ("train", "test"):
        lines = [f"{s},{label}\n" for (part, label), f in rows.items() if part == split for s in f]
        write(tables / f"x_{split}.csv", "sequence,label\n" + "".join(lines))

    def content(data: LabelledData) -> list[tuple[str, ...]]:
        names = [data.task.names[int(t)] for t in data.targets]  # type: ignore[arg-type]
        return sorted(zip(texts(data), names, data.splits.tolist(), strict=True))

    expected = sorted((s, label, split) for (split, label), f in rows.items() for s in f)
    for source in (many, classes, tables):
        data = read_labelled(source)
        assert content(data) == expected
        assert data.task == Task("classes", ("neg", "pos")) and len(set(data.ids)) == 4
    by_split = {"train": tables / "x_train.csv", "test": tables / "x_test.csv"}
    assert content(read_labelled(by_split)) == expected
    assert content(read_labelled(list(by_split.values()))) == expected
    assert read_labelled(many).ids[:2] == ("s", "train/neg/0")
    two = read_labelled([classes / "train" / "pos.fa", classes / "train" / "neg.fa"])
    assert numbers(two) == [1, 1, 0] and set(two.splits.tolist()) == {""}
    write(many / "stray.txt", "ACGT")
    assert "holds both folders" in message(many)


# --- intervals -------------------------------------------------------------------------------

CONTIG = "ACGTTGCANNACGGTCATTA"


@pytest.fixture
def genome(tmp_path: Path) -> Path:
    return write(tmp_path / "g.fa", f">c1\n{CONTIG}\n>c2\nACGT\n")


def test_bed_over_a_genome(tmp_path: Path, genome: Path) -> None:
    bed = write(tmp_path / "x.bed", "c1\t2\t6\tyes\t0\t+\n# note\nc1\t2\t6\tno\t0\t-\n")
    data = read_labelled(bed, genome=genome)
    assert texts(data) == [CONTIG[2:6], reverse_complement(CONTIG[2:6])]
    assert data.task.names == ("no", "yes") and data.groups == ("c1", "c1")
    wide = read_labelled(bed, genome=genome, window=7)  # middle is 4
    # on the other strand the feature stands at the same place of the window
    assert texts(wide) == [CONTIG[1:8], reverse_complement(CONTIG[0:7])]
    assert "--window is 0; it must be at least 1" in message(bed, genome=genome, window=0)
    assert "leaves c1, which has 20 bases" in message(bed, genome=genome, window=12)
    padded = read_labelled(bed, genome=genome, window=12, outside="pad")
    assert texts(padded)[0] == "NN" + CONTIG[:10]
    assert texts(padded)[1] == reverse_complement("NN" + CONTIG[:10])
    assert "give the genome" in message(bed)
    fasta = write(tmp_path / "s.fa", ">a 1\nACGT\n>b 0\nGG\n")
    table = write(tmp_path / "s.csv", "sequence,label\nACGT,1\nGG,0\n")
    for path in (fasta, table):
        assert "a window cannot be laid (--window)" in message(path, genome=genome, window=4)
        assert "nothing to cut from a genome (--genome)" in message(path, genome=genome)
    assert "is no FASTA; leave out --header" in message(table, header="last-word")


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_both_strands_of_a_genome_give_the_same_windows(draw: st.DataObject) -> None:
    """Cut from the reverse complement with mirrored intervals, on the other strand: no change."""
    length, window = 60, draw.draw(st.integers(1, 12))
    start = draw.draw(st.integers(12, 40))
    stop = draw.draw(st.integers(start, start + 6))
    ends = (str(start), str(stop))
    mirrored = (str(length - stop), str(length - start))
    for strand, other in ("+-", "-+"):
        one = make_cut("x", "c", *ends, strand, window)
        two = make_cut("x", "c", *mirrored, other, window)
        assert (two.start, two.stop) == (length - one.stop, length - one.start)
        assert one.stop - one.start == window and one.reverse is not two.reverse


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ("c1\t2\t21\ta", "x.bed:1: c1:3-21 runs past the end of c1"),
        ("c9\t2\t3\ta", "x.bed:1: "),
        ("c1\t-2\t3\ta", "start is '-2', not a whole number"),
        ("c1\t5\t3\ta", "start 5 is behind end 3"),
        ("c1\t3\t3\ta", "the sequence is empty"),
        ("c1\t1\t3\ta\t0\tx", "strand is 'x'"),
    ],
)
def test_bad_intervals(tmp_path: Path, genome: Path, row: str, expected: str) -> None:
    assert expected in message(write(tmp_path / "x.bed", row + "\n"), genome=genome)


def test_extra_bed_columns_and_tables_of_intervals(tmp_path: Path, genome: Path) -> None:
    bed = write(tmp_path / "x.bed", "c1\t2\t6\tn1\t0\t+\t0.5\t1\nc2\t0\t4\tn2\t0\t-\t1.5\t0\n")
    data = read_labelled(bed, genome=genome, labels=["7"])
    assert data.task == Task("values", ("7",)) and numbers(data) == [[0.5], [1.5]]
    assert data.ids == ("n1", "n2")
    table = write(tmp_path / "x.csv", "region,start,end,strand,label\nc1,2,6,+,u\nc2,0,4,-,v\n")
    assert texts(read_labelled(table, genome=genome)) == texts(data)
    named = write(tmp_path / "y.bed", "#chrom\tstart\tend\tlabel\nc1\t2\t6\tu\nc2\t0\t4\tv\n")
    assert read_labelled(named, genome=genome).task.names == ("u", "v")
    for header in ("chrom\tstart\tend\tlabel", "# chrom\tstart\tend\tlabel"):
        bare = write(tmp_path / "z.bed", f"{header}\nc1\t2\t6\tu\nc2\t0\t4\tv\n")
        assert read_labelled(bare, genome=genome).task.names == ("u", "v")
    rest = "0\t.\t{}\t-1\t-1\t2\n"
    peaks = f"c1\t2\t6\tp1\t{rest.format(1.5)}c2\t0\t4\tp2\t{rest.format(2.5)}"
    values = read_labelled(write(tmp_path / "x.narrowPeak", peaks), genome=genome, labels=["7"])
    assert numbers(values) == [[1.5], [2.5]]


def test_classes_of_bases_from_tracks(tmp_path: Path, genome: Path) -> None:
    windows = write(
        tmp_path / "w.bed", "c1\t0\t10\ta\t0\t+\nc1\t0\t10\tb\t0\t-\nc2\t0\t4\tc\t0\t+\n"
    )
    exon = write(tmp_path / "exon.bed", "c1\t2\t4\nc1\t3\t5\n")
    repeat = write(tmp_path / "repeat.bed", "c1\t4\t7\nc1\t9\t15\n")
    tracks = {"repeat": repeat, "exon": exon}
    data = read_labelled(windows, genome=genome, tracks={"exon": exon, "repeat": repeat})
    assert data.task == Task("tokens", ("exon", "none", "repeat"))
    assert isinstance(data.targets, tuple)
    line = [1, 1, 0, 0, 0, 2, 2, 1, 1, 2]  # the first track counts where two cover a base
    assert data.targets[0].tolist() == line and data.targets[1].tolist() == line[::-1]
    assert data.targets[2].tolist() == [1] * 4
    other = read_labelled(windows, genome=genome, tracks=tracks, background=None)
    assert other.task.names == ("exon", "repeat") and isinstance(other.targets, tuple)
    line = [IGNORED, IGNORED, 0, 0, 1, 1, 1, IGNORED, IGNORED, 1]
    assert other.targets[0].tolist() == line
    padded = read_labelled(windows, genome=genome, tracks=tracks, window=12, outside="pad").targets[
        0
    ]
    assert padded[:2].tolist() == [IGNORED, 1]
    assert "need intervals" in message(
        write(tmp_path / "x.csv", "sequence\nACGT\n"), genome=genome, tracks=tracks
    )


def test_bigwig_values(tmp_path: Path, genome: Path) -> None:
    windows = write(tmp_path / "w.bed", "c1\t0\t4\ta\nc1\t4\t8\tb\nc1\t10\t12\tc\n")
    track = tmp_path / "x.bw"
    try:
        import pyBigWig
    except ImportError:
        write(track, "any")
        assert "pip install pyBigWig" in message(windows, genome=genome, bigwigs={"s": track})
        return
    with pyBigWig.open(str(track), "w") as file:
        file.addHeader([("c1", 20), ("c2", 4)])
        file.addEntries(["c1", "c1"], [0, 6], ends=[4, 8], values=[1.5, 4.0])
    data = read_labelled(windows, genome=genome, bigwigs={"s": track})
    assert data.task == Task("values", ("s",))
    np.testing.assert_array_equal(data.targets, np.array([[1.5], [4.0], [np.nan]]))


# --- the data itself -------------------------------------------------------------------------


def test_select_and_digest() -> None:
    sequences = tuple(encode(text) for text in ("ACGT", "GG", "TTT"))
    data = LabelledData(
        "x", sequences, np.array([[1, np.nan], [0, 2], [3, 4]], np.float32),
        Task("values", ("u", "v")), np.array(["train", "", "test"]), ("a", "b", "c"),
        ("g", "h", "g"),
    )  # fmt: skip
    last = data.select(np.array([2, 0]))
    assert last.ids == ("c", "a") and last.groups == ("g", "g") and texts(last) == ["TTT", "ACGT"]
    assert data.select(data.splits == "test").ids == ("c",)
    digests = {
        d.digest()
        for d in (
            data, last, data.select(np.array([0, 1])), data.select(np.array([1, 0, 2])),
        )
    }  # fmt: skip
    assert len(digests) == 4
    assert data.select(np.arange(3)).with_notes("n").digest() == data.digest()
    with pytest.raises(InputError, match="2 ids for 3 sequences"):
        LabelledData("x", sequences, data.targets, data.task, data.splits, ("a", "b"))


def test_digest_is_that_of_the_letters(tmp_path: Path) -> None:
    one = write(tmp_path / "x.csv", "sequence,label,id\nACGT,1,a\nGG,0,b\n")
    two = write(tmp_path / "y.tsv", "id\tlabel\tseq\nq\t1.0\tacgu\nr\t0\tgg\n")
    three = write(tmp_path / "z.csv", "sequence,label\nACGT,1\nGC,0\n")
    digests = [read_labelled(path).digest() for path in (one, two, three)]
    assert digests[0] == digests[1] != digests[2]


def test_split_names() -> None:
    assert [split_named(s) for s in ("Train", " dev ", "val", "TEST", "all", "", "x")] == [
        "train", "valid", "valid", "test", "", "", None,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("file", "rows", "kind"),
    [
        ("gue_splice/splice_reconstructed.csv.gz", 4562, "classes"),
        ("lentimpra/HepG2.csv.gz", 12292, "values"),
        ("cnnpromoter/bacillus.csv.gz", 1373, "classes"),
    ],
)
def test_real_tables(shared: Path, file: str, rows: int, kind: str) -> None:
    data = read_labelled(shared / "data" / file)
    assert (len(data), data.task.kind) == (rows, kind)


def test_real_intervals(shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Published rows, cut from a genome here: the same letters as in the published table."""
    monkeypatch.setenv("HYENADNA_CACHE", str(tmp_path / "cache"))
    table = shared / "data" / "gb_interval_subset" / "human_ensembl_regulatory.csv.gz"
    chunk = shared / "data" / "human_hg38_chr9_1Mb" / "chr9_1-1000000.fa.gz"
    published = read_labelled(table)
    lines = gzip.decompress(table.read_bytes()).decode().splitlines()
    header = lines[0].split(",")
    with gzip.open(chunk, "rt") as fasta:  # from the first base of its chromosome on
        contig = next(iter(fasta))[1:].split()[0]
    bed, chosen = [], []
    for i, line in enumerate(lines[1:]):
        row = dict(zip(header, line.split(","), strict=True))
        if row["region"] in ("chr9", "9"):
            bed.append(
                f"{contig}\t{row['start0']}\t{row['end']}\t{row['label']}\t0\t{row['strand']}"
            )
            chosen.append(i)
    assert chosen
    cut = read_labelled(
        write(tmp_path / "x.bed", "\n".join(bed) + "\n"), genome=chunk, task=published.task
    )
    expected = published.select(np.array(chosen))
    assert texts(cut) == texts(expected)
    np.testing.assert_array_equal(cut.targets, expected.targets)
