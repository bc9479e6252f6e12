"""Nothing is lost at the end of a process, however it ends, and nothing is doubled by a fork."""

from __future__ import annotations

import shutil
import signal
import subprocess
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.logging._accounts import PROGRAM, accounts, check, check_order, finish, launch, run, until

Hold = Callable[[Path], AbstractContextManager[None]]

# The twin: it forgets its queue when stopped, as the first version of the library did.
BROKEN = "QueuedFileSink.stop = lambda self: None\n"


class TestEnds:
    """How a process ends."""

    @pytest.mark.parametrize(
        ("ending", "code"),
        [("", 0), ("sys.exit(3)", 3), ("raise ValueError('uncaught')", 1), ("handle.close()", 0)],
    )
    def test_every_message_is_there(self, tmp_path: Path, ending: str, code: int) -> None:
        """After return, sys.exit, an uncaught exception, close."""
        program = f"handle = start()\nfor thread in threads(4, 2000): thread.join()\n{ending}\n"
        run(tmp_path, program, code)
        check(tmp_path, writers=4, each=2000)
        check_order(tmp_path)

    def test_threads_that_outlive_main(self, tmp_path: Path) -> None:
        """The interpreter waits for them, and the drain comes after."""
        run(tmp_path, "start()\nthreads(4, 2000)\n")
        check(tmp_path, writers=4, each=2000)

    def test_a_hook_that_runs_after_ours(self, tmp_path: Path) -> None:
        """Atexit calls in reverse: a hook registered earlier still finds a log."""
        run(tmp_path, "atexit.register(work, 'late', 100)\nstart()\nwork('early', 100)\n")
        check(tmp_path, writers=2, each=100)

    def test_a_hook_from_before_loguru(self, tmp_path: Path) -> None:
        """Loguru removes all handlers in a hook of its own; one that is older still finds a log."""
        remove = "loguru.logger.remove"
        run(
            tmp_path,
            f"import loguru\natexit.unregister({remove})\natexit.register(work, 'late', 100)\n"
            f"atexit.register({remove})\nstart()\nwork('early', 100)\n",
        )
        check(tmp_path, writers=2, each=100)

    def test_an_object_that_is_cleared_away(self, tmp_path: Path) -> None:
        """Once all hooks are done nothing is written: parts of Python are gone. The process ends well."""
        run(
            tmp_path,
            "class Late:\n"
            "    def __init__(self, log): self.log = log\n"
            "    def __del__(self): self.log('late')\n"
            "late = Late(logger.info)\nstart()\nwork('early', 1)\n",
        )
        check(tmp_path, writers=1, each=1)

    def test_all_handlers_may_be_removed(self, tmp_path: Path) -> None:
        """Before the end, and by `close` at any time, a handler is removed for good."""
        run(tmp_path, "start()\nwork('a', 10)\nlogger.remove()\nwork('b', 10)\n")
        check(tmp_path, writers=1, each=10)

        directory = tmp_path / "closed"
        directory.mkdir()
        run(
            directory,
            "atexit.register(work, 'b', 10)\nhandle = start()\nwork('a', 10)\n"
            "atexit.unregister(handle.close)\nfrom ws_logging import _exit_hooks\n"
            "_exit_hooks._at_exit()\nhandle.close()\n",
        )
        check(directory, writers=1, each=10)

    def test_daemon_threads_that_never_stop(self, tmp_path: Path) -> None:
        """What they log is cut off somewhere, but without holes, and main's is all there."""
        run(tmp_path, "start()\nthreads(2, 10**9, daemon=True)\nwork('main', 3000)\n")
        found = accounts(tmp_path)
        (main,) = [numbers for (_, thread), numbers in found.items() if thread == "main"]
        assert main == list(range(3000))

        for numbers in found.values():
            assert numbers == list(range(len(numbers)))

    def test_os_exit_after_flush(self, tmp_path: Path) -> None:
        """The one end that runs no hooks: flush first."""
        run(tmp_path, "handle = start()\nwork('a', 5000)\nassert handle.flush(30)\nos._exit(0)\n")
        check(tmp_path, writers=1, each=5000)


