"""The tree of errors, and the boundary where errors end."""

from __future__ import annotations

import asyncio
import copy
import functools
import logging
import pickle
from collections.abc import AsyncIterator, Iterator

import pytest

from ws_core import errors
from ws_core.errors import (
    AcquireTimeout,
    ConfigError,
    InvalidValueError,
    MissingExtraError,
    NotReadyError,
    UnavailableError,
    UsageError,
    WsError,
    catch_error,
    describe,
    set_error_logger,
)

TREE: list[type[WsError]] = [
    getattr(errors, name) for name in errors.__all__ if name.endswith(("Error", "Timeout"))
]


class RenamedError(UsageError):
    """A leaf whose constructor takes other arguments, as leaves in other distributions do."""

    default_code = "renamed"

    def __init__(self, pool: str) -> None:
        super().__init__(f"pool {pool!r}", pool=pool)
        self.pool = pool


class TestTree:
    """`WsError` and all below it."""

    @pytest.mark.parametrize("kind", TREE)
    def test_all_are_ws_errors_with_a_code(self, kind: type[WsError]) -> None:
        """Each error has a message, a code of its class, and keeps its context out of the message."""
        error = kind("it broke", secret="hidden")

        assert isinstance(error, WsError)
        assert (str(error), error.message, error.code) == ("it broke", "it broke", kind.default_code)
        assert error.context == {"secret": "hidden"}
        assert "hidden" not in f"{error} {error!r}"

    def test_codes_are_unique(self) -> None:
        """No two classes have the same code."""
        codes = [kind.default_code for kind in TREE]

        assert len(set(codes)) == len(codes)

    @pytest.mark.parametrize(
        ("kind", "builtin"),
        [
            (AcquireTimeout, TimeoutError),
            (UnavailableError, ConnectionError),
            (InvalidValueError, ValueError),
        ],
    )
    def test_builtin_relatives(self, kind: type[WsError], builtin: type[Exception]) -> None:
        """Errors that Python has a name for can be caught by that name."""
        assert issubclass(kind, builtin)

    def test_levels(self) -> None:
        """More special errors are caught by the more general ones."""
        assert issubclass(MissingExtraError, ConfigError)
        assert issubclass(NotReadyError, UsageError)

    def test_a_code_of_its_own(self) -> None:
        """The code can be given for the one case."""
        assert WsError("full", code="pool_full").code == "pool_full"

    def test_missing_extra(self) -> None:
        """The message is the line that helps."""
        error = MissingExtraError.for_extra("DATABASES", "ws-pool[mysql]")

        assert (
            str(error)
            == "DATABASES is set, but ws-pool[mysql] is not installed: pip install 'ws-pool[mysql]'"
        )
        assert error.context == {"setting": "DATABASES", "requirement": "ws-pool[mysql]"}

    @pytest.mark.parametrize(
        "again", [copy.copy, copy.deepcopy, lambda error: pickle.loads(pickle.dumps(error))]
    )
    @pytest.mark.parametrize(
        "error",
        [WsError("m", code="c", a=1), AcquireTimeout("late", pool="default"), RenamedError("default")],
        ids=["base", "relative", "other-signature"],
    )
    def test_copies_are_whole(self, error: WsError, again: object) -> None:
        """Copying and pickling keep message, code, context, notes and what a subclass has added."""
        error.add_note("seen")
        twin: WsError = again(error)  # type: ignore[operator]  # one of the three functions

        assert type(twin) is type(error)
        assert (str(twin), twin.args) == (str(error), error.args)
        assert vars(twin) == vars(error)


@pytest.fixture
def caught() -> Iterator[list[tuple[Exception, str]]]:
    """Yield what `catch_error` logs."""
    seen: list[tuple[Exception, str]] = []
    before = set_error_logger(lambda error, message: seen.append((error, message)))
    yield seen
    set_error_logger(before)


