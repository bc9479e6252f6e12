#!/usr/bin/env python3
"""Look with axe-core in Chromium at every page of the documentation, at the demo's page and at the ops page.

.venv/bin/python tools/accessibility.py           light on a desktop, dark on a telephone

Needs npm, which fetches axe-core once, and Chromium; ``dev.py check docs`` has built the pages before. Prints
each finding, and exits with 1 when one is serious or critical; these include a contrast below 4.5.
"""

from __future__ import annotations

import asyncio
import functools
import http.server
import json
import shutil
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.all._browser import BROWSER, Page, browser
from tests.all._demo import Demo
from tests.all._support import running
from tools import dev

__all__ = ("main",)

_AXE = dev.STATE / "axe"
_SITE = dev.STATE / "site"
_LOOKS = (("light", 1280, 900), ("dark", 390, 844))
_GRAVE = frozenset({"serious", "critical"})
_RUN = """
(async () => {
  const found = await axe.run(document, {resultTypes: ["violations"]});
  return JSON.stringify(found.violations.map(one => ({
    rule: one.id, impact: one.impact, nodes: one.nodes.map(node => node.html.slice(0, 160)),
    why: one.nodes[0].failureSummary.split("\\n").slice(1).join(" ").trim().slice(0, 240),
  })));
})()
"""


def main() -> int:
    """
    Look at all pages.

    Returns:
        The exit code: 1 with a serious finding, 2 when something is missing.
    """
    missing = [
        what
        for what, there in (
            ("npm", shutil.which("npm")),
            ("Chromium", BROWSER),
            (f"the site in {_SITE}: run dev.py check docs", _SITE.is_dir()),
        )
        if not there
    ]

    if missing:
        print(f"there is no {', nor '.join(missing)}", file=sys.stderr)
        return 2

    with _served(_SITE) as site, running("demo", "--port", "0", "--load", "50") as process:
        demo = Demo(process).url
        pages = sorted(path.parent.relative_to(_SITE) for path in _SITE.rglob("index.html"))
        urls = [f"{site}/{'' if page == Path() else f'{page}/'}" for page in pages] + [
            f"{demo}/",
            f"{demo}/_ops",
        ]
        return asyncio.run(_look(urls, _axe().read_text(encoding="utf-8")))


def _axe() -> Path:
    """Return axe-core, fetched by npm the first time."""
    script = _AXE / "node_modules" / "axe-core" / "axe.min.js"

    if not script.exists():
        _AXE.mkdir(parents=True, exist_ok=True)
        command = (
            "npm",
            "install",
            "--silent",
            "--no-audit",
            "--no-fund",
            "--prefix",
            str(_AXE),
            "axe-core@4",
        )
        subprocess.run(command, cwd=_AXE, check=True)

    return script


@contextmanager
def _served(folder: Path) -> Iterator[str]:
    """Serve a folder, and return where."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()

    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


async def _look(urls: list[str], axe: str) -> int:
    grave: Counter[str] = Counter()

    with tempfile.TemporaryDirectory() as profile:
        async with browser(Path(profile)) as page:
            for theme, width, height in _LOOKS:
                scheme = {"name": "prefers-color-scheme", "value": theme}
                await page.command("Emulation.setEmulatedMedia", features=[scheme])
                await page.size(width, height, mobile=theme == "dark")

                for url in urls:
                    for finding in await _findings(page, url, axe):
                        where = f"{url.split('/', 3)[-1] or '/'} ({theme})"
                        what = f"{finding['impact']}: {finding['rule']}, {len(finding['nodes'])} times"
                        print(
                            f"{what} on {where}\n    {finding['nodes'][0]}\n    {finding['why']}", flush=True
                        )

                        if finding["impact"] in _GRAVE:
                            grave[finding["rule"]] += 1

    print(f"{len(urls)} pages, {len(_LOOKS)} looks; serious findings: {dict(grave) or 'none'}")
    return int(bool(grave))


async def _findings(page: Page, url: str, axe: str) -> list[dict[str, Any]]:  # Any: JSON
    await page.command("Page.navigate", url=url)
    await page.until(f"location.href.startsWith({url!r}) && document.readyState === 'complete'")
    await page.look(f"{axe};0")
    answer = await page.command("Runtime.evaluate", expression=_RUN, awaitPromise=True, returnByValue=True)
    return list(json.loads(answer["result"]["value"]))


if __name__ == "__main__":
    sys.exit(main())
