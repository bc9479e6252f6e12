"""A server of our own that speaks MongoDB's protocol: nx-27017, on SQLite files."""

from __future__ import annotations

import os
import socket
import struct

from tools.servers import _binaries
from tools.servers._process import Server

__all__ = ("MongoServer",)

_OP_MSG = 2013
_HELLO = b"\x10hello\x00\x01\x00\x00\x00\x02$db\x00\x06\x00\x00\x00admin\x00"


class MongoServer(Server):
    """
    A server with MongoDB's wire protocol; it keeps its data in SQLite files, one per database.

    Example:
        >>> with MongoServer() as server:
        ...     server.url.startswith("mongodb://127.0.0.1:")
        True
    """

    kind = "mongo"

    @property
    def url(self) -> str:
        """``mongodb://host:port/``."""
        return f"mongodb://{self.host}:{self.port}/"

    def _command(self) -> list[str]:
        assert self.folder is not None
        _, python = _binaries.nx_27017()
        return [
            str(python),
            "-m",
            "nx_27017.nx_27017",
            f"--host={self.host}",
            f"--port={self.port}",
            f"--data-dir={self.folder / 'data'}",
            f"--log-file={self.folder / 'own-log'}",
            f"--pid-file={self.folder / 'pid'}",
        ]

    def _environment(self) -> dict[str, str]:
        folder, _ = _binaries.nx_27017()
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "COV"))}
        return {**kept, "PYTHONPATH": str(folder)}

    def _is_ready(self) -> bool:
        document = struct.pack("<i", len(_HELLO) + 5) + _HELLO + b"\x00"
        body = struct.pack("<IB", 0, 0) + document
        header = struct.pack("<iiii", 16 + len(body), 1, 0, _OP_MSG)

        with socket.create_connection(self.address, 5.0) as connection:
            connection.sendall(header + body)
            reply = connection.recv(16)

        return len(reply) == 16 and struct.unpack("<iiii", reply)[3] == _OP_MSG
