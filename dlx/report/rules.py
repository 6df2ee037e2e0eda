"""What commonly goes wrong in a training, found by rules: `Network.report`.

Every rule compares what it sees with a scale that the data or the network itself gives, and is silent in doubt. Its
thresholds stand beside it, with their reasons; the figures quoted there are of 70 kinds of healthy and 40 of spoilt
trainings on scikit-learn's small data sets, of which the tests keep 27 and 20.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

import numpy as np

from dlx.data.features import HostArray
from dlx.report import evidence
from dlx.report.evidence import Evidence, Trained

COLUMNS = 90  # of the text


class Finding(NamedTuple):
    """A fault: its name, the evidence for it in words and numbers, and what to do."""

    name: str
    evidence: str
    remedy: str


class Report(tuple[Finding, ...]):
    """Findings, causes before their consequences; false where nothing was found. Printed, a readable text."""

    __slots__ = ()

    def __repr__(self) -> str:
        text = [
            textwrap.fill(f"{finding.name}: {finding.evidence}", COLUMNS, subsequent_indent="    ")
            + "\n"
            + textwrap.fill(finding.remedy, COLUMNS, initial_indent="    -> ", subsequent_indent="       ")
            for finding in self
        ]
        return "\n".join(text) or "nothing found"


def report(net: Trained, X: Any, y: Any, validation: Any = None) -> Report:
    """What the rules find; each is told what those before it have found."""
    seen = evidence.gather(net, X, y, validation)
    found: dict[str, Finding] = {}
    with np.errstate(all="ignore"):  # a validation loss may be inf
        for rule in RULES:
            finding = rule(seen, found.keys())
            if finding is not None:
                found[finding.name] = finding
    return Report(found.values())


# -- the rules --

LARGEST, SMALLEST = 10.0, 0.01  # root mean squares; standardised columns have 1, pixels in [0, 1] less
UNEQUAL = 100.0  # ranges; a standardised column of long tails has ten times that of a short one
OFF_CENTRE = 10.0  # times its range that the median column lies from 0: its variation is a tenth of what a unit sees
CONSTANT = 1e-6  # of its size: a column that varies by no more does so by rounding


def unscaled_inputs(seen: Evidence, found: Collection[str]) -> Finding | None:
    """A column of very large values, ranges that differ much, or most columns far from 0.

    Ranges, not standard deviations: that of a pixel or an indicator which is hardly ever on is small without harm. The
    largest range is compared with the lower quartile, for a few columns that say little harm nobody.
    """
    low, high, size = seen.columns
    spread = high - low
    varying = np.flatnonzero(spread > CONSTANT * size)
    remedy = "Scale columns to mean 0 and variance 1 by the training data's figures, or divide pixels by the largest."
    j = int(np.argmax(size))
    if size[j] > LARGEST or 0 < size[j] < SMALLEST:
        got = f"column {j} lies in [{low[j]:.6g}, {high[j]:.6g}], and its root mean square is {size[j]:.3g}, not near 1"
        return Finding("unscaled inputs", f"{got} ({seen.rows}).", remedy)
    if not varying.size:
        return None
    order = varying[np.argsort(spread[varying])]
    quarter, widest = int(order[(len(order) - 1) // 4]), int(order[-1])
    if spread[widest] > UNEQUAL * spread[quarter]:
        got = f"column {widest} ranges over {spread[widest]:.3g}, a quarter of the columns over {spread[quarter]:.3g}"
        return Finding("unscaled inputs", f"{got} or less ({seen.rows}).", remedy)
    away = np.where(low * high > 0, np.minimum(np.abs(low), np.abs(high)), 0.0)
    order = varying[np.argsort(away[varying] / spread[varying])]
    j = int(order[len(order) // 2])
    if away[j] > OFF_CENTRE * spread[j]:
        got = f"column {j} lies in [{low[j]:.6g}, {high[j]:.6g}], far from 0 for its range, as half of the columns do"
        return Finding("unscaled inputs", f"{got} ({seen.rows}).", remedy)
    return None


VANISHED, EXPLODED = 1e-2, 1e3  # healthy networks of 2 to 11 layers had 0.13 to 37; it grows as weights grow


def gradients(seen: Evidence, found: Collection[str]) -> Finding | None:
    """The norm of ∂J/∂Z shrinks or grows on its way from the last layer to the first.

    Initialised after He or LeCun it is the same in every layer. A ratio: all of it may be small after a good training.
    """
    last, first = float(seen.signals[-1]), float(seen.signals[0])
    if not (last > 0 and math.isfinite(first / last)) or VANISHED <= first / last <= EXPLODED or _blocked(seen):
        return None
    got = f"the derivative of the loss by layer 1 is {first / last:.2g} times that by layer {len(seen.signals)}"
    got += f"; norms by layer: {_listed([f'{each:.1e}' for each in seen.signals])} ({seen.rows})."
    if first < last:
        remedy = "Use fewer layers, activation='relu' or 'selu' and init='auto'; first layers learn next to nothing."
        return Finding("vanishing gradients", got, remedy)
    remedy = "Start from smaller weights: init='auto' fits the activation. Or pass clip_norm=1.0."
    return Finding("exploding gradients", got, remedy)


SURE = 3.0  # standard errors
SPIKE = 2.0  # times the loss at the start (and of guessing) that only overshooting takes an epoch's mean to
WORSENED = 1.1  # times, where the training then ended no better than guessing
WORSE = 1.05  # times the loss of guessing, which the minimum never exceeds, penalties and dropout included
REBOUND, OF_GAIN = 1.2, 0.1  # times the best loss, and of what had been gained, that a loss rose for good
SWING = 0.1  # of the loss of guessing that it rises by, in the mean of epochs; healthy: 0.03 with dropout, else 0.005


def learning_rate_too_high(seen: Evidence, found: Collection[str]) -> Finding | None:
    """The training loss rose: above its start, above guessing, for good, or again and again."""
    loss = np.asarray(seen.history.get("loss", []))
    if not loss.size:
        return None
    guess, end = max(seen.guesses), _tail(loss)
    got = ""
    if seen.facts is not None and math.isfinite(seen.facts.start) and guess > 0:
        start, surely = max(guess, seen.facts.start), seen.facts.start + SURE * seen.facts.error
        stuck = end.min() >= 0.99 * guess and len(loss) >= ENOUGH and not _falls(loss)
        if loss[0] > max((WORSENED if stuck else SPIKE) * start, surely):
            got = f"the mean loss of the first epoch was {loss[0]:.4g}, after {seen.facts.start:.4g} at the start"
            got += f", and at the end no better than a guess: {loss[-1]:.4g}" if stuck else ""
    if not got and len(loss) >= ENOUGH and guess > 0:
        half = loss[len(loss) // 2 :]
        swing = float(np.mean(np.maximum(np.diff(half), 0.0)))
        blown = "exploding gradients" in found
        scale = guess
        if seen.facts is not None and seen.facts.dropout:  # whose noise grows with the loss
            scale = max(guess, min(float(half.mean()), seen.facts.start + SURE * seen.facts.error))
        if _rose(loss, guess):
            got = f"the training loss rose from {loss.min():.4g} in epoch {loss.argmin() + 1} to {loss[-1]:.4g}"
        elif swing > SWING * scale:
            got = f"the training loss goes up and down: in the last {len(half)} epochs between {half.min():.4g} and "
            got += f"{half.max():.4g}"
        elif end.min() > WORSE * scale and not (_falls(loss) or _unmoved(loss) or blown):
            got = f"the training loss stays at {loss[-1]:.4g}, above the {guess:.4g} of a constant prediction"
    if not got:
        return None
    first = "Mend what stands above first, then see again. " if found else ""
    remedy = f"{first}Lower learning_rate three- to tenfold, or pass clip_norm=1.0 or schedules.warmup_cosine."
    return Finding("learning rate too high", f"{got}.", remedy)


OFF = 0.0025  # of |f'|, 1 % of the logistic sigmoid's steepest; relu's is 0 or 1
FEWEST_ROWS = 50  # a unit that is on in every tenth row is off in all of so few by chance, once in 200
DEAD = 0.4  # of a layer; healthy ones had up to 0.31, learning rates that killed units left 0.44 and more


def dead_units(seen: Evidence, found: Collection[str]) -> Finding | None:
    """Hidden units whose slope is 0 in every row: no gradient passes, and they learn no more."""
    if not _blocked(seen):
        return None
    dead = [int(np.sum(slopes <= OFF)) for slopes in seen.slopes]
    worst = max(range(len(dead)), key=lambda l: dead[l] / len(seen.slopes[l]))
    relu = seen.hidden[worst] == "relu"
    state = "are zero" if relu else f"have a slope |f'| <= {OFF}"
    got = f"{dead[worst]} of {len(seen.slopes[worst])} units of layer {worst + 1} {state} for {seen.rows}"
    if len(dead) > 1:
        got += f" (by layer: {_listed([f'{k}/{len(s)}' for k, s in zip(dead, seen.slopes, strict=True)])})"
    causes = {"unscaled inputs": "scale the inputs", "learning rate too high": "lower learning_rate"}
    cause = next((cause for name, cause in causes.items() if name in found), "")
    other = "activation='leaky_relu', whose units cannot die" if relu else "smaller weights"
    remedy = f"Lower learning_rate, centre the inputs, or try {other}."
    if cause:
        remedy = f"Probably a consequence of what stands above: {cause} first."
    return Finding("dead ReLUs" if relu else "saturated units", f"{got}.", remedy)


MEMORISED = 0.5  # of the training loss's fall below guessing: that share of it does not hold for new rows


def overfitting(seen: Evidence, found: Collection[str]) -> Finding | None:
    """The validation loss rose for good while the training loss fell, or lies far above it."""
    loss, held = (np.asarray(seen.history.get(name, [])) for name in ("loss", "validation_loss"))
    guess, restored = min(seen.guesses), seen.facts is not None and seen.facts.restored
    got = ""
    if len(held) == len(loss) >= ENOUGH:
        best = int(np.argmin(held))
        if not restored and _rose(held, guess) and loss[-1] < loss[best]:
            got = f"the validation loss was {held[best]:.4g} after epoch {best + 1} and is {held[-1]:.4g} after "
            got += f"{len(held)}, while the training loss fell from {loss[best]:.4g} to {loss[-1]:.4g}"
        kept = best if restored else -1
        now = seen.now or (float(loss[kept]), float(held[kept]))
    elif seen.now is not None:
        now = seen.now
    else:
        return None
    gain = guess - now[0]
    if not got and gain > 0 and not _unmoved(loss) and now[1] - now[0] > MEMORISED * gain:
        got = f"the loss is {now[0]:.4g} on training and {now[1]:.4g} on validation data, where a constant prediction "
        got += f"has {guess:.4g}"
    remedy = "Pass patience=10, which keeps the best epoch's weights; more l2, dropout or data, or fewer units."
    return Finding("overfitting", f"{got}.", remedy) if got else None


ENOUGH = 5  # epochs that a curve needs to be judged
STILL = 0.25  # of the whole fall in the last third of the epochs: steady falls have 0.33, healthy ones had 0.16 at most
SLOW = 0.01  # of the loss an epoch: it would take 70 more to halve it


def unfinished(seen: Evidence, found: Collection[str]) -> Finding | None:
    """The loss still falls as it did at first: slowly, then a larger rate helps, or fast, then more epochs do."""
    loss, held = (np.asarray(seen.history.get(name, [])) for name in ("loss", "validation_loss"))
    if not found and _unmoved(loss) and loss.min() > WORSE * max(seen.guesses):
        got = f"the training loss does not move: {loss[0]:.6g} in epoch 1, {loss[-1]:.6g} in epoch {len(loss)}."
        return Finding("learning rate too low", got, "Raise learning_rate a hundredfold, and again while it does not.")
    if found or not _falls(loss) or (len(held) == len(loss) and not _tail(held)[-1] < _tail(held)[0]):
        return None
    tail = _tail(loss)
    start = max(loss[0], *seen.guesses)
    if seen.facts is not None and seen.facts.start - SURE * seen.facts.error > loss[0]:
        start = max(start, seen.facts.start)
    if tail[0] - tail[-1] < STILL * (start - tail[-1]):
        return None
    pace = (tail[0] - tail[-1]) / (len(tail) - 1)
    got = f"the training loss still falls as steadily as it did at first: by {pace:.2g} an epoch, from {start:.4g} at "
    got += f"the start to {loss[-1]:.4g} after {len(loss)} epochs."
    if pace < SLOW * abs(tail[-1]):
        return Finding("learning rate too low", got, "Raise learning_rate tenfold, and again while the loss falls so.")
    return Finding("too few epochs", got, "Train for more epochs; the learning rate seems right.")


def missing_classes(seen: Evidence, found: Collection[str]) -> Finding | None:
    """Labels of which no validation row says how well they are learnt."""
    if not seen.unseen:
        return None
    got = f"no validation row has the label {_listed([repr(each) for each in seen.unseen], ' or ')}."
    remedy = "Validate on a larger share, or pass (X_val, y_val) with rows of every class."
    return Finding("classes missing from validation", got, remedy)


Rule = Callable[[Evidence, Collection[str]], Finding | None]
CAUSES: tuple[Rule, ...] = (unscaled_inputs, gradients, learning_rate_too_high)
RULES = (*CAUSES, dead_units, overfitting, unfinished, missing_classes)


def _blocked(seen: Evidence) -> bool:
    """Whether a layer has so many dead units that they explain what the gradient does."""
    return seen.sampled >= FEWEST_ROWS and any(np.sum(slopes <= OFF) > DEAD * len(slopes) for slopes in seen.slopes)


def _tail(curve: HostArray) -> HostArray:
    """The last third of a curve, and the point before it."""
    return curve[max(0, (2 * len(curve)) // 3 - 1) :]


def _falls(loss: HostArray) -> bool:
    """Whether it fell in each of the last third of the epochs, or over the last half by more than noise does."""
    if len(loss) < ENOUGH:
        return False
    return bool(np.all(np.diff(_tail(loss)) < 0)) or _slope(loss[len(loss) // 2 :]) < -SURE


def _slope(curve: HostArray) -> float:
    """The slope of the straight line through a curve, in its standard errors."""
    t = np.arange(len(curve)) - (len(curve) - 1) / 2
    slope = float(t @ curve / (t @ t))
    left = curve - curve.mean() - slope * t
    error = math.sqrt(float(left @ left) / max(1, len(curve) - 2) / float(t @ t))
    return slope / error if error > 0 else math.copysign(math.inf, slope) if slope else 0.0


UNMOVED = 1e-3  # of the loss at the start: healthy trainings, and most that fail, change it more


def _unmoved(loss: HostArray) -> bool:
    """Whether the training left the loss where it was."""
    return len(loss) >= ENOUGH and bool(np.ptp(loss) <= UNMOVED * abs(loss[0]))


def _rose(curve: HostArray, guess: float) -> bool:
    """Whether the last tenth of a curve (3 epochs at least) lies clear above its lowest point."""
    best, lasting = float(curve.min()), float(curve[-max(3, len(curve) // 10) :].min())
    return lasting - best > max((REBOUND - 1.0) * abs(best), OF_GAIN * (guess - best))


def _listed(items: Sequence[str], last: str = ", ", most: int = 8) -> str:
    """The items in words, those in the middle left out where there are many."""
    if len(items) > most:
        items = [*items[: most - 2], "...", items[-1]]
    return last.join([", ".join(items[:-1]), items[-1]]) if len(items) > 1 else "".join(items)
