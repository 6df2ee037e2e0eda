"""Checkpoints: a training on the disk, from where it goes on to the same bits."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from dlx import checks
from dlx.backend import Backend
from dlx.files import atomic, attempts, container, contents, fingerprint, schema
from dlx.files.attempts import Attempt
from dlx.files.resume import from_file, plain, restored, to_file
from dlx.files.schema import TRAINING
from dlx.optimizers import AnyOptimizer
from dlx.training.divergence import DivergenceError
from dlx.training.loop import ORDER, watched
from dlx.training.state import TrainingState
from dlx.training.steps import Settings

NAME, PATTERN, KEPT = "checkpoint-{:08}.safetensors", re.compile(r"checkpoint-([0-9]{8,12})\.safetensors"), 2
Arrays = dict[str, np.ndarray[Any, Any]]


class Checkpoints:
    """The checkpoints of one training, in a folder of their own; what `train` calls a saver.

    `most` is as there; `newest` is the description and the arrays to go on from, None if there are none.
    """

    def __init__(self, folder: Path, every: str | int | datetime.timedelta, anew: bool) -> None:
        self.folder, self.every = folder, every
        self.most = every if isinstance(every, int) else None
        paths = self.paths()
        self.last = max(paths, default=0)
        order = sorted(paths, reverse=True)
        self.newest, damaged = (None, 0) if anew else _newest([paths[number] for number in order])
        self.damaged = set(order[:damaged])
        self.updates, self.at, self.when = 0, (0, 0), time.monotonic()
        self.process = os.getpid()
        self.own: list[int] = []  # the numbers of those that this call has written
        self.net: Any = None  # the dlx.Network that is trained
        self.optimizer: AnyOptimizer | None = None
        self.generator: np.random.Generator | None = None
        self.figures: Sequence[str] = ()  # the names of those that are fit's own
        self.attributes: dict[str, Any] = {}  # the network's, as they were when the training began
        self.settings: dict[str, Any] = {}
        self.first_drawn: Any = None

    def agree(
        self, told: Mapping[str, Any], settings: Settings, n: int, backend: Backend, generator: Any, seeded: bool
    ) -> None:
        """Raise where the training that was saved had other settings or data; the generator draws as it drew there.

        `told` are those beside `settings`, by the names of the arguments; there are `n` rows.
        """
        self.optimizer = settings.optimizer
        if not self.optimizer.full_batch and self.optimizer.slots > schema.MOST_SLOTS:
            rule, got = f"have at most {schema.MOST_SLOTS} slots to be saved", self.optimizer.slots
            checks.reject("optimizer", rule, got, "Use fewer, or no checkpoint.")
        self.generator = generator
        old = {} if self.newest is None else self.newest[0][TRAINING]["settings"]
        planned = settings.epochs * -(-n // settings.batch_size)
        given = {**told, **settings._asdict(), "optimizer": self.optimizer.description}
        given["batch_size"] = min(settings.batch_size, n)
        self.settings = {name: fingerprint.told(each, backend) for name, each in given.items() if name != "schedule"}
        self.settings["learning_rate"] = fingerprint.told_rates(settings.schedule, planned, old.get("learning_rate"))
        self.first_drawn = plain(generator.bit_generator.state)
        self.settings["rng"] = fingerprint.short(json.dumps(self.first_drawn, sort_keys=True)) if seeded else None
        if self.newest is None:
            return
        for name, now in self.settings.items():
            was = old.get(name)
            if was != now and name != "epochs" and not (name == "feature_names" and None in (was, now)):
                shown = "that is another now" if name == "rng" else f"that was {_shown(was)} and is {_shown(now)} now"
                same = "the same seed, or a generator in the state it had then," if name == "rng" else "what it was,"
                self._refuse(f"{name} {shown}", f"Pass {same} or resume='ignore' to start anew.")
        self.first_drawn = self.newest[0][TRAINING]["first_drawn_from"]
        with container.file_errors(self.folder):
            generator.bit_generator.state = restored(generator.bit_generator.state, self.first_drawn)

    def _refuse(self, difference: str, remedy: str) -> NoReturn:
        got = f"{self.folder}, of one with a {difference}"
        checks.reject("checkpoint", "be of the same training", got, remedy)

    def resumed(self, net: Any, settings: Settings, per_epoch: int, figures: Sequence[str]) -> TrainingState | None:
        """Where the training of `net`, of so many updates an epoch, goes on; from here on `net` is what is saved.

        `figures` are the names of those that it will have.
        """
        self.net, self.figures, self.attributes = net, figures, contents.attributes(net)
        if settings.epochs * len(figures) > schema.MOST_FIGURES:
            rule = f"be at most {schema.MOST_FIGURES // len(figures)} where each is saved"
            checks.reject("epochs", rule, settings.epochs, "Use fewer, or no checkpoint.")
        best_by = None if settings.patience is None else watched({name: name for name in figures})
        self.settings |= {"best_by": best_by, "arithmetic": _arithmetic(net.backend)}
        if self.newest is None:
            return None
        description, arrays = self.newest
        if not settings.optimizer.loss_after_epoch and best_by in ("loss", "training_loss"):
            self._require_right_best(description[TRAINING]["settings"])
        assert self.generator is not None
        with container.file_errors(self.folder):
            now = json.loads(json.dumps(schema.description_of(net, {})))
            for part in ("activation", "classes", "dtype", "layer_dims", "loss"):
                if description[part] != now[part]:
                    raise ValueError(f"another {part} than in its settings")
            state = from_file(description, arrays, net.backend, net.dtype, settings.optimizer, per_epoch)
            if state.history and {*ORDER} & state.history.keys() != {*figures}:
                raise ValueError("other figures than its settings have, or another validation")
            self.generator.bit_generator.state = restored(self.drawn(), state.drawn)
        least = state.epoch + (state.position > 0)
        if settings.epochs < least:
            rule = f"be at least {least}, which the checkpoint has begun"
            checks.reject("epochs", rule, settings.epochs, "Raise it, or pass resume='ignore' to start anew.")
        epochs = self.newest[0][TRAINING]["settings"].get("epochs")
        plans = (epochs if type(epochs) is int else 0) * per_epoch, settings.epochs * per_epoch
        if settings.optimizer.takes_rate and not fingerprint.kept_rates(
            settings.schedule, plans, per_epoch, state.history or {}, state.updates
        ):
            remedy = "It must not depend on `epochs` where that is raised, nor on what is kept between calls."
            self._refuse("learning_rate that had other values in the epochs so far", remedy)
        if state.ended and settings.epochs != epochs:
            text = (
                f"the training in {self.folder} was ended by a rule after {state.epoch} epochs and is returned as it is"
            )
            checks.warn(f"{text}; resume='ignore' starts anew.")
        if not state.ended and state.epoch < settings.epochs:
            _warn_of_other_bits(self.folder, self.newest[0][TRAINING]["settings"].get("arithmetic"), net.backend)
        self.updates, self.at = state.updates, (state.epoch, state.position)
        self.newest = None  # its arrays are needed no longer
        return state

    def _require_right_best(self, old: Mapping[str, Any]) -> None:
        """Raise where the checkpoint is of a dlx that took the weights after an epoch for those of its loss."""
        if "best_by" not in old:
            difference = "patience of an older dlx, which kept the weights of another epoch than the best"
            self._refuse(difference, "Pass resume='ignore' to start anew.")

    def drawn(self) -> Any:
        """The state of the training's generator."""
        assert self.generator is not None
        return self.generator.bit_generator.state

    def due(self, updates: int, epoch_done: bool) -> bool:
        """Whether to save now: after an epoch, so many updates, or so much time."""
        if isinstance(self.every, str):
            return epoch_done
        if isinstance(self.every, int):
            return updates - self.updates >= self.every
        return time.monotonic() - self.when >= self.every.total_seconds()

    def save(self, state: TrainingState) -> None:
        """Write the next checkpoint, and let go of those before the last."""
        assert self.net is not None
        assert self.optimizer is not None
        if os.getpid() != self.process:
            rule, remedy = "be saved to by the process that called fit", "End the child in the callback that forked it."
            checks.reject("checkpoint", rule, "a forked child of it", remedy, RuntimeError)
        contents.require_unchanged(self.net, self.attributes)
        history = schema.history_arrays(state.history or {})
        description = schema.description_of(self.net, history)
        self._require_figures(description["history"], state.epoch)
        training, arrays = to_file(state, self.optimizer, self.net.backend, self.net.dtype)
        description[TRAINING] = training | {"first_drawn_from": self.first_drawn, "settings": self.settings}
        contents.require_written("checkpoint", description, arrays | history)
        try:
            container.write(self.folder / NAME.format(self.last + 1), description, arrays | history)
        except OSError as reason:
            text = f"update {state.updates} was not saved: {reason.strerror or reason}. What was saved before"
            remedy = "is as it was. Mend that and call fit again, which goes on from there"
            raise OSError(reason.errno, f"{text} {remedy}", str(self.folder)) from reason
        self.last += 1
        self.own.append(self.last)
        self._remove_old()
        self.updates, self.when = state.updates, time.monotonic()
        self.at = state.epoch, state.position

    def _remove_old(self) -> None:
        """Let go of the checkpoints before the last; where that is refused, what was saved is saved."""
        try:
            paths = self.paths()
        except OSError as reason:
            self._say_left(reason)
            return
        for number in paths.keys() - set(sorted(paths.keys() - self.damaged)[-KEPT:]):
            self._remove(paths[number])

    def _remove(self, path: Path) -> None:
        try:
            path.unlink(missing_ok=True)
        except OSError as reason:
            self._say_left(reason)

    def _say_left(self, reason: OSError) -> None:
        loss = "all that is saved is kept, and fills the disk: remove the old ones by hand"
        atomic.warn_once(self.folder, f"lets no old checkpoint be removed ({reason.strerror or reason})", loss)

    def _require_figures(self, lengths: Mapping[str, int], epochs: int) -> None:
        """Raise where a callback has changed the history in a way in which it cannot be resumed."""
        found = {name: length for name, length in lengths.items() if name in ORDER}
        if found != (dict.fromkeys(self.figures, epochs) if epochs else {}):
            rule, got = f"keep each of fit's own figures, {epochs} epochs of them, to be saved", f"lengths {found}"
            checks.reject("history", rule, got, "Change a copy, or add other names.")

    def last_good(self, bad: tuple[int, int] | None) -> Path | None:
        """The last checkpoint of this call before the epoch and batch whose loss was bad.

        One whose weights gave that loss is removed.
        """
        if bad is not None and self.own and self.at >= bad:
            self._remove(self.folder / NAME.format(self.own.pop()))
        left = self.paths()
        return next((left[number] for number in reversed(self.own) if number in left), None)

    def paths(self) -> dict[int, Path]:
        """The checkpoints that are there, by their numbers."""
        named = ((PATTERN.fullmatch(path.name), path) for path in self.folder.iterdir())
        return {int(match[1]): path for match, path in named if match and path.is_file()}


