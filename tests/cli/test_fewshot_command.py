"""`hyenadna fewshot`: asked in context, with controls that say whether anything was learned."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
import torch

import hyenadna
from hyenadna.alphabet import PAD, SEP, decode, encode
from hyenadna.checkpoint.save import save
from hyenadna.cli import fewshot_job
from hyenadna.cli.app import run
from hyenadna.cli.fewshot_cells import (
    CHOICE,
    NONE,
    REORDERED,
    SHUFFLED,
    TRUE,
    Cell,
    read_cell,
)
from hyenadna.cli.fewshot_options import (
    COMPARED,
    ContextOptions,
    FewshotRequest,
)
from hyenadna.cli.fewshot_progress import FewshotLines
from hyenadna.cli.finetune_options import name_list
from hyenadna.cli.labelled_run import stored_request
from hyenadna.config import ModelConfig
from hyenadna.data.demonstrations import Demonstrations, Layout, tuning_row
from hyenadna.errors import InputError
from hyenadna.infer import fewshot as asking
from hyenadna.infer.fewshot import Answers
from hyenadna.label_words import LabelWords
from hyenadna.model.backbone import HyenaDNA, rescale_filters
from hyenadna.model.digest import function_digest, weights_digest
from hyenadna.train.instruct import instruct
from hyenadna.training_config import InstructConfig, number_list

QUICK = ["--threads", "1", "--draws", "2", "--calibration-rows", "8", "--leaks", "none"]


def rows(count: int = 120, classes: int = 2, seed: int = 0) -> list[list[str]]:
    """(id, sequence, label, split): sequences of class c begin with letter c of ACG."""
    rng = np.random.default_rng(seed)
    found = []
    for i in range(count):
        rest = "".join(rng.choice(list("ACGT"), int(rng.integers(3, 12))))
        part = "train" if i < 0.6 * count else "valid" if i < 0.8 * count else "test"
        found.append([f"s{i}", "ACG"[i % classes] + rest, "xyz"[i % classes], part])
    return found


def write(path: Path, lines: list[list[str]]) -> Path:
    with path.open("w", newline="") as text:
        csv.writer(text).writerows([["id", "sequence", "label", "split"], *lines])
    return path


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as text:
        return list(csv.DictReader(text))


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("fewshot")
    torch.manual_seed(0)
    model = HyenaDNA(ModelConfig(d_model=16, n_layer=1, max_seq_len=258, filter_order=16))
    rescale_filters(model)
    save(model, folder / "model")
    write(folder / "two.csv", rows())
    write(folder / "three.csv", rows(classes=3))
    write(folder / "more two.csv", rows(160))  # enough measured rows for a verdict
    write(folder / "more three.csv", rows(160, classes=3))
    return folder


@pytest.fixture
def place(home, tmp_path, monkeypatch) -> Path:
    """An empty folder with links to model and tables, where the command runs."""
    monkeypatch.chdir(tmp_path)
    for each in home.iterdir():
        (tmp_path / each.name).symlink_to(each)
    return tmp_path


def fewshot(*words: str, common: list[str] = QUICK) -> int:
    return run(["fewshot", *words, *common])


def figures(out: str) -> dict:
    return json.loads(Path(out, "metrics.json").read_text())


def without_times(found: object) -> object:
    """The same without what differs from run to run."""
    if isinstance(found, dict):
        return {
            k: without_times(v) for k, v in found.items() if "seconds" not in k and k != "saving"
        }
    return [without_times(v) for v in found] if isinstance(found, list) else found


# -- the whole way ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def done(home, tmp_path_factory) -> Path:
    """A run with everything."""
    out = tmp_path_factory.mktemp("done") / "RUN"
    words = [str(home / "model"), str(home / "two.csv"), "--out", str(out), "--shots", "0,2",
             "--tuning-samples", "0,4", "--compare", "linear,kmer", "--compare-epochs", "1",
             "--level", "published=0.9"]  # fmt: skip
    assert fewshot(*words) == 0
    return out


def test_a_run_reports_all_cells_and_controls(done, home):
    found = figures(str(done))
    assert [(c["tuned"], c["shots"]) for c in found["cells"]] == [(0, 0), (0, 2), (4, 0), (4, 2)]
    assert found["measured_rows"] == 24 and found["choice_rows"] == 24
    assert found["chance"] == 0.5 and found["label_words"] == {"x": "A", "y": "N"}
    for cell in found["cells"]:
        assert cell["accuracy"]["low"] <= cell["accuracy"]["value"] <= cell["accuracy"]["high"]
        controls = {TRUE, SHUFFLED, REORDERED, NONE} if cell["shots"] else {TRUE}
        assert set(cell["per_draw"]) == controls
        assert (cell["less_shuffled"] is not None) == bool(cell["shots"])
        assert cell["accuracy"]["value"] == pytest.approx(np.mean(cell["per_draw"][TRUE]))
        timed = bool(cell["shots"]) and not cell["tuned"]
        assert (cell["saving"] is not None) == timed
        if timed:
            assert cell["notes"]["largest_difference"] < 1e-5
    assert set(found["compared"]) == {"linear", "kmer"}
    assert found["compared"]["linear"]["trained"] > 0 == found["compared"]["kmer"]["trained"]
    # 24 rows are measured
    assert "24 rows measured, fewer than 30" in found["verdict"][0]
    assert found["verdict"][1].startswith("Cannot tell whether it was learned in context")
    shown = found["cells"][1]
    notes = shown["notes"]
    assert notes["timed_rows"] == notes["together_rows"] == 24
    assert shown["saving"] == pytest.approx(notes["together_seconds"] / notes["shared_seconds"])
    assert (done / "curve.png").stat().st_size > 5_000
    page = (done / "report.html").read_text()
    for text in (*found["verdict"], "linear probe: ", "published: 0.900", "chance: 0.500",
                 "Accuracy against tuning samples", "True less shuffled labels",
                 "The full fine-tuned model was not measured"):  # fmt: skip
        assert text in page
    said = read(done / "predictions.csv")
    best = next(c for c in found["cells"] if c["title"] == found["best"])
    assert {row["id"] for row in said} == {f"s{i}" for i in range(96, 120)}
    right = np.mean([row["predicted"] == row["target"] for row in said])
    assert right == pytest.approx(best["accuracy"]["value"])
    assert best["valid"] == max(c["valid"] for c in found["cells"])


def test_the_model_is_left_as_it_was_and_the_best_tuned_one_is_kept(done, home):
    found = figures(str(done))
    base, tuned = hyenadna.load(home / "model"), hyenadna.load(done)
    assert function_digest(base) == found["model_digest"] != function_digest(tuned)


def test_tuning_leaves_the_model_in_memory_alone(place, monkeypatch):
    kept = []
    real = fewshot_job.run_job

    def spy(job, *rest):
        kept.append((job, {k: v.clone() for k, v in job.model.state_dict().items()}))
        return real(job, *rest)

    monkeypatch.setattr(fewshot_job, "run_job", spy)
    words = [
        "model",
        "two.csv",
        "--out",
        "RUN",
        "--shots",
        "1",
        "--tuning-samples",
        "4",
        "--lr",
        "0.1",
    ]
    assert fewshot(*words) == 0
    job, before = kept[0]
    for name, value in job.model.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_nothing_but_training_rows_is_shown_tuned_on_or_calibrated_with(place, monkeypatch):
    lines = rows()
    train = {line[1] for line in lines if line[3] == "train"}
    prefixes, queries, read_in_tuning = set(), set(), set()
    real_answers, real_row = asking.answers, fewshot_job.tuning_row

    def pieces(ids) -> list[str]:
        return [text for text in decode(ids, specials=True).split("[SEP]") if text]

    def answers(decoder, prefix, asked, words, **rest):
        prefixes.update(pieces(prefix)[::2])
        queries.update(pieces(query)[0] for query in asked)
        return real_answers(decoder, prefix, asked, words, **rest)

    def row(*arguments, **rest):
        found = real_row(*arguments, **rest)
        read_in_tuning.update(pieces(found[0])[::2])
        return found

    monkeypatch.setattr(asking, "answers", answers)
    monkeypatch.setattr(fewshot_job, "tuning_row", row)
    words = ["model", "two.csv", "--out", "RUN", "--shots", "2", "--tuning-samples", "0,6"]
    assert fewshot(*words) == 0
    assert prefixes and prefixes <= train
    assert read_in_tuning and read_in_tuning <= train
    held = {line[1] for line in lines if line[3] != "train"}
    assert held <= queries  # these are asked, and more rows of train for calibration


# -- what is learned in context shows up -----------------------------------------------------------


def nearest_neighbours(decoder, prefix, queries, words, **rest) -> Answers:
    """Answers as a rule that can learn in context: the words told of what begins alike, counted."""
    told: dict[int, list[int]] = {}
    number = {int(ids[0]): n for n, ids in enumerate(words.ids)}
    parts = np.split(prefix, np.flatnonzero(prefix == SEP))
    parts = [part[(part != SEP) & (part != PAD)] for part in parts]
    parts = [part for part in parts if len(part)]
    for sequence, word in zip(parts[::2], parts[1::2], strict=True):
        told.setdefault(int(sequence[0]), []).append(number[int(word[0])])
    nats = np.zeros((len(queries), len(words.names)))
    for row, query in zip(nats, queries, strict=True):
        heard = told.get(int(query[query != PAD][0]), [])
        counts = np.bincount(heard, minlength=len(row)) + 0.1
        row[:] = np.log(counts / counts.sum()) - 2.0
    return Answers(nats, nats.argmax(1))


@pytest.mark.parametrize("table", ["more two.csv", "more three.csv"])
@pytest.mark.parametrize("layout", ["plain", "paper"])
def test_a_task_that_is_learned_in_context_is_seen_to_be(place, monkeypatch, table, layout, capsys):
    monkeypatch.setattr(asking, "answers", nearest_neighbours)
    classes = 2 if "two" in table else 3
    words = ["model", table, "--out", "RUN", "--shots", f"0,{classes}", "--layout", layout]
    assert fewshot(*words) == 0
    found = figures("RUN")
    cell = found["cells"][1]
    assert cell["accuracy"]["value"] == 1
    assert cell["shuffled"]["value"] == pytest.approx(1 / classes, abs=0.1)
    assert cell["less_shuffled"]["low"] > 0
    assert cell["changed"] == 0  # this rule hears no order
    assert cell["none"]["value"] == pytest.approx(1 / classes, abs=0.1)
    assert found["verdict"][1].startswith("Learned in context: true labels beat shuffled ones")
    assert found["verdict"][1] in capsys.readouterr().out


def test_a_model_trained_to_learn_in_context_is_seen_to(place):
    """Two sequences, either of which may be either word: only the demonstrations can tell."""
    torch.manual_seed(0)
    model = HyenaDNA(ModelConfig(d_model=64, n_layer=2, max_seq_len=66, filter_order=16))
    rescale_filters(model)
    with torch.no_grad():
        model.head_weight.mul_(20)  # off the saddle where no letter says anything
    samples = []
    for spelling in (("A", "N"), ("N", "A")):
        layout = Layout(LabelWords(("x", "y"), spelling))
        for order in sorted(set(permutations([0, 0, 1, 1]))):
            shown = Demonstrations(np.array(order), np.array(order))
            samples += [
                tuning_row(layout, [encode("C"), encode("T")], shown, query, query,
                           every_label=False)
                for query in (0, 1)
            ]  # fmt: skip
    config = InstructConfig(lr=2e-3, batch_size=len(samples), epochs=60)
    losses = [report.loss for report in instruct(model, samples, config, seed=0)]
    assert losses[-1] < 0.1
    save(model, Path("trained"))
    lines = [[i, "CT"[label == "y"], label, part] for i, _, label, part in rows(160)]
    write(Path("bases.csv"), lines)
    common = [word if word != "2" else "12" for word in QUICK]  # draws
    assert fewshot("trained", "bases.csv", "--out", "RUN", "--shots", "0,2", common=common) == 0
    cell = figures("RUN")["cells"][1]
    assert cell["accuracy"]["value"] == cell["strict"]["value"] == 1
    assert cell["shuffled"]["value"] < 0.8 and cell["less_shuffled"]["low"] > 0
    assert figures("RUN")["verdict"][1].startswith("Learned in context")


def test_a_model_that_hears_no_labels_is_said_to_have_learned_nothing(place, monkeypatch):
    def deaf(decoder, prefix, queries, words, **rest):
        """Right whatever is shown: it knows the task already."""
        nats = np.full((len(queries), 2), -5.0)
        for row, query in zip(nats, queries, strict=True):
            row[int(query[0]) - 7] = -1.0
        return Answers(nats, nats.argmax(1))

    monkeypatch.setattr(asking, "answers", deaf)
    assert fewshot("model", "more two.csv", "--out", "RUN", "--shots", "2") == 0
    found = figures("RUN")
    assert found["cells"][0]["accuracy"]["value"] == 1
    assert "clearly above it" in found["verdict"][0]
    assert "All rows agree" in found["verdict"][0]
    assert found["verdict"][1].startswith("NOT shown to be learned in context")


def test_calibration_helps_a_model_that_prefers_a_letter(place, monkeypatch):
    def partial(decoder, prefix, queries, words, **rest):
        found = nearest_neighbours(decoder, prefix, queries, words)
        return Answers(found.log_probabilities * 0.1 + [0.0, -1.0], found.spelled)

    monkeypatch.setattr(asking, "answers", partial)
    for out, how in (("A", "train"), ("B", "none")):
        words = ["model", "two.csv", "--out", out, "--shots", "2", "--calibrate", how]
        words += ["--threads", "1", "--draws", "2", "--leaks", "none"]
        assert fewshot(*words, common=[]) == 0
    with_it, without = figures("A")["cells"][0], figures("B")["cells"][0]
    assert with_it["accuracy"]["value"] == 1 > with_it["raw"]["value"]
    assert without["accuracy"] == without["raw"]
    assert without["raw"]["value"] == with_it["raw"]["value"] == pytest.approx(0.5)


# -- stopping and going on -------------------------------------------------------------------------


@pytest.mark.parametrize("after", [1, 4, 12])
def test_a_resumed_run_equals_an_unbroken_one(place, monkeypatch, after, capsys):
    words = ["model", "two.csv", "--shots", "0,2", "--tuning-samples", "0,4"]
    assert fewshot(*words, "--out", "WHOLE") == 0
    real, calls = asking.answers, []

    def interrupted(*arguments, **rest):
        calls.append(1)
        if len(calls) == after:
            os.kill(os.getpid(), signal.SIGINT)
        return real(*arguments, **rest)

    monkeypatch.setattr(asking, "answers", interrupted)
    assert fewshot(*words, "--out", "BROKEN") == 128 + signal.SIGINT
    assert "hyenadna fewshot --out BROKEN --resume" in capsys.readouterr().out
    assert not Path("BROKEN/metrics.json").exists()
    kept = len(list(Path("BROKEN/cells").glob("*"))) if after > 1 else 0
    assert kept == {1: 0, 4: 1, 12: 3}[after]
    calls[:] = [1] * 100
    assert fewshot("--out", "BROKEN", "--resume", common=[]) == 0
    assert without_times(figures("BROKEN")) == without_times(figures("WHOLE"))
    assert read(Path("BROKEN/predictions.csv")) == read(Path("WHOLE/predictions.csv"))
    one, other = hyenadna.load("BROKEN"), hyenadna.load("WHOLE")
    assert weights_digest(one) == weights_digest(other)


def test_a_run_that_is_complete_says_so(done, capsys):
    assert fewshot("--out", str(done), "--resume", "--json", common=[]) == 0
    printed = capsys.readouterr()
    assert "the run is complete" in printed.err
    assert json.loads(printed.out)["best"] == figures(str(done))["best"]


def test_resuming_with_other_options_or_things_is_refused(place, capsys):
    words = ["model", "two.csv", "--out", "RUN", "--shots", "1"]
    assert fewshot(*words) == 0
    Path("RUN/metrics.json").unlink()
    for more, said in (
        (["--shots", "2"], "--shots is 2, but the run was started with 1"),
        (["--seed", "3"], "--seed is 3, but the run was started with 0"),
        (["--lr", "0.1"], "--lr is 0.1, but the run was started with 0.0001"),
    ):
        assert fewshot("--out", "RUN", "--resume", *more, common=[]) == 2
        assert said in capsys.readouterr().err
    Path("two.csv").unlink()
    write(Path("two.csv"), rows(seed=9))
    assert fewshot("--out", "RUN", "--resume", common=[]) == 2
    assert "is not the data that the run was started with" in capsys.readouterr().err
    assert fewshot("--out", "NOWHERE", "--resume", common=[]) == 2
    assert "no few-shot run here" in capsys.readouterr().err


def test_requests_go_through_json():
    context = ContextOptions(draws=3, level=("a=0.5", "b=1"))
    request = FewshotRequest(shots=(0, 2), compare=("full",), context=context)
    again = FewshotRequest.from_dict(json.loads(json.dumps(request.to_dict())))
    assert again == request
    assert stored_request(FewshotRequest(), {"request": request.to_dict()}) == request
    with pytest.raises(InputError, match="cannot be read"):
        FewshotRequest.from_dict({})
    assert context.levels == {"a": 0.5, "b": 1.0}


def test_a_cell_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "tuned-0-shots-2.npz").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"tuned-0-shots-2\.npz: cannot be read"):
        read_cell(Cell(0, 2), tmp_path)
    assert read_cell(Cell(0, 3), tmp_path) is None


def test_a_cell_that_is_cut_off_anywhere_is_one_line(done, place, capsys):
    file = Path("tuned-0-shots-2.npz")
    whole = (done / "cells" / file).read_bytes()
    array = io.BytesIO()
    np.save(array, np.zeros(3))
    cuts = [whole[:end] for end in (0, 1, 4, 30, len(whole) // 2, len(whole) - 1)]
    for damaged in (*cuts, array.getvalue(), whole[:200] + b"?" * 200 + whole[400:]):
        file.write_bytes(damaged)
        with pytest.raises(InputError, match=r"tuned-0-shots-2\.npz: cannot be read"):
            read_cell(Cell(0, 2), Path())
    assert fewshot("model", "two.csv", "--out", "RUN", "--shots", "0") == 0
    Path("RUN/metrics.json").unlink()
    Path("RUN/cells/tuned-0-shots-0.npz").write_bytes(b"")
    capsys.readouterr()
    assert fewshot("--out", "RUN", "--resume", common=[]) == 2
    printed = capsys.readouterr().err
    assert "remove it and resume" in printed and printed.count("\n") == 1


@pytest.mark.parametrize("shots, tuned", [("0,2", "0,4"), ("2", "0,4"), ("1,2", "4"), ("1,2", "0")])
def test_the_work_that_is_expected_is_the_work_that_is_done(place, monkeypatch, shots, tuned):
    done, expected = [], []
    monkeypatch.setattr(FewshotLines, "begin", lambda self, work: expected.append(work))
    monkeypatch.setattr(FewshotLines, "_moved", lambda self, text, work: done.append((text, work)))
    words = ["model", "two.csv", "--out", "RUN", "--shots", shots, "--tuning-samples", tuned]
    words += ["--threads", "1", "--draws", "2", "--leaks", "none", "--calibrate", "none"]
    assert fewshot(*words, common=[]) == 0
    assert sum(work for _, work in done) == pytest.approx(expected[0])
    of = {text.split(", draw")[0]: work for text, work in done}
    for text, work in of.items():
        if text.endswith(NONE):
            assert work < of[text.replace(NONE, SHUFFLED)]


def test_odd_shots_have_a_caveat(place, capsys):
    assert fewshot("model", "two.csv", "--out", "RUN", "--shots", "0,1,2,3") == 0
    said = "less often than chance (50%): 0% at 1 shot, 33% at 3 shots;"
    assert said in " ".join(capsys.readouterr().out.split())
    assert any(said in text for text in figures("RUN")["caveats"])
    assert said in Path("RUN/report.html").read_text()
    assert fewshot("model", "two.csv", "--out", "EVEN", "--shots", "0,2") == 0
    assert figures("EVEN")["caveats"] == []


def test_a_long_training_row_is_no_query_where_nothing_is_calibrated(place, capsys):
    lines = rows()
    lines[0][1] = "A" + "C" * 256  # behind demonstrations it would be too long
    write(Path("long.csv"), lines)
    words = ["model", "long.csv", "--shots", "2", "--threads", "1", "--draws", "1", "--leaks",
             "none"]  # fmt: skip
    assert fewshot(*words, "--out", "RUN", common=[]) == 2
    assert "demonstrations, query and label have up to" in capsys.readouterr().err
    assert fewshot(*words, "--out", "RUN", "--calibrate", "none", common=[]) == 0


def test_a_cell_has_the_rows_to_choose_by_apart(done):
    cell = read_cell(Cell(0, 2), done / "cells")
    assert cell.asked[CHOICE].nats.shape == (2, 24, 2)
    assert cell.asked[NONE].nats.shape == (1, 24, 2)


# -- options ---------------------------------------------------------------------------------------


def test_more_classes_are_spelled_in_more_letters(place, capsys):
    lines = rows(classes=3)
    for i, line in enumerate(lines):
        line[2] = f"c{i % 6}"
    write(Path("six.csv"), lines)
    assert fewshot("model", "six.csv", "--out", "RUN", "--shots", "1", "--limit", "8") == 0
    found = figures("RUN")
    assert found["label_words"]["c5"] == "CA" and found["measured_rows"] == 8
    assert "measured on 8 of 24 rows" in capsys.readouterr().out
    words = ["--label-words", "x=G,y=T", "--tune-on", "all", "--tuning-samples", "3"]
    assert fewshot("model", "two.csv", "--out", "B", "--shots", "2", *words) == 0
    assert figures("B")["label_words"] == {"x": "G", "y": "T"}


def test_without_a_test_part_the_report_says_so(place, capsys):
    lines = [line for line in rows() if line[3] != "test"]
    write(Path("notest.csv"), lines)
    assert fewshot("model", "notest.csv", "--out", "RUN", "--shots", "1") == 0
    assert "there is no test part" in capsys.readouterr().out
    assert "there is no test part" in Path("RUN/report.html").read_text()


BAD = {
    "no shots": ([], "--shots: give"),
    "negative": (["--shots=-1"], "--shots is '-1'"),
    "no numbers": (["--shots", "two"], "--shots is 'two'"),
    "negative samples": (["--shots", "1", "--tuning-samples=-4"], "--tuning-samples is '-4'"),
    "many shots": (["--shots", "37"], "36 rows of class 'x'; give at most 36"),
    "many shots to tune": (["--shots", "36", "--tuning-samples", "2"], "beside the query"),
    "many samples": (["--shots", "1", "--tuning-samples", "99"], "has 72 rows"),
    "no calibration": (["--shots", "36"], "--calibrate none"),
    "too long": (["--shots", "20"], "give --shots 1"),
    "unfit words": (["--shots", "1", "--label-words", "x=A,y=A"], "stands for two classes"),
    "missing word": (["--shots", "1", "--label-words", "x=A"], "no word for the class 'y'"),
    "no such rival": (["--shots", "1", "--compare", "alchemy"], "no 'alchemy'"),
    "level": (["--shots", "1", "--level", "high"], "--level high"),
    "draws": (["--shots", "1", "--limit", "0"], "--limit is 0"),
    "rate": (["--shots", "1", "--lr", "0"], "--lr is 0"),
    "lr of no tuning": (["--shots", "1", "--lr", "0.1"], "--lr is 0.1, which does nothing"),
    "batch of no tuning": (["--shots", "1", "--batch-size", "4"], "--tuning-samples 64"),
    "tune-on of no tuning": (["--shots", "1", "--tune-on", "all"], "--tune-on is all"),
    "epochs of no tuning": (["--shots", "1", "--epochs", "3"], "--epochs is 3"),
    "no calibration rows": (["--shots", "1", "--calibrate", "none"], "--calibration-rows is 8"),
    "epochs of no rival": (["--shots", "1", "--compare-epochs", "3"], "such as --compare full"),
    "epochs of k-mers": (["--shots", "1", "--compare-epochs", "3", "--compare", "kmer"],
                         "--compare-epochs is 3"),
    "kind": (["--shots", "1", "--task", "values", "--label", "id"], "id"),
}  # fmt: skip


@pytest.mark.parametrize("words, said", BAD.values(), ids=BAD)
def test_bad_input_is_one_line(place, capsys, words, said):
    assert fewshot("model", "two.csv", "--out", "RUN", *words) == 2
    printed = capsys.readouterr().err
    assert said in printed and printed.count("\n") == 1
    assert not Path("RUN").exists()


def test_other_bad_input(place, capsys):
    lines = [[i, s, str(len(s) + 0.5), part] for i, s, _, part in rows()]
    write(Path("numbers.csv"), lines)
    lines = [line for line in rows() if (line[3], line[2]) != ("train", "y")]
    write(Path("lacking.csv"), lines)
    Path("FULL").mkdir()
    Path("FULL/file").touch()
    for table, out, said in (
        ("numbers.csv", "RUN", "the labels are values"),
        ("lacking.csv", "RUN", "'y'"),
        ("two.csv", "FULL", "exists and is not empty"),
    ):
        assert fewshot("model", table, "--out", out, "--shots", "1") == 2
        printed = capsys.readouterr().err
        assert said in printed and printed.count("\n") == 1
    assert run(["fewshot", "--out", "RUN", "--shots", "1"]) == 2
    assert "no model given" in capsys.readouterr().err


def test_lists():
    assert number_list("--shots", "8, 0,2,2") == (0, 2, 8)
    assert name_list("--compare", "kmer,full,kmer", COMPARED) == ("kmer", "full")
    assert name_list("--compare", "", COMPARED) == ()
    assert InstructConfig() == InstructConfig(
        lr=1e-4, weight_decay=0, batch_size=2, epochs=1, clip=1
    )
