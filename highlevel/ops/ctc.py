"""Connectionist temporal classification (A. Graves et al., ICML 2006): labels of sequences without alignment."""

from __future__ import annotations

from typing import Any

import numpy as np

from highlevel.errors import ArgumentError, ShapeError
from highlevel.ir import Tensor, control, operators, primitives
from highlevel.ir.dtypes import float32, int32, promote
from highlevel.ir.operators import cast

from .activation import log_softmax
from .arguments import floating
from .elementwise import logaddexp
from .indexing import pick_per_row
from .registry import op

LOG_ZERO = -1e5  # the logarithm of what cannot be: finite, so that every slope is


@op
def ctc_loss(target: Any, output: Any, target_length: Any, output_length: Any, mask_index: int = 0) -> Any:
    """−log of the probability of the labels, summed over all alignments.

    target:        labels (batch, labels), of which the first `target_length` (batch,) count
    output:        logits (batch, time, classes), of which the first `output_length` (batch,) count
    mask_index:    the class that stands for "no label"
    """
    labels, logits = cast(target, int32), floating(output)
    if logits.ndim != 3 or labels.ndim != 2 or labels.shape[0] != logits.shape[0]:
        raise ShapeError(
            "ctc_loss: the ranks do not fit", got=f"target {labels.spec}, output {logits.spec}",
            expected="(batch, labels) and (batch, time, classes)",
        )  # fmt: skip
    log_p = log_softmax(cast(logits, promote(logits.dtype, float32)))
    batch, time, classes = log_p.shape
    count = labels.shape[1]
    lengths, times = cast(target_length, int32), cast(output_length, int32)
    states = _with_blanks(labels, mask_index)
    width = 2 * count + 1
    index = operators.broadcast_to(operators.reshape(states, batch, 1, width), (batch, time, width))
    rows = operators.reshape(log_p, batch * time, classes)
    scores = operators.reshape(pick_per_row(rows, operators.reshape(index, batch * time, width)), batch, time, width)
    skips = _may_skip(states, mask_index)
    start = np.full((width,), LOG_ZERO, np.float32)
    start[0] = 0.0
    before = operators.broadcast_to(cast(Tensor.of(start), log_p.dtype), (batch, width))
    never = operators.full((batch, width), LOG_ZERO, log_p.dtype)

    def step(carry: Any, now: Any) -> Any:
        t, score = now
        stay, one = carry, _shifted(carry, 1)
        two = primitives.select(skips, _shifted(carry, 2), never)
        # The first step enters at the first blank or the first label, and may not go on from there.
        total = logaddexp(logaddexp(stay, one), two) + score
        alive = operators.less(t, operators.reshape(times, batch, 1))
        return primitives.select(operators.broadcast_to(alive, total.shape), total, carry), None

    steps = primitives.iota(shape=(time,), axis=0, dtype=int32)
    last, _ = control.scan(step, before, (steps, operators.transpose(scores, (1, 0, 2))))
    ends = operators.reshape(operators.multiply(lengths, 2), batch, 1)
    final_blank = pick_per_row(last, ends)
    label_end = primitives.maximum(ends - 1, operators.zeros_like(ends))
    final_label = primitives.select(operators.less(0, ends), pick_per_row(last, label_end), never[:, :1])
    return -operators.reshape(logaddexp(final_blank, final_label), batch)


def _with_blanks(labels: Any, blank: int) -> Any:
    """blank, label, blank, …, label, blank."""
    low = (0, 1)
    return primitives.pad(labels, low=low, high=low, interior=(0, 1), value=blank)


def _may_skip(states: Any, blank: int) -> Any:
    """Whether a state may follow the second-last one: a label that differs from the label before it."""
    earlier = primitives.pad(states[:, :-2], low=(0, 2), high=(0, 0), interior=(0, 0), value=blank)
    return primitives.bit_and(operators.not_equal(states, blank), primitives.not_equal(states, earlier))


def _shifted(alpha: Any, distance: int) -> Any:
    return primitives.pad(
        alpha[:, :-distance], low=(0, distance), high=(0, 0), interior=(0, 0), value=LOG_ZERO
    ) if alpha.shape[1] > distance else operators.full(alpha.shape, LOG_ZERO, alpha.dtype)  # fmt: skip


