"""The workers of a service: their snapshots, what stays of those that have ended, and who may read them."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ws_core.metrics import Sample, TimeRecorder, sample
from ws_web import _worker_group
from ws_web._publishing import Publisher
from ws_web._worker_group import WorkerGroup, forget_workers, set_parent


@pytest.fixture
def group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WorkerGroup]:
    """A group whose parent is this process, in an empty directory."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    set_parent(os.getpid())
    found = WorkerGroup.of_this_process()
    assert found is not None
    yield found
    _worker_group._parents.clear()


def numbers(samples: object) -> dict[str, float]:
    """Return the values by metric."""
    assert isinstance(samples, tuple)
    return {one.metric.name: one.value for one in samples}


def counted(value: int) -> list[Sample]:
    """Return a counter, a gauge and a histogram."""
    times = TimeRecorder("wintersweet.lock.wait")
    times.record(value)
    return [
        sample("wintersweet.lock.lost", value),
        sample("wintersweet.log.pending", value),
        *times.samples(),
    ]


def departed(group: WorkerGroup, value: int) -> None:
    """Publish as another process, which then ends."""
    code = (
        "import sys; from pathlib import Path; from ws_web._worker_group import WorkerGroup;"
        "from ws_core.metrics import sample, TimeRecorder;"
        f"t = TimeRecorder('wintersweet.lock.wait'); t.record({value});"
        f"s = [sample('wintersweet.lock.lost', {value}), sample('wintersweet.log.pending', {value})];"
        f"WorkerGroup(Path({str(group._directory)!r})).publish([*s, *t.samples()])"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


class TestSums:
    """What is read."""

    def test_counters_of_the_departed_stay(self, group: WorkerGroup) -> None:
        """However often it is read; their gauges go with them."""
        group.publish(counted(1), {"busy": True})
        departed(group, 10)
        departed(group, 100)

        for _ in range(2):
            samples, present = group.read()
            assert numbers(samples) == {
                "wintersweet.lock.lost": 111,
                "wintersweet.log.pending": 1,
                "wintersweet.lock.wait": 111,
            }
            assert [(one["pid"], one["state"]) for one in present] == [(os.getpid(), {"busy": True})]

    def test_a_crash_after_adding(self, group: WorkerGroup) -> None:
        """A file that was added and could not be removed is not counted twice."""
        departed(group, 10)
        (file,) = group._directory.glob("*-*.json")
        kept = file.read_bytes()
        group.read()
        assert not file.exists()
        file.write_bytes(kept)
        assert numbers(group.read()[0])["wintersweet.lock.lost"] == 10
        assert not file.exists()

    def test_an_older_worker(self, group: WorkerGroup) -> None:
        """During a deployment, metrics that this version does not know are left out; so is half a file."""
        group.publish([*counted(1)])
        file = group._directory / group._own
        found = json.loads(file.read_bytes())
        found["samples"] += [["shop.old", 1, 0, [], []], ["wintersweet.lock.hold", 1, 1, [], [1, 2]]]
        file.write_text(json.dumps(found))
        (group._directory / "7-7.json").write_text("{")
        assert set(numbers(group.read()[0])) == {
            "wintersweet.lock.lost",
            "wintersweet.log.pending",
            "wintersweet.lock.wait",
        }

    def test_temporary_files_are_tidied_up(self, group: WorkerGroup) -> None:
        """The directory is made again."""
        for file in group._directory.iterdir():
            file.unlink()

        group._directory.rmdir()
        group.publish(counted(1))
        assert numbers(group.read()[0])["wintersweet.lock.lost"] == 1

    def test_notes(self, group: WorkerGroup) -> None:
        """A note is there for all, until the next one."""
        assert group.receive("levels") is None
        group.send("levels", {"shop": "DEBUG"})
        assert group.receive("levels") == {"shop": "DEBUG"}


class TestMembers:
    """Which processes belong together."""

    def test_alone(self) -> None:
        """A process that nobody has started as a worker is alone, and writes nothing."""
        assert WorkerGroup.of_this_process() is None

    def test_forked_by_gunicorn(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Its parent is the master."""
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        monkeypatch.setitem(sys.modules, "gunicorn.arbiter", sys)
        found = WorkerGroup.of_this_process()
        assert found is not None
        assert f"-{os.getppid()}-" in found._directory.name

    def test_started_by_multiprocessing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Its parent is the supervisor of uvicorn."""
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        monkeypatch.setattr(multiprocessing, "parent_process", multiprocessing.current_process)
        found = WorkerGroup.of_this_process()
        assert found is not None
        assert f"-{os.getpid()}-" in found._directory.name

    def test_groups_that_have_ended_are_removed(self, group: WorkerGroup) -> None:
        """Those of another user, and files of other names, are not."""
        base = group._directory.parent
        old = base / f"ws-web-workers-{os.getuid()}-999999999-1"
        others = base / f"ws-web-workers-{os.getuid() + 1}-999999999-1"
        old.mkdir()
        others.mkdir()
        WorkerGroup.of_this_process()
        assert (old.exists(), others.exists(), group._directory.exists()) == (False, True, True)

    def test_a_parent_removes_what_its_workers_have_left(self, group: WorkerGroup) -> None:
        """When they have all ended; again it does nothing."""
        group.publish(counted(1))
        forget_workers()
        forget_workers()
        assert not group._directory.exists()

    @pytest.mark.parametrize("how", ["file", "open", "link"])
    def test_somebody_was_first(self, how: str, group: WorkerGroup) -> None:
        """A place that others can write into, or have prepared, is not used."""
        group._directory.rmdir()

        if how == "file":
            group._directory.touch()
        elif how == "open":
            group._directory.mkdir()
            group._directory.chmod(0o777)
        else:
            (group._directory.parent / "elsewhere").mkdir(mode=0o700)
            group._directory.symlink_to(group._directory.parent / "elsewhere")

        assert WorkerGroup.of_this_process() is None


class TestPublisher:
    """Publishing while an application runs."""

    async def test_alone(self) -> None:
        """One process reads itself."""
        publisher = Publisher(lambda: "busy")

        async with publisher.running():
            _, workers = await publisher.read()

        assert [one["state"] for one in workers] == ["busy"]

    async def test_readers_at_once(self, group: WorkerGroup) -> None:
        """Each of many that read at the same time gets the numbers; none finds half a file."""
        publisher = Publisher(lambda: "busy")

        async with publisher.running():
            found = await asyncio.gather(*(publisher.read() for _ in range(50)))

        assert [[one["state"] for one in workers] for _, workers in found] == [["busy"]] * 50

    async def test_a_full_disk(
        self, group: WorkerGroup, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        """It is logged, and tried again."""
        monkeypatch.setattr("ws_web._publishing._EVERY", 0.0)
        publisher, ticks = Publisher(), asyncio.Event()
        publish, fails = WorkerGroup.publish, [False]

        def full(*args: object) -> None:
            if fails[0]:
                fails[0] = False
                raise OSError(28, "No space left on device")

            publish(*args)  # type: ignore[arg-type]

        monkeypatch.setattr(WorkerGroup, "publish", full)

        async with publisher.running():
            fails[0] = True

            while fails[0]:
                await asyncio.sleep(0)

            publisher.on_tick.append(ticks.set)
            await ticks.wait()

        assert "metrics of this worker are not published: No space left on device" in caplog.text
