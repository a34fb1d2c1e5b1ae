# SPDX-License-Identifier: Apache-2.0
"""No test of the data reads what this machine happens to have, or its network."""

import pytest

from research.data import _fashion_mnist, _shakespeare

# Nothing listens on port 1: a connection is refused at once.
NOWHERE = "http://127.0.0.1:1/"


@pytest.fixture(autouse=True)
def isolated(tmp_path_factory, monkeypatch):
    """An empty tensorflow-datasets folder, no system files, no network."""
    home = tmp_path_factory.mktemp("tfds")
    monkeypatch.setenv("TFDS_DATA_DIR", str(home))
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(_fashion_mnist, "SYSTEM_DIR", home / "no-system-files")
    monkeypatch.setattr(_fashion_mnist, "URL", NOWHERE)
    monkeypatch.setattr(_shakespeare, "URL", NOWHERE + "input.txt")
    return home


@pytest.fixture
def no_sockets(monkeypatch):
    """Any use of the network fails the test."""

    def refuse(*args, **kwargs):
        raise AssertionError("the network was used")

    monkeypatch.setattr("socket.socket.connect", refuse)
    monkeypatch.setattr("urllib.request.urlopen", refuse)


@pytest.fixture
def serve():
    """Serve a folder over HTTP; gives its address."""
    import functools
    import http.server
    import threading

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format, *args):
            pass

    servers = []

    def start(folder):
        handler = functools.partial(Quiet, directory=str(folder))
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, args=(0.01,)).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}/"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()
