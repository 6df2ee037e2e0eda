"""File systems that lack a call (NFS, FUSE, FAT): what can be done without is, with one warning that names the folder.

The reports: where flock is not supported `checkpoint=` failed with a bare "[Errno 95]"; fsync of a folder failing with
ENOTSUP or EBADF ended a training whose file was there; an unlink refused said "update 3 was not saved", but it was;
`save("nodir/")` wrote a file `nodir`.
"""

import errno
import os
import re
import stat
import warnings
from pathlib import Path

import numpy as np
import pytest

import dlx
from dlx.files import atomic, checkpoints

X, Y = np.random.default_rng(0).standard_normal((20, 3)), np.arange(20) % 2
HOW = {"layer_dims": (3, 4, 2), "epochs": 4, "batch_size": 10, "rng": 0}
posix = pytest.mark.skipif(os.name != "posix", reason="flock, permissions and folders of POSIX systems")


def name_of(number):
    return errno.errorcode[number]


def refusing(number, call=None, where=lambda *_: True):
    """The call, which fails with this number where that is asked for."""

    def refuse(*arguments, **named):
        if where(*arguments):
            raise OSError(number, os.strerror(number))
        return call(*arguments, **named)

    return refuse


def is_folder(file):
    return stat.S_ISDIR(os.fstat(file).st_mode)


