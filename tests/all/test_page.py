"""The demo's page in Chromium, while buyers are in the shop."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.all._browser import BROWSER, browser
from tests.all._demo import Demo
from tests.all._support import TIMEOUT, running

pytestmark = [
    pytest.mark.deployment,
    pytest.mark.timeout(600),
    pytest.mark.browser,
    pytest.mark.skipif(BROWSER is None, reason="there is no Chromium on this machine"),
]

SOLD = "Number(document.getElementById('sold').textContent.replace(/\\D/g, ''))"

FEED = "document.querySelectorAll('#feed li').length"


async def test_the_page_shows_the_sale_live(tmp_path: Path) -> None:
    """Figures and workers move by themselves; a piece is bought and paid by keyboard; nothing complains."""
    with running("demo", "--port", "0", "--load", "400", "--at-once", "4", "--stock", "500") as process:
        demo = await asyncio.to_thread(Demo, process)

        async with browser(tmp_path) as page:
            await page.size(1280, 900)
            await page.command("Page.navigate", url=demo.url)
            await page.until("document.getElementById('link')?.dataset.state === 'live'")

            # Live: the number of sold pieces rises to the buyers' number without a reload.
            await page.until(f"{SOLD} > 0")
            await page.until(f"{SOLD} >= 400")
            await page.until("document.querySelectorAll('#workers li').length === 2")
            await page.until(f"{FEED} === 6")
            assert await page.look("document.getElementById('oversold').textContent") == "0"

            # By keyboard: the first Tab offers to skip to the items; Enter on a button buys, then pays.
            await page.press("Tab", 9)
            assert await page.look("document.activeElement.className") == "skip"
            await page.look("document.querySelector('.buy').focus()")
            await page.press("Enter", 13)
            await page.until("document.querySelectorAll('#orders .pay').length === 1")
            await page.look("document.querySelector('#orders .pay').focus()")
            await page.press("Enter", 13)
            await page.until("document.querySelector('#orders .tag.paid') !== null")
            await page.until(f"{SOLD} >= 401")

            # Opened when all is sold, it shows the latest sales nevertheless.
            await page.command("Page.navigate", url=demo.url)
            await page.until(f"{FEED} === 6")
            assert "guest-" in await page.look("document.querySelector('#feed .what').textContent")

            # The ops page, of both workers: pools, tasks, and locks are there without doing.
            await page.command("Page.navigate", url=f"{demo.url}/_ops")
            await page.until("document.querySelectorAll('#workers tbody tr').length === 2")
            await page.until("document.querySelectorAll('#pools tbody tr').length >= 2")
            await page.until("document.querySelectorAll('#tasks tbody tr').length >= 2")
            await page.until("document.getElementById('lines').textContent.length > 0")
            await page.command("Page.navigate", url=demo.url)
            await page.until(f"{FEED} === 6")

            # On a telephone nothing is cut off, in both themes.
            for theme in ("light", "dark"):
                await page.command(
                    "Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": theme}]
                )
                await page.size(390, 844, mobile=True)
                assert await page.look("document.documentElement.scrollWidth") <= 390

            assert page.complaints == []

        process.terminate()
        assert await asyncio.to_thread(process.wait, TIMEOUT) == 0
