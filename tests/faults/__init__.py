"""
A TCP proxy that does to a connection what networks do, at a moment that a test chooses.

Use it between a client and a real server::

    async with FaultProxy(server.host, server.port) as proxy:
        client = connect(proxy.host, proxy.port)
        lost = proxy.drop_reply(2)      # the server acts on the second request; its reply is lost
        ...
        proxy.black_hole()
        ...
        proxy.heal()

Only the standard library is used. The bytes that pass are never changed.
"""

from tests.faults._faults import Then as Then
from tests.faults._proxied import Counters as Counters
from tests.faults._proxy import FaultProxy as FaultProxy
from tests.faults._proxy import Protocol as Protocol
from tests.faults._proxy import Side as Side

__all__ = ("Counters", "FaultProxy", "Protocol", "Side", "Then")
