"""Checkpoints: a training on the disk, from where it goes on to the same bits."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import re
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dlx import checks, descriptions, files, identity, saving
from dlx.backend import Backend
from dlx.descriptions import TRAINING
from dlx.divergence import DivergenceError
from dlx.model import Network
from dlx.progress import from_file, plain, restored, to_file
from dlx.steps import Settings
from dlx.training import Progress

NAME, PATTERN, KEPT = "checkpoint-{:08}.safetensors", re.compile(r"checkpoint-([0-9]{8,})\.safetensors"), 2
Arrays = dict[str, np.ndarray[Any, Any]]


class Checkpoints:
    """The checkpoints of one training, in a folder of their own; what `train` calls a keeper.

    `most` is as there; `newest` is the description and the arrays to go on from, None if there are none.
    """

    def __init__(self, folder: Path, every: str | int | datetime.timedelta, anew: bool) -> None:
        self.folder, self.every = folder, every
        self.most = every if isinstance(every, int) else None
        paths = self.paths()
        self.last = max(paths, default=0)
        self.newest = None if anew else _newest([paths[number] for number in sorted(paths, reverse=True)])
        self.updates, self.at, self.when = 0, (0, 0), time.monotonic()
        self.net: Network | None = None
        self.generator: np.random.Generator | None = None
        self.settings: dict[str, Any] = {}
        self.first_drawn: Any = None

    def agree(
        self, told: Mapping[str, Any], settings: Settings, n: int, backend: Backend, generator: Any, seeded: bool
    ) -> None:
        """Raise where the training that was saved had other settings or data; the generator draws as it drew there.

        `told` are those beside `settings`, by the names of the arguments; there are `n` rows.
        """
        self.generator = generator
        planned = settings.epochs * -(-n // settings.batch_size)
        others = {name: each for name, each in settings._asdict().items() if name not in ("schedule", "epochs")}
        same = {name: identity.told(each, backend) for name, each in {**told, **others}.items()}
        old = None if self.newest is None else self.newest[0][TRAINING]
        at = sorted({planned * k // 4 for k in range(4)} | {planned - 1}) if old is None else old["settings"]["steps"]
        rates = {"steps": at, "learning_rate": identity.rates(settings.schedule, at, planned)}
        self.first_drawn = plain(generator.bit_generator.state)
        seed = identity.short(json.dumps(self.first_drawn, sort_keys=True)) if seeded else None
        self.settings = {**same, **rates, "rng": seed}
        if old is None:
            return
        for name, value in self.settings.items():
            if value != old["settings"].get(name):
                was, now = (_shown(each) for each in (old["settings"].get(name), value))
                rule, remedy = "be of the same training", "Pass what it was, or resume='ignore' to start anew."
                checks.reject("checkpoint", rule, f"{self.folder}, whose {name} was {was} and is {now} now", remedy)
        self.first_drawn = old["first_drawn_from"]
        with saving.whole(self.folder):
            generator.bit_generator.state = restored(generator.bit_generator.state, self.first_drawn)

    def resumed(self, net: Network, epochs: int) -> Progress | None:
        """Where the training of `net` goes on, on its backend; from here on `net` is what is saved."""
        self.net = net
        if self.newest is None:
            return None
        description, arrays = self.newest
        with saving.whole(self.folder):
            found = from_file(description, arrays, net.backend, net.dtype)
            drawn = restored(self.drawn(), found.drawn)
        if epochs < found.start.epoch:
            rule = f"be at least {found.start.epoch}, of which the checkpoint tells"
            checks.reject("epochs", rule, epochs, "Raise it, or pass resume='ignore' to start anew.")
        assert self.generator is not None
        self.generator.bit_generator.state = drawn
        self.updates, self.at = found.start.updates, (found.start.epoch, found.start.position)
        self.newest = None  # its arrays are needed no longer
        return found

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

    def save(self, progress: Progress) -> None:
        """Write the next checkpoint, and let go of those before the last."""
        assert self.net is not None
        description = descriptions.description_of(self.net)
        description["history"] = {name: len(figures) for name, figures in progress.history.items()}
        training, arrays = to_file(progress, self.net.backend, self.net.dtype)
        description[TRAINING] = training | {"first_drawn_from": self.first_drawn, "settings": self.settings}
        try:
            saving.write(self.folder / NAME.format(self.last + 1), description, arrays)
            self.last += 1
            for number, path in self.paths().items():
                if number <= self.last - KEPT:
                    path.unlink(missing_ok=True)
        except OSError as reason:
            text = f"update {progress.start.updates} was not saved: {reason.strerror or reason}. What was saved before"
            remedy = "is as it was. Mend that and call fit again, which goes on from there"
            raise OSError(reason.errno, f"{text} {remedy}", str(self.folder)) from reason
        self.updates, self.when = progress.start.updates, time.monotonic()
        self.at = progress.start.epoch, progress.start.position

    def last_good(self, bad: tuple[int, int] | None) -> Path | None:
        """The last checkpoint before the epoch and batch whose loss was bad; one that gave that loss is removed."""
        if bad is not None and self.last and self.at >= bad:
            (self.folder / NAME.format(self.last)).unlink(missing_ok=True)
        left = self.paths()
        return left[max(left)] if left else None

    def paths(self) -> dict[int, Path]:
        """The checkpoints that are there, by their numbers."""
        named = ((PATTERN.fullmatch(path.name), path) for path in self.folder.iterdir())
        return {int(match[1]): path for match, path in named if match}


@contextlib.contextmanager
def keeping(folder: Any, every: Any, resume: Any) -> Iterator[Checkpoints | None]:
    """The checkpoints in `folder`, which is this process's alone meanwhile; None where there is no folder."""
    checks.choice("resume", resume, ("auto", "ignore"), "'auto' goes on from a checkpoint, 'ignore' starts anew.")
    every = _interval(every)
    if folder is None:
        yield None
        return
    if not isinstance(folder, str | os.PathLike):
        remedy = "For example checkpoint='run/'."
        checks.reject("checkpoint", "be the path of a folder, or None", checks.shown(folder), remedy, TypeError)
    path = Path(os.fsdecode(folder))
    with files.owned(path, "checkpoint"):
        files.sweep(path)
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
    if isinstance(every, datetime.timedelta):
        seconds = every.total_seconds()
        if seconds < 0:
            checks.reject("checkpoint_every", "be at least no time", every, "Use timedelta(minutes=5), for example.")
        return every
    if isinstance(every, str):
        return checks.choice("checkpoint_every", every, ("epoch",), "Or pass updates, or a datetime.timedelta.")
    return checks.integer(
        "checkpoint_every", every, low=1, remedy="It counts updates. Or pass 'epoch', or a timedelta."
    )


def _newest(paths: Sequence[Path]) -> tuple[dict[str, Any], Arrays] | None:
    """What the first whole file holds; a damaged one is passed over with a warning, but not all of them."""
    for k, path in enumerate(paths):
        try:
            found = saving.read(path, descriptions.layout)
            with saving.whole(path):
                settings = found[0][TRAINING]["settings"]
                if not (isinstance(settings, dict) and all(type(step) is int for step in settings["steps"])):
                    raise TypeError(f"settings {settings}")
            return found
        except saving.FileError as reason:
            if k == len(paths) - 1:
                raise saving.FileError(f"{reason} Or pass resume='ignore' to start anew.") from reason
            warnings.warn(f"the checkpoint before is used: {reason}", stacklevel=6)
    return None


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else text[:77] + "..."
