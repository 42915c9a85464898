"""A headless Chromium for tests, asked over its debugging pipe; no driver and no package in Python.

`python -m tests.browser FOLDER` puts one into a folder, from the npm package @sparticuz/chromium (x86-64 Linux; it
needs node). Any Chrome or Chromium that is installed does too.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

PACKAGE = "@sparticuz/chromium@147.0.0"
NAMES = ("chromium", "chromium-browser", "chromium-headless-shell", "google-chrome", "google-chrome-stable", "chrome")
_MAC = Path("/Applications/Google Chrome.app/Contents/MacOS/Google Chrome")
_UNPACK = (
    "const fs = require('fs'), zlib = require('zlib');"
    "for (const name of ['chromium', 'al2023.tar', 'swiftshader.tar'])"
    " fs.writeFileSync(name, zlib.brotliDecompressSync(fs.readFileSync(`package/bin/${name}.br`)));"
)


def find() -> str | None:
    """The program: that of MRCNN_TEST_BROWSER, one beside the Python that runs, or one that is installed."""
    places = [os.environ.get("MRCNN_TEST_BROWSER"), Path(sys.prefix) / "chromium" / "chromium", _MAC]
    there = [str(place) for place in places if place and Path(place).is_file()]
    return next(iter(there), None) or next(filter(None, map(shutil.which, NAMES)), None)


def fetch(folder: Path) -> None:
    """Put a Chromium into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    packed = subprocess.run(
        ["npm", "pack", "--silent", PACKAGE], cwd=folder, check=True, capture_output=True, text=True
    )
    archive = folder / packed.stdout.split()[-1]
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    archive.unlink()
    subprocess.run(["node", "-e", _UNPACK], cwd=folder, check=True)
    for name in ("al2023.tar", "swiftshader.tar"):
        with tarfile.open(folder / name) as tar:
            tar.extractall(folder, filter="data")
        (folder / name).unlink()
    shutil.rmtree(folder / "package")
    (folder / "chromium").chmod(0o755)


class Browser:
    """A running Chromium with one page; close it, or use it in a `with` statement.

    Attributes:
        requests: addresses that the page has asked for.
    """

    def __init__(self, program: str, seconds: float = 60) -> None:
        self._profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        commands_in, self._commands = os.pipe()
        self._answers, answers_out = os.pipe()
        library = str(Path(program).parent / "lib")

        def connect() -> None:  # Chromium reads from 3 and writes to 4
            low, high = os.dup(commands_in), os.dup(answers_out)
            os.dup2(low, 3)
            os.dup2(high, 4)

        self._process = subprocess.Popen(
            [
                program, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
                "--remote-debugging-pipe", f"--user-data-dir={self._profile.name}", "about:blank",
            ],
            preexec_fn=connect, close_fds=False, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "LD_LIBRARY_PATH": f"{library}:{os.environ.get('LD_LIBRARY_PATH', '')}"},
        )  # fmt: skip
        os.close(commands_in)
        os.close(answers_out)
        self._buffer = b""
        self._number = 0
        self._session: str | None = None
        self.requests: list[str] = []
        self._timer = threading.Timer(seconds, self._process.kill)  # a test must not wait for ever
        self._timer.daemon = True
        self._timer.start()
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The answer to a command of the DevTools protocol."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        number = self._number
        while (answer := self._read()).get("id") != number:
            pass
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        return answer["result"]

    def open(self, path: Path) -> None:
        """Show a file and wait until it has loaded."""
        self.call("Page.navigate", url=path.resolve().as_uri())
        while self.ask("document.readyState") != "complete" or self.ask("location.href") == "about:blank":
            time.sleep(0.01)

    def ask(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(answer["exceptionDetails"])
        return answer["result"].get("value")

    def close(self) -> None:
        """End it."""
        self._timer.cancel()
        self._process.kill()
        self._process.wait()
        os.close(self._commands)
        os.close(self._answers)
        self._profile.cleanup()

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *details: Any) -> None:
        self.close()

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            data = os.read(self._answers, 1 << 16)
            if not data:
                raise RuntimeError("The browser has ended.")
            self._buffer += data
        message, _, self._buffer = self._buffer.partition(b"\0")
        told = json.loads(message)
        if told.get("method") == "Network.requestWillBeSent":
            self.requests.append(told["params"]["request"]["url"])
        return told


if __name__ == "__main__":
    fetch(Path(sys.argv[1]))