class TestSignals:
    """SIGTERM while 20,000 messages wait, because the disk is slow."""

    PROGRAM = "handle = start()\nwork('a', 20000)\nsay('queued')\nsys.stdin.read()\n"

    def end(self, tmp_path: Path, hold: Hold, program: str, *signals: int, code: int) -> str:
        """Let the messages wait, send the signals, and let the disk go on."""
        with hold(tmp_path / "app.log"):
            process = launch(tmp_path, program)
            until(process, "queued")

            for number in signals:
                process.send_signal(number)

            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(0.3)  # it waits for the disk, it has not given up

        return finish(process, code)[1]

    def test_sigterm(self, tmp_path: Path, hold: Hold) -> None:
        """All are written, and the process dies of the signal as it would have."""
        self.end(tmp_path, hold, self.PROGRAM, signal.SIGTERM, code=-signal.SIGTERM)
        check(tmp_path, writers=1, each=20000)

    @pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2])
    def test_other_signals(self, tmp_path: Path, hold: Hold, number: int) -> None:
        """A terminal that is closed, or a tool that takes the program for one that has a handler."""
        default = f"signal.signal({int(number)}, signal.SIG_DFL)\n"  # these tests may run under nohup
        self.end(tmp_path, hold, default + self.PROGRAM, number, code=-number)
        check(tmp_path, writers=1, each=20000)

    def test_an_ignored_signal_stays_ignored(self, tmp_path: Path) -> None:
        """As under nohup."""
        program = (
            "signal.signal(signal.SIGHUP, signal.SIG_IGN)\nstart()\nos.kill(os.getpid(), signal.SIGHUP)\n"
        )
        run(tmp_path, f"{program}work('a', 10)\n")
        check(tmp_path, writers=1, each=10)

    def test_a_second_sigterm_changes_nothing(self, tmp_path: Path, hold: Hold) -> None:
        """An impatient supervisor loses nothing."""
        self.end(tmp_path, hold, self.PROGRAM, signal.SIGTERM, signal.SIGTERM, code=-signal.SIGTERM)
        check(tmp_path, writers=1, each=20000)

    def test_sigint(self, tmp_path: Path, hold: Hold) -> None:
        """KeyboardInterrupt ends the process in the normal way."""
        self.end(tmp_path, hold, self.PROGRAM, signal.SIGINT, code=-signal.SIGINT)
        check(tmp_path, writers=1, each=20000)

    def test_somebody_elses_handler(self, tmp_path: Path, hold: Hold) -> None:
        """A handler that was there is left alone; it exits, and the drain comes at exit."""
        program = "signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))\n" + self.PROGRAM
        self.end(tmp_path, hold, program, signal.SIGTERM, code=7)
        check(tmp_path, writers=1, each=20000)

    def test_in_the_middle_of_logging(self, tmp_path: Path) -> None:
        """The signal interrupts the caller itself; what was logged so far is there without holes."""
        process = launch(tmp_path, "start()\nsay('go')\nwork('a', 10**9)\n")
        until(process, "go")

        while not (tmp_path / "app.log").stat().st_size:
            pass

        process.send_signal(signal.SIGTERM)
        finish(process, -signal.SIGTERM)
        (numbers,) = accounts(tmp_path).values()
        assert numbers == list(range(len(numbers)))

    def test_sigkill_loses_the_queue_at_most(self, tmp_path: Path) -> None:
        """What was flushed stays, no line is torn, and what is there has no holes."""
        program = "handle = start()\nwork('a', 5000)\nhandle.flush(30)\nsay('flushed')\nwork('b', 10**9)\n"
        process = launch(tmp_path, program)
        until(process, "flushed")
        process.kill()
        finish(process, -signal.SIGKILL)

        for (_, thread), numbers in accounts(tmp_path).items():
            assert numbers == list(range(len(numbers)))
            assert thread != "a" or len(numbers) == 5000

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    @pytest.mark.parametrize(
        "ending", ["", "handle.close()\n", "sys.exit()\n"], ids=["return", "close", "exit"]
    )
    def test_a_signal_while_the_exit_hook_drains(
        self, tmp_path: Path, hold: Hold, ending: str, number: int
    ) -> None:
        """The signal waits for the end of the drain."""
        program = f"handle = start()\nwork('a', 20000)\nsay('queued')\n{ending}"

        with hold(tmp_path / "app.log"):
            process = launch(tmp_path, program)
            until(process, "queued")

            for _ in range(3):
                with pytest.raises(subprocess.TimeoutExpired):
                    process.wait(0.2)

                process.send_signal(number)

        process.communicate(timeout=60)
        assert process.returncode in (0, -number)
        check(tmp_path, writers=1, each=20000)

    def test_a_handler_that_is_put_back(self, tmp_path: Path, hold: Hold) -> None:
        """A server that found the default action, puts it back and raises the signal again, loses nothing."""
        program = (
            "def handler(number, frame):\n"
            "    signal.signal(number, signal.SIG_DFL)\n"
            "    signal.raise_signal(number)\n"
            "signal.signal(signal.SIGTERM, handler)\n" + self.PROGRAM
        )
        self.end(tmp_path, hold, program, signal.SIGTERM, code=-signal.SIGTERM)
        check(tmp_path, writers=1, each=20000)

    def test_a_sink_alone(self, tmp_path: Path, hold: Hold) -> None:
        """A sink that was added to loguru by hand is drained as well."""
        program = (
            "logger.remove()\n"
            "style = '{time:YYYY-MM-DD HH:mm:ss.SSS} | {level: <8} | {name}:{function}:{line} - {message}'\n"
            "logger.add(QueuedFileSink(directory / 'app.log'), format=style)\n"
            "work('a', 20000)\nsay('queued')\nsys.stdin.read()\n"
        )
        self.end(tmp_path, hold, program, signal.SIGTERM, code=-signal.SIGTERM)
        check(tmp_path, writers=1, each=20000)

    def test_a_thread_that_is_cut_off_while_it_closes(self, tmp_path: Path, hold: Hold) -> None:
        """The drain that a daemon thread had begun goes on when main ends."""
        program = (
            "handle = start()\nwork('a', 20000)\n"
            "threading.Thread(target=handle.close, daemon=True).start()\nsay('queued')\n"
        )

        with hold(tmp_path / "app.log"):
            process = launch(tmp_path, program)
            until(process, "queued")

            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(0.3)

        finish(process)
        check(tmp_path, writers=1, each=20000)

    def test_the_default_action_stays_without_sinks(self, tmp_path: Path) -> None:
        """When logging was closed, SIGTERM and `signal.signal` are what they were."""
        program = (
            "before = signal.signal\nhandle = start()\nassert signal.signal is not before\n"
            "assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL\nhandle.close()\n"
            "assert signal.signal is before\nassert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL\n"
        )
        run(tmp_path, program)

    def test_the_broken_twin_is_found_out(self, tmp_path: Path, hold: Hold) -> None:
        """A sink that does not drain fails these very checks."""
        with hold(tmp_path / "app.log"):
            process = launch(tmp_path, BROKEN + self.PROGRAM)
            until(process, "queued")
            process.send_signal(signal.SIGTERM)
            finish(process, -signal.SIGTERM)

        with pytest.raises(AssertionError):
            check(tmp_path, writers=1, each=20000)


