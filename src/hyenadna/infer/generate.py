"""New bases after prompts, drawn from the model one at a time, the past never computed again."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hyenadna.alphabet import BASES, TOKENS, VOCAB_SIZE, Ids, N, decode, encode
from hyenadna.data.batches import BATCH_TOKENS
from hyenadna.errors import InputError
from hyenadna.infer.design import Design, DesignPlan
from hyenadna.infer.sampling import Chooser, Floats, Sampling, Uniforms, is_whole
from hyenadna.model.backbone import HyenaDNA
from hyenadna.model.decoding import Decoder, DecodingState

Progress = Callable[[int, int], None]
"""Told (new bases done, new bases in all) now and then."""
Row = tuple[int, int]
"""Number of the prompt and number of the sample, both from 0."""

MOST_ROWS: Final = 64
"""Sequences decoded together where nothing else is said."""
STATE_BYTES: Final = 2 << 30
"""Most that their state may take where nothing else is said."""
_TALLIED_AT_ONCE: Final = 256
_TOLD_EVERY: Final = 0.1  # seconds


@dataclass(frozen=True, eq=False)
class Generated:
    """One sequence of new bases."""

    prompt: int
    """Number of its prompt, from 0."""
    sample: int
    """Number among the sequences of that prompt, from 0."""
    tokens: Ids
    """Token ids of the new bases, uint8 (L,)."""
    log_likelihood: float
    """Sum of ln p(base | all before it) over the new bases, in nats, as `target_nats` counts it:
    all V classes compete; temperature, top-k, top-p and design play no part."""

    @property
    def sequence(self) -> str:
        """The new bases as letters."""
        return decode(self.tokens)

    @property
    def bits_per_base(self) -> float:
        """Mean bits that the model needs for one of the new bases; 2 is a fair four-sided die."""
        return -self.log_likelihood / math.log(2) / len(self.tokens)


@dataclass(frozen=True)
class NewBase:
    """One new base."""

    token: int
    """Its token id."""
    log_likelihood: float
    """ln p(base | all before it) in nats, counted as in `Generated`."""

    @property
    def letter(self) -> str:
        """The base as a letter."""
        return TOKENS[self.token]


@dataclass(frozen=True)
class Batch:
    """Samples of prompts that are decoded together: all of `samples` for each of `prompts`."""

    prompts: range
    samples: range

    @property
    def rows(self) -> list[Row]:
        """(prompt, sample) in order."""
        return [(prompt, sample) for prompt in self.prompts for sample in self.samples]


@dataclass(frozen=True, eq=False)
class GenerationPlan:
    """Checked inputs of a generation, and how it is cut into batches; made by `plan_generation`."""

    decoder: Decoder
    prompts: tuple[Ids, ...]
    length: int
    """New bases of each sequence."""
    count: int
    """Sequences of each prompt."""
    batch_size: int
    """Most sequences that are decoded together."""
    sampling: Sampling
    letters: tuple[int, ...]
    """Token ids that may be generated."""
    design: DesignPlan | None
    soft_prompt: Tensor | None = None
    """Vectors (P, D) in front of every prompt, P at least 1."""

    @property
    def soft_tokens(self) -> int:
        """Vectors in front of every prompt, P."""
        return 0 if self.soft_prompt is None else len(self.soft_prompt)

    @property
    def sequences(self) -> int:
        """Number of sequences in all."""
        return len(self.prompts) * self.count

    @property
    def bases(self) -> int:
        """Number of new bases in all."""
        return self.sequences * self.length

    @property
    def room(self) -> int:
        """Tokens that the decoder reads after a prompt: the last base is not read any more."""
        return self.length - 1

    @property
    def state_bytes(self) -> int:
        """Bytes of the decoder's states, at the most.

        Those of a batch, of the prompt it branches from, and of the soft prompt before them all.
        """
        rows = min(self.batch_size, self.sequences)
        branches = rows + (1 if self.count > rows else 0)
        longest = max(len(prompt) for prompt in self.prompts)
        before = self.soft_tokens
        held = self.decoder.bytes_for(branches, self.room, before + longest)
        if before and len(self.prompts) > 1:
            held += self.decoder.bytes_for(1, longest + self.room, before)
        return held

    def batches(self) -> Iterator[Batch]:
        """The batches in order: parts of one prompt's samples, or all samples of some prompts.

        So no prompt is in two batches that do not follow each other, and each is read once. Prompts
        that are read together have at most `BATCH_TOKENS` tokens with the padding.
        """
        if self.count >= self.batch_size:
            for prompt in range(len(self.prompts)):
                for first in range(0, self.count, self.batch_size):
                    last = min(first + self.batch_size, self.count)
                    yield Batch(range(prompt, prompt + 1), range(first, last))
            return
        first, longest = 0, 0
        for prompt, tokens in enumerate(self.prompts):
            many = prompt - first + 1
            longest = max(longest, len(tokens))
            full = many * self.count > self.batch_size or many * longest > BATCH_TOKENS
            if full and many > 1:
                yield Batch(range(first, prompt), range(self.count))
                first, longest = prompt, len(tokens)
        yield Batch(range(first, len(self.prompts)), range(self.count))

    def run(self, *, skip: int = 0, progress: Progress | None = None) -> Iterator[Generated]:
        """The sequences in order, each as soon as its batch is done.

        skip: leave out so many first sequences, which are there already; the others are the same as
        without it. Raises InputError where the model's predictions are no numbers.
        """
        tell = _Teller(progress, self.bases)
        read_prompts = self._reader()
        state: DecodingState | None = None
        read = range(0)
        done = 0
        for batch in self.batches():
            rows = batch.rows
            done += len(rows)
            left_out = max(0, len(rows) - (done - skip))
            if done <= skip:
                continue
            if state is None or batch.prompts != read:
                state = None  # let it go before there is another
                read = batch.prompts
                state = read_prompts(read)
            again = batch.samples.stop < self.count
            branches = state
            if again or len(batch.samples) > 1 or batch.samples.start > 0:
                branches = state.select([i - read.start for i, _ in rows])
            if not again:
                state = None
            before = (done - len(rows)) * self.length
            yield from self._batch(branches, rows, tell, before)[left_out:]
        tell.last()

    def first_state(self) -> DecodingState:
        """The state after the first prompt."""
        return self._reader()(range(1))

    def _reader(self) -> Callable[[range], DecodingState]:
        """What gives the state after some of the prompts: the soft prompt is read once for all."""
        decoder, soft, room = self.decoder, self.soft_prompt, self.room
        if soft is None:
            return lambda read: decoder.prefill([self.prompts[i] for i in read], room=room)
        if len(self.prompts) == 1:
            return lambda _: decoder.prefill([_in_front(decoder, soft, self.prompts[0])], room=room)
        most = room + max(len(prompt) for prompt in self.prompts)
        read_once = cache(lambda: decoder.prefill([soft], room=most))
        return lambda read: decoder.prefill(
            [self.prompts[i] for i in read], room=room, behind=read_once()
        )

    def _batch(
        self, state: DecodingState, rows: Sequence[Row], tell: _Teller, before: int
    ) -> list[Generated]:
        """The sequences of one batch; before: new bases that there are already."""
        ids = np.empty((self.length, len(rows)), dtype=np.uint8)
        tally = _Tally(len(rows))
        tell(before)
        for t, (tokens, logits) in enumerate(self.steps(state, rows)):
            ids[t] = tokens
            tally.add(logits, tokens)
            tell(before + (t + 1) * len(rows))
        return [
            Generated(prompt, sample, own.copy(), float(total))
            for (prompt, sample), own, total in zip(rows, ids.T, tally.total(), strict=True)
        ]

    def steps(
        self, state: DecodingState, rows: Sequence[Row]
    ) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.floating]]]:
        """For each new base, the tokens (B,) chosen and the logits (B, V) they were chosen from.

        state: a state that has read the prompts of `rows`; it moves on with them. The logits hold
        until the next step.
        """
        chooser, uniforms = Chooser(self.sampling, self.letters), Uniforms(self.sampling.seed, rows)
        letters = np.array(self.letters, dtype=np.int64)
        walk = self.design.start([self.prompts[i] for i, _ in rows]) if self.design else None
        logits = state.logits.detach().cpu().numpy()
        for left in reversed(range(self.length)):
            allowed = None if walk is None else walk.allowed()
            choice = chooser.choose(logits, uniforms.draw(), allowed)
            tokens = letters[choice]
            yield tokens, logits
            if not left:
                return
            if walk is not None:
                walk.take(choice)
            after = self.decoder.step(state, torch.from_numpy(tokens))
            logits = after.detach().cpu().numpy()


def plan_generation(
    model: HyenaDNA | Decoder,
    prompts: Iterable[str | npt.ArrayLike],
    length: int,
    *,
    count: int = 1,
    sampling: Sampling | None = None,
    design: Design | None = None,
    with_n: bool = False,
    batch_size: int | None = None,
    state_bytes: int = STATE_BYTES,
    names: Sequence[str] | None = None,
    soft_prompt: Tensor | None = None,
) -> GenerationPlan:
    """What `generate` will do, all inputs checked; arguments and errors as there.

    state_bytes: most that the state of a batch may take where `batch_size` is left out. names: of
    the prompts, for error messages.
    """
    if isinstance(prompts, str):
        raise InputError("generate: prompts are one text; give a list of prompts")
    numbers = {"length": length, "count": count}
    if batch_size is not None:
        numbers["batch_size"] = batch_size
    for field, value in numbers.items():
        if not (is_whole(value) and value >= 1):
            raise InputError(
                f"generate: {field} is {value!r}; it must be a whole number, at least 1"
            )
    sampling = sampling or Sampling()
    if sampling.greedy and count > 1:
        raise InputError(
            f"generate: {count} sequences of each prompt, but temperature 0 or top_k 1 makes them "
            "all the same; give count 1"
        )
    prompts = list(prompts)
    if not prompts:
        raise InputError("generate: there is no prompt; give one or more, of at least one base")
    called = names or [f"prompt {i + 1}" for i in range(len(prompts))]
    ids = tuple(_ids(prompt, name) for prompt, name in zip(prompts, called, strict=True))
    soft = None if soft_prompt is None else _vectors(soft_prompt, model)
    before = 0 if soft is None else len(soft)
    longest = model.config.max_seq_len
    for prompt, name in zip(ids, called, strict=True):
        _require_room(len(prompt), length, longest, name, before)
    letters = (*BASES, N) if with_n else BASES
    plan = None
    if design is not None and design != Design():
        plan = design.plan(length, letters)
        plan.start(ids, called)  # a prompt may make the design impossible: say so now
    decoder = Decoder(model) if isinstance(model, HyenaDNA) else model
    rows = batch_size
    if rows is None:
        rows = min(MOST_ROWS, len(ids) * count)
        most = before + max(len(prompt) for prompt in ids)
        while rows > 1 and decoder.bytes_for(rows, length - 1, most) > state_bytes:
            rows //= 2
    return GenerationPlan(decoder, ids, length, count, rows, sampling, letters, plan, soft)


def generate(
    model: HyenaDNA | Decoder,
    prompts: Iterable[str | npt.ArrayLike],
    length: int,
    *,
    count: int = 1,
    sampling: Sampling | None = None,
    design: Design | None = None,
    with_n: bool = False,
    batch_size: int | None = None,
    soft_prompt: Tensor | None = None,
    progress: Progress | None = None,
) -> Iterator[Generated]:
    """Sequences of new bases: prompt 0 sample 0, 1, …, prompt 1 sample 0, …; as batches are done.

    model: or a decoder of it, which is worth keeping for several calls. prompts: texts or arrays of
    token ids, each at least one base; each is read once, however many samples follow. length: new
    bases of each sequence; prompt and new bases but the last must fit what the model reads. count:
    sequences of each prompt. sampling: `Sampling()` when left out. design: what the new bases must
    be like. with_n: whether N may be generated beside A, C, G and T. batch_size: sequences decoded
    together; when left out up to `MOST_ROWS`, as memory allows. soft_prompt: learned vectors (P, D)
    in front of each prompt, read once for all; of a file: `load_prompt(path, model).prompt`. They
    count as tokens that the model reads, and never among the bases. progress: told now and then.

    A sequence depends on the seed, its prompt and its number, not on the others (beyond rounding).

    Raises InputError, before anything is computed, for a count or length below 1, an empty prompt,
    one that is no DNA or too long, a soft prompt of another shape, and a design that cannot be met.
    """
    plan = plan_generation(
        model,
        prompts,
        length,
        count=count,
        sampling=sampling,
        design=design,
        with_n=with_n,
        batch_size=batch_size,
        soft_prompt=soft_prompt,
    )
    return plan.run(progress=progress)


def stream(
    model: HyenaDNA | Decoder,
    prompt: str | npt.ArrayLike,
    length: int,
    *,
    sampling: Sampling | None = None,
    design: Design | None = None,
    with_n: bool = False,
    soft_prompt: Tensor | None = None,
) -> Iterator[NewBase]:
    """New bases one by one, for those who watch or stop: the first sequence that `generate` gives.

    Arguments and errors as for `generate`.
    """
    plan = plan_generation(
        model,
        [prompt],
        length,
        sampling=sampling,
        design=design,
        with_n=with_n,
        batch_size=1,
        soft_prompt=soft_prompt,
    )
    return _stream(plan)


def _stream(plan: GenerationPlan) -> Iterator[NewBase]:
    for tokens, logits in plan.steps(plan.first_state(), [(0, 0)]):
        own = log_probabilities(logits[None], tokens[None])
        yield NewBase(int(tokens[0]), float(own[0, 0]))


def log_probabilities(logits: npt.NDArray[np.floating], tokens: npt.NDArray[np.integer]) -> Floats:
    """ln of the softmax over all V classes at each token: (T, B) for logits (T, B, V), float64."""
    scores = logits.astype(np.float64)
    scores -= scores.max(axis=-1, keepdims=True)
    chosen = np.take_along_axis(scores, tokens[..., None], axis=-1)[..., 0]
    found: Floats = chosen - np.log(np.exp(scores).sum(axis=-1))
    return found


class _Tally:
    """Log-likelihoods of B rows, summed some hundred bases at a time: cheaper than one by one."""

    def __init__(self, rows: int) -> None:
        self._total = np.zeros(rows)
        self._tokens = np.zeros((_TALLIED_AT_ONCE, rows), dtype=np.int64)
        self._logits: npt.NDArray[np.floating] | None = None
        self._held = 0

    def add(self, logits: npt.NDArray[np.floating], tokens: npt.NDArray[np.int64]) -> None:
        """Count tokens (B,) that were chosen from logits (B, V)."""
        if self._logits is None:
            self._logits = np.empty((_TALLIED_AT_ONCE, *logits.shape), dtype=logits.dtype)
        self._logits[self._held] = logits
        self._tokens[self._held] = tokens
        self._held += 1
        if self._held == _TALLIED_AT_ONCE:
            self._flush()

    def total(self) -> Floats:
        """Sums so far, (B,), in nats."""
        self._flush()
        return self._total

    def _flush(self) -> None:
        if self._logits is not None and self._held:
            held = log_probabilities(self._logits[: self._held], self._tokens[: self._held])
            # one row after the other, so that the order of the sum is the same in every batch
            self._total += np.ascontiguousarray(held.T).sum(axis=1)
        self._held = 0


class _Teller:
    """Passes progress on, ten times a second at the most."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self._progress, self._total, self._due = progress, total, 0.0

    def __call__(self, done: int) -> None:
        if self._progress is None or time.monotonic() < self._due:
            return
        self._progress(done, self._total)
        self._due = time.monotonic() + _TOLD_EVERY

    def last(self) -> None:
        """All is done."""
        if self._progress is not None:
            self._progress(self._total, self._total)