@contextlib.contextmanager
def keeping(folder: Any, every: Any, resume: Any, attempt: Attempt) -> Iterator[Checkpoints | None]:
    """The checkpoints in `folder`, which is this process's alone meanwhile; None where there is no folder.

    Where the `attempt` fails before it has begun, the folder is left as it was, and its parents are.
    """
    checks.choice("resume", resume, ("auto", "ignore"), "'auto' goes on from a checkpoint, 'ignore' starts anew.")
    every = _interval(every)
    if folder is None:
        yield None
        return
    if not isinstance(folder, str | os.PathLike):
        remedy = "For example checkpoint='run/'."
        checks.reject("checkpoint", "be the path of a folder, or None", checks.shown(folder), remedy, TypeError)
    path = Path(os.path.abspath(os.fsdecode(folder)))  # whatever the working folder becomes
    if not os.fsdecode(folder) or "\0" in str(path) or (os.path.lexists(path) and not path.is_dir()):
        checks.reject("checkpoint", "be a folder, or a name for one", repr(os.fsdecode(folder)), "Choose another name.")
    with attempts.owned(path, "checkpoint", attempt):
        found = Checkpoints(path, every, resume == "ignore")
        try:
            yield found
        except DivergenceError as reason:
            saved = found.last_good(reason.at)
            if saved is None:
                raise
            remedy = "dlx.load reads it, and another fit may take its weights as init."
            raise DivergenceError(f"{reason} The state before is in {saved}: {remedy}") from reason


