"""A cable between two machines: a relay of TCP that can be cut, and forwards nothing then."""

import socket
import threading
from contextlib import suppress


class Relay:
    """Listens on a free port, and forwards to another; ``with`` ends it."""

    def __init__(self, port):
        self._target = port
        self._whole = threading.Event()
        self._whole.set()
        self._first_cut = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._open = [self._listener]

    def __enter__(self):
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._whole.set()
        for connection in self._open:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()

    def cut(self, first=0):
        """Let nothing through any more, and tell nobody; connections before ``first`` stay."""
        self._first_cut = first
        self._whole.clear()

    def mend(self):
        """Let everything through again."""
        self._whole.set()

    def break_off(self):
        """End all connections; new ones go through."""
        for connection in self._open[1:]:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _accept(self):
        while True:
            try:
                one, _ = self._listener.accept()
            except OSError:
                return
            try:
                other = socket.create_connection(("127.0.0.1", self._target))
            except OSError:  # nobody listens there now
                one.close()
                continue
            self._open += [one, other]
            number = len(self._open) // 2 - 1
            for pair in ((one, other), (other, one)):
                threading.Thread(target=self._pump, args=(*pair, number), daemon=True).start()

    def _pump(self, source, target, number):
        try:
            while data := source.recv(1 << 16):
                if number >= self._first_cut:
                    self._whole.wait()
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            return
