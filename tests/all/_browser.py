"""Chromium over its debugging protocol, as far as the tests of the page need it."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import websockets

from tests.all._support import TIMEOUT

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class Page:
    """One tab."""

    def __init__(self, socket: Any) -> None:  # the library's connection
        self._socket = socket
        self._number = 0
        self.complaints: list[str] = []

    async def command(self, method: str, **params: Any) -> dict[str, Any]:
        """Send one command, and return its result; errors of the page are kept meanwhile."""
        self._number += 1
        number = self._number
        await self._socket.send(json.dumps({"id": number, "method": method, "params": params}))

        while True:
            answer = json.loads(await asyncio.wait_for(self._socket.recv(), TIMEOUT))

            if answer.get("id") == number:
                assert "error" not in answer, answer["error"]
                return dict(answer["result"])

            self._note(answer)

    def _note(self, event: Mapping[str, Any]) -> None:
        if event.get("method") == "Runtime.exceptionThrown":
            self.complaints.append(str(event["params"]["exceptionDetails"]))
        elif event.get("method") == "Log.entryAdded" and event["params"]["entry"]["level"] == "error":
            self.complaints.append(str(event["params"]["entry"]))

    async def look(self, expression: str) -> Any:
        """Evaluate JavaScript and return its value."""
        answer = await self.command("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    async def until(self, expression: str) -> Any:
        """Evaluate again and again until the value is true."""
        async with asyncio.timeout(TIMEOUT):
            while not (value := await self.look(expression)):
                await asyncio.sleep(0.02)

        return value

    async def press(self, key: str, code: int) -> None:
        """Press a key."""
        text = {"Enter": "\r"}.get(key, "")

        for kind in ("keyDown", "keyUp"):
            await self.command(
                "Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code, text=text
            )

    async def size(self, width: int, height: int, *, mobile: bool = False) -> None:
        """Set the size of the screen."""
        await self.command(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=mobile,
        )


async def _first_tab(root: Any) -> str:  # the library's connection
    """Wait for the tab: the browser may listen before it has opened one."""
    async with asyncio.timeout(TIMEOUT):
        while True:
            await root.send(json.dumps({"id": 1, "method": "Target.getTargets"}))
            targets = json.loads(await root.recv())["result"]["targetInfos"]

            if tabs := [info["targetId"] for info in targets if info["type"] == "page"]:
                return str(tabs[0])

            await asyncio.sleep(0.02)


@asynccontextmanager
async def browser(profile: Path) -> AsyncIterator[Page]:
    """Run Chromium with one empty tab for the length of a block."""
    assert BROWSER is not None
    process = await asyncio.create_subprocess_exec(
        BROWSER,
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--remote-debugging-port=0",
        f"--user-data-dir={profile}",
        "about:blank",
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    port_file = profile / "DevToolsActivePort"

    try:
        async with asyncio.timeout(TIMEOUT):
            while not port_file.exists() or not port_file.read_text().count("\n"):
                await asyncio.sleep(0.05)

        port, path = port_file.read_text().splitlines()[:2]

        async with websockets.connect(f"ws://127.0.0.1:{port}{path}", max_size=None) as root:
            target = await _first_tab(root)

            async with websockets.connect(
                f"ws://127.0.0.1:{port}/devtools/page/{target}", max_size=None
            ) as socket:
                page = Page(socket)

                for domain in ("Runtime", "Log", "Page"):
                    await page.command(f"{domain}.enable")

                yield page
    finally:
        process.terminate()
        await process.wait()