# Decoding --------------------------------------------------------------------------------------------------------
@op
def ctc_decode(
    inputs: Any,
    sequence_lengths: Any,
    strategy: str = "greedy",
    beam_width: int = 100,
    top_paths: int = 1,
    merge_repeated: bool = True,
    mask_index: int = 0,
) -> tuple[Any, Any]:
    """The most probable labels: `(paths, scores)`, paths (top_paths, batch, time) filled up with −1.

    strategy: "greedy" takes the best class at each time; its scores (batch, 1) are minus the sum of their logits.
              "beam_search" follows `beam_width` label sequences, of numbers only; its scores (batch, top_paths) are
              log probabilities
    """
    logits = floating(inputs)
    if logits.ndim != 3:
        raise ShapeError("ctc_decode: wrong rank", got=logits.spec, expected="(batch, time, classes)")
    lengths = cast(sequence_lengths, int32)
    if strategy == "greedy":
        return _greedy(cast(logits, promote(logits.dtype, float32)), lengths, merge_repeated, mask_index)
    if strategy == "beam_search":
        return _beam_search(logits, lengths, beam_width, top_paths, mask_index)
    raise ArgumentError("ctc_decode: unknown strategy", got=repr(strategy), expected="'greedy' or 'beam_search'")


def _greedy(logits: Any, lengths: Any, merge_repeated: bool, blank: int) -> tuple[Any, Any]:
    batch, time, _ = logits.shape
    best = primitives.argmax(logits, axis=2, dtype=int32)
    score = primitives.reduce_max(logits, axes=(2,))
    t = primitives.iota(shape=(batch, time), axis=1, dtype=int32)
    inside = operators.less(t, operators.reshape(lengths, batch, 1))
    best = primitives.select(inside, best, operators.full(best.shape, blank, int32))
    if merge_repeated:
        earlier = primitives.pad(best[:, :-1], low=(0, 1), high=(0, 0), interior=(0, 0), value=-1)
        best = primitives.select(primitives.equal(best, earlier), operators.full(best.shape, blank, int32), best)
    is_label = operators.not_equal(best, blank)
    labels = primitives.select(is_label, best, operators.full(best.shape, -1, int32))
    place = primitives.select(is_label, t, operators.full(t.shape, time, int32))
    order = cast(primitives.argsort(place, axis=1, descending=False), int32)
    paths = operators.reshape(pick_per_row(labels, order), 1, batch, time)
    total = primitives.reduce_sum(primitives.select(inside, score, operators.zeros_like(score)), axes=(1,))
    return paths, -operators.reshape(total, batch, 1)


def _beam_search(logits: Any, lengths: Any, beam_width: int, top_paths: int, blank: int) -> tuple[Any, Any]:
    log_p = log_softmax(logits).numpy().astype(np.float64)
    batch, time, _ = log_p.shape
    paths = np.full((top_paths, batch, time), -1, np.int32)
    scores = np.full((batch, top_paths), -np.inf, np.float32)
    for row, length in enumerate(lengths.numpy()):
        for rank, (labels, score) in enumerate(_best_prefixes(log_p[row, :length], beam_width, blank)[:top_paths]):
            paths[rank, row, : len(labels)] = labels
            scores[row, rank] = score
    return Tensor.of(paths), Tensor.of(scores)


def _best_prefixes(log_p: np.ndarray[Any, Any], width: int, blank: int) -> list[tuple[tuple[int, ...], float]]:
    """Prefix beam search (A. Hannun et al., 2014): a prefix carries log probabilities of ending in a blank, and not."""
    beams: dict[tuple[int, ...], tuple[float, float]] = {(): (0.0, -np.inf)}
    for frame in log_p:
        grown: dict[tuple[int, ...], list[float]] = {}
        for prefix, (ends_blank, ends_label) in beams.items():
            both = float(np.logaddexp(ends_blank, ends_label))
            own = grown.setdefault(prefix, [-np.inf, -np.inf])
            own[0] = float(np.logaddexp(own[0], both + frame[blank]))
            if prefix:
                own[1] = float(np.logaddexp(own[1], ends_label + frame[prefix[-1]]))
            for label, score in enumerate(frame):
                if label == blank:
                    continue
                entry = grown.setdefault((*prefix, label), [-np.inf, -np.inf])
                reached = ends_blank if prefix and prefix[-1] == label else both
                entry[1] = float(np.logaddexp(entry[1], reached + score))
        ranked = sorted(grown.items(), key=lambda item: -np.logaddexp(item[1][0], item[1][1]))[:width]
        beams = {prefix: (pair[0], pair[1]) for prefix, pair in ranked}
    totals = [(prefix, float(np.logaddexp(*pair))) for prefix, pair in beams.items()]
    return sorted(totals, key=lambda item: -item[1])