def trained(folder, **more):
    """The network and the warnings of a training with checkpoints, the same ones twice told."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        net = dlx.fit(X, Y, **HOW | more, checkpoint=folder)
    return net, [str(each.message) for each in seen]


def assert_trained(net, folder):
    np.testing.assert_array_equal(net.params[0].W, dlx.fit(X, Y, **HOW).params[0].W)
    assert len(dlx.load(max(folder.glob("checkpoint-*"))).history["loss"]) == 4


# -- locks --

NO_LOCKS = sorted({errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK})


@posix
@pytest.mark.parametrize("number", NO_LOCKS, ids=name_of)
def test_without_locks_a_training_goes_on_and_says_what_is_lost(number, tmp_path, monkeypatch):
    import fcntl

    monkeypatch.setattr(fcntl, "flock", refusing(number))
    net, seen = trained(tmp_path / "run")
    assert seen == [
        f"{tmp_path / 'run'} is on a file system without locks (flock); "
        "nothing keeps a second training from using it at the same time."
    ]
    assert_trained(net, tmp_path / "run")
    assert trained(tmp_path / "run")[1] == []  # once for a folder
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        net.save(tmp_path / "net")  # a file needs none


@posix
@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE], ids=name_of)
def test_locks_that_fail_otherwise_are_an_error(number, tmp_path, monkeypatch):
    import fcntl

    monkeypatch.setattr(fcntl, "flock", refusing(number))
    with pytest.raises(OSError, match=os.strerror(number)):
        dlx.fit(X, Y, **HOW, checkpoint=tmp_path)


@posix
@pytest.mark.parametrize("number", [errno.EAGAIN, errno.EACCES], ids=name_of)
def test_locks_that_another_holds_exclude(number, tmp_path, monkeypatch):
    with (
        atomic.owned(tmp_path, "checkpoint"),
        pytest.raises(ValueError, match="`checkpoint` must be a folder that no other training uses"),
    ):
        dlx.fit(X, Y, **HOW, checkpoint=tmp_path)
    monkeypatch.setattr(atomic, "_lock", refusing(number))
    with pytest.raises(ValueError, match="`checkpoint` must be a folder that no other training uses"):
        dlx.fit(X, Y, **HOW, checkpoint=tmp_path)


# -- forcing to the disk --

NO_FORCING = sorted({errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EBADF, errno.ENOSYS, errno.ENOTTY})
UNFORCED = (
    "{} is on a file system that cannot force files to the disk (fsync); a power cut may take what was written last."
)


@posix
@pytest.mark.parametrize("what", ["folder", "file", "both"])
@pytest.mark.parametrize("number", NO_FORCING, ids=name_of)
def test_without_fsync_a_file_is_written_and_a_warning_says_so_once(number, what, tmp_path, monkeypatch):
    where = {"folder": is_folder, "file": lambda file: not is_folder(file), "both": lambda _: True}[what]
    monkeypatch.setattr(os, "fsync", refusing(number, os.fsync, where))
    net, seen = trained(tmp_path)
    assert seen == [UNFORCED.format(tmp_path)]
    assert_trained(net, tmp_path)
    (tmp_path / "other").mkdir()
    with pytest.warns(UserWarning, match=re.escape(UNFORCED.format(tmp_path / "other"))):
        net.save(tmp_path / "other" / "net")
    np.testing.assert_array_equal(dlx.load(tmp_path / "other" / "net").params[0].W, net.params[0].W)


@posix
@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.ENOTSUP], ids=name_of)
def test_a_folder_that_may_not_be_opened_is_not_forced(number, tmp_path, monkeypatch):
    """One may write to it without reading it."""
    where = lambda path, *_: Path(path) == tmp_path  # noqa: E731
    monkeypatch.setattr(os, "open", refusing(number, os.open, where))
    with pytest.warns(UserWarning, match=re.escape(UNFORCED.format(tmp_path))):
        dlx.Network([(np.eye(2), np.zeros(2))]).save(tmp_path / "net")
    assert dlx.load(tmp_path / "net").layer_dims == (2, 2)


@posix
@pytest.mark.parametrize("where", [is_folder, lambda file: not is_folder(file)], ids=["folder", "file"])
@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EROFS, errno.EDQUOT], ids=name_of)
def test_a_disk_that_fails_is_an_error(number, where, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", refusing(number, os.fsync, where))
    with pytest.raises(OSError, match=os.strerror(number)):
        dlx.Network([(np.eye(2), np.zeros(2))]).save(tmp_path / "net")
    with pytest.raises(OSError, match=rf"update 2 was not saved: {os.strerror(number)}"):
        dlx.fit(X, Y, **HOW, checkpoint=tmp_path / "run")


# -- removing --

REFUSED = [errno.EPERM, errno.EACCES, errno.EBUSY, errno.ESTALE, errno.EROFS]


def is_checkpoint(path, *_, **__):
    return Path(path).name.startswith("checkpoint-")


@pytest.mark.parametrize("number", REFUSED, ids=name_of)
def test_old_checkpoints_that_cannot_be_removed_stay_and_the_training_goes_on(number, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "unlink", refusing(number, os.unlink, is_checkpoint))
    net, seen = trained(tmp_path)
    assert seen == [
        f"{tmp_path} lets no old checkpoint be removed ({os.strerror(number)}); "
        "all that is saved is kept, and fills the disk: remove the old ones by hand."
    ]
    assert sorted(path.name for path in tmp_path.glob("checkpoint-*")) == [
        checkpoints.NAME.format(k) for k in (1, 2, 3, 4)
    ]
    assert_trained(net, tmp_path)
    monkeypatch.undo()
    more, seen = trained(tmp_path, epochs=5)
    assert (len(more.history["loss"]), seen) == (5, [])
    assert len(list(tmp_path.glob("checkpoint-*"))) == 2


def test_a_folder_that_cannot_be_listed_after_a_save(tmp_path, monkeypatch):
    listed = checkpoints.Checkpoints.paths
    calls = []

    def fails(self):
        calls.append(1)
        if len(calls) > 1:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return listed(self)

    monkeypatch.setattr(checkpoints.Checkpoints, "paths", fails)
    net, seen = trained(tmp_path)
    assert [each.partition(" (")[0] for each in seen] == [f"{tmp_path} lets no old checkpoint be removed"]
    assert_trained(net, tmp_path)


@pytest.mark.parametrize("number", REFUSED, ids=name_of)
def test_temporaries_that_cannot_be_removed_stay(number, tmp_path, monkeypatch):
    dead = [tmp_path / atomic.TEMPORARY.format(k * 16) for k in "ab"]
    for path in dead:
        path.write_bytes(b"half")
        os.utime(path, (1, 1))
    monkeypatch.setattr(os, "unlink", refusing(number, os.unlink, lambda path, *_: Path(path) in dead))
    net, seen = trained(tmp_path)
    assert seen == []
    assert_trained(net, tmp_path)
    assert all(path.exists() for path in dead)


def test_a_folder_whose_temporaries_cannot_be_listed(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "glob", refusing(errno.EIO))
    atomic.replace(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"new"


@pytest.mark.parametrize("number", [*REFUSED, errno.EIO], ids=name_of)
def test_a_replacement_that_is_refused_is_an_error(number, tmp_path, monkeypatch):
    dlx.fit(X, Y, **HOW | {"epochs": 1}, checkpoint=tmp_path)
    before = sorted(path.name for path in tmp_path.iterdir())
    monkeypatch.setattr(os, "replace", refusing(number))
    with pytest.raises(OSError, match=f"update 4 was not saved: {os.strerror(number)}"):
        dlx.fit(X, Y, **HOW, checkpoint=tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == before


# -- permissions --


@posix
@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOTSUP, errno.ENOSYS], ids=name_of)
def test_permissions_that_cannot_be_set(number, tmp_path, monkeypatch):
    path = tmp_path / "file"
    atomic.replace(path, b"old")
    monkeypatch.setattr(os, "chmod", refusing(number))
    atomic.replace(path, b"new")  # those of a new file are those of the old one
    monkeypatch.undo()
    path.chmod(0o600)
    monkeypatch.setattr(os, "chmod", refusing(number))
    what = f"{tmp_path} is on a file system that sets no permissions; those of the file that is replaced are not kept."
    with pytest.warns(UserWarning, match=re.escape(what)):
        atomic.replace(path, b"newer")
    assert path.read_bytes() == b"newer"


# -- names of folders --


@pytest.mark.parametrize("name", ["nodir/", "nodir//", "nodir/.", "nodir/..", ".", "..", "there/", "there"])
@pytest.mark.parametrize("work", ["save", "to_onnx"])
def test_a_path_that_names_a_folder_is_refused(work, name, tmp_path, monkeypatch):
    if work == "to_onnx":
        pytest.importorskip("onnx")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").mkdir()
    net = dlx.Network([(np.eye(2), np.zeros(2))])
    with pytest.raises(IsADirectoryError, match=re.escape(repr(name))) as caught:
        getattr(net, work)(name)
    assert name == "there" or "Is the name of a folder; add that of a file" in str(caught.value)
    assert [path.name for path in tmp_path.rglob("*")] == ["there"]


def test_a_path_of_no_letters(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError):
        dlx.Network([(np.eye(2), np.zeros(2))]).save("")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_missing_is_named(tmp_path):
    net = dlx.Network([(np.eye(2), np.zeros(2))])
    with pytest.raises(FileNotFoundError, match=re.escape(repr(str(tmp_path / "no" / "where")))):
        net.save(tmp_path / "no" / "where" / "net")
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError, match=re.escape(repr(str(tmp_path / "file")))):
        net.save(tmp_path / "file" / "net")


@posix
@pytest.mark.parametrize("number", [errno.EINVAL, errno.EPERM, errno.EIO], ids=name_of)
def test_another_failure_of_a_lock_names_the_folder(number, tmp_path, monkeypatch):
    """It was a bare "[Errno 22] Invalid argument"."""
    monkeypatch.setattr("fcntl.flock", refusing(number))
    with pytest.raises(OSError, match="the folder cannot be locked") as caught:
        dlx.fit(X, Y, **HOW, checkpoint=tmp_path / "run")
    assert caught.value.errno == number
    assert caught.value.filename == str(tmp_path / "run")


@posix
def test_a_lock_that_says_nothing_still_locks(tmp_path, monkeypatch):
    """A full disk has no room for the name of the process."""
    monkeypatch.setattr(os, "ftruncate", refusing(errno.ENOSPC))
    assert dlx.fit(X, Y, **HOW, checkpoint=tmp_path).history["loss"]
