"""Contigs that a file and a genome call by other names: `chr1` and `1`, `chrM` and `MT`."""

from __future__ import annotations

from collections.abc import Collection, Mapping


def contig_aliases(name: str) -> list[str]:
    """Other names by which genomes know a contig: with and without `chr`, and M for MT."""
    bare = name.removeprefix("chr")
    bares = [bare]
    if bare in ("M", "MT"):
        bares = ["M", "MT"]
    names = [form for each in bares for form in (each, f"chr{each}")]
    return [form for form in names if form != name]


def known_name(name: str, contigs: Collection[str], renamed: dict[str, str]) -> str:
    """The name by which a genome has a contig; the name itself where it has none.

    renamed: collects the names that were taken for others.
    """
    if name in contigs:
        return name
    known = next((alias for alias in contig_aliases(name) if alias in contigs), None)
    return name if known is None else renamed.setdefault(name, known)


def renamed_text(renamed: Mapping[str, str]) -> str:
    """A note that names were taken for others, of at most three: `chr1 is 1`."""
    shown = ", ".join(f"{name} is {known}" for name, known in list(renamed.items())[:3])
    more = f", … ({len(renamed)} in all)" if len(renamed) > 3 else ""
    return f"contigs by the genome's names: {shown}{more}"


class ContigNames:
    """Names of contigs in a file of variants, looked up in a genome."""

    def __init__(self, contigs: Mapping[str, int]) -> None:
        self.contigs = contigs
        self._found: dict[str, str | None] = {}

    def __getitem__(self, name: str) -> str | None:
        """The genome's name; None where it has none."""
        if name not in self._found:
            forms = [name, *contig_aliases(name)]
            self._found[name] = next((form for form in forms if form in self.contigs), None)
        return self._found[name]

    @property
    def renamed(self) -> dict[str, str]:
        """Names met so far that the genome spells otherwise."""
        return {k: v for k, v in self._found.items() if v is not None and v != k}

    @property
    def unknown(self) -> list[str]:
        """Names met so far that the genome has not."""
        return [name for name, found in self._found.items() if found is None]


def matched_names(contigs: Collection[str], genome: Collection[str]) -> dict[str, str]:
    """Name in the genome of each of these contigs that the genome has.

    contigs: all that a file names. The same name; where there is none, another form of it, unless
    the file names that too. Contigs that the genome has not are left out.
    """
    names: dict[str, str] = {}
    for contig in contigs:
        others = (alias for alias in contig_aliases(contig) if alias not in contigs)
        found = next((name for name in (contig, *others) if name in genome), None)
        if found is not None:
            names[contig] = found
    return names
