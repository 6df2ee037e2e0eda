"""Writing files: the old one or the new one is there, whichever call of the system fails or is the last; and locks."""

import builtins
import contextlib
import errno
import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import dlx
from dlx.files import atomic

OLD, NEW = b"old" * 1000, b"new" * 2000
CALLS = ("open", "close", "stat", "lstat", "access", "chmod", "fsync", "replace", "unlink", "scandir", "mkdir", "read")
posix = pytest.mark.skipif(os.name != "posix", reason="permissions, links and signals of POSIX systems")


class Killed(BaseException):
    """The process is dead: nothing after this may happen."""


class File:
    """A file whose calls count too."""

    def __init__(self, file, count):
        self.file, self.count = file, count

    def __enter__(self):
        return self

    def __exit__(self, *reason):
        try:
            self.count("close", self.file.close)()
        finally:
            with contextlib.suppress(OSError):
                self.file.close()

    def write(self, content):
        def halves(content):
            self.file.write(content[: len(content) // 2])
            self.file.flush()
            self.count("write", self.file.write)(content[len(content) // 2 :])

        return self.count("write", halves)(content)

    def __getattr__(self, name):
        return self.count(name, getattr(self.file, name))


class Disk:
    """Every call of the file system counts; the one of number `fatal` fails, or kills the process."""

    def __init__(self, fatal, kills):
        self.fatal, self.kills, self.calls, self.dead = fatal, kills, [], False
        self.opened = set()

    def count(self, name, call):
        def counted(*arguments, **named):
            if self.dead:
                raise Killed
            self.calls.append(name)
            if len(self.calls) == self.fatal:
                self.dead = self.kills
                if name == "close":  # a descriptor is closed even where that reports an error
                    call(*arguments, **named)
                raise Killed if self.kills else OSError(errno.EIO, "Input/output error")
            return call(*arguments, **named)

        return counted

    @contextlib.contextmanager
    def watched(self):
        with pytest.MonkeyPatch.context() as patch:
            for name in CALLS:
                patch.setattr(os, name, self.count(name, getattr(os, name)))
            opened, descriptor, close = self.count("open", builtins.open), os.open, os.close
            patch.setattr(builtins, "open", lambda *a, **named: File(opened(*a, **named), self.count))
            patch.setattr(os, "open", lambda *a, **named: (self.opened.add(f := descriptor(*a, **named)), f)[1])
            patch.setattr(os, "close", lambda f: (close(f), self.opened.discard(f))[0])
            yield


def swept(work, intact, kills):
    """`work` with every call failing in turn, checked by `intact(succeeded)`; returns the names of the calls."""
    for fatal in range(1, 1000):
        disk, succeeded = Disk(fatal, kills), False
        with contextlib.suppress(OSError, Killed), disk.watched():
            work()
            succeeded = True
        for left in disk.opened:  # the system closes what a dead process had open
            with contextlib.suppress(OSError):
                os.close(left)
        atomic._LOCK_FILES.clear()
        intact(succeeded)
        if succeeded and len(disk.calls) < fatal:
            return disk.calls
    raise AssertionError("no end of calls")


@pytest.mark.parametrize("kills", [False, True], ids=["fails", "kills"])
def test_old_or_new_whichever_call_fails(kills, tmp_path):
    path = tmp_path / "file"
    found = set()

    def intact(succeeded):
        found.add(path.read_bytes())
        assert path.read_bytes() == NEW if succeeded else path.read_bytes() in (OLD, NEW)
        path.write_bytes(OLD)
        left = [each for each in tmp_path.iterdir() if each != path]
        assert kills or len(left) <= 1  # where the temporary itself cannot be removed
        for each in left:
            each.unlink()

    path.write_bytes(OLD)
    calls = swept(lambda: atomic.replace(path, NEW), intact, kills)
    assert {"open", "write", "flush", "fsync", "replace", "close"} <= set(calls)
    assert calls.count("fsync") == 2  # of the file, and of its folder
    assert found == {OLD, NEW}


@pytest.mark.filterwarnings("ignore:.* lets no old checkpoint be removed:UserWarning")
@pytest.mark.parametrize("kills", [False, True], ids=["fails", "kills"])
def test_old_or_new_checkpoint_whichever_call_fails(kills, tmp_path):
    X, y = np.random.default_rng(0).standard_normal((20, 3)), np.arange(20) % 2
    how = {"layer_dims": (3, 4, 2), "epochs": 3, "rng": 0, "checkpoint": tmp_path / "run"}
    whole = dlx.fit(X, y, **how | {"checkpoint": None})
    dlx.fit(X, y, **how | {"epochs": 1})
    kept = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    epochs = set()

    def intact(succeeded):
        before = [name for name in kept if name.startswith("checkpoint")]
        names = sorted(path.name for path in (tmp_path / "run").glob("checkpoint-*"))
        assert names
        assert set(names) <= {*before, "checkpoint-00000002.safetensors", "checkpoint-00000003.safetensors"}
        for name in names:
            epochs.add(len(dlx.load(tmp_path / "run" / name).history["loss"]))  # every one of them loads
        net = dlx.fit(X, y, **how)
        np.testing.assert_array_equal(net.params[0].W, whole.params[0].W)
        for path in (tmp_path / "run").iterdir():
            path.unlink()
        for name, content in kept.items():
            (tmp_path / "run" / name).write_bytes(content)

    calls = swept(lambda: dlx.fit(X, y, **how), intact, kills)
    assert {"open", "write", "fsync", "replace", "close", "unlink", "scandir", "mkdir"} <= set(calls)
    assert epochs == {1, 2, 3}


@posix
@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_a_new_file_has_the_permissions_of_the_umask(mask, tmp_path):
    before = os.umask(mask)
    try:
        atomic.replace(tmp_path / "file", NEW)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o666 & ~mask


@posix
def test_an_old_file_keeps_its_permissions(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(OLD)
    path.chmod(0o640)
    atomic.replace(path, NEW)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_a_file_that_may_not_be_written_stays(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_bytes(OLD)
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK)  # root may write anything
    with pytest.raises(PermissionError):
        atomic.replace(path, NEW)
    assert path.read_bytes() == OLD


@posix
def test_a_symbolic_link_stays_and_its_file_is_written(tmp_path):
    (tmp_path / "there").mkdir()
    target, link = tmp_path / "there" / "file", tmp_path / "link"
    link.symlink_to(target)
    for content in (OLD, NEW):  # first it points to nothing
        atomic.replace(link, content)
        assert link.is_symlink()
        assert target.read_bytes() == content
    assert [path.name for path in target.parent.iterdir()] == ["file"]


@posix
def test_a_device_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in ("/dev/null", tmp_path / "pipe"):
        with pytest.raises(
            ValueError, match=r"`path` must be a file, or a name that is free; got .*, a device or pipe\."
        ):
            atomic.replace(path, NEW)
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


def test_temporaries_of_the_dead_are_swept_and_those_of_the_living_stay(tmp_path):
    dead, young, living = (tmp_path / atomic.TEMPORARY.format(k * 16) for k in "abc")
    foreign = tmp_path / ".dlx-mine.tmp"
    for path in (dead, young, living, foreign):
        path.write_bytes(b"half")
        if path != young:
            os.utime(path, (time.time() - 2 * atomic.STALE,) * 2)
    with open(living, "rb") as file:
        atomic._lock(file.fileno())
        atomic.replace(tmp_path / "file", NEW)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([young.name, living.name, foreign.name, "file"])


# -- folders of one process --

HOLDER = """
import sys, time
from pathlib import Path
from dlx.files import atomic
with atomic.owned(Path(sys.argv[1]), "checkpoint"):
    print("has it", flush=True)
    if sys.argv[2:]:
        import os
        if os.fork() == 0:
            print("child", flush=True)
            time.sleep(60)
    time.sleep(60)
"""


def holder(folder, *more):
    run = subprocess.Popen([sys.executable, "-c", HOLDER, str(folder), *more], stdout=subprocess.PIPE, text=True)
    assert run.stdout.readline() == "has it\n"
    return run


def test_a_folder_that_another_process_has_is_refused_until_that_is_dead(tmp_path):
    run = holder(tmp_path / "deep" / "run")
    rule = r"`checkpoint` must be a folder that no other training uses; got .*run, which process "
    try:
        with (
            pytest.raises(ValueError, match=rf"{rule}{run.pid} on \S+ uses\. Wait"),
            atomic.owned(tmp_path / "deep" / "run", "checkpoint"),
        ):
            pass
        with pytest.raises(ValueError, match=rule):  # and so does fit, before any work
            dlx.fit([[1.0]], [1.0], (1, 1), checkpoint=tmp_path / "deep" / "run")
    finally:
        run.kill()
        run.wait()
        run.stdout.close()
    with (
        atomic.owned(tmp_path / "deep" / "run", "checkpoint"),
        pytest.raises(ValueError, match=rf"{rule}{os.getpid()} "),  # nor twice in one process
        atomic.owned(tmp_path / "deep" / "run", "checkpoint"),
    ):
        pass
    with atomic.owned(tmp_path / "deep" / "run", "checkpoint"):
        pass


@posix
def test_a_child_of_the_dead_holds_nothing(tmp_path):
    run = holder(tmp_path, "and a child")
    assert run.stdout.readline() == "child\n"
    run.kill()
    run.wait()
    with atomic.owned(Path(tmp_path), "checkpoint"):
        pass
    run.stdout.close()


@posix
def test_a_pipe_among_the_temporaries_holds_nobody_up(tmp_path):
    pipe = tmp_path / ".dlx-0123456789abcdef.tmp"
    os.mkfifo(pipe)
    os.utime(pipe, (1, 1))
    atomic.replace(tmp_path / "file", NEW)
    assert (tmp_path / "file").read_bytes() == NEW
    assert pipe.exists()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS])
def test_a_file_system_without_locks(number, tmp_path, monkeypatch):
    def none(file):
        raise OSError(number, "no locks")

    monkeypatch.setattr(atomic, "_lock", none)
    atomic.replace(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"new"


def test_another_failure_of_a_lock_is_told(tmp_path, monkeypatch):
    def fails(file):
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(atomic, "_lock", fails)
    with pytest.raises(OSError, match="Input/output error"):
        atomic.replace(tmp_path / "a", b"new")
    assert list(tmp_path.iterdir()) == []
