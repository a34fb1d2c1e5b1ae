# SPDX-License-Identifier: Apache-2.0
"""A headless Chromium, driven over its pipe: no package is needed."""

import contextlib
import json
import os
import select
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome")
SECONDS = 60


def find_browser():
    """Path of a Chromium; None if there is none."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Page:
    """An open page.

    Attributes:
      problems: errors in the console, exceptions, and what the page tried to load.
    """

    def __init__(self, reader, writer):
        self._reader, self._writer, self._session = reader, writer, None
        self._number, self._events, self._left = 0, [], b""
        self.problems = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Runtime", "Log", "Page", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> Any:
        """Send a command, and return its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        self._writer.write(json.dumps(message).encode() + b"\0")
        self._writer.flush()
        while True:
            answer = self._receive()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return answer["result"]

    def open(self, path: Path) -> None:
        """Load a page from a file, and wait until it is there."""
        self._events.clear()
        self.call("Page.navigate", url=path.as_uri())
        while "Page.loadEventFired" not in self._events:
            self._receive()

    def evaluate(self, expression: str) -> Any:
        """Return the value of an expression in the page; of a promise, what it gives."""
        settings = {"returnByValue": True, "awaitPromise": True}
        done = self.call("Runtime.evaluate", expression=expression, **settings)
        assert "exceptionDetails" not in done, done
        return done["result"].get("value")

    def press_enter(self) -> None:
        """Press a key, as somebody without a mouse does."""
        key = {"key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13}
        self.call("Input.dispatchKeyEvent", type="keyDown", text="\r", **key)
        self.call("Input.dispatchKeyEvent", type="keyUp", **key)

    def _receive(self) -> Any:
        while b"\0" not in self._left:
            ready, _, _ = select.select([self._reader], [], [], SECONDS)
            assert ready, f"the browser said nothing for {SECONDS} seconds"
            part = os.read(self._reader.fileno(), 1 << 16)
            assert part, "the browser has ended"
            self._left += part
        text, _, self._left = self._left.partition(b"\0")
        message = json.loads(text)
        method, params = message.get("method"), message.get("params", {})
        self._events.append(method)
        if method in ("Runtime.exceptionThrown", "Runtime.consoleAPICalled"):
            self.problems.append(params)
        if method == "Log.entryAdded" and params["entry"]["level"] != "verbose":
            self.problems.append(params["entry"])
        if method == "Network.requestWillBeSent":
            url = params["request"]["url"]
            if not url.startswith("file:"):
                self.problems.append(url)
        return message


@contextlib.contextmanager
def open_browser(program: str):
    """Start a browser with an empty profile, and end it afterwards."""
    theirs_in, ours_out = os.pipe()
    ours_in, theirs_out = os.pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"]
        options += ["--remote-debugging-pipe", f"--user-data-dir={profile}"]
        command = (
            f"exec {shlex.join([program, *options])} 3<&{theirs_in} 4>&{theirs_out}"
        )
        process = subprocess.Popen(
            ["bash", "-c", command],
            pass_fds=(theirs_in, theirs_out),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        try:
            with (
                os.fdopen(ours_in, "rb") as reader,
                os.fdopen(ours_out, "wb") as writer,
            ):
                yield Page(reader, writer)
        finally:
            process.terminate()
            process.wait(timeout=30)
