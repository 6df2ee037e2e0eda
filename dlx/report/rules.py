"""The rules behind `Network.report`, which find the common faults of a training.

Every rule compares its evidence with a scale that the data or the network gives. In doubt it finds nothing. The
thresholds of a rule stand above it, with their reasons. The figures in these reasons come from 70 kinds of healthy and
40 kinds of spoilt trainings on scikit-learn's small data sets; the tests repeat 27 and 20 of them.

A rule takes the evidence and the names of the findings so far. It returns a finding, or None.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

import numpy as np

from dlx.host import HostArray
from dlx.report.evidence import Evidence, Trained, collect

REPORT_WIDTH = 90  # characters


class Finding(NamedTuple):
    """A fault of a training.

    name : str
        For example "overfitting".
    evidence : str
        The reasons for the finding, in words and numbers.
    remedy : str
        What to do.
    """

    name: str
    evidence: str
    remedy: str


class Report(tuple[Finding, ...]):
    """A tuple of findings, causes before their consequences. It is false if it is empty, and prints as a text."""

    __slots__ = ()

    def __repr__(self) -> str:
        text = [
            textwrap.fill(f"{finding.name}: {finding.evidence}", REPORT_WIDTH, subsequent_indent="    ")
            + "\n"
            + textwrap.fill(finding.remedy, REPORT_WIDTH, initial_indent="    -> ", subsequent_indent="       ")
            for finding in self
        ]
        return "\n".join(text) or "nothing found"


def report(net: Trained, X: Any, y: Any, validation: Any = None) -> Report:
    """The findings of all rules. Each rule gets the names of the findings before it."""
    evidence = collect(net, X, y, validation)
    findings: dict[str, Finding] = {}
    with np.errstate(all="ignore"):  # a validation loss may be inf
        for rule in RULES:
            finding = rule(evidence, findings.keys())
            if finding is not None:
                findings[finding.name] = finding
    return Report(findings.values())


# -- the rules --

LARGEST, SMALLEST = 10.0, 0.01  # root mean squares. Standardised columns have 1, and pixels in [0, 1] have less
UNEQUAL = 100.0  # ratio of ranges. Among standardised columns, long tails have ten times the range of short ones
OFF_CENTRE = 10.0  # distance from 0 in ranges of the column: then the variation is a tenth of what a unit gets
CONSTANT = 1e-6  # range over root mean square: a column that varies less does so by rounding


def unscaled_inputs(evidence: Evidence, earlier: Collection[str]) -> Finding | None:
    """A column has very large or very small values, ranges differ much, or most columns lie far from 0.

    The rule compares ranges and not standard deviations, as the standard deviation of a pixel or an indicator that is
    hardly ever on is small without harm. It compares the largest range with the lower quartile, as a few columns that
    vary little do no harm.
    """
    low, high, size = evidence.columns
    spread = high - low
    varying = np.flatnonzero(spread > CONSTANT * size)
    remedy = "Scale columns to mean 0 and variance 1 by the training data's figures, or divide pixels by the largest."
    j = int(np.argmax(size))
    if size[j] > LARGEST or 0 < size[j] < SMALLEST:
        got = f"column {j} lies in [{low[j]:.6g}, {high[j]:.6g}], and its root mean square is {size[j]:.3g}, not near 1"
        return Finding("unscaled inputs", f"{got} ({evidence.rows}).", remedy)
    if not varying.size:
        return None
    order = varying[np.argsort(spread[varying])]
    quarter, widest = int(order[(len(order) - 1) // 4]), int(order[-1])
    if spread[widest] > UNEQUAL * spread[quarter]:
        got = f"column {widest} ranges over {spread[widest]:.3g}, a quarter of the columns over {spread[quarter]:.3g}"
        return Finding("unscaled inputs", f"{got} or less ({evidence.rows}).", remedy)
    away = np.where(low * high > 0, np.minimum(np.abs(low), np.abs(high)), 0.0)
    order = varying[np.argsort(away[varying] / spread[varying])]
    j = int(order[len(order) // 2])
    if away[j] > OFF_CENTRE * spread[j]:
        got = f"column {j} lies in [{low[j]:.6g}, {high[j]:.6g}], far from 0 for its range, as half of the columns do"
        return Finding("unscaled inputs", f"{got} ({evidence.rows}).", remedy)
    return None


# The ratio of the first norm to the last. Healthy networks of 2 to 11 layers had 0.13 to 37; it grows as weights grow.
VANISHING, EXPLODING = 1e-2, 1e3


def gradients(evidence: Evidence, earlier: Collection[str]) -> Finding | None:
    """The norm of ∂J/∂Z shrinks or grows from the last layer to the first.

    It is equal in all layers after an initialisation by He or LeCun. The rule takes the ratio of two layers, because
    all norms are small after a good training.
    """
    last, first = float(evidence.signals[-1]), float(evidence.signals[0])
    if not (last > 0 and math.isfinite(first / last)) or VANISHING <= first / last <= EXPLODING or _blocked(evidence):
        return None
    got = f"the derivative of the loss by layer 1 is {first / last:.2g} times that by layer {len(evidence.signals)}"
    got += f"; norms by layer: {_listed([f'{norm:.1e}' for norm in evidence.signals])} ({evidence.rows})."
    if first < last:
        remedy = "Use fewer layers, activation='relu' or 'selu' and init='auto'; first layers learn next to nothing."
        return Finding("vanishing gradients", got, remedy)
    remedy = "Start from smaller weights: init='auto' fits the activation. Or pass clip_norm=1.0."
    return Finding("exploding gradients", got, remedy)


SURE = 3.0  # standard errors
SPIKE = 2.0  # ratio of the first epoch's loss to the loss at the start, which only overshooting reaches
WORSENED = 1.1  # the same for a training that ended no better than guessing
WORSE = 1.05  # ratio to the loss of guessing, which the minimum never exceeds, penalties and dropout included
REBOUND, OF_GAIN = 1.2, 0.1  # a loss rose for good by a fifth of the best loss, and by a tenth of the gain until then
SWING = 0.1  # mean rise of an epoch over the loss of guessing; healthy trainings had 0.03 with dropout, else 0.005


def learning_rate_too_high(evidence: Evidence, earlier: Collection[str]) -> Finding | None:
    """The training loss rose above its start, above guessing, for good, or again and again."""
    loss = np.asarray(evidence.history.get("loss", []))
    if not loss.size:
        return None
    guess, end = max(evidence.guesses), _tail(loss)
    got = ""
    if evidence.facts is not None and math.isfinite(evidence.facts.start) and guess > 0:
        start, surely = max(guess, evidence.facts.start), evidence.facts.start + SURE * evidence.facts.error
        stuck = end.min() >= 0.99 * guess and len(loss) >= ENOUGH and not _falls(loss)
        if loss[0] > max((WORSENED if stuck else SPIKE) * start, surely):
            got = f"the mean loss of the first epoch was {loss[0]:.4g}, after {evidence.facts.start:.4g} at the start"
            got += f", and at the end no better than a guess: {loss[-1]:.4g}" if stuck else ""
    if not got and len(loss) >= ENOUGH and guess > 0:
        half = loss[len(loss) // 2 :]
        swing = float(np.mean(np.maximum(np.diff(half), 0.0)))
        explodes = "exploding gradients" in earlier
        scale = guess
        if evidence.facts is not None and evidence.facts.dropout:  # its noise grows with the loss
            scale = max(guess, min(float(half.mean()), evidence.facts.start + SURE * evidence.facts.error))
        if _rose(loss, guess):
            got = f"the training loss rose from {loss.min():.4g} in epoch {loss.argmin() + 1} to {loss[-1]:.4g}"
        elif swing > SWING * scale:
            got = f"the training loss goes up and down: in the last {len(half)} epochs between {half.min():.4g} and "
            got += f"{half.max():.4g}"
        elif end.min() > WORSE * scale and not (_falls(loss) or _unmoved(loss) or explodes):
            got = f"the training loss stays at {loss[-1]:.4g}, above the {guess:.4g} of a constant prediction"
    if not got:
        return None
    first = "Mend what stands above first, then see again. " if earlier else ""
    remedy = f"{first}Lower learning_rate three- to tenfold, or pass clip_norm=1.0 or schedules.warmup_cosine."
    return Finding("learning rate too high", f"{got}.", remedy)


OFF = 0.0025  # |f'| of a unit that is off: 1 % of the steepest slope of the logistic sigmoid; relu has 0 or 1
FEWEST_ROWS = 50  # a unit that is on in every tenth row is off in all of so few rows once in 200 times
DEAD = 0.4  # share of a layer. Healthy layers had up to 0.31, and learning rates that killed units left 0.44 and more


def dead_units(evidence: Evidence, earlier: Collection[str]) -> Finding | None:
    """Many hidden units have the slope 0 in every row: no gradient passes them, and they do not learn any more."""
    if not _blocked(evidence):
        return None
    dead = [int(np.sum(slopes <= OFF)) for slopes in evidence.slopes]
    worst = max(range(len(dead)), key=lambda l: dead[l] / len(evidence.slopes[l]))
    relu = evidence.hidden[worst] == "relu"
    state = "are zero" if relu else f"have a slope |f'| <= {OFF}"
    got = f"{dead[worst]} of {len(evidence.slopes[worst])} units of layer {worst + 1} {state} for {evidence.rows}"
    if len(dead) > 1:
        got += f" (by layer: {_listed([f'{k}/{len(s)}' for k, s in zip(dead, evidence.slopes, strict=True)])})"
    causes = {"unscaled inputs": "scale the inputs", "learning rate too high": "lower learning_rate"}
    cause = next((cause for name, cause in causes.items() if name in earlier), "")
    other = "activation='leaky_relu', whose units cannot die" if relu else "smaller weights"
    remedy = f"Lower learning_rate, centre the inputs, or try {other}."
    if cause:
        remedy = f"Probably a consequence of what stands above: {cause} first."
    return Finding("dead ReLUs" if relu else "saturated units", f"{got}.", remedy)


MEMORISED = 0.5  # share of the training loss's fall below guessing that is missing on validation rows


def overfitting(evidence: Evidence, earlier: Collection[str]) -> Finding | None:
    """The validation loss rose for good while the training loss fell, or it lies far above the training loss."""
    loss, validation = (np.asarray(evidence.history.get(name, [])) for name in ("loss", "validation_loss"))
    guess, restored = min(evidence.guesses), evidence.facts is not None and evidence.facts.restored
    got = ""
    if len(validation) == len(loss) >= ENOUGH:
        best = int(np.argmin(validation))
        if not restored and _rose(validation, guess) and loss[-1] < loss[best]:
            got = f"the validation loss was {validation[best]:.4g} after epoch {best + 1} and is {validation[-1]:.4g} "
            got += f"after {len(validation)}, while the training loss fell from {loss[best]:.4g} to {loss[-1]:.4g}"
        epoch = best if restored else -1
        now = evidence.now or (float(loss[epoch]), float(validation[epoch]))
    elif evidence.now is not None:
        now = evidence.now
    else:
        return None
    gain = guess - now[0]
    if not got and gain > 0 and not _unmoved(loss) and now[1] - now[0] > MEMORISED * gain:
        got = f"the loss is {now[0]:.4g} on training and {now[1]:.4g} on validation data, where a constant prediction "
        got += f"has {guess:.4g}"
    remedy = "Pass patience=10, which keeps the best epoch's weights; more l2, dropout or data, or fewer units."
    return Finding("overfitting", f"{got}.", remedy) if got else None


ENOUGH = 5  # epochs that a curve needs to be judged
STILL = 0.25  # share of the whole fall in the last third of the epochs; steady falls have 0.33, healthy ones up to 0.16
SLOW = 0.01  # fall of an epoch over the loss: it would take 70 more epochs to halve the loss


def unfinished(evidence: Evidence, earlier: Collection[str]) -> Finding | None:
    """The loss still falls as it did at first. A larger rate helps if it falls slowly, more epochs if it falls fast."""
    loss, validation = (np.asarray(evidence.history.get(name, [])) for name in ("loss", "validation_loss"))
    if not earlier and _unmoved(loss) and loss.min() > WORSE * max(evidence.guesses):
        got = f"the training loss does not move: {loss[0]:.6g} in epoch 1, {loss[-1]:.6g} in epoch {len(loss)}."
        return Finding("learning rate too low", got, "Raise learning_rate a hundredfold, and again while it does not.")
    validation_tail = _tail(validation)
    rises = len(validation) == len(loss) > 0 and not validation_tail[-1] < validation_tail[0]
    if earlier or not _falls(loss) or rises:
        return None
    tail = _tail(loss)
    start = max(loss[0], *evidence.guesses)
    if evidence.facts is not None and evidence.facts.start - SURE * evidence.facts.error > loss[0]:
        start = max(start, evidence.facts.start)
    if tail[0] - tail[-1] < STILL * (start - tail[-1]):
        return None
    pace = (tail[0] - tail[-1]) / (len(tail) - 1)
    got = f"the training loss still falls as steadily as it did at first: by {pace:.2g} an epoch, from {start:.4g} at "
    got += f"the start to {loss[-1]:.4g} after {len(loss)} epochs."
    if pace < SLOW * abs(tail[-1]):
        return Finding("learning rate too low", got, "Raise learning_rate tenfold, and again while the loss falls so.")
    return Finding("too few epochs", got, "Train for more epochs; the learning rate seems right.")


def missing_classes(evidence: Evidence, earlier: Collection[str]) -> Finding | None:
    """Some labels have no validation row, which would show how well they are learnt."""
    if not evidence.unseen:
        return None
    got = f"no validation row has the label {_listed([repr(label) for label in evidence.unseen], ' or ')}."
    remedy = "Validate on a larger share, or pass (X_val, y_val) with rows of every class."
    return Finding("classes missing from validation", got, remedy)


def plain_steps(evidence: Evidence, earlier: Collection[str]) -> Finding | None:
    """A function of the user's own kept the steps from being recorded."""
    path = None if evidence.facts is None else evidence.facts.path
    if path is None or not path[1]:
        return None
    remedy = "Let functions of your own depend on their arrays alone, and compute with arithmetic, comparisons, where, "
    remedy += "sums and NumPy's elementary functions. The network is the same without that; its training is slower."
    return Finding("plain steps", f"the training steps ran {path[0]}.", remedy)


