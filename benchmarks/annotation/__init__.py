"""A class for each base from annotated genomes: models beside a gene finder of the old school."""
