"""Singletons: one instance per class, whatever threads and constructors do."""

from __future__ import annotations

import abc
import copy
import os
import pickle
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, Self

import pytest

from ws_core.errors import UsageError
from ws_core.metaclass import SafeSingleton, SafeSingletonMeta, Singleton, SingletonMeta


class Pickled(Singleton):
    """A singleton that can be found by its name."""

    value = 0


@pytest.fixture
def hasty() -> Iterator[None]:
    """Let the interpreter change threads as often as it can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def all_at_once(*functions: Callable[[], object]) -> list[object]:
    """Call functions in threads that begin together; return results and errors."""
    barrier = threading.Barrier(len(functions))

    def call(function: Callable[[], object]) -> object:
        barrier.wait(20)

        try:
            return function()
        except Exception as error:  # noqa: BLE001 - given back
            return error

    with ThreadPoolExecutor(len(functions)) as executor:
        return [future.result(20) for future in [executor.submit(call, function) for function in functions]]


class TestIdentity:
    """Which calls give which instance."""

    def test_one_instance_per_class(self) -> None:
        """Each class has its own instance, a subclass too, whichever comes first."""

        class Base(Singleton):
            pass

        class Derived(Base):
            pass

        derived = Derived()

        assert Derived() is derived
        assert Base() is Base()
        assert Base() is not derived
        assert type(Base()) is Base

    def test_the_names_of_the_original(self) -> None:
        """Both pairs of names are the same thing."""
        assert SafeSingleton is Singleton
        assert SafeSingletonMeta is SingletonMeta

    def test_a_falsy_instance_is_an_instance(self) -> None:
        """An instance that is false is not constructed again."""

        class Empty(Singleton):
            def __len__(self) -> int:
                return 0

        assert Empty() is Empty()

    def test_abstract_classes(self) -> None:
        """The metaclass can be joined with that of abstract classes."""

        class Meta(SingletonMeta, abc.ABCMeta):
            pass

        class Shape(metaclass=Meta):
            @abc.abstractmethod
            def area(self) -> float: ...

        class Unit(Shape):
            def area(self) -> float:
                return 1.0

        with pytest.raises(TypeError, match="abstract"):
            Shape()  # type: ignore[abstract]  # what is tested

        assert Unit() is Unit()

    def test_copies(self) -> None:
        """Copies are the instance, and so is what is unpickled."""
        Pickled().value = 5

        assert copy.copy(Pickled()) is Pickled()
        assert copy.deepcopy([Pickled()])[0] is Pickled()
        assert pickle.loads(pickle.dumps(Pickled())) is Pickled()

    def test_clear_instance(self) -> None:
        """After clearing, the next call constructs anew, with any arguments."""

        class Named(Singleton):
            def __init__(self, name: str) -> None:
                self.name = name

        first = Named("a")
        Named.clear_instance()

        assert Named("b") is not first
        assert Named("b").name == "b"

    def test_new_of_another_type(self) -> None:
        """What ``__new__`` returns is kept even if it is of another class, as Python has it."""

        class Odd(Singleton):
            def __new__(cls) -> str:  # type: ignore[misc]  # what is tested
                return "odd"

            def __init__(self) -> None:
                raise AssertionError("not called for an object of another class")

        make: Callable[[], object] = Odd
        assert make() == "odd"
        assert make() is make()


class TestArguments:
    """What later calls may give."""

    def test_same_arguments_or_none(self) -> None:
        """A later call may repeat the first one's arguments, however written, or leave all out."""

        class Server(Singleton):
            def __init__(self, host: str, port: int = 80, *more: int, **options: object) -> None:
                self.host = host

        server = Server("a", 80, tls=True)

        assert Server() is server  # type: ignore[call-arg]  # allowed at run time only
        assert Server(host="a", tls=True) is server

    def test_other_arguments(self) -> None:
        """Other arguments are an error that names them, not their values."""

        class Server(Singleton):
            def __init__(self, host: str, password: str = "") -> None:
                self.host = host

        Server("a")

        with pytest.raises(
            UsageError, match="Server exists already, with another host and password: "
        ) as caught:
            Server("b", "secret")

        assert caught.value.context == {"singleton": "Server", "arguments": ("host", "password")}
        assert "secret" not in str(caught.value)

    def test_arguments_that_cannot_be_compared(self) -> None:
        """Arguments whose comparison fails are other ones, unless they are the same object."""

        class Odd:
            __hash__ = None  # type: ignore[assignment]  # as Python does for classes with __eq__

            def __eq__(self, other: object) -> bool:
                raise ValueError("ambiguous")

        class Holder(Singleton):
            def __new__(cls, value: object) -> Self:  # noqa: ARG004 - kept by the metaclass
                return super().__new__(cls)

        odd = Odd()

        assert Holder(odd) is Holder(odd)
        with pytest.raises(UsageError, match="another value"):
            Holder(Odd())

    def test_wrong_arguments(self) -> None:
        """Arguments that the constructor does not take are the usual error, first and later."""

        class Plain(Singleton):
            pass

        with pytest.raises(TypeError):
            Plain(1)  # type: ignore[call-arg]  # what is tested

        Plain()

        with pytest.raises(TypeError):
            Plain(1, x=2)  # type: ignore[call-arg]  # what is tested