def _ids(prompt: str | npt.ArrayLike, name: str) -> Ids:
    """Token ids of a prompt, checked."""
    ids = encode(prompt, name=name) if isinstance(prompt, str) else np.asarray(prompt)
    if ids.size == 0:
        raise InputError(f"{name}: has no base; give at least one, the model starts from it")
    if ids.ndim != 1 or ids.dtype.kind not in "iu":
        raise InputError(
            f"{name}: is {ids.dtype} of shape {ids.shape}; give text or integer ids of shape (L,)"
        )
    if ids.min() < 0 or ids.max() >= VOCAB_SIZE:
        wrong = ids[(ids < 0) | (ids >= VOCAB_SIZE)][0]
        raise InputError(f"{name}: token id {wrong} is outside 0..{VOCAB_SIZE - 1}")
    return ids.astype(np.uint8)


def _vectors(soft_prompt: Tensor, model: HyenaDNA | Decoder) -> Tensor | None:
    """A soft prompt, checked, in the type of the model; None where it has no vectors."""
    table: Tensor = model.backbone.embeddings.word_embeddings.weight
    fits = soft_prompt.ndim == 2 and soft_prompt.shape[1] == table.shape[1]
    if not fits or not soft_prompt.is_floating_point():
        raise InputError(
            f"generate: soft_prompt is {soft_prompt.dtype} of shape {tuple(soft_prompt.shape)}; "
            f"give vectors of shape (P, {table.shape[1]}), those of a prompt for this model"
        )
    return soft_prompt.detach().to(table) if len(soft_prompt) else None


@torch.no_grad()
def _in_front(decoder: Decoder, soft: Tensor, prompt: Ids) -> Tensor:
    """A soft prompt and the embedded tokens of a prompt, (P + L, D)."""
    ids = torch.from_numpy(prompt).long().to(soft.device)
    return torch.cat([soft, decoder.backbone.embeddings(ids)])


def _require_room(prompt: int, length: int, longest: int, name: str, before: int) -> None:
    """Raise InputError where what is to be read is more than the model reads.

    before: vectors in front of the prompt.
    """
    fit = longest - before - prompt + 1  # the last base is not read
    if length <= fit:
        return
    way_out = f"{fit:,} new bases would fit" if fit > 0 else "give a shorter prompt"
    behind = f" behind {before:,} soft tokens" if before else ""
    raise InputError(
        f"{name}: {prompt:,} bases and {length:,} new ones{behind} are more than this model reads "
        f"(max_seq_len {longest:,}); {way_out}"
    )
