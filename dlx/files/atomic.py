"""Files that are the old one or the new one, whatever happens in between, and folders that one process owns."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import socket
import stat
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

from dlx import checks

AnyPath = str | os.PathLike[str]
TEMPORARY, TEMPORARIES = ".dlx-{}.tmp", re.compile(r"\.dlx-[0-9a-f]{16}\.tmp")
STALE = 60.0  # seconds; a younger temporary may be one that its writer has not locked yet
LOCK = ".dlx-lock"
UNKNOWN = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}  # a call that the file system does not have
NO_LOCKS = UNKNOWN | {errno.ENOLCK}
NO_FORCING = UNKNOWN | {errno.EINVAL, errno.EBADF, errno.ENOTTY}
NO_OPENING = NO_FORCING | {errno.EACCES, errno.EPERM, errno.EISDIR}  # of a folder, to force its entries to the disk
NO_MODES = UNKNOWN | {errno.EPERM, errno.EINVAL}

if sys.platform == "win32":
    import msvcrt

    def _lock(file: int) -> None:
        """Raises OSError where another process holds it; the system releases it with the process."""
        os.lseek(file, 1 << 30, os.SEEK_SET)  # far from what the file says, which others must be able to read
        msvcrt.locking(file, msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _lock(file: int) -> None:
        """Raises OSError where another process, or another opening in this one, holds it."""
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def replace(path: AnyPath, *content: bytes | memoryview) -> None:
    """Write the file, part after part: until all of `content` is on the disk, what was there stays.

    Where `path` is a symbolic link, the file that it points to. A new file's permissions are those of the umask; those
    of an old one stay. Temporaries that a killed process left in the folder are removed. Where the file system cannot
    force what is written to the disk, or set permissions, it is done without, and a warning says so once.
    """
    _require_file_name(os.fsdecode(path))
    mode = _permissions(path)
    target = Path(os.path.realpath(os.fsdecode(path)))
    _require_folder(target.parent)
    sweep(target.parent)
    temporary = target.with_name(TEMPORARY.format(secrets.token_hex(8)))
    try:
        with open(temporary, "xb") as file:
            _lock_where_possible(file.fileno())
            if mode is not None:
                _keep_mode(temporary, mode)
            for part in content:
                file.write(part)
            file.flush()
            _force(file.fileno(), target.parent)
        os.replace(temporary, target)
        _sync(target.parent)
    except BaseException as reason:
        with contextlib.suppress(OSError):
            temporary.unlink()
        if isinstance(reason, OSError) and reason.errno is not None:  # which names the temporary
            raise OSError(reason.errno, os.strerror(reason.errno), os.fsdecode(path)) from reason
        raise


def warn_once(folder: Path, what: str, loss: str) -> None:
    """Say what is done without in a folder, and what that may cost: the first time only."""
    if (str(folder), what) not in _TOLD:
        _TOLD.add((str(folder), what))
        warnings.warn(f"{folder} {what}; {loss}.", stacklevel=3)


_TOLD: set[tuple[str, str]] = set()


def _require_file_name(path: str) -> None:
    """Raise where the path names a folder: `nodir/` would otherwise become a file `nodir`."""
    if not path:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
    if path.endswith((os.sep, os.altsep or os.sep)) or os.path.basename(path) in (os.curdir, os.pardir):
        raise IsADirectoryError(errno.EISDIR, "Is the name of a folder; add that of a file", path)


def _require_folder(folder: Path) -> None:
    """Raise where no file can be made, naming the folder."""
    if not folder.exists():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(folder))
    if not folder.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))


def _lock_where_possible(file: int) -> None:
    """It keeps `sweep` off; some network file systems have no locks, and on them nothing is swept."""
    try:
        _lock(file)
    except OSError as reason:
        if reason.errno not in NO_LOCKS:
            raise


def _keep_mode(path: Path, mode: int) -> None:
    """Give the new file the old one's permissions."""
    try:
        os.chmod(path, mode)
    except OSError as reason:
        if reason.errno not in NO_MODES:
            raise
        if stat.S_IMODE(os.stat(path).st_mode) != mode:
            what = "is on a file system that sets no permissions"
            warn_once(path.parent, what, "those of the file that is replaced are not kept")