class TestConstructors:
    """Constructors that fail, or call singletons."""

    def test_errors_propagate_and_the_next_call_tries_again(self) -> None:
        """The constructor's own error reaches the caller, and nothing is left of the attempt."""
        attempts = iter([ValueError("no"), None])

        class Fragile(Singleton):
            def __init__(self) -> None:
                if (error := next(attempts)) is not None:
                    raise error

        with pytest.raises(ValueError, match=r"^no$"):
            Fragile()

        assert Fragile() is Fragile()

    def test_a_constructor_gets_itself(self) -> None:
        """A call from within ``__init__`` returns the object under construction."""

        class Inward(Singleton):
            def __init__(self) -> None:
                self.me = Inward()

        assert Inward().me is Inward()

    def test_a_call_from_new(self) -> None:
        """A call from within ``__new__`` is refused, since there is no object yet."""

        class Early(Singleton):
            def __new__(cls) -> Self:
                return cls()

        for _ in range(2):
            with pytest.raises(UsageError, match=r"Early\(\) is called by its own __new__"):
                Early()

    def test_constructors_that_need_each_other(self) -> None:
        """Two constructors may call each other in one thread."""

        class Left(Singleton):
            def __init__(self) -> None:
                self.right = Right()

        class Right(Singleton):
            def __init__(self) -> None:
                self.left = Left()

        assert Left().right is Right()
        assert Right().left is Left()


