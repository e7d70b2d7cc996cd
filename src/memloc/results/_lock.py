"""One process at a time works on a folder: a lock with the name of its owner and a heartbeat."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from memloc.errors import FolderInUseError, OutputError

LOCK = ".lock"
BEAT, DEAD = 5.0, 90.0  # seconds between beats, and without one after which the owner is taken for dead
_CLOCKS = 120.0  # seconds by which the same start of a machine may seem to differ
_HELD: dict[Path, _Lock] = {}  # the folders that this process works on


class _Lock:
    """A lock that this process holds, as long as nobody took it for dead."""

    def __init__(self, folder: Path) -> None:
        self.path, self.token, self.thread = folder / LOCK, secrets.token_hex(8), threading.get_ident()
        self.ended, self.lost = threading.Event(), False
        _take(self.path, self.token)
        self.beating = threading.Thread(target=self._beat, name=f"heartbeat of {folder}", daemon=True)
        self.beating.start()

    def _beat(self) -> None:
        while not self.ended.wait(BEAT):
            if not self.mine():
                self.lost = True
                return
            with contextlib.suppress(OSError):  # a shared folder that is away for a moment
                os.utime(self.path)

    def mine(self) -> bool:
        """Whether the lock is still this one; a folder that cannot be read leaves it so."""
        try:
            return bool(_read(self.path).get("token") == self.token)
        except FileNotFoundError:
            return False
        except OSError:
            return True

    def release(self) -> None:
        self.ended.set()
        self.beating.join()
        if self.mine():
            self.path.unlink(missing_ok=True)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Work on a folder alone; within one thread it may be asked for again.

    Raises:
        FolderInUseError: another process, or thread, works on it.
    """
    place = folder.resolve()
    held = _HELD.get(place)
    if held is not None and held.thread == threading.get_ident():
        yield
        return
    _HELD[place] = lock = _Lock(place)
    try:
        yield
    finally:
        _HELD.pop(place, None)
        lock.release()


def check_free(folder: Path) -> None:
    """Raise FolderInUseError where another process works on a folder; for a look before long work is begun."""
    if (folder / LOCK).exists():
        with locked(folder):
            pass


def held_folder(path: Path) -> Path | None:
    """The innermost folder around a path that this process works on; None without one.

    Raises:
        FolderInUseError: it was taken by another process, which saw no heartbeat.
    """
    if not _HELD:
        return None
    place = path.parent.resolve()
    found = next((each for each in (place, *place.parents) if each in _HELD), None)
    if found is not None and _HELD[found].lost:
        raise FolderInUseError(
            f"{str(found)!r} was taken over by another process while this one stood still. Expected to work on it"
            " alone. Repeat the command when the other one has finished."
        )
    return found


def _take(path: Path, token: str) -> None:
    """Make the lock file, in place of one whose owner is dead.

    Raises:
        FolderInUseError: the owner lives, as far as can be known. OutputError.
    """
    content = json.dumps({"token": token, **_me()}).encode()
    for _ in range(3):  # another process may take a dead one's place at the same moment
        try:
            file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
        except FileExistsError:
            _remove_if_dead(path)
            continue
        except OSError as problem:
            raise OutputError(
                f"{str(path.parent)!r} cannot be written ({problem.strerror}). Expected a folder with write access."
                " Pass another --out."
            ) from problem
        try:
            with os.fdopen(file, "wb") as opened:
                opened.write(content)
        except OSError as problem:  # the disk is full
            path.unlink(missing_ok=True)
            raise OutputError(
                f"{str(path)!r} cannot be written ({problem.strerror}). Expected free disk. Free some, or pass another"
                " --out."
            ) from problem
        return
    raise _in_use(path, {})


def _remove_if_dead(path: Path) -> None:
    """Remove a lock whose owner is dead.

    Raises:
        FolderInUseError: it lives.
    """
    try:
        owner, age = _read(path), _age(path)
    except FileNotFoundError:
        return  # it was released a moment ago
    except OSError as problem:
        raise _in_use(path, {}) from problem
    if _lives(owner, age):
        raise _in_use(path, owner)
    aside = path.with_name(f"{LOCK}.{secrets.token_hex(4)}.partial")
    try:
        os.rename(path, aside)
    except FileNotFoundError:
        return
    if _read(aside) != owner:  # the place was taken in between: this is the lock of a process that lives
        with contextlib.suppress(OSError):
            os.link(aside, path)
    aside.unlink(missing_ok=True)


def _age(path: Path) -> float:
    """Seconds since the last beat, by the clock of the folder's own file system."""
    probe = path.with_name(f"{LOCK}.{secrets.token_hex(4)}.partial")
    try:
        probe.write_bytes(b"")
        now = probe.stat().st_mtime
    except OSError:
        now = time.time()
    finally:
        probe.unlink(missing_ok=True)
    return now - path.stat().st_mtime


def _lives(owner: dict[str, Any], age: float) -> bool:
    """Whether the owner of a lock lives: by its process where that can be seen from here, else by its heartbeat."""
    me = _me()
    if owner.get("host") == me["host"] and owner.get("space") == me["space"]:
        import psutil

        try:
            if abs(float(owner["boot"]) - me["boot"]) > _CLOCKS:
                return False  # the machine was started again since
            return bool(abs(psutil.Process(int(owner["process"])).create_time() - float(owner["born"])) < 1)
        except psutil.NoSuchProcess:
            return False
        except (psutil.Error, KeyError, ValueError, TypeError):
            pass
    return age < DEAD


def _me() -> dict[str, Any]:
    """What tells this process from others: host, boot, the space that process numbers are of, number, birth."""
    import psutil

    space = ""
    with contextlib.suppress(OSError):
        space = os.readlink("/proc/self/ns/pid")
    return {
        "host": socket.gethostname(),
        "boot": psutil.boot_time(),
        "space": space,
        "process": os.getpid(),
        "born": psutil.Process().create_time(),
    }


def _read(path: Path) -> dict[str, Any]:
    """What a lock says of its owner; nothing where it was cut off."""
    try:
        found = json.loads(path.read_bytes())
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _in_use(path: Path, owner: dict[str, Any]) -> FolderInUseError:
    who = f"process {owner['process']} on {owner['host']}" if {"process", "host"} <= set(owner) else "another process"
    return FolderInUseError(
        f"{str(path.parent)!r} is in use by {who}. Expected one process at a time. Wait until it ends (a dead one's"
        f" place is free after {DEAD:.0f} s at most), or pass another --out."
    )
