"""One process at a time works on a folder: a lock with the name of its owner and a heartbeat."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from memloc.errors import FolderInUseError, OutputError

LOCK = ".lock"
_SPEC, _MANIFEST = "spec.json", "manifest.json"  # which only a folder of memloc's own has
BEAT, DEAD = 5.0, 90.0  # seconds between beats, and without one after which the owner is taken for dead
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
            return (_read(self.path) or {}).get("token") == self.token
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
    if (folder / LOCK).exists() and ((folder / _SPEC).is_file() or (folder / _MANIFEST).is_file()):
        with locked(folder):
            pass


def check_held(folder: Path) -> None:
    """Raise FolderInUseError where a folder that this process works on was taken by another one."""
    held_folder(folder / LOCK)


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
        if _made(path, content):
            return
        _remove_if_dead(path)
    raise _in_use(path, {})


def _made(path: Path, content: bytes) -> bool:
    """Make a file that is not there; whether this process made it."""
    try:
        file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    except FileExistsError:
        return False
    except OSError as problem:
        raise OutputError(
            f"{str(path.parent)!r} cannot be written ({problem.strerror}). Expected a folder with write access. Pass"
            " another --out."
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
    return True


def _remove_if_dead(path: Path) -> None:
    """Remove a lock whose owner is dead, one process at a time.

    Raises:
        FolderInUseError: it lives, or the file is none of memloc's.
    """
    guard = path.with_name(f"{LOCK}.takeover")
    if not _made(guard, b""):
        with contextlib.suppress(FileNotFoundError):
            if _age(guard) > DEAD:  # its maker was killed in between
                guard.unlink(missing_ok=True)
        raise _in_use(path, {})
    try:
        owner, age = _read(path), _age(path)
        if owner is None:
            raise FolderInUseError(
                f"{str(path)!r} was not written by memloc. Expected no lock, or one of memloc's. Remove it if nothing"
                " uses the folder, or pass another --out."
            )
        if _lives(owner, age):
            raise _in_use(path, owner)
        path.unlink()
    except FileNotFoundError:
        return  # it was released a moment ago
    except FolderInUseError:
        raise
    except OSError as problem:
        raise _in_use(path, {}) from problem
    finally:
        guard.unlink(missing_ok=True)


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
    if all(owner.get(key) == me[key] for key in ("host", "machine", "space")):
        import psutil

        try:
            process = psutil.Process(int(owner["process"]))
            return process.status() != psutil.STATUS_ZOMBIE and abs(_born(process.pid) - float(owner["born"])) < 2
        except psutil.NoSuchProcess:
            return False
        except (psutil.Error, OSError, KeyError, ValueError, TypeError):
            pass
    return age < DEAD


def _me() -> dict[str, Any]:
    """What tells this process from others: host, start of the machine, the space that process numbers are of, number,
    birth."""
    space, machine = "", str(uuid.getnode())
    with contextlib.suppress(OSError):
        space = os.readlink("/proc/self/ns/pid")
        machine = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return {
        "host": socket.gethostname(),
        "machine": machine,
        "space": space,
        "process": os.getpid(),
        "born": _born(os.getpid()),
    }


def _born(process: int) -> float:
    """When a process began: in ticks of the machine's own clock, which nobody sets, or else as a time."""
    try:
        return float(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        import psutil

        return float(psutil.Process(process).create_time())


def _read(path: Path) -> dict[str, Any] | None:
    """What a lock says of its owner: nothing where it was cut off; None of a file that memloc did not write."""
    content = path.read_bytes()
    if not content:
        return {}
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) and {"token", "process"} <= set(found) else None


def _in_use(path: Path, owner: dict[str, Any]) -> FolderInUseError:
    who = f"process {owner['process']} on {owner['host']}" if {"process", "host"} <= set(owner) else "another process"
    return FolderInUseError(
        f"{str(path.parent)!r} is in use by {who}. Expected one process at a time. Wait until it ends (a dead one's"
        f" place is free after {DEAD:.0f} s at most), or pass another --out."
    )
