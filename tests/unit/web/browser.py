"""A headless Chromium that is told what to do over its DevTools protocol."""

from __future__ import annotations

import base64
import itertools
import json
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.request import urlopen

from websockets.sync.client import connect

__all__ = ["Browser", "chromium"]

_PATIENCE_S = 120.0


def chromium() -> str | None:
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Browser:
    """One page; errors that it writes to its console are kept in `errors`."""

    def __init__(self, *, width: int = 1400, height: int = 1000, scheme: str = "dark") -> None:
        self._profile = tempfile.mkdtemp(prefix="nightglass-chromium-")
        self._size, self._scheme = (width, height), scheme
        self._numbers = itertools.count(1)
        self.errors: list[str] = []

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [
                str(chromium()),
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--hide-scrollbars",
                "--remote-debugging-port=0",
                f"--user-data-dir={self._profile}",
                "about:blank",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            place = Path(self._profile) / "DevToolsActivePort"
            self._wait(lambda: place.exists() and place.read_text().count("\n") > 0)
            port = place.read_text().splitlines()[0]
            with urlopen(f"http://127.0.0.1:{port}/json", timeout=_PATIENCE_S) as reply:
                target = next(item for item in json.load(reply) if item["type"] == "page")
            self._socket = connect(target["webSocketDebuggerUrl"], max_size=64 * 2**20, open_timeout=_PATIENCE_S)
            for domain in ("Page", "Runtime", "Log"):
                self.call(f"{domain}.enable")
            features = [{"name": "prefers-color-scheme", "value": self._scheme}]
            self.call("Emulation.setEmulatedMedia", features=features)
            self.call(
                "Emulation.setDeviceMetricsOverride",
                width=self._size[0],
                height=self._size[1],
                deviceScaleFactor=1,
                mobile=False,
            )
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()
        self._end()

    def call(self, method: str, **parameters: Any) -> Any:
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            answer = json.loads(self._socket.recv(timeout=_PATIENCE_S))
            self._note(answer)
            if answer.get("id") == number:
                assert "error" not in answer, answer
                return answer["result"]

    def open(self, url: str) -> None:
        self.call("Page.navigate", url=url)

    def evaluate(self, expression: str) -> Any:
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def until(self, expression: str) -> Any:
        return self._wait(lambda: self.evaluate(expression))

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))

    def _note(self, answer: dict[str, Any]) -> None:
        details = answer.get("params", {})
        if answer.get("method") == "Runtime.exceptionThrown":
            self.errors.append(json.dumps(details["exceptionDetails"]))
        if answer.get("method") == "Log.entryAdded" and details["entry"]["level"] == "error":
            self.errors.append(details["entry"]["text"])

    def _wait(self, condition: Any) -> Any:
        end = time.monotonic() + _PATIENCE_S
        while not (value := condition()):
            assert time.monotonic() < end, f"it did not come about; errors: {self.errors}"
            time.sleep(0.1)
        return value

    def _end(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        shutil.rmtree(self._profile, ignore_errors=True)
