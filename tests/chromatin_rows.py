"""Rows of the published chromatin matrices, small: sequences on both strands, one-hot, targets."""

from __future__ import annotations

import numpy as np

from hyenadna.alphabet import reverse_complement


def one_hot(texts):
    out = np.zeros((len(texts), 4, len(texts[0])), dtype=np.uint8)
    for i, text in enumerate(texts):
        for j, letter in enumerate(text):
            if letter != "N":
                out[i, "AGCT".index(letter), j] = 1
    return out


def matrix_rows():
    rng = np.random.default_rng(8)
    texts = ["".join(rng.choice(list("ACGT"), 30)) for _ in range(3)] + ["ACGTN" * 6]
    both = texts + [reverse_complement(text) for text in texts]
    targets = rng.integers(0, 2, (8, 5)).astype(np.uint8)
    return texts, both, targets
