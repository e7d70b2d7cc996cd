"""Parts of an audit: any division gives the tables of the whole, and what goes wrong in a job array is found."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tests.cli.command import MEMLOC, run

import memloc
from memloc.engine import _parts, audit_shard, prepare, run_job, run_part
from memloc.errors import FolderInUseError, ResultsError, SpecError
from memloc.results import locked
from memloc.workers import Part, claimed_shard, join_jobs

EXAMPLE = Path(__file__).parents[2] / "examples/job_array.sh"
TABLES = ("points", "layers", "units", "point_layers", "separation")


@pytest.fixture
def job(tiny, gray, four_splits):
    return prepare(
        tiny(0), tiny(1), images=gray, splits=four_splits, views=memloc.Views(n=4), shard_size=6, rest="median"
    )  # seven shards of 40 points


def same(one, two):
    for name in TABLES:
        assert (one / f"{name}.parquet").read_bytes() == (two / f"{name}.parquet").read_bytes(), name


@pytest.mark.parametrize("of", [1, 2, 3, 9])
def test_any_division_gives_the_tables_of_the_whole(job, of, tmp_path):
    run_job(job, out=tmp_path / "whole")
    done = [run_part(job, Part(number, of), out=tmp_path / "parts") for number in range(of, 0, -1)]
    assert sum(each.computed for each in done) == 7
    assert [each.is_complete for each in done] == [False] * (of - 1) + [True] if of < 8 else done[-1].is_complete
    run_job(job, out=tmp_path / "parts", merge="again")
    same(tmp_path / "whole", tmp_path / "parts")
    assert not (tmp_path / "parts/.shards").exists()
    after = run_part(job, Part(1, of), out=tmp_path / "parts")
    assert after.is_merged
    assert after.computed == 0


def test_a_part_begun_again_computes_what_is_missing(job, tmp_path, monkeypatch):
    calls = []

    def stopping(job, shard):
        calls.append(shard)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return audit_shard(job, shard)

    monkeypatch.setattr(_parts, "audit_shard", stopping)
    with pytest.raises(KeyboardInterrupt):
        run_part(job, Part(1, 2), out=tmp_path / "out")
    assert run_part(job, Part(1, 2), out=tmp_path / "out").computed == 2
    assert run_part(job, Part(1, 2), out=tmp_path / "out").computed == 0


def test_what_is_missing_is_named_with_its_command(job, tmp_path):
    run_part(job, Part(2, 3), out=tmp_path / "out")
    with pytest.raises(
        ResultsError, match=r"5 of 7 shards are missing \(0, 2, 3, 5, 6\).*Type: say shards=1/3, and likewise 3/3"
    ):
        run_job(job, out=tmp_path / "out", merge="say")
    run_part(job, Part(1, 3), out=tmp_path / "out")
    run_part(job, Part(3, 3), out=tmp_path / "out")
    shard = tmp_path / "out/.shards/00004.pt"
    shard.write_bytes(shard.read_bytes()[:-40])
    with (
        pytest.warns(UserWarning, match="damaged"),
        pytest.raises(ResultsError, match=r"1 of 7 shards are missing \(4\).*2/3"),
    ):
        run_job(job, out=tmp_path / "out", merge="say")
    assert run_part(job, Part(2, 3), out=tmp_path / "out").computed == 1
    run_job(job, out=tmp_path / "out", merge="say")


def test_jobs_that_differ_end_before_they_compute(job, tmp_path):
    run_part(job, Part(1, 3), out=tmp_path / "out")
    with pytest.raises(SpecError, match="computed by 3 jobs. Expected one number for all. Pass shards=I/3"):
        run_part(job, Part(1, 4), out=tmp_path / "out")
    join_jobs(tmp_path, Part(1, 2), {"torch": "2.0"})
    with pytest.raises(SpecError, match="torch is 9.9 here, and the folder was begun with 2.0"):
        join_jobs(tmp_path, Part(2, 2), {"torch": "9.9"})


def test_another_specs_folder_and_shards_are_not_taken(job, tiny, gray, four_splits, tmp_path):
    other = prepare(
        tiny(0), tiny(1), images=gray, splits=four_splits, views=memloc.Views(n=6), shard_size=6, rest="median"
    )
    run_part(job, Part(1, 2), out=tmp_path / "out")
    with pytest.raises(ResultsError, match="other settings"):
        run_part(other, Part(2, 2), out=tmp_path / "out")
    run_part(other, Part(1, 1), out=tmp_path / "other")
    shutil.copy(tmp_path / "other/.shards/00001.pt", tmp_path / "out/.shards/00001.pt")
    with pytest.warns(UserWarning, match="set aside"):
        done = run_part(job, Part(2, 2), out=tmp_path / "out")
    assert done.computed == 3
    run_job(job, out=tmp_path / "whole")
    run_job(job, out=tmp_path / "out", merge="")
    same(tmp_path / "whole", tmp_path / "out")


def test_a_folder_that_is_removed_meanwhile_is_said(job, tmp_path, monkeypatch):
    def removing(job, shard):
        shutil.rmtree(tmp_path / "out")
        return audit_shard(job, shard)

    monkeypatch.setattr(_parts, "audit_shard", removing)
    with pytest.raises(ResultsError, match="was removed while a part of it was computed"):
        run_part(job, Part(1, 2), out=tmp_path / "out")


def test_a_whole_audit_beside_a_part_ends_the_part(job, tmp_path, monkeypatch):
    calls = []

    def beside(job, shard):
        calls.append(shard)
        if len(calls) == 1:
            assert not elsewhere(lambda: run_job(job, out=tmp_path / "out"))
        return audit_shard(job, shard)

    monkeypatch.setattr(_parts, "audit_shard", beside)
    done = run_part(job, Part(1, 2), out=tmp_path / "out")
    assert done.is_merged
    assert len(calls) == 1
    assert not (tmp_path / "out/.shards").exists()


def test_merging_a_folder_that_is_not_there_makes_none(job, tmp_path):
    with pytest.raises(ResultsError, match="7 of 7 shards are missing"):
        run_job(job, out=tmp_path / "mistyped", merge="say")
    assert not (tmp_path / "mistyped").exists()


def elsewhere(act):
    """Run something in another thread, which is another owner of locks, and return what it raised."""
    found = []

    def body():
        try:
            act()
        except Exception as problem:
            found.append(problem)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    return found


def test_a_shard_that_another_job_computes_is_left_to_it(job, tmp_path):
    run_part(job, Part(2, 2), out=tmp_path / "out")
    held = {}
    with claimed_shard(tmp_path / "out/.shards/00002.pt"):
        assert not elsewhere(lambda: held.update(done=run_part(job, Part(1, 2), out=tmp_path / "out")))
    assert held["done"].elsewhere == (2,)
    assert held["done"].computed == 3
    assert not held["done"].is_complete
    assert run_part(job, Part(1, 2), out=tmp_path / "out").computed == 1


def test_a_folder_that_is_merged_is_waited_for_and_then_said(job, tmp_path, monkeypatch):
    monkeypatch.setattr(_parts, "_PATIENCE", 0.5)
    run_part(job, Part(1, 2), out=tmp_path / "out")
    with locked(tmp_path / "out"):
        found = elsewhere(lambda: run_part(job, Part(2, 2), out=tmp_path / "out"))
    assert isinstance(found[0], FolderInUseError)


def test_claims_of_killed_jobs_are_swept_at_the_merge(job, tmp_path):
    run_part(job, Part(1, 1), out=tmp_path / "out")
    claim = tmp_path / "out/.shards/00003.claim"
    claim.mkdir()
    ended = subprocess.Popen([sys.executable, "-c", "pass"])
    ended.wait()
    me = json.loads(json.dumps(__import__("memloc.results._lock", fromlist=["_me"])._me()))
    (claim / ".lock").write_text(json.dumps({"token": "gone", **me, "process": ended.pid}))
    run_job(job, out=tmp_path / "out", merge="")
    assert not (tmp_path / "out/.shards").exists()


@pytest.mark.parametrize("text", ["0/4", "5/4", "1", "a/b", "1/0", "-1/2", "1/2/3", ""])
def test_parts_that_are_none(text):
    with pytest.raises(SpecError, match=r"Expected I/N.*Pass shards=1/4"):
        Part.parse(text)


@pytest.mark.parametrize(
    ("flag", "says"),
    [
        ("--merge", "a merge computes nothing"),
        ("--overwrite", "each job would remove"),
        ("--fail-above=0.1", "pass it to --merge"),
    ],
)
def test_flags_that_no_part_takes(flag, says, tmp_path):
    done = run(tmp_path, "audit", "--f", "resnet9", "--data", "sample:test", "--out", "x", "--shards", "1/2", flag)
    assert done.returncode == 2
    assert says in done.stderr
    assert not (tmp_path / "x").exists()


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder with a run, and the whole audit of it."""
    folder = tmp_path_factory.mktemp("parts")
    images = np.random.default_rng(0).integers(0, 256, (120, 8, 8, 1), dtype=np.uint8)
    np.savez(folder / "images.npz", images=images)
    sizes = ["--candidates", "30", "--independents", "30", "--shared", "30", "--held-out", "0.2"]
    done = run(folder, "train", "images.npz", *sizes, "--epochs", "1", "--workers", "1", "--out", "run")
    assert done.returncode == 0, done.stderr
    done = run(folder, "audit", "run", *AUDIT, "--out", "whole")
    assert done.returncode == 0, done.stderr
    return folder


