"""Folders: what memloc did not write stays, one process works at a time, inputs are never inside."""

import json
import multiprocessing
import os
import subprocess
import sys
import time

import pytest

from memloc.errors import FolderInUseError, MemlocWarning, ResultsError, SpecError
from memloc.results import (
    MANIFEST,
    _lock,
    check_free,
    claimed,
    clear_folder,
    keep_apart,
    listed_files,
    locked,
    read_json,
    replacing,
    sealing,
    unsealed,
    write_json,
)


def names(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_what_memloc_wrote_is_listed_with_its_checksum(tmp_path):
    with claimed(tmp_path / "out", {"a": 1}) as folder:
        write_json(folder / "found.json", {"x": 1})
        (folder / "deep").mkdir()
        write_json(folder / "deep/more.json", {"x": 2})
        with replacing(folder / "log.jsonl", growing=True) as temporary:
            temporary.write_text("one\n")
    files = listed_files(folder)
    assert sorted(files) == ["deep/more.json", "found.json", "log.jsonl", "spec.json"]
    assert files["log.jsonl"] == {"bytes": None, "blake2b": None}
    assert files["found.json"]["bytes"] == (folder / "found.json").stat().st_size


@pytest.mark.parametrize("name", ["found.json", "deep/more.json"])
def test_a_changed_file_is_refused_by_name_wherever_one_stands(tmp_path, monkeypatch, name):
    with claimed(tmp_path / "out", {"a": 1}) as folder:
        (folder / "deep").mkdir()
        for each in ("found.json", "deep/more.json"):
            write_json(folder / each, {"x": 1})
    (folder / name).write_text((folder / name).read_text().replace("1", "2"))
    with pytest.raises(ResultsError, match=r"is missing or damaged \(its checksum is not the one in manifest.json\)"):
        read_json(folder / name)
    monkeypatch.chdir((folder / name).parent)
    with pytest.raises(ResultsError, match="its checksum is not"):
        read_json((folder / name).relative_to((folder / name).parent))
    (folder / MANIFEST).unlink()
    assert read_json(folder / name) == {"x": 2}


@pytest.mark.parametrize(
    "content",
    ["", "{}", "[]", "\0\0", '{"files": {"a": 1}, "checksum": "0"}', '{"files": [], "checksum": ""}', "[" * 9999],
)
def test_a_damaged_manifest_is_refused(tmp_path, content):
    with claimed(tmp_path / "out", {"a": 1}) as folder:
        write_json(folder / "found.json", {"x": 1})
    (folder / MANIFEST).write_text(content)
    with pytest.raises(ResultsError, match="manifest.json' is damaged"):
        read_json(folder / "found.json")
    with pytest.raises(ResultsError, match="manifest.json' is damaged"), claimed(folder, {"a": 2}, overwrite=True):
        pass
    assert (folder / "found.json").exists()


def test_overwriting_removes_what_memloc_wrote_and_nothing_else(tmp_path):
    with claimed(tmp_path / "out", {"a": 1}) as folder:
        for place in ("run", ".work", "checkpoints"):
            (folder / place).mkdir()
        write_json(folder / "found.json", {"x": 1})
        with sealing(folder / "checkpoints/f.pt") as temporary:
            temporary.write_bytes(b"weights")
        with claimed(folder / "run", {"b": 1}):
            write_json(folder / "run/points.json", {})
    mine = {
        "thesis.tex": "all my work",
        "run/notes.txt": "more",
        "checkpoints/model.pt": "mine",
        "found.json.bak": "{}",
    }
    for name, text in mine.items():
        (folder / name).write_text(text)
    (tmp_path / "elsewhere").write_text("linked")
    (folder / "link").symlink_to(tmp_path / "elsewhere")
    told = pytest.warns(MemlocWarning, match="5 files in .* were not written by memloc and are left alone")
    with told, claimed(folder, {"a": 2}, overwrite=True):
        pass
    assert names(folder) == sorted([*mine, "link", "manifest.json", "spec.json"])
    assert {name: (folder / name).read_text() for name in mine} == mine
    assert (tmp_path / "elsewhere").read_text() == "linked"


@pytest.mark.parametrize("spec", ['{"epochs": 3}', "{}", "[]", "no json", '{"openapi": "3.1.0", "paths": {}}'])
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_with_a_foreign_spec_is_left_alone(tmp_path, spec, overwrite):
    (tmp_path / "spec.json").write_text(spec)
    (tmp_path / "data.csv").write_text("1,2")
    refused = pytest.raises(ResultsError, match=r"without a manifest.json.* remove the folder yourself")
    with refused as said, claimed(tmp_path, {"epochs": 4}, overwrite=overwrite):
        pass
    assert "--overwrite" not in str(said.value)
    assert names(tmp_path) == ["data.csv", "spec.json"]
    assert (tmp_path / "spec.json").read_text() == spec


@pytest.mark.parametrize(
    ("out", "read"),
    [("data", "data"), ("data", "data/table.csv"), ("data", "data/deep/images"), (".", "data/table.csv"), ("link", "data/table.csv"), ("data", "data/models.py:build"), ("data", "data/set.npz:train"), ("data/../data", "data/table.csv")],
)  # fmt: skip
def test_an_input_is_never_in_the_folder_written_to(tmp_path, monkeypatch, out, read):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data/deep/images").mkdir(parents=True)
    for name in ("table.csv", "models.py", "set.npz"):
        (tmp_path / "data" / name).write_text("")
    (tmp_path / "link").symlink_to("data")
    with pytest.raises(SpecError, match="which this command reads"):
        keep_apart(tmp_path / out, read)
    keep_apart(tmp_path / "data/found", read)
    keep_apart(tmp_path / "other", read, None, "sample:train", "hf:x", "timm:vit", "nowhere")


CLAIM = """
import sys, time
from pathlib import Path
from memloc.results import claimed
with claimed(Path(sys.argv[1]), {"a": 1}):
    print("mine", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def owner(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", CLAIM, tmp_path / "out"], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "mine\n"
    yield process
    process.kill()
    process.wait()


def test_a_second_process_is_refused_at_once_and_told_of_the_first(owner, tmp_path):
    began = time.monotonic()
    refused = pytest.raises(FolderInUseError, match=rf"in use by process {owner.pid} on \S+")
    with refused, claimed(tmp_path / "out", {"a": 1}):
        pass
    assert time.monotonic() - began < 1
    with pytest.raises(FolderInUseError), claimed(tmp_path / "out", {"a": 2}, overwrite=True):
        pass


def test_the_place_of_a_killed_process_is_taken_at_once(owner, tmp_path):
    owner.kill()
    owner.wait()
    with claimed(tmp_path / "out", {"a": 1}) as folder:
        assert json.loads((folder / ".lock").read_text())["process"] == os.getpid()
    assert not (folder / ".lock").exists()


@pytest.mark.parametrize(("age", "free"), [(0, False), (80, False), (100, True)])
def test_of_another_machine_the_heartbeat_tells(tmp_path, age, free):
    lock = tmp_path / ".lock"
    lock.write_text(
        json.dumps({"token": "t", "host": "elsewhere", "process": 1, "born": 0.0, "machine": "", "space": ""})
    )
    os.utime(lock, (time.time() - age, time.time() - age))
    if free:
        with locked(tmp_path):
            assert json.loads(lock.read_text())["process"] == os.getpid()
    else:
        with pytest.raises(FolderInUseError, match="in use by process 1 on elsewhere"), locked(tmp_path):
            pass


def test_an_empty_lock_is_taken_when_its_heartbeat_ends(tmp_path):
    (tmp_path / ".lock").write_bytes(b"")  # whoever made it was ended before it could write
    with pytest.raises(FolderInUseError), locked(tmp_path):
        pass
    os.utime(tmp_path / ".lock", (time.time() - 100,) * 2)
    with locked(tmp_path):
        pass


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff\xfe", b'{"token": 3}', b"poetry or anything else"])
def test_another_programs_lock_is_left_alone(tmp_path, content):
    (tmp_path / ".lock").write_bytes(content)
    os.utime(tmp_path / ".lock", (1, 1))
    check_free(tmp_path)  # a folder without memloc's work is not looked at
    with pytest.raises(FolderInUseError, match="was not written by memloc"), locked(tmp_path):
        pass
    assert (tmp_path / ".lock").read_bytes() == content
    assert names(tmp_path) == [".lock"]


def test_what_tells_a_process_from_others_follows_no_clock(tmp_path, owner):
    lock = tmp_path / "out/.lock"
    known = json.loads(lock.read_text())
    assert _lock._lives(known, 1e9)  # seen from here, whatever the heartbeat
    assert not _lock._lives({**known, "born": known["born"] - 50}, 0)  # another process of the same number
    elsewhere = {**known, "machine": "another start of the machine"}
    assert _lock._lives(elsewhere, 0)
    assert not _lock._lives(elsewhere, 100)
    os.kill(owner.pid, 9)
    while os.waitid(os.P_PID, owner.pid, os.WEXITED | os.WNOWAIT) is None:
        time.sleep(0.01)
    assert not _lock._lives(known, 0)  # dead, and not yet looked after by its parent


def test_an_owner_that_was_taken_for_dead_stops(tmp_path, monkeypatch):
    monkeypatch.setattr(_lock, "BEAT", 0.05)
    with claimed(tmp_path, {"a": 1}):
        (tmp_path / ".lock").write_text(json.dumps({"token": "another's", "process": 1}))
        time.sleep(0.5)
        with pytest.raises(FolderInUseError, match="was taken over by another process"):
            write_json(tmp_path / "found.json", {})
    assert not (tmp_path / "found.json").exists()
    assert (tmp_path / ".lock").exists()  # the other's


def test_the_heart_beats(tmp_path, monkeypatch):
    monkeypatch.setattr(_lock, "BEAT", 0.05)
    with locked(tmp_path):
        os.utime(tmp_path / ".lock", (1, 1))
        time.sleep(0.5)
        assert time.time() - (tmp_path / ".lock").stat().st_mtime < 60


def _try(folder, wins):
    try:
        with locked(folder):
            wins.put(os.getpid())
            time.sleep(1.5)
    except FolderInUseError:
        pass


def test_of_many_that_see_a_dead_owner_one_takes_its_place(tmp_path):
    (tmp_path / ".lock").write_text("")
    os.utime(tmp_path / ".lock", (1, 1))
    wins = multiprocessing.get_context("fork").Queue()
    processes = [multiprocessing.get_context("fork").Process(target=_try, args=(tmp_path, wins)) for _ in range(6)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert wins.get(timeout=5)
    assert wins.empty()


def flip(path, place):
    content = bytearray(path.read_bytes())
    content[place] ^= 16
    path.write_bytes(content)


@pytest.mark.parametrize("place", [0, 3, 7, 8, 20, 24, 39])
def test_a_flipped_byte_of_a_sealed_file_is_seen(tmp_path, place):
    path = tmp_path / "a.pt"
    with sealing(path) as temporary:
        temporary.write_bytes(b"contents")
    assert unsealed(path, "the file", "again").read() == b"contents"
    flip(path, place)
    with pytest.warns(MemlocWarning, match="is damaged, or was stored by another version of memloc, and was set aside"):
        assert unsealed(path, "the file", "again") is None
    assert [each.name for each in tmp_path.iterdir()] == ["a.pt.damaged"]
    assert unsealed(path, "the file", "again") is None


@pytest.mark.parametrize("content", [b"", b"x", bytes(32), bytes(100)])
def test_empty_cut_and_zeroed_files_are_set_aside(tmp_path, content):
    (tmp_path / "a.pt").write_bytes(content)
    with pytest.warns(MemlocWarning, match="set aside"):
        assert unsealed(tmp_path / "a.pt", "the file", "again") is None


def test_clearing_keeps_what_it_does_not_know(tmp_path):
    (tmp_path / "a").write_text("")
    assert clear_folder(tmp_path) == [tmp_path / "a"]


def test_a_file_is_listed_in_the_nearest_folder_of_memlocs(tmp_path):
    """A finished folder within one that is worked on keeps its own list."""
    with claimed(tmp_path / "demo", {"a": 1}) as outer:
        with claimed(outer / "audit", {"b": 1}):
            write_json(outer / "audit/audit.json", {"x": 1})
        write_json(outer / "audit/audit.json", {"x": 2})
        assert read_json(outer / "audit/audit.json") == {"x": 2}
    assert set(listed_files(outer)) == {"spec.json", "audit/manifest.json"}
    write_json(outer / "audit/audit.json", {"x": 3})  # by nobody's claim
    assert read_json(outer / "audit/audit.json") == {"x": 3}


def test_work_of_its_own_within_a_folder_stays(tmp_path):
    """memloc audit run --out run/audit, then another training in run: the audit is no part of that."""
    with claimed(tmp_path / "run", {"a": 1}) as run:
        write_json(run / "points.json", {})
    with claimed(run / "audit", {"b": 1}):
        write_json(run / "audit/audit.json", {"x": 1})
    told = pytest.warns(MemlocWarning, match="1 files .* left alone: audit")
    with told, claimed(run, {"a": 2}, overwrite=True):
        pass
    assert read_json(run / "audit/audit.json") == {"x": 1}
    assert not (run / "points.json").exists()


def test_what_looks_like_a_result_and_is_none_of_memlocs_is_never_used(tmp_path):
    with claimed(tmp_path / "run", {"a": 1}) as run:
        write_json(run / "points.json", {})
    (run / "encoders").mkdir()
    (run / "encoders/f.safetensors").write_bytes(b"somebody's")
    refused = pytest.raises(ResultsError, match="holds 'encoders/f.safetensors', which its manifest.json does not list")
    with refused, claimed(run, {"a": 2}, overwrite=True):
        pass
    assert (run / "points.json").exists()


def test_a_lost_spec_is_no_new_folder(tmp_path):
    with claimed(tmp_path / "run", {"a": 1}) as run:
        write_json(run / "run.json", {"of": "a 1"})
    (run / "spec.json").unlink()
    with pytest.raises(ResultsError, match="has no spec.json"), claimed(run, {"a": 2}):
        pass
    assert read_json(run / "run.json") == {"of": "a 1"}


def test_nothing_is_touched_outside_or_of_others(tmp_path):
    with claimed(tmp_path / "out", {"a": 1}) as folder:
        write_json(folder / "found.json", {})
    (tmp_path / "films").mkdir()
    mine = [tmp_path / "films/.movie.mp4.partial", tmp_path / "films/.a.12.partial", folder / ".film.partial"]
    mine += [folder / ".writable", folder / "notes.damaged"]
    for path in mine:
        path.write_text("mine")
    (folder / "data").symlink_to(tmp_path / "films")
    (folder / "empty").mkdir()
    (folder / ".found.json.123.partial").write_text("of a write that was cut off")
    with claimed(folder, {"a": 1}):
        pass
    assert not (folder / ".found.json.123.partial").exists()
    with pytest.warns(MemlocWarning, match="left alone"), claimed(folder, {"a": 2}, overwrite=True):
        pass
    assert all(path.read_text() == "mine" for path in mine)
    assert (folder / "empty").is_dir()


def test_another_programs_manifest_says_nothing(tmp_path):
    (tmp_path / "manifest.json").write_text('{"name": "a web app", "files": {"found.json": "abc"}}')
    write_json(tmp_path / "found.json", {"x": 1})
    assert read_json(tmp_path / "found.json") == {"x": 1}
    assert "web app" in (tmp_path / "manifest.json").read_text()
