"""The browser sample, served from the test's own process and opened in headless Chromium."""

from __future__ import annotations

import subprocess
import threading
import time
from contextlib import contextmanager
from html.parser import HTMLParser

from ghostdeploy import samples
from ghostdeploy.bundle.folder import open_bundle
from ghostdeploy.samples import browser
from tests.conftest import require_program

PATIENCE = 300.0
"""Seconds, on whatever machine."""
EXAMPLES = [*samples.example_images(), *samples.photos()]


@contextmanager
def served(bundle, modules, examples=EXAMPLES, beside=None):
    """Serves the page from a thread; gives its address."""
    second = None if beside is None else open_bundle(beside, check_hashes=False)
    site = browser.build_site(open_bundle(bundle, check_hashes=False), modules, examples, second)
    with browser.make_server(site, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


class Page(HTMLParser):
    """What stands on the page: attributes by id, text by id, and the classes with their probabilities."""

    def __init__(self, html):
        super().__init__()
        self.attributes, self.text, self.classes = {}, {}, []
        self._open = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        if tag not in {"meta", "link", "input", "img", "br"}:
            self._open.append((tag, given.get("id"), given.get("class")))
        if "id" in given:
            self.attributes[given["id"]] = given
        if "data-probability" in given:
            self.classes.append(["", float(given["data-probability"])])

    def handle_endtag(self, tag):
        while self._open and self._open.pop()[0] != tag:
            pass

    def handle_data(self, data):
        for _, name, kind in self._open:
            if name:
                self.text[name] = self.text.get(name, "") + data
            if kind == "label":
                self.classes[-1][0] += data


def visit(address, tmp_path):
    """Opens the page in headless Chromium and returns it when it says that it is ready, or why it is not.

    Chromium's clock does not wait for the engine's compilation in another thread: on a busy computer it gives the page
    before it has loaded, and it is opened again.
    """
    end = time.monotonic() + PATIENCE
    while (page := _opened(address, tmp_path)).attributes["status"]["data-state"] == "loading":
        assert time.monotonic() < end, page.text
    return page


def _opened(address, tmp_path):
    done = subprocess.run(
        [
            require_program("chromium"),
            "--headless=new",
            "--no-sandbox",  # its sandbox refuses to run as root, as CI does
            "--disable-gpu",
            "--disable-dev-shm-usage",
            f"--user-data-dir={tmp_path / 'profile'}",
            "--virtual-time-budget=60000",
            "--dump-dom",
            address,
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    return Page(done.stdout)
