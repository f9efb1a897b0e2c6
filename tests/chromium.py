"""A page in headless Chromium, through its DevTools protocol: console messages, network requests, a measured layout,
screenshots."""

from __future__ import annotations

import asyncio
import base64
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import aiohttp

BINARY = next((b for b in map(shutil.which, ("chromium", "chromium-browser", "google-chrome")) if b), None)


def look(
    page: Path,
    width: int,
    height: int,
    screenshot: Path | None = None,
    script: str = "null",
    scheme: str = "light",
    media: str = "screen",
) -> dict[str, Any]:
    """Open `page` at `width` x `height`; returns {console, requests, value} with the value of the JavaScript
    `script`."""
    return asyncio.run(_look(page, width, height, screenshot, script, scheme, media))


async def _look(
    page: Path, width: int, height: int, screenshot: Path | None, script: str, scheme: str, media: str
) -> dict[str, Any]:
    profile = tempfile.mkdtemp(prefix="chromium-")
    arguments = [
        BINARY,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        "--disable-background-networking",
        "--remote-debugging-port=0",
        f"--user-data-dir={profile}",
        "about:blank",
    ]
    process = subprocess.Popen(
        arguments,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        env={**os.environ, "TMPDIR": profile},
    )
    try:
        port_file = Path(profile) / "DevToolsActivePort"
        deadline = time.monotonic() + 30
        while not (port_file.exists() and "\n" in port_file.read_text()):
            if time.monotonic() > deadline:
                raise TimeoutError("Chromium did not open its DevTools port in 30 s")
            await asyncio.sleep(0.1)
        port = port_file.read_text().split("\n")[0]
        async with aiohttp.ClientSession() as http:
            async with http.get(f"http://127.0.0.1:{port}/json") as reply:
                target = next(t for t in await reply.json() if t["type"] == "page")
            async with http.ws_connect(target["webSocketDebuggerUrl"], max_msg_size=1 << 28) as socket:
                return await _drive(socket, page, width, height, screenshot, script, scheme, media)
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # its helper processes too, which would write on into the profile
        process.wait()
        shutil.rmtree(profile, ignore_errors=True)


async def _drive(
    socket, page: Path, width: int, height: int, screenshot: Path | None, script: str, scheme: str, media: str
) -> dict[str, Any]:
    console: list[str] = []
    requests: list[str] = []
    sent = 0

    async def read(wanted: int | None, event: str = "") -> dict[str, Any]:
        async for message in socket:
            data = message.json()
            method, params = data.get("method", ""), data.get("params", {})
            if method == "Network.requestWillBeSent":
                requests.append(params["request"]["url"])
            elif method in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"):
                console.append(str(params))
            if (wanted is not None and data.get("id") == wanted) or (event and method == event):
                return data
        raise ConnectionError("Chromium closed the connection")

    async def call(method: str, **params) -> dict[str, Any]:
        nonlocal sent
        sent += 1
        await socket.send_json({"id": sent, "method": method, "params": params})
        return (await read(sent)).get("result", {})

    for domain in ("Page", "Network", "Runtime", "Log"):
        await call(f"{domain}.enable")
    await call(
        "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
    )
    await call(
        "Emulation.setScrollbarsHidden", hidden=True
    )  # else a screenshot shows them, and whether there are any depends on the platform
    await call("Emulation.setEmulatedMedia", media=media, features=[{"name": "prefers-color-scheme", "value": scheme}])
    sent += 1
    await socket.send_json({"id": sent, "method": "Page.navigate", "params": {"url": page.resolve().as_uri()}})
    await read(None, "Page.loadEventFired")
    value = (await call("Runtime.evaluate", expression=script, returnByValue=True))["result"].get("value")
    if screenshot:
        shot = await call("Page.captureScreenshot", format="png")
        screenshot.write_bytes(base64.b64decode(shot["data"]))
    return {"console": console, "requests": requests, "value": value}