Rule = Callable[[Evidence, Collection[str]], Finding | None]
CAUSES: tuple[Rule, ...] = (unscaled_inputs, gradients, learning_rate_too_high)
RULES = (*CAUSES, dead_units, overfitting, unfinished, missing_classes, plain_steps)


def _blocked(evidence: Evidence) -> bool:
    """Whether a layer has so many dead units that they explain how the gradient changes."""
    has_many_dead = any(np.sum(slopes <= OFF) > DEAD * len(slopes) for slopes in evidence.slopes)
    return evidence.sampled >= FEWEST_ROWS and has_many_dead


def _tail(curve: HostArray) -> HostArray:
    """The last third of a curve, with the point before it."""
    return curve[max(0, (2 * len(curve)) // 3 - 1) :]


def _falls(loss: HostArray) -> bool:
    """Whether the loss fell in each epoch of the last third, or over the last half by more than noise does."""
    if len(loss) < ENOUGH:
        return False
    return bool(np.all(np.diff(_tail(loss)) < 0)) or _slope(loss[len(loss) // 2 :]) < -SURE


def _slope(curve: HostArray) -> float:
    """The slope of the regression line of a curve, divided by the standard error of that slope."""
    t = np.arange(len(curve)) - (len(curve) - 1) / 2
    slope = float(t @ curve / (t @ t))
    residuals = curve - curve.mean() - slope * t
    error = math.sqrt(float(residuals @ residuals) / max(1, len(curve) - 2) / float(t @ t))
    return slope / error if error > 0 else math.copysign(math.inf, slope) if slope else 0.0


UNMOVED = 1e-3  # range of the losses over the first one; healthy trainings, and most that fail, have more


def _unmoved(loss: HostArray) -> bool:
    """Whether the loss hardly changed in the whole training."""
    return len(loss) >= ENOUGH and bool(np.ptp(loss) <= UNMOVED * abs(loss[0]))


def _rose(curve: HostArray, guess: float) -> bool:
    """Whether the last tenth of a curve (at least 3 epochs) lies clearly above its lowest point."""
    best, lowest_at_end = float(curve.min()), float(curve[-max(3, len(curve) // 10) :].min())
    return lowest_at_end - best > max((REBOUND - 1.0) * abs(best), OF_GAIN * (guess - best))


def _listed(items: Sequence[str], last: str = ", ", most: int = 8) -> str:
    """The items as one text, without those in the middle if there are more than `most`."""
    if len(items) > most:
        items = [*items[: most - 2], "...", items[-1]]
    return last.join([", ".join(items[:-1]), items[-1]]) if len(items) > 1 else "".join(items)