def _force(file: int, folder: Path) -> None:
    """What was written, to the disk."""
    try:
        os.fsync(file)
    except OSError as reason:
        if reason.errno not in NO_FORCING:
            raise
        _say_unforced(folder)


def _say_unforced(folder: Path) -> None:
    what = "is on a file system that cannot force files to the disk (fsync)"
    warn_once(folder, what, "a power cut may take what was written last")


def _permissions(path: AnyPath) -> int | None:
    """Of the file that will be replaced, None if there is none; raises where it may not be."""
    try:
        found = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    shown = os.fsdecode(path)
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), shown)
    if not stat.S_ISREG(found.st_mode):
        checks.reject("path", "be a file, or a name that is free", f"{shown}, a device or pipe", "Choose another.")
    if not os.access(path, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), shown)
    return stat.S_IMODE(found.st_mode)


def _sync(folder: Path) -> None:
    """The folder's entries to the disk, where its system can."""
    if sys.platform == "win32":
        return
    try:
        opened = os.open(folder, os.O_RDONLY)
    except OSError as reason:
        if reason.errno not in NO_OPENING:
            raise
        _say_unforced(folder)
        return
    try:
        _force(opened, folder)
    finally:
        os.close(opened)


def sweep(folder: Path) -> None:
    """Remove the temporaries of writers that are dead: nobody holds their locks. What cannot be removed stays."""
    with contextlib.suppress(OSError):
        for path in list(folder.glob(TEMPORARY.format("*"))):
            _remove_of_the_dead(path)


def _remove_of_the_dead(path: Path) -> None:
    with contextlib.suppress(OSError):
        found = path.lstat()
        if not (TEMPORARIES.fullmatch(path.name) and stat.S_ISREG(found.st_mode)):  # to open a pipe would wait
            return
        if time.time() - found.st_mtime < STALE:
            return
        with open(path, "rb") as file:
            _lock(file.fileno())
        path.unlink()


@contextlib.contextmanager
def owned(folder: Path, name: str) -> Iterator[None]:
    """The folder, made if need be, for this process alone; raises where another one has it. The dead own nothing.

    `name` is that of the argument which the folder came by. Where the file system has no locks, a warning says so.
    """
    os.makedirs(folder, exist_ok=True)
    file = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
    _HELD.add(file)
    try:
        try:
            _lock(file)
        except OSError as reason:
            if reason.errno in NO_LOCKS:
                what = "is on a file system without locks (flock)"
                warn_once(folder, what, "nothing keeps a second training from using it at the same time")
            elif reason.errno in (errno.EAGAIN, errno.EACCES, errno.EDEADLK):
                holder = os.read(file, 200).decode(errors="replace").strip() or "another process"
                remedy = "Wait until that has ended, or choose another folder."
                checks.reject(name, "be a folder that no other training uses", f"{folder}, which {holder} uses", remedy)
            else:
                text = f"the folder cannot be locked: {reason.strerror}. Choose one on another file system"
                raise OSError(reason.errno, text, str(folder)) from reason
        with contextlib.suppress(OSError):  # what it says serves others' errors alone; a full disk shows when saving
            os.ftruncate(file, 0)
            os.lseek(file, 0, os.SEEK_SET)
            os.write(file, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        yield
    finally:
        if file in _HELD:  # not in a forked child, where that number may be another file's by now
            _HELD.discard(file)
            os.close(file)


_HELD: set[int] = set()


def _let_go() -> None:
    """A forked child would hold its parent's locks beyond the parent's death."""
    while _HELD:
        os.close(_HELD.pop())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)