def _interval(every: Any) -> str | int | datetime.timedelta:
    remedy = "Use datetime.timedelta(minutes=5), for example."
    if isinstance(every, np.timedelta64):
        given, every = every, every.item()
        if not isinstance(every, datetime.timedelta):  # but a number of nanoseconds or years, or None for NaT
            checks.reject("checkpoint_every", "be a datetime.timedelta, or convert to one", repr(given), remedy)
    if isinstance(every, datetime.timedelta):
        if every.total_seconds() < 0:
            checks.reject("checkpoint_every", "be at least no time", every, remedy)
        return every
    if isinstance(every, str):
        return checks.choice("checkpoint_every", every, ("epoch",), "Or pass updates, or a datetime.timedelta.")
    return checks.integer(
        "checkpoint_every", every, low=1, remedy="It counts updates. Or pass 'epoch', or a timedelta."
    )


def _newest(paths: Sequence[Path]) -> tuple[tuple[dict[str, Any], Arrays] | None, int]:
    """What the first whole file holds, and how many damaged ones were passed over: with a warning, and never all."""
    for k, path in enumerate(paths):
        try:
            found = container.read(path, schema.layout)
            with container.file_errors(path):
                if not isinstance(found[0][TRAINING]["settings"], dict):
                    raise TypeError("settings that are none")
            return found, k
        except container.FormatError:  # of a newer dlx: to go on from the one before would lose it
            raise
        except container.FileError as reason:
            if k == len(paths) - 1:
                raise container.FileError(f"{reason} Or pass resume='ignore' to start anew.") from reason
            checks.warn(f"the checkpoint before is used: {reason}")
    return None, 0


def _arithmetic(backend: Backend) -> dict[str, str]:
    return {"backend": backend.selector, **backend.arithmetic()}


def _warn_of_other_bits(folder: Path, was: Any, backend: Backend) -> None:
    """Where the last bits may differ though the backend is the same; a checkpoint of an older dlx does not say."""
    now = _arithmetic(backend)
    if not isinstance(was, Mapping) or was.get("backend") != now["backend"]:
        return
    differ = [name for name in now if was.get(name, now[name]) != now[name]]
    if differ:
        what = container.escaped(", ".join(f"{name} was {was[name]} and is {now[name]} now" for name in differ))
        text = f"the training in {folder} goes on, but perhaps not to the same bits: {what}"
        checks.warn(f"{text}. Where bits matter, go on with what it was.")


def _shown(value: Any) -> str:
    return container.truncated(json.dumps(value), 80)