@pytest.mark.usefixtures("hasty")
class TestThreads:
    """Many threads make the first call."""

    def test_constructed_once(self) -> None:
        """Of 16 threads that begin together, one constructs, and all get that instance, 50 times over."""
        for _ in range(50):
            count = 0

            class Slow(Singleton):
                def __init__(self) -> None:
                    nonlocal count
                    count += 1
                    time.sleep(0)
                    self.ready = True

            def ready(kind: type[Slow] = Slow) -> object:
                instance = kind()
                assert instance.ready  # never seen half made
                return instance

            results = all_at_once(*[ready] * 16)

            assert count == 1
            assert {id(result) for result in results} == {id(Slow())}

    def test_a_broken_twin_fails_the_same_test(self) -> None:
        """The same threads catch a metaclass without a lock: the test above can fail."""

        class Broken(type):
            instance: object = None

            def __call__(cls, *args: object, **kwargs: object) -> object:
                if cls.instance is None:
                    cls.instance = super().__call__(*args, **kwargs)

                return cls.instance

        def constructions() -> int:
            count = 0
            inside = threading.Barrier(2)

            class Slow(metaclass=Broken):
                def __init__(self) -> None:
                    nonlocal count
                    count += 1
                    inside.wait(20)  # both are in here at once, which a lock would not allow

            all_at_once(Slow, Slow)
            return count

        assert constructions() == 2

    def test_failures_are_each_callers_own(self) -> None:
        """When construction fails, each waiting thread tries in its turn, until one succeeds."""
        count = 0

        class Third(Singleton):
            def __init__(self) -> None:
                nonlocal count
                count += 1

                if count < 3:
                    raise ValueError(count)

        results = all_at_once(*[Third] * 8)

        assert sorted(str(result) for result in results if isinstance(result, ValueError)) == ["1", "2"]
        assert {id(result) for result in results if not isinstance(result, ValueError)} == {id(Third())}
        assert count == 3

    def test_waiting_threads_are_held_to_the_arguments(self) -> None:
        """A thread that waits for another's construction gets an error if it asked for something else."""

        class Named(Singleton):
            def __init__(self, name: str) -> None:
                time.sleep(0.01)
                self.name = name

        results = all_at_once(lambda: Named("a"), lambda: Named("b"), lambda: Named("a"), lambda: Named("b"))

        assert len({id(result) for result in results if isinstance(result, Named)}) == 1
        assert sum(isinstance(result, UsageError) for result in results) == 2

    def test_a_circle_over_threads_is_an_error_and_no_deadlock(self) -> None:
        """Of two threads that begin at the two ends of a circle, one gets an error; both end."""
        inside = threading.Barrier(2)
        first = threading.local()

        class Left(Singleton):
            def __init__(self) -> None:
                meet()
                self.right = Right()

        class Right(Singleton):
            def __init__(self) -> None:
                meet()
                self.left = Left()

        def meet() -> None:
            if not hasattr(first, "met"):
                first.met = True
                inside.wait(20)

        results = all_at_once(Left, Right)
        errors = [result for result in results if isinstance(result, UsageError)]

        assert len(errors) == 1
        assert "their constructors need each other" in str(errors[0])
        assert Left().right is Right()
        assert Right().left is Left()

    def test_a_chain_over_threads_is_no_circle(self) -> None:
        """Threads that wait for each other in a chain all get what they want."""

        class Base(Singleton):
            def __init__(self) -> None:
                time.sleep(0.01)

        class Middle(Singleton):
            def __init__(self) -> None:
                time.sleep(0.005)
                self.base = Base()

        class Top(Singleton):
            def __init__(self) -> None:
                self.middle = Middle()

        results = all_at_once(Top, Middle, Base, Top, Middle, Base)

        assert not [result for result in results if isinstance(result, Exception)]
        assert Top().middle.base is Base()


class Speaks(Protocol):
    """A protocol of an application."""

    def speak(self) -> str:
        """Speak."""


class TestRelatives:
    """Singletons that are something else as well."""

    def test_abstract_base_classes_and_protocols(self) -> None:
        """A singleton may be an ABC and implement a protocol, by whichever base comes first."""

        class Animal(abc.ABC):
            @abc.abstractmethod
            def speak(self) -> str: ...

        class Dog(Singleton, Animal, Speaks):
            def speak(self) -> str:
                return "woof"

        class Cat(Animal, Speaks, Singleton):
            def speak(self) -> str:
                return "meow"

        class Mute(Animal, Singleton):
            pass

        assert (Dog() is Dog(), Cat().speak()) == (True, "meow")
        assert isinstance(Dog(), Animal)

        with pytest.raises(TypeError, match="abstract"):
            Mute()  # type: ignore[abstract]  # what it is about

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
    @pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
    def test_a_fork_during_construction(self) -> None:
        """A child that was forked while a thread constructs, constructs anew and does not wait for it."""
        constructing, forked = threading.Event(), threading.Event()

        class Slow(Singleton):
            def __init__(self) -> None:
                if not constructing.is_set():
                    constructing.set()
                    forked.wait(60)

        thread = threading.Thread(target=Slow)
        thread.start()
        constructing.wait(60)

        if not (child := os.fork()):
            signal.alarm(20)  # ends the child when it waits
            os._exit(0 if Slow() is Slow() else 1)

        _, status = os.waitpid(child, 0)
        forked.set()
        thread.join()
        assert status == 0
