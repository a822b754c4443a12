"""Headless Chromium, driven by its DevTools protocol over a pipe: no package, no port, no network of its own."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import time

PROGRAMS = (
    "chromium-headless-shell",
    "chromium",
    "chromium-browser",
    "google-chrome",
    "headless_shell",
)
PROGRAM = next((found for name in PROGRAMS if (found := shutil.which(name))), None)
MISSING = "no Chromium here (Debian: apt-get install chromium-headless-shell)"
QUIET = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--hide-scrollbars",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--force-color-profile=srgb",
    "--font-render-hinting=none",
    "--remote-debugging-pipe",
)


class Browser:
    """One browser with one page. `requests` and `complaints` are all that it asked for and all that it said of the page."""

    def __init__(self, folder):
        to_child, self._to = os.pipe()
        self._from, from_child = os.pipe()
        high = [fcntl.fcntl(handle, fcntl.F_DUPFD, 20) for handle in (to_child, from_child)]

        def lay_out():  # The protocol is spoken on 3 and 4.
            os.dup2(high[0], 3)
            os.dup2(high[1], 4)

        self._child = subprocess.Popen(
            [PROGRAM, *QUIET, f"--user-data-dir={folder}", "about:blank"],
            preexec_fn=lay_out,
            close_fds=False,
            env={"HOME": str(folder), "PATH": os.environ["PATH"], "LANG": "C.UTF-8", "TZ": "UTC"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for handle in (to_child, from_child, *high):
            os.close(handle)
        self._count, self._read = 0, b""
        self._session = None
        self.requests: list[str] = []
        self.complaints: list[str] = []
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.ask("Target.attachToTarget", targetId=target, flatten=True)[
            "sessionId"
        ]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.ask(f"{domain}.enable")

    def ask(self, method, **params):
        """One command and its answer; events that come before it are noted."""
        self._count += 1
        words = {"id": self._count, "method": method, "params": params}
        if self._session:
            words["sessionId"] = self._session
        os.write(self._to, json.dumps(words).encode() + b"\0")
        while True:
            told = self._next()
            if told.get("id") == self._count:
                assert "error" not in told, (method, told["error"])
                return told["result"]
            self._note(told)

    def _next(self, seconds=60):
        deadline = time.monotonic() + seconds
        while b"\0" not in self._read:
            ready = select.select([self._from], [], [], max(0, deadline - time.monotonic()))[0]
            more = os.read(self._from, 1 << 20) if ready else b""
            assert more, "the browser does not answer"
            self._read += more
        message, _, self._read = self._read.partition(b"\0")
        return json.loads(message)

    def _note(self, told):
        params = told.get("params", {})
        if told.get("method") == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif told.get("method") in (
            "Runtime.consoleAPICalled",
            "Runtime.exceptionThrown",
            "Log.entryAdded",
        ):
            self.complaints.append(json.dumps(params))
        self.last = told.get("method")

    def open(self, url, dark=False, width=1100, height=1000):
        """Loads a page and waits until all of it is there."""
        self.dress(dark)
        self.ask(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        self.ask("Page.navigate", url=url)
        self.last = ""
        while self.last != "Page.loadEventFired":
            self._note(self._next())

    def dress(self, dark, media=""):
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.ask("Emulation.setEmulatedMedia", media=media, features=[scheme])

    def evaluate(self, expression):
        """What JavaScript of ours finds in the page; the page itself may run none."""
        done = self.ask(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    def picture(self, whole=False):
        """A PNG of what is to be seen, or of the whole page."""
        return base64.b64decode(
            self.ask("Page.captureScreenshot", captureBeyondViewport=whole)["data"]
        )

    def printed(self):
        """The page as a PDF."""
        return base64.b64decode(self.ask("Page.printToPDF", printBackground=False)["data"])

    def close(self):
        self._session = None
        try:
            self.ask("Browser.close")
        except (AssertionError, OSError):
            self._child.kill()
        self._child.wait(timeout=20)
        for handle in (self._to, self._from):
            os.close(handle)