@pytest.mark.deployment
class TestForks:
    """Children have a log of their own, and nothing of their parent's."""

    def test_children_of_multiprocessing(self, tmp_path: Path) -> None:
        """Forked while threads are logging; all of the parent's and of the children's is there, once."""
        run(
            tmp_path,
            "start()\n"
            "busy = threads(3, 4000)\n"
            "context = multiprocessing.get_context('fork')\n"
            "children = [context.Process(target=work, args=('child', 300)) for _ in range(8)]\n"
            "for child in children: child.start()\n"
            "for child in children: child.join()\n"
            "assert [child.exitcode for child in children] == [0] * 8\n"
            "for thread in busy: thread.join()\n",
        )
        found = accounts(tmp_path)
        children = [numbers for (_, thread), numbers in found.items() if thread == "child"]
        assert [sorted(numbers) for numbers in children] == [list(range(300))] * 8
        parent = [numbers for (_, thread), numbers in found.items() if thread != "child"]
        assert [sorted(numbers) for numbers in parent] == [list(range(4000))] * 3

    @pytest.mark.parametrize("broken", [False, True], ids=["", "broken twin"])
    @pytest.mark.parametrize(
        "lock", ["handle._recent._lock", "handle._lock", "handle._outputs[-1].write._lock"]
    )
    def test_a_lock_that_a_thread_of_the_parent_holds(
        self, tmp_path: Path, lock: str, *, broken: bool
    ) -> None:
        """The child logs and sets a level all the same; with the lock of its parent it would wait forever."""
        program = (
            "handle = register_logger(outputs=[{'to': (directory / 'a').open('a').write}])\n"
            f"if {broken}: type({lock.rpartition('.')[0]}).after_fork = lambda self: None\n"
            "held, forked = threading.Event(), threading.Event()\n"
            "def hold():\n"
            f"    with {lock}:\n"
            "        held.set()\n"
            "        forked.wait()\n"
            "thread = threading.Thread(target=hold)\n"
            "thread.start()\n"
            "held.wait()\n"
            "if (child := os.fork()) == 0:\n"
            f"    signal.alarm({1 if broken else 60})\n"
            "    work('child', 10)\n"
            "    handle.set_level('DEBUG')\n"
            "    os._exit(len(handle.tail()))\n"
            "forked.set()\n"
            "thread.join()\n"
            "code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])\n"
            f"assert code == {-signal.SIGALRM if broken else 10}, code\n"
        )
        run(tmp_path, program)

    @pytest.mark.parametrize("ending", ["", "sys.exit(0)", "signal.raise_signal(signal.SIGTERM)"])
    @pytest.mark.parametrize("parent", [True, False], ids=["in the parent too", "in the child"])
    @pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
    def test_children_that_set_logging_up(
        self, tmp_path: Path, method: str, ending: str, *, parent: bool
    ) -> None:
        """A child that calls `register_logger` itself loses nothing, however it was started and ends."""
        (tmp_path / "children.py").write_text(
            PROGRAM + f"def child(number):\n    start()\n    work(f'child{{number}}', 500)\n    {ending}\n"
        )
        program = (
            "sys.path.insert(0, str(directory))\nimport children\n"
            f"if {parent}: start()\n"
            f"context = multiprocessing.get_context({method!r})\n"
            "started = [context.Process(target=children.child, args=(n,)) for n in range(2)]\n"
            "for child in started: child.start()\n"
            "for child in started: child.join()\n"
            f"assert [child.exitcode for child in started] == [{-15 if 'raise' in ending else 0}] * 2\n"
        )
        run(tmp_path, program)
        found = {thread: numbers for (_, thread), numbers in accounts(tmp_path).items()}
        assert found == {"child0": list(range(500)), "child1": list(range(500))}

    @pytest.mark.parametrize("version", ["3.14", "3.15"])
    def test_the_default_of_newer_pythons(self, tmp_path: Path, version: str) -> None:
        """Since 3.14 multiprocessing starts children by forkserver; nothing of theirs is lost."""
        python = shutil.which(f"python{version}")

        if python is None or subprocess.run([python, "-c", ""], check=False).returncode:
            pytest.skip(f"Python {version} is not installed")

        (tmp_path / "children.py").write_text(
            PROGRAM + "def child(number):\n    start()\n    work(f'child{number}', 500)\n"
        )
        program = (
            "sys.path.insert(0, str(directory))\nimport children\nstart()\n"
            "assert multiprocessing.get_start_method() == 'forkserver'\n"
            "started = [multiprocessing.Process(target=children.child, args=(n,)) for n in range(2)]\n"
            "for child in started: child.start()\n"
            "for child in started: child.join()\n"
            "assert [child.exitcode for child in started] == [0] * 2\n"
        )
        finish(launch(tmp_path, program, python=python))
        found = {thread: numbers for (_, thread), numbers in accounts(tmp_path).items()}
        assert found == {"child0": list(range(500)), "child1": list(range(500))}

    def test_bare_fork_with_a_full_queue(self, tmp_path: Path, hold: Hold) -> None:
        """The child does not write its parent's queue a second time."""
        program = (
            "handle = start()\n"
            "work('a', 2000)\n"
            "if os.fork() == 0:\n"
            "    work('child', 10)\n"
            "    handle.flush(60)\n"
            "    os._exit(0)\n"
            "say('forked')\n"
            "os.wait()\n"
        )

        with hold(tmp_path / "app.log"):
            process = launch(tmp_path, program)
            until(process, "forked")

        finish(process)
        found = {thread: numbers for (_, thread), numbers in accounts(tmp_path).items()}
        assert found == {"a": list(range(2000)), "child": list(range(10))}
