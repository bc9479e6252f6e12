"""Singletons: `ws_core.metaclass`."""

from ws_core.metaclass import SafeSingleton as SafeSingleton
from ws_core.metaclass import SafeSingletonMeta as SafeSingletonMeta
from ws_core.metaclass import SafeSingletonMeta as SafeSingletonMetaclass
from ws_core.metaclass import Singleton as Singleton
from ws_core.metaclass import SingletonMeta as SingletonMeta
from ws_core.metaclass import SingletonMeta as SingletonMetaclass

__all__ = (
    "SafeSingleton",
    "SafeSingletonMeta",
    "SafeSingletonMetaclass",
    "Singleton",
    "SingletonMeta",
    "SingletonMetaclass",
)
