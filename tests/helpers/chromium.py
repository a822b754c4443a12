"""Headless Chromium, driven by its DevTools protocol over a pipe: no package, no port."""

from __future__ import annotations

import fcntl
import json
import os
import select
import shutil
import subprocess
import time

PROGRAMS = "chromium-headless-shell chromium chromium-browser google-chrome headless_shell"
PROGRAM = next((path for name in PROGRAMS.split() if (path := shutil.which(name))), None)
MISSING = "no Chromium here (Debian: apt-get install chromium-headless-shell)"
FLAGS = """--headless --no-sandbox --disable-gpu --hide-scrollbars --no-first-run --disable-sync
--disable-background-networking --disable-component-update --disable-quic --disable-dev-shm-usage
--force-color-profile=srgb --font-render-hinting=none --remote-debugging-pipe"""
COMPLAINTS = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")


class Browser:
    """One browser with one page. `requests` holds all that it loaded, `complaints` all that it logged."""

    def __init__(self, directory):
        to_child, self._to = os.pipe()
        self._from, from_child = os.pipe()
        high = [fcntl.fcntl(handle, fcntl.F_DUPFD, 20) for handle in (to_child, from_child)]

        def place_pipes():  # The protocol is spoken on 3 and 4.
            os.dup2(high[0], 3)
            os.dup2(high[1], 4)

        self._child = subprocess.Popen(
            [PROGRAM, *FLAGS.split(), f"--user-data-dir={directory}", "about:blank"],
            preexec_fn=place_pipes,  # noqa: PLW1509  # No thread runs here.
            close_fds=False,
            env={
                "HOME": str(directory),
                "PATH": os.environ["PATH"],
                "LANG": "C.UTF-8",
                "TZ": "UTC",
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for handle in (to_child, from_child, *high):
            os.close(handle)
        self._count, self._read, self._last, self._session = 0, b"", "", None
        self.requests: list[str] = []
        self.complaints: list[str] = []
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        attached = self.ask("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.ask(f"{domain}.enable")

    def ask(self, method, **params):
        """One command and its answer; events that come before it are noted."""
        self._count += 1
        command = {"id": self._count, "method": method, "params": params}
        if self._session:
            command["sessionId"] = self._session
        os.write(self._to, json.dumps(command).encode() + b"\0")
        while True:
            message = self._next()
            if message.get("id") == self._count:
                assert "error" not in message, (method, message["error"])
                return message["result"]

    def _next(self):
        """The next message, noted where it is an event."""
        deadline = time.monotonic() + 60
        while b"\0" not in self._read:
            ready = select.select([self._from], [], [], max(0, deadline - time.monotonic()))[0]
            more = os.read(self._from, 1 << 20) if ready else b""
            assert more, "the browser does not answer"
            self._read += more
        content, _, self._read = self._read.partition(b"\0")
        message = json.loads(content)
        params, self._last = message.get("params", {}), message.get("method", "")
        if self._last == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif self._last in COMPLAINTS:
            self.complaints.append(json.dumps(params))
        return message

    def open(self, url, dark=False, width=1100):
        """Load a page, with nothing noted yet, and wait until all of it is there."""
        self.show_as(dark)
        size = {"width": width, "height": 1000, "deviceScaleFactor": 1, "mobile": False}
        self.ask("Emulation.setDeviceMetricsOverride", **size)
        self.requests.clear()
        self.complaints.clear()
        self.ask("Page.navigate", url=url)
        while self._last != "Page.loadEventFired":
            self._next()

    def show_as(self, dark=False, media=""):
        """The color scheme and the medium ('print', or the screen)."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.ask("Emulation.setEmulatedMedia", media=media, features=[scheme])

    def evaluate(self, expression):
        """The value of our JavaScript in the page; the page itself may run none."""
        answer = self.ask("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def close(self):
        self._session = None
        try:
            self.ask("Browser.close")
        except (AssertionError, OSError):
            self._child.kill()
        self._child.wait(timeout=20)
        for handle in (self._to, self._from):
            os.close(handle)