AUDIT = ("--views", "2", "--shard-size", "16", "--no-thumbnails")


def environment(**more):
    return {**os.environ, "OMP_NUM_THREADS": "1", "PATH": f"{MEMLOC.parent}:{os.environ['PATH']}", **more}


def test_a_job_array_at_the_same_time_as_the_example_says(runs):
    """Three tasks of SLURM by a shell; whoever is last merges, and the report is there."""
    jobs = [
        subprocess.Popen(
            ["sh", str(EXAMPLE), "run", "array", *AUDIT], cwd=runs, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=environment(SLURM_ARRAY_TASK_ID=str(number), SLURM_ARRAY_TASK_COUNT="3"),
        )
        for number in (1, 2, 3)
    ]  # fmt: skip
    said = [each.communicate() for each in jobs]
    assert [each.returncode for each in jobs] == [0, 0, 0], said
    same(runs / "whole", runs / "array")
    assert (runs / "array/report.html").is_file()
    assert any("report: array/report.html" in out for out, _ in said)


@pytest.mark.slow
def test_a_job_that_is_killed_is_begun_again(runs):
    command = [str(MEMLOC), "audit", "run", *AUDIT, "--out", "killed"]
    first = subprocess.Popen([*command, "--shards", "1/2"], cwd=runs, env=environment(), stderr=subprocess.DEVNULL)
    end = time.monotonic() + 60
    while not list((runs / "killed").glob(".shards/*.claim")) and first.poll() is None and time.monotonic() < end:
        time.sleep(0.02)
    first.send_signal(signal.SIGKILL)
    first.wait()
    for number in ("1/2", "2/2"):
        done = subprocess.run(
            [*command, "--shards", number], cwd=runs, env=environment(), capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
    same(runs / "whole", runs / "killed")
    done = subprocess.run([*command, "--merge", "--json"], cwd=runs, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr  # it is merged, and nothing is left to do
    assert json.loads(done.stdout)["out"].endswith("killed") or "report" in done.stdout


def test_a_plan_of_a_part(runs):
    found = [
        json.loads(run(runs, "audit", "run", *AUDIT, "--out", "plan", "--dry-run", "--json", *more).stdout)
        for more in ((), ("--shards", "1/4"))
    ]
    assert found[1]["shards"] == -(-found[0]["shards"] // 4)
    assert found[1]["forward_passes"] < found[0]["forward_passes"]
    assert not (runs / "plan").exists()


@pytest.mark.slow
def test_missing_shards_on_the_command_line(runs):
    command = [str(MEMLOC), "audit", "run", *AUDIT, "--out", "some"]
    subprocess.run([*command, "--shards", "2/2"], cwd=runs, env=environment(), check=True, capture_output=True)
    done = subprocess.run([*command, "--merge"], cwd=runs, env=environment(), capture_output=True, text=True)
    assert done.returncode == 2
    assert f"Type: memloc audit run {' '.join(AUDIT)} --out some --shards 1/2" in done.stderr
    assert pd.read_parquet(runs / "whole/points.parquet").shape[0] == 120
