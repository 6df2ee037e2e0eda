"""Checkpoints: a training is saved to a folder, and goes on from there to the same bits."""

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
from dlx.files.resume import from_file, generator_from_json, generator_to_json, to_file
from dlx.files.schema import TRAINING
from dlx.host import HostArray
from dlx.optimizers import AnyOptimizer
from dlx.training.divergence import DivergenceError
from dlx.training.loop import ORDER, watched
from dlx.training.state import TrainingState
from dlx.training.steps import Settings

NAME, PATTERN = "checkpoint-{:08}.safetensors", re.compile(r"checkpoint-([0-9]{8,12})\.safetensors")
FILES_KEPT = 2  # so that an undamaged one is left if the last is damaged


class Checkpoints:
    """The checkpoints of one training, in a folder of their own. To `loop.train` it is the saver.

    `newest` holds the description and the arrays to go on from; it is None if there are none. `most` is as in `Saver`.
    """

    def __init__(self, folder: Path, every: str | int | datetime.timedelta, anew: bool) -> None:
        self.folder, self.every = folder, every
        self.most = every if isinstance(every, int) else None
        paths = self.paths()
        self.last = max(paths, default=0)
        order = sorted(paths, reverse=True)
        self.newest, damaged = (None, 0) if anew else _newest([paths[number] for number in order])
        self.damaged = set(order[:damaged])
        self.updates, self.place, self.saved_at = 0, (0, 0), time.monotonic()  # those of the last save
        self.process = os.getpid()
        self.written: list[int] = []  # the numbers of the checkpoints that this call has written
        self.net: Any = None  # the dlx.Network that is trained
        self.optimizer: AnyOptimizer | None = None
        self.generator: np.random.Generator | None = None
        self.figures: Sequence[str] = ()  # the names of the figures in the history that are fit's own
        self.attributes: dict[str, Any] = {}  # of the network when the training began
        self.settings: dict[str, Any] = {}
        self.first_drawn: Any = None

    def require_same_training(
        self, identity: Mapping[str, Any], settings: Settings, n: int, backend: Backend, generator: Any, seeded: bool
    ) -> None:
        """Raise if the saved training had other settings or data, and reset the generator to the state it began with.

        `identity` holds the data and all other arguments that are not in `settings`, by their names; X has `n` rows.
        `seeded` says whether the user passed `rng`, which is compared only then.
        """
        self.optimizer = settings.optimizer
        if not self.optimizer.full_batch and self.optimizer.slots > schema.MOST_SLOTS:
            rule, got = f"have at most {schema.MOST_SLOTS} slots to be saved", self.optimizer.slots
            checks.reject("optimizer", rule, got, "Use fewer, or no checkpoint.")
        self.generator = generator
        old = {} if self.newest is None else self.newest[0][TRAINING]["settings"]
        planned = settings.epochs * -(-n // settings.batch_size)
        values = {**identity, **settings._asdict(), "optimizer": self.optimizer.description}
        values["batch_size"] = min(settings.batch_size, n)
        schedule = values.pop("schedule")
        self.settings = {name: fingerprint.as_json(value, backend) for name, value in values.items()}
        self.settings["learning_rate"] = fingerprint.schedule_as_json(schedule, planned, old.get("learning_rate"))
        self.first_drawn = generator_to_json(generator.bit_generator.state)
        self.settings["rng"] = fingerprint.digest_of(json.dumps(self.first_drawn, sort_keys=True)) if seeded else None
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
            generator.bit_generator.state = generator_from_json(generator.bit_generator.state, self.first_drawn)

    def _refuse(self, difference: str, remedy: str) -> NoReturn:
        """Raise because the folder holds another training, with this difference."""
        got = f"{self.folder}, of one with a {difference}"
        checks.reject("checkpoint", "be of the same training", got, remedy)

    def resumed(self, net: Any, settings: Settings, per_epoch: int, figures: Sequence[str]) -> TrainingState | None:
        """The state from which the training of `net` goes on, or None. From now on `net` is what `save` saves.

        An epoch has `per_epoch` updates, and `figures` are the names of the figures that the history will have.
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
            self.generator.bit_generator.state = generator_from_json(self.drawn(), state.drawn)
        least = state.epoch + (state.position > 0)
        if settings.epochs < least:
            rule = f"be at least {least}, which the checkpoint has begun"
            checks.reject("epochs", rule, settings.epochs, "Raise it, or pass resume='ignore' to start anew.")
        epochs = self.newest[0][TRAINING]["settings"].get("epochs")
        plans = (epochs if type(epochs) is int else 0) * per_epoch, settings.epochs * per_epoch
        if settings.optimizer.takes_rate and not fingerprint.keeps_rates(
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
        self.updates, self.place = state.updates, (state.epoch, state.position)
        self.newest = None  # to release its arrays
        return state

    def _require_right_best(self, old: Mapping[str, Any]) -> None:
        """Raise if the checkpoint is of a dlx that kept the weights after the best epoch, not those with its loss."""
        if "best_by" not in old:
            difference = "patience of an older dlx, which kept the weights of another epoch than the best"
            self._refuse(difference, "Pass resume='ignore' to start anew.")

    def drawn(self) -> Any:
        """The state of the generator from which the training draws."""
        assert self.generator is not None
        return self.generator.bit_generator.state

    def due(self, updates: int, epoch_done: bool) -> bool:
        """Whether to save now: an epoch is done, or enough updates or time have gone by since the last save."""
        if isinstance(self.every, str):
            return epoch_done
        if isinstance(self.every, int):
            return updates - self.updates >= self.every
        return time.monotonic() - self.saved_at >= self.every.total_seconds()

    def save(self, state: TrainingState) -> None:
        """Write the next checkpoint, and remove old ones."""
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
        self.written.append(self.last)
        self._remove_old()
        self.updates, self.saved_at = state.updates, time.monotonic()
        self.place = state.epoch, state.position

    def _remove_old(self) -> None:
        """Remove all but the last checkpoints. If that fails, warn, because the new one has been saved."""
        try:
            paths = self.paths()
        except OSError as reason:
            self._warn_of_old(reason)
            return
        for number in paths.keys() - set(sorted(paths.keys() - self.damaged)[-FILES_KEPT:]):
            self._remove(paths[number])

    def _remove(self, path: Path) -> None:
        """Remove a checkpoint, or warn."""
        try:
            path.unlink(missing_ok=True)
        except OSError as reason:
            self._warn_of_old(reason)

    def _warn_of_old(self, reason: OSError) -> None:
        """Warn that old checkpoints stay in the folder."""
        loss = "all that is saved is kept, and fills the disk: remove the old ones by hand"
        atomic.warn_once(self.folder, f"lets no old checkpoint be removed ({reason.strerror or reason})", loss)

    def _require_figures(self, lengths: Mapping[str, int], epochs: int) -> None:
        """Raise if a callback has changed the history so that the training could not go on from it."""
        own = {name: length for name, length in lengths.items() if name in ORDER}
        if own != (dict.fromkeys(self.figures, epochs) if epochs else {}):
            rule, got = f"keep each of fit's own figures, {epochs} epochs of them, to be saved", f"lengths {own}"
            checks.reject("history", rule, got, "Change a copy, or add other names.")

    def last_good(self, bad: tuple[int, int] | None) -> Path | None:
        """The last checkpoint that this call wrote before the epoch and batch whose loss was `bad`.

        A checkpoint of the weights that gave this loss is removed.
        """
        if bad is not None and self.written and self.place >= bad:
            self._remove(self.folder / NAME.format(self.written.pop()))
        paths = self.paths()
        return next((paths[number] for number in reversed(self.written) if number in paths), None)

    def paths(self) -> dict[int, Path]:
        """The checkpoints in the folder, by their numbers."""
        matches = ((PATTERN.fullmatch(path.name), path) for path in self.folder.iterdir())
        return {int(match[1]): path for match, path in matches if match and path.is_file()}


@contextlib.contextmanager
def in_folder(folder: Any, every: Any, resume: Any, attempt: Attempt) -> Iterator[Checkpoints | None]:
    """Yield the checkpoints in `folder`, which no other process can use meanwhile; None if `folder` is None.

    If the `attempt` fails before its work has begun, the folder and its parents are left as they were.
    """
    checks.choice("resume", resume, ("auto", "ignore"), "'auto' goes on from a checkpoint, 'ignore' starts anew.")
    every = _interval(every)
    if folder is None:
        yield None
        return
    if not isinstance(folder, str | os.PathLike):
        remedy = "For example checkpoint='run/'."
        checks.reject("checkpoint", "be the path of a folder, or None", checks.shown(folder), remedy, TypeError)
    path = Path(os.path.abspath(os.fsdecode(folder)))  # because a callback may change the working folder
    if not os.fsdecode(folder) or "\0" in str(path) or (os.path.lexists(path) and not path.is_dir()):
        checks.reject("checkpoint", "be a folder, or a name for one", repr(os.fsdecode(folder)), "Choose another name.")
    with attempts.owned(path, "checkpoint", attempt):
        checkpoints = Checkpoints(path, every, resume == "ignore")
        try:
            yield checkpoints
        except DivergenceError as reason:
            saved = checkpoints.last_good(reason.at)
            if saved is None:
                raise
            remedy = "dlx.load reads it, and another fit may take its weights as init."
            raise DivergenceError(f"{reason} The state before is in {saved}: {remedy}") from reason


def _interval(every: Any) -> str | int | datetime.timedelta:
    """The argument `checkpoint_every`, checked; a `numpy.timedelta64` as a `datetime.timedelta`."""
    remedy = "Use datetime.timedelta(minutes=5), for example."
    if isinstance(every, np.timedelta64):
        interval, every = every, every.item()
        if not isinstance(every, datetime.timedelta):  # an int for nanoseconds or years, or None for NaT
            checks.reject("checkpoint_every", "be a datetime.timedelta, or convert to one", repr(interval), remedy)
    if isinstance(every, datetime.timedelta):
        if every.total_seconds() < 0:
            checks.reject("checkpoint_every", "be at least no time", every, remedy)
        return every
    if isinstance(every, str):
        return checks.choice("checkpoint_every", every, ("epoch",), "Or pass updates, or a datetime.timedelta.")
    return checks.integer(
        "checkpoint_every", every, low=1, remedy="It counts updates. Or pass 'epoch', or a timedelta."
    )


def _newest(paths: Sequence[Path]) -> tuple[tuple[dict[str, Any], dict[str, HostArray]] | None, int]:
    """The content of the first undamaged file, and the number of damaged ones before it.

    Warns of each damaged file, and raises if all are damaged.
    """
    for k, path in enumerate(paths):
        try:
            description, arrays = container.read(path, schema.layout)
            with container.file_errors(path):
                if not isinstance(description[TRAINING]["settings"], dict):
                    raise TypeError("settings that are none")
            return (description, arrays), k
        except container.FormatError:  # perhaps intact, and of a newer dlx: to pass over it would lose it
            raise
        except container.FileError as reason:
            if k == len(paths) - 1:
                raise container.FileError(f"{reason} Or pass resume='ignore' to start anew.") from reason
            checks.warn(f"the checkpoint before is used: {reason}")
    return None, 0


def _arithmetic(backend: Backend) -> dict[str, str]:
    """What the bits of a training depend on besides its settings: the backend, its version, threads."""
    return {"backend": backend.selector, **backend.arithmetic()}


def _warn_of_other_bits(folder: Path, was: Any, backend: Backend) -> None:
    """Warn if the last bits may differ although the backend is the same. A checkpoint of an older dlx does not tell."""
    now = _arithmetic(backend)
    if not isinstance(was, Mapping) or was.get("backend") != now["backend"]:
        return
    was = {"tf32": "False", "steps": "single formulas", **was}  # as in files that are older than these words
    differ = [name for name in now if was.get(name, now[name]) != now[name]]
    if differ:
        what = container.escaped(", ".join(f"{name} was {was[name]} and is {now[name]} now" for name in differ))
        text = f"the training in {folder} goes on, but perhaps not to the same bits: {what}"
        checks.warn(f"{text}. Where bits matter, go on with what it was.")


def _shown(value: Any) -> str:
    """A setting as an error shows it."""
    return container.truncated(json.dumps(value), 80)
