"""Classes with one instance in the process: `Singleton` and its metaclass.

Prefer to pass an object to those who need it. A singleton is for what a process has one of by
nature, such as its signal handlers.

Each class has its own instance, subclasses included. The first call constructs it, and threads
that call meanwhile wait for that one. An error of the constructor goes to its caller, and the next
call tries again. The original had `SafeSingleton` for threads beside `Singleton`; here both names
mean the same, and the look at an existing instance takes no lock.
"""

from __future__ import annotations

import inspect
import os
import threading
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar, cast

from ws_core.errors import UsageError

__all__ = ("SafeSingleton", "SafeSingletonMeta", "Singleton", "SingletonMeta")

T = TypeVar("T")


class _Slot:
    """The instance of one class, or what is known while it is constructed."""

    __slots__ = ("arguments", "building", "instance", "owner")

    def __init__(self) -> None:
        self.instance: object = None
        self.arguments: dict[str, object] = {}
        self.building: object = None  # between __new__ and the end of __init__
        self.owner: int | None = None  # the thread that constructs


if TYPE_CHECKING:
    from abc import ABCMeta as _ProtocolMeta
else:
    # A class has one metaclass: this one is below those of abc and of protocols, so that a singleton
    # may be an ABC or implement a protocol.
    _ProtocolMeta = type(Protocol)


class SingletonMeta(_ProtocolMeta, type):
    """
    Metaclass of classes that have one instance.

    A later call may leave all arguments out, or repeat those of the first call. Other arguments
    are an error, since the caller would get an instance that is not what it asked for. Arguments
    are kept for this comparison as long as the instance.

    A call from within the constructor, in the same thread, returns the object under construction.
    Constructors of two classes that call each other are fine in one thread; when two threads begin
    at the two ends of such a circle, one of them gets a `UsageError` instead of a deadlock.

    Raises:
        UsageError: On a call with other arguments than the first one's; on a call from within
            ``__new__``, where there is no object yet; on a deadlock of two constructors.

    Example:
        >>> class Registry(metaclass=SingletonMeta):
        ...     def __init__(self, name: str = "main") -> None:
        ...         self.name = name
        >>> Registry() is Registry() is Registry(name="main")
        True
        >>> Registry("other")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
            ...
        ws_core.errors.UsageError: Registry exists already, with another name: ...
    """

    _is_protocol = False  # the metaclass of protocols reads it, also of classes that have no protocol

    def __init__(
        cls, name: str, bases: tuple[type, ...], namespace: dict[str, object], **kwargs: object
    ) -> None:
        super().__init__(name, bases, namespace, **kwargs)
        cls.__slot = _Slot()

    # Any: whatever the class's own __init__ takes, which type checkers look at themselves
    def __call__(cls: type[T], *args: Any, **kwargs: Any) -> T:
        """Return the instance, constructing it the first time."""
        slot = cast("SingletonMeta", cls).__slot  # noqa: SLF001 - cls is one

        if slot.instance is None:
            return cast("T", _obtain(cls, slot, args, kwargs))

        if args or kwargs:
            _check_arguments(cls, slot, args, kwargs)

        return cast("T", slot.instance)

    def clear_instance(cls) -> None:
        """Forget the instance, so that the next call constructs a new one; for tests."""
        cls.__slot.instance = None
        cls.__slot.arguments = {}


class Singleton(metaclass=SingletonMeta):
    """
    Base of classes that have one instance; see `SingletonMeta` for the rules.

    Copies are the instance itself, and unpickling returns the instance of the process.

    Example:
        >>> import copy
        >>> class Sensors(Singleton):
        ...     pass
        >>> copy.deepcopy(Sensors()) is Sensors()
        True
    """

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, object]) -> Self:
        return self

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), ()


SafeSingletonMeta = SingletonMeta
SafeSingleton = Singleton


# One condition for all classes: constructions are rare, and so the circle check sees all of them.
_turn = threading.Condition()
_waits: dict[int, _Slot] = {}
_constructing: set[_Slot] = set()


def _after_fork() -> None:
    """Let a child construct anew what threads of its parent were constructing: it has no such threads."""
    global _turn  # noqa: PLW0603 - the lock may have been held by one of them
    _turn = threading.Condition()
    _waits.clear()

    for slot in list(_constructing):
        if slot.owner != threading.get_ident():
            slot.owner = slot.building = None
            _constructing.discard(slot)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _obtain(cls: type, slot: _Slot, args: tuple[object, ...], kwargs: dict[str, object]) -> object:
    me = threading.get_ident()

    with _turn:
        while slot.instance is None and slot.owner is not None:
            if slot.owner == me:
                return _under_construction(cls, slot)

            if _closes_circle(slot, me):
                raise UsageError(
                    f"{cls.__name__}() waits for a thread that waits for this one:"
                    " their constructors need each other, so construct one of them before there are threads",
                    singleton=cls.__name__,
                )

            _waits[me] = slot

            try:
                _turn.wait()
            finally:
                del _waits[me]

        if slot.instance is None:
            slot.owner = me
            _constructing.add(slot)

    if slot.owner == me:
        try:
            _construct(cls, slot, args, kwargs)
        finally:
            with _turn:
                slot.owner = slot.building = None
                _constructing.discard(slot)
                _turn.notify_all()
    elif args or kwargs:
        _check_arguments(cls, slot, args, kwargs)

    return slot.instance


def _construct(cls: type, slot: _Slot, args: tuple[object, ...], kwargs: dict[str, object]) -> None:
    instance = cls.__new__(cls, *args, **kwargs)

    if isinstance(instance, cls):  # as type.__call__ has it
        slot.building = instance
        type(instance).__init__(instance, *args, **kwargs)

    slot.arguments = _bind(cls, args, kwargs)
    slot.instance = instance


def _under_construction(cls: type, slot: _Slot) -> object:
    if slot.building is None:
        raise UsageError(
            f"{cls.__name__}() is called by its own __new__, before there is an object: call it in __init__",
            singleton=cls.__name__,
        )

    return slot.building


def _closes_circle(slot: _Slot, me: int) -> bool:
    """Return whether the thread that constructs for a slot waits, over others, for this thread."""
    while slot.owner is not None and slot.owner != me:
        if slot.owner not in _waits:
            return False

        slot = _waits[slot.owner]

    return slot.owner == me


def _check_arguments(cls: type, slot: _Slot, args: tuple[object, ...], kwargs: dict[str, object]) -> None:
    asked = _bind(cls, args, kwargs)
    names = asked.keys() | slot.arguments.keys()
    other = sorted(name for name in names if not _same(asked.get(name), slot.arguments.get(name)))

    if other:
        raise UsageError(
            f"{cls.__name__} exists already, with another {' and '.join(other)}:"
            " leave the arguments out to get it",
            singleton=cls.__name__,
            arguments=tuple(other),
        )


def _bind(cls: type, args: tuple[object, ...], kwargs: dict[str, object]) -> dict[str, object]:
    """Name the arguments of a call, so that it does not matter how they were written."""
    constructor: Any = cls.__init__ if cls.__init__ is not object.__init__ else cls.__new__  # type: ignore[misc]  # Any: a constructor of any signature; read here, never called

    if constructor is object.__new__:
        if args or kwargs:
            raise TypeError(f"{cls.__name__}() takes no arguments")

        return {}

    bound = inspect.signature(constructor).bind(None, *args, **kwargs)
    bound.apply_defaults()
    return dict(bound.arguments)


def _same(one: object, other: object) -> bool:
    try:
        return one is other or bool(one == other)
    except Exception:  # noqa: BLE001 - objects that cannot be compared, such as arrays, are not the same
        return False
