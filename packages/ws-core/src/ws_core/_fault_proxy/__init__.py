"""A TCP proxy that does to a connection what networks do; the bytes that pass are never changed."""

from ws_core._fault_proxy.faults import Then as Then
from ws_core._fault_proxy.proxy import FaultProxy as FaultProxy
from ws_core._fault_proxy.proxy import Side as Side

__all__ = ("FaultProxy", "Side", "Then")
