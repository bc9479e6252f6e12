"""``wintersweet shell``: a prompt with the settings and the started pools, where ``await`` works.

The pools live in an event loop of a thread of its own, so that they go on while nothing is typed.
"""

from __future__ import annotations

import ast
import asyncio
import code
import contextlib
import importlib
import importlib.util
import inspect
import threading
import traceback
import types
from collections.abc import Coroutine, Iterator
from typing import Any

from wintersweet._cli.output import stderr
from wintersweet._cli.project import use
from ws_core.component import Component
from ws_web import Settings, create_app, settings


def open_shell(*, plain: bool = False) -> int:
    """Read lines until the end of input; IPython does where it is installed, unless a plain one is wanted."""
    use()
    app = create_app(Settings())
    names = {"settings": settings, "app": app, "asyncio": asyncio, **_managers(app.state.components)}

    with _running_loop() as loop:
        entered = app.router.lifespan_context(app)
        _wait(loop, entered.__aenter__())

        try:
            stderr().print(f"Ready, and await works: {', '.join(names)}", markup=False)

            if plain or importlib.util.find_spec("IPython") is None:
                # Not with a banner of its own: what is there has been said, by the line above.
                Prompt(names, loop).interact(banner="", exitmsg="")
            else:
                _run_ipython(names, loop)
        finally:
            _wait(loop, entered.__aexit__(None, None, None))

    return 0


def _managers(components: dict[str, Component]) -> dict[str, object]:
    """Return the managers of the pools that are set, under the names that they are imported by."""
    found: dict[str, object] = {}

    for component in components.values():
        if (manager := getattr(component, "manager", None)) is not None:
            found[f"{component.name}_pool_manager"] = manager

    if "sql_pool_manager" in found:
        found["atomic"] = importlib.import_module("ws_pool").atomic

    return found


@contextlib.contextmanager
def _running_loop() -> Iterator[asyncio.AbstractEventLoop]:
    """Run an event loop in a thread for the length of a block."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="shell", daemon=True)
    thread.start()

    try:
        yield loop
    finally:
        _wait(loop, loop.shutdown_asyncgens())
        _wait(loop, loop.shutdown_default_executor())
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def _wait(
    loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, Any]
) -> Any:  # Any: whatever it returns
    """Run a coroutine in the loop's thread; Ctrl-C cancels it."""
    future = asyncio.run_coroutine_threadsafe(coroutine, loop)

    try:
        return future.result()
    except KeyboardInterrupt:
        future.cancel()
        raise


class Prompt(code.InteractiveConsole):
    """The prompt of the standard library, whose lines run in an event loop."""

    def __init__(self, names: dict[str, Any], loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(names)
        self.compile.compiler.flags |= ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        self._loop = loop

        with contextlib.suppress(ImportError):  # a Python without readline: no history
            importlib.import_module("readline")

    def runcode(self, code: types.CodeType) -> None:
        """Run one statement."""

        async def run() -> BaseException | None:
            # In the loop's thread even without await: it may make tasks and futures. An error is returned,
            # since SystemExit, which exit() raises, would end the loop.
            try:
                result = types.FunctionType(code, self.locals)()

                if inspect.iscoroutine(result):
                    await result
            except BaseException as error:  # noqa: BLE001 - shown below
                return error

            return None

        try:
            error = _wait(self._loop, run())
        except KeyboardInterrupt:
            self.write("\nKeyboardInterrupt\n")
            return

        if isinstance(error, SystemExit):
            raise error

        if error is not None:
            lines = error.__traceback__

            while lines is not None and lines.tb_frame.f_code.co_filename != self.filename:
                lines = lines.tb_next  # ours

            self.write("".join(traceback.format_exception(error.with_traceback(lines))))


def _run_ipython(names: dict[str, Any], loop: asyncio.AbstractEventLoop) -> None:
    """Run IPython, whose cells run in the loop."""
    # IPython's functions have no types.
    make: Any = importlib.import_module("IPython.terminal.embed").InteractiveShellEmbed
    shell = make(banner1="", user_ns=names)
    shell.loop_runner = lambda coroutine: _wait(loop, coroutine)
    shell.autoawait = True
    shell.should_run_async = lambda *_, **__: True  # a cell without await may make tasks as well
    shell(local_ns=names)
