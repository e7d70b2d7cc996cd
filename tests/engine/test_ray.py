"""Shards on Ray: the tables of one process, actors that die, workers that differ, addresses that do not answer."""

import contextlib
import os
import time

import pytest
import torch
from tests.engine.test_parts import same

import memloc
from memloc.engine import prepare, run_job
from memloc.errors import DataError, SpecError, TrainingError
from memloc.workers import RayPlace, _ray, compute_on_ray

ray = pytest.importorskip("ray")
SHARDS = [slice(start, start + 2) for start in range(0, 12, 2)]


@pytest.fixture(scope="module")
def cluster():
    """Ray on this machine, with room for four workers of a thread."""
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False, configure_logging=False)
    yield
    ray.shutdown()


def computed(of, *, shared="job", workers=2, stored=None, shown=None):
    kept = {} if stored is None else stored
    states = compute_on_ray(
        SHARDS, place=RayPlace(workers=workers, threads=1), shared=shared, modules=[], ready=contextlib.nullcontext, of=of,
        load=kept.get, store=kept.__setitem__, show=([] if shown is None else shown).append,
    )  # fmt: skip
    return states, kept


@pytest.mark.parametrize(
    ("workers", "rest"),
    [
        (2, "median"),
        *(pytest.param(number, "mean", marks=pytest.mark.slow) for number in (1, 2, 4)),
        pytest.param(4, "median", marks=pytest.mark.slow),
    ],
)
def test_tables_are_those_of_one_process(cluster, tiny, gray, four_splits, workers, rest, tmp_path):
    """The encoders' class stands in a test, which no worker can import."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        job = prepare(
            tiny(0), tiny(1), images=gray, splits=four_splits, views=memloc.Views(n=4), shard_size=6, rest=rest
        )
        run_job(job, out=tmp_path / "one")
        said = []
        place = RayPlace(workers=workers, threads=1)
        run_job(job, out=tmp_path / "ray", ray=place, progress=lambda text, done, total: said.append((text, done)))
    finally:
        torch.set_num_threads(threads)
    same(tmp_path / "one", tmp_path / "ray")
    assert [done for text, done in said if text.endswith("Ray")] == [6, 12, 18, 24, 30, 36, 40]


def test_states_in_order_and_what_is_there_is_kept(cluster):
    def of(shared, shard):
        return f"{shared} {shard.start}"

    states, _ = computed(of, stored={2: "there"})
    assert states == ["job 0", "job 2", "there", "job 6", "job 8", "job 10"]


def test_an_actor_that_dies_is_replaced_and_nothing_is_lost(cluster, tmp_path):
    mark = tmp_path / "died"

    def of(_shared, shard):
        if shard.start == 4 and not mark.exists():
            mark.touch()
            os._exit(1)
        return shard.start

    with pytest.warns(UserWarning, match="A worker ended; its shards are begun again"):
        states, _ = computed(of)
    assert states == [0, 2, 4, 6, 8, 10]


@pytest.mark.slow
def test_a_shard_that_kills_every_actor_is_said_and_the_others_are_kept(cluster):
    def of(_shared, shard):
        if shard.start == 10:
            os._exit(1)
        return shard.start

    kept = {}
    with pytest.warns(UserWarning, match="begun again"), pytest.raises(TrainingError, match="shard 5 ended 3 times"):
        computed(of, workers=1, stored=kept)
    assert sorted(kept) == [0, 1, 2, 3, 4]


def test_what_a_shard_raises_is_raised_here(cluster):
    def of(_shared, shard):
        if shard.start == 6:
            raise DataError("wrong. Expected right. Pass another.")
        return 1

    with pytest.raises(DataError, match="wrong"):
        computed(of)


def test_no_more_is_under_way_than_two_a_worker(cluster, tmp_path):
    """What is finished is stored before more is begun, so nothing piles up."""

    def of(_shared, shard):
        (tmp_path / f"{shard.start}").touch()
        return shard.start

    begun = []

    class Slow(dict):
        def __setitem__(self, number, state):
            time.sleep(0.3)
            begun.append(len(list(tmp_path.iterdir())) - len(self) - 1)
            super().__setitem__(number, state)

    computed(of, workers=1, stored=Slow())
    assert max(begun) <= 2


def test_a_worker_of_another_version_is_refused(cluster, monkeypatch):
    monkeypatch.setattr(_ray, "own_version", lambda: "9.9")
    with pytest.raises(SpecError, match=r"a worker has memloc .* and this process 9.9"):
        computed(lambda shared, shard: 1)


def test_workers_without_room_are_left_out_and_said(cluster, monkeypatch):
    monkeypatch.setattr(_ray, "_OTHERS", 8.0)
    with pytest.warns(UserWarning, match=r"There is room for \d of 6 workers, which go on alone"):
        states, _ = computed(lambda shared, shard: shard.start, workers=6)
    assert states == [0, 2, 4, 6, 8, 10]


@pytest.mark.parametrize(("text", "threads"), [("3", 3), ("2,1", 2), ("0", 1), ("", 1), ("x", 1)])
def test_threads_are_those_that_the_environment_names(text, threads, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", text)
    assert RayPlace().threads == threads


def test_more_than_the_cluster_has_is_refused(cluster):
    with pytest.raises(SpecError, match="no room for a worker of 64 cores"):
        compute_on_ray(
            SHARDS, place=RayPlace(threads=64), shared=0, modules=[], ready=contextlib.nullcontext, of=max, load={}.get,
            store=print, show=print,
        )  # fmt: skip


@pytest.mark.parametrize(
    ("address", "says"),
    [("127.0.0.1:1", "no Ray cluster answers"), ("nonsense", "is no address of Ray"), ("ray://127.0.0.1:1", "answers")],
)
def test_addresses_that_are_none(address, says):
    """In seconds: Ray itself waits for minutes."""
    began = time.monotonic()
    with pytest.raises(SpecError, match=says):
        _ray._check_answers(address)
    assert time.monotonic() - began < 20