class TestCatchError:
    """`catch_error` as block and as decorator."""

    def test_logs_and_goes_on(self, caught: list[tuple[Exception, str]]) -> None:
        """An error ends the block, is logged with its text, and is at hand afterwards."""
        with catch_error() as block:
            raise KeyError("x")

        assert isinstance(block.error, KeyError)
        assert caught == [(block.error, "KeyError: 'x'")]
        assert repr(block) == "<catch_error Exception: KeyError('x')>"

    def test_nothing_happens(self, caught: list[tuple[Exception, str]]) -> None:
        """A block that ends well logs nothing, also after one that did not."""
        block = catch_error()

        with block:
            raise ValueError

        with block:
            pass

        assert block.error is None
        assert len(caught) == 1

    def test_only_these_kinds(self, caught: list[tuple[Exception, str]]) -> None:
        """Other errors than those named pass; the message replaces the error's text."""
        with catch_error(KeyError, OSError, message="skipped"):
            raise ConnectionError("x")

        with pytest.raises(ValueError, match=r"^x$"), catch_error(KeyError, OSError):
            raise ValueError("x")

        assert [message for _, message in caught] == ["skipped"]

    @pytest.mark.parametrize("kind", [asyncio.CancelledError, KeyboardInterrupt, SystemExit, GeneratorExit])
    def test_requests_to_end_pass(
        self, caught: list[tuple[Exception, str]], kind: type[BaseException]
    ) -> None:
        """What is not an `Exception` is neither caught nor logged."""
        with pytest.raises(kind), catch_error():
            raise kind

        assert caught == []

    def test_bad_kinds(self) -> None:
        """Kinds that must never be caught cannot be asked for."""
        with pytest.raises(TypeError, match=r"subclasses of Exception, not <class .*CancelledError"):
            catch_error(asyncio.CancelledError)

    async def test_async_block(self, caught: list[tuple[Exception, str]]) -> None:
        """It serves ``async with`` too."""
        async with catch_error() as block:
            await asyncio.sleep(0)
            raise ValueError("x")

        assert caught == [(block.error, "ValueError: x")]

    async def test_a_cancelled_task_stays_cancelled(self, caught: list[tuple[Exception, str]]) -> None:
        """A task is cancelled though its await is inside of the block."""

        async def wait() -> None:
            async with catch_error():
                await asyncio.Event().wait()

        task = asyncio.create_task(wait())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])

        assert task.cancelled()
        assert caught == []

    async def test_decorator(self, caught: list[tuple[Exception, str]]) -> None:
        """Functions of both kinds give their result, or None after an error."""

        @catch_error(ZeroDivisionError, message="no ratio")
        def ratio(a: int, b: int) -> float:
            """Divide."""
            return a / b

        @catch_error(ZeroDivisionError, message="no later ratio")
        async def later(a: int, b: int) -> float:
            await asyncio.sleep(0)
            return a / b

        assert (ratio(1, 2), ratio(1, 0)) == (0.5, None)
        assert (await later(1, b=2), await later(1, b=0)) == (0.5, None)
        assert [message for _, message in caught] == ["no ratio", "no later ratio"]
        assert (ratio.__name__, ratio.__doc__) == ("ratio", "Divide.")

        with pytest.raises(TypeError):
            ratio("1", 2)  # type: ignore[arg-type]  # what is tested

    def test_generators_cannot_be_decorated(self) -> None:
        """A generator's errors arise elsewhere, so decorating one is refused."""

        def generate() -> Iterator[int]:
            yield 1

        async def generate_later() -> AsyncIterator[int]:
            yield 1

        for function in (generate, generate_later):
            with pytest.raises(TypeError, match=f"generator function .*{function.__name__}:"):
                catch_error()(function)

    async def test_default_logger(self, caplog: pytest.LogCaptureFixture) -> None:
        """Without another logger it is the standard library's, with the traceback and the block's place."""
        with catch_error():
            raise ValueError("100 % wrong")

        async with catch_error():
            raise ValueError("again")

        record, second = caplog.records
        assert {record.funcName, second.funcName} == {"test_default_logger"}
        assert record.pathname == second.pathname == __file__
        assert (record.name, record.levelno) == ("ws_core", logging.ERROR)
        assert record.getMessage() == "ValueError: 100 % wrong"
        assert record.exc_info is not None

    def test_a_broken_logger_breaks_nothing(self, caplog: pytest.LogCaptureFixture) -> None:
        """When the logger fails, both errors reach the standard library's."""
        before = set_error_logger(lambda _error, message: int(message))

        with catch_error():
            raise ValueError("x")

        assert set_error_logger(None) is not before
        first, second = (record.getMessage() for record in caplog.records)
        assert first == "ValueError: x"
        assert second.startswith("the logger of catch_error() failed: ValueError(")
        assert set_error_logger(before) is before


class MuteError(Exception):
    """An error of an application whose text cannot be made."""

    def __str__(self) -> str:
        raise ZeroDivisionError


class TestDescribe:
    """`describe`."""

    def test_never_empty(self) -> None:
        """An error without a text is shown by the name of its class."""
        assert (describe(ValueError("no port")), describe(TimeoutError())) == ("no port", "TimeoutError")
        assert describe(ValueError("no port"), with_type=True) == "ValueError: no port"
        assert describe(TimeoutError(), with_type=True) == "TimeoutError"

    def test_a_broken_str_is_shown(self) -> None:
        """An error whose ``__str__`` raises is described all the same, and `catch_error` survives it."""
        assert (
            describe(MuteError()) == "MuteError: its text cannot be shown, __str__ raised ZeroDivisionError"
        )

        with catch_error() as caught:
            raise MuteError

        assert isinstance(caught.error, MuteError)


class TestWithoutParentheses:
    """``@catch_error``."""

    async def test_decorates(self) -> None:
        """Functions, coroutine functions and other callables are decorated as with parentheses."""

        @catch_error
        def plain(value: int) -> float:
            return 1 / value

        @catch_error
        async def later(value: int) -> float:
            return 1 / value

        assert (plain(1), plain(0), await later(1), await later(0)) == (1, None, 1, None)
        assert catch_error(functools.partial(int, "x"))() is None

    def test_kinds_are_still_checked(self) -> None:
        """A class that is not an error is refused."""
        with pytest.raises(TypeError, match="takes subclasses of Exception"):
            catch_error(int)
