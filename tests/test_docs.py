"""The documents run: Python blocks are executed, commands exist, the CLI page is current."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import cyclopts
import numpy as np
import pytest

from hyenadna.alphabet import decode
from hyenadna.cli.app import app, run

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), flags=re.DOTALL)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory) -> Path:
    """A folder with a genome and a short run, by the names that the documents use."""
    folder = tmp_path_factory.mktemp("docs")
    rng = np.random.default_rng(0)
    records = [f">{name}\n{decode(rng.integers(7, 11, 6000))}\n" for name in ("chr1", "chr2")]
    (folder / "genome.fa").write_text("".join(records))
    words = "--d-model 16 --n-layer 1 --max-seq-len 66 --steps 3 --tokens-per-step 256 --threads 1"
    out = ["--out", str(folder / "RUN")]
    assert run(["pretrain", str(folder / "genome.fa"), *out, *words.split()]) == 0
    return folder


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_blocks_run(page, workplace, monkeypatch):
    monkeypatch.chdir(workplace)
    names: dict[str, object] = {}
    for block in blocks(page, "python"):
        exec(compile(block, str(page), "exec"), names)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_can_be_parsed(page):
    for block in blocks(page, "console") + blocks(page, "sh") + blocks(page, "bash"):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line.removeprefix("$ "), comments=True)
            if words[:1] == ["torchrun"]:
                words = words[words.index("-m") + 1 :]
            if words[:1] != ["hyenadna"] or len(words) < 3 or "COMMAND" in words:
                continue
            if page.name == "cli.md":  # usage lines, not commands
                continue
            app.parse_args(words[1:], exit_on_error=False, print_error=False)


def words_of(script: str, **environment: str) -> list[str]:
    """What a script hands to `hyenadna`."""
    echo = "hyenadna() { printf '%s\\n' \"$@\"; }\n"
    done = subprocess.run(
        ["sh", "-c", echo + script], env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout.splitlines()


def test_recipes_for_clusters_name_their_shards():
    yaml = pytest.importorskip("yaml")
    page = ROOT / "docs" / "fleet.md"
    (script,), (job,) = blocks(page, "slurm"), blocks(page, "yaml")
    array = {
        "SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_COUNT": "64", "SLURM_CPUS_PER_TASK": "4",
    }  # fmt: skip
    spec = yaml.safe_load(job)["spec"]
    (pod,) = spec["template"]["spec"]["containers"]
    assert pod["command"] == ["/bin/sh", "-c"] and spec["completions"] == 64
    scripts = [(script, array), (pod["args"][0], {"JOB_COMPLETION_INDEX": "2"})]
    for text, environment in scripts:
        words = words_of(text, **environment)
        assert words[words.index("--shard") + 1] == "3/64" and "--resume" in words
        app.parse_args(words, exit_on_error=False, print_error=False)


def links(page: Path) -> list[tuple[Path, str]]:
    """Files that a page links to, and the headings in them (or nothing)."""
    targets = re.findall(r"\]\(([^)\s]+)\)", page.read_text())
    parts = [target.partition("#") for target in targets if "://" not in target]
    return [(page if not file else (page.parent / file).resolve(), at) for file, _, at in parts]


def headings(page: Path) -> set[str]:
    """The anchors of a page, as GitHub makes them."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    titles = re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target, heading in links(page):
        assert target.exists(), target
        assert not heading or heading in headings(target), f"{target.name}#{heading}"


def test_every_page_can_be_reached_from_the_readme():
    found, new = set(), {ROOT / "README.md"}
    while new:
        found |= new
        new = {target for page in new for target, _ in links(page) if target in PAGES} - found
    assert not [page for page in PAGES if page not in found]


@pytest.mark.parametrize("folder", ["benchmarks", "decisions"])
def test_an_index_lists_every_page_of_its_folder(folder):
    index = ROOT / "docs" / folder / "README.md"
    listed = {target for target, _ in links(index)} | {index}
    assert not set(index.parent.glob("*.md")) - listed


def test_commands_of_benchmarks_exist():
    text = (ROOT / "docs" / "benchmarks" / "README.md").read_text()
    modules = re.findall(r"python -m benchmarks\.(\w+)`", text)
    assert len(modules) > 10
    for name in modules:
        place = ROOT / "benchmarks" / name
        assert place.is_dir() or place.with_suffix(".py").exists(), name
    for file in re.findall(r"`python (benchmarks/\w+\.py)", text):
        assert (ROOT / file).exists(), file


def test_files_and_tests_that_are_named_exist():
    text = (ROOT / "docs" / "changing.md").read_text()
    named = re.findall(r"`(tests/\S+?\.py)::(\w+)`", text)
    assert len(named) > 12
    for file, test in named:
        assert f"def {test}(" in (ROOT / file).read_text(), f"{file}::{test}"
    for file in re.findall(r"`([a-z]+/[a-z_/]+\.py)", text):
        assert (ROOT / file).exists() or (ROOT / "src" / "hyenadna" / file).exists(), file


def test_the_command_page_is_current():
    if cyclopts.__version__ not in (ROOT / "constraints.txt").read_text():
        pytest.skip(f"docs/cli.md is made with the pinned cyclopts, not {cyclopts.__version__}")
    fresh = app.generate_docs(output_format="markdown")
    page = ROOT / "docs" / "cli.md"
    assert page.read_text() == fresh, "make docs"


def test_every_dependency_is_justified():
    text = (ROOT / "pyproject.toml").read_text()
    listed = re.findall(r'^\s+"([a-zA-Z_-]+)[><=]', text, flags=re.MULTILINE)
    optional = re.findall(r'= \["([a-zA-Z_-]+)[><=]', text)
    page = (ROOT / "docs" / "dependencies.md").read_text()
    for name in {*listed, *optional} - {"hatchling"}:
        assert f"`{name}`" in page, name
