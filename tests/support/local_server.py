"""HTTP servers on this machine."""

import threading
from contextlib import contextmanager
from http.server import ThreadingHTTPServer


class LocalServer(ThreadingHTTPServer):
    """Any free port of this machine; ``state`` is what its handlers know and are told."""

    def __init__(self, handler, state):
        super().__init__(("127.0.0.1", 0), handler)
        self.state = state
        self.address = f"http://127.0.0.1:{self.server_port}"


@contextmanager
def serving(handler, **state):
    """A server that answers with ``handler``."""
    server = LocalServer(handler, state)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
