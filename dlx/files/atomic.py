"""Files that are replaced at once or not at all, and folders that only one process uses at a time."""

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
from collections.abc import Iterator
from pathlib import Path

from dlx import checks

AnyPath = str | os.PathLike[str]
TEMPORARY, TEMPORARIES = ".dlx-{}.tmp", re.compile(r"\.dlx-[0-9a-f]{16}\.tmp")
STALE = 60.0  # seconds; the writer of a younger temporary file may not have locked it yet
LOCK = ".dlx-lock"
UNSUPPORTED = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}  # the file system lacks the call
NO_LOCKS = UNSUPPORTED | {errno.ENOLCK}
NO_FORCING = UNSUPPORTED | {errno.EINVAL, errno.EBADF, errno.ENOTTY}
NO_OPENING = NO_FORCING | {errno.EACCES, errno.EPERM, errno.EISDIR}  # a folder may not be opened to force it
NO_MODES = UNSUPPORTED | {errno.EPERM, errno.EINVAL}

if sys.platform == "win32":
    import msvcrt

    def _lock(file: int) -> None:
        """Lock an open file; raises OSError if another process holds the lock. The lock ends with the process."""
        os.lseek(file, 1 << 30, os.SEEK_SET)  # far behind the content, which others must be able to read
        msvcrt.locking(file, msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _lock(file: int) -> None:
        """Lock an open file; raises OSError if another process, or another opening of the file, holds the lock."""
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def replace(path: AnyPath, *content: bytes | memoryview) -> None:
    """Replace the file by one with the parts of `content`. The old file stays until all parts are on the disk.

    If `path` is a symbolic link, the file that it points to is replaced. A new file gets the permissions of the umask,
    and a replaced one keeps its own. Temporary files that a killed process left in the folder are removed. A file
    system may be unable to force data to the disk or to set permissions; then a single warning says what may be lost.
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
        _force_folder(target.parent)
    except BaseException as reason:
        with contextlib.suppress(OSError):
            temporary.unlink()
        if isinstance(reason, OSError) and reason.errno is not None:  # it names the temporary file
            raise OSError(reason.errno, os.strerror(reason.errno), os.fsdecode(path)) from reason
        raise


def warn_once(folder: Path, what: str, loss: str) -> None:
    """Warn `what` the file system of a folder lacks, and which `loss` that may cause, at the first time only."""
    if (str(folder), what) not in _WARNED:
        _WARNED.add((str(folder), what))
        checks.warn(f"{folder} {what}; {loss}.")


_WARNED: set[tuple[str, str]] = set()


def _require_file_name(path: str) -> None:
    """Raise if the path names a folder: `nodir/` would otherwise become a file `nodir`."""
    if not path:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
    if path.endswith((os.sep, os.altsep or os.sep)) or os.path.basename(path) in (os.curdir, os.pardir):
        raise IsADirectoryError(errno.EISDIR, "Is the name of a folder; add that of a file", path)


def _require_folder(folder: Path) -> None:
    """Raise if the folder does not exist, or is none; the error names it."""
    if not folder.exists():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(folder))
    if not folder.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))


def _lock_where_possible(file: int) -> None:
    """Lock a temporary file so that no `sweep` removes it, except on file systems without locks, where none does."""
    try:
        _lock(file)
    except OSError as reason:
        if reason.errno not in NO_LOCKS:
            raise


def _keep_mode(path: Path, mode: int) -> None:
    """Give the new file the permissions of the old one."""
    try:
        os.chmod(path, mode)
    except OSError as reason:
        if reason.errno not in NO_MODES:
            raise
        if stat.S_IMODE(os.stat(path).st_mode) != mode:
            what = "is on a file system that sets no permissions"
            warn_once(path.parent, what, "those of the file that is replaced are not kept")


def _force(file: int, folder: Path) -> None:
    """Force what was written to the disk (fsync)."""
    try:
        os.fsync(file)
    except OSError as reason:
        if reason.errno not in NO_FORCING:
            raise
        _warn_unforced(folder)


def _warn_unforced(folder: Path) -> None:
    """Warn that files in this folder are not forced to the disk."""
    what = "is on a file system that cannot force files to the disk (fsync)"
    warn_once(folder, what, "a power cut may take what was written last")


def _permissions(path: AnyPath) -> int | None:
    """The permissions of the file to replace, None if there is none. Raises if it must not be replaced."""
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    name = os.fsdecode(path)
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), name)
    if not stat.S_ISREG(status.st_mode):
        checks.reject("path", "be a file, or a name that is free", f"{name}, a device or pipe", "Choose another.")
    if not os.access(path, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), name)
    return stat.S_IMODE(status.st_mode)


def _force_folder(folder: Path) -> None:
    """Force the entries of the folder to the disk, if the operating system can."""
    if sys.platform == "win32":
        return
    try:
        opened = os.open(folder, os.O_RDONLY)
    except OSError as reason:
        if reason.errno not in NO_OPENING:
            raise
        _warn_unforced(folder)
        return
    try:
        _force(opened, folder)
    finally:
        os.close(opened)


def sweep(folder: Path) -> None:
    """Remove the temporary files of dead writers, whose locks nobody holds. Files that cannot be removed stay."""
    with contextlib.suppress(OSError):
        for path in list(folder.glob(TEMPORARY.format("*"))):
            _remove_unlocked(path)


def _remove_unlocked(path: Path) -> None:
    """Remove a temporary file that is old enough and not locked."""
    with contextlib.suppress(OSError):
        status = path.lstat()
        if not (TEMPORARIES.fullmatch(path.name) and stat.S_ISREG(status.st_mode)):  # opening a pipe would block
            return
        if time.time() - status.st_mtime < STALE:
            return
        with open(path, "rb") as file:
            _lock(file.fileno())
        path.unlink()


@contextlib.contextmanager
def owned(folder: Path, name: str) -> Iterator[None]:
    """Reserve the folder for this process, and make it if necessary. Raises if another process has reserved it.

    A reservation ends with its process. Errors call the folder by `name`, an argument of the caller. On a file system
    without locks nothing is reserved, and a warning says so.
    """
    os.makedirs(folder, exist_ok=True)
    file = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
    _LOCK_FILES.add(file)
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
        with contextlib.suppress(OSError):  # the text only serves the errors of others; saving will report a full disk
            os.ftruncate(file, 0)
            os.lseek(file, 0, os.SEEK_SET)
            os.write(file, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        yield
    finally:
        if file in _LOCK_FILES:  # not in a forked child, which closed it: the number may belong to another file
            _LOCK_FILES.discard(file)
            os.close(file)


_LOCK_FILES: set[int] = set()


def _close_locks() -> None:
    """Close the lock files in a forked child, which would keep its parent's locks after the parent's death."""
    while _LOCK_FILES:
        os.close(_LOCK_FILES.pop())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_locks)
