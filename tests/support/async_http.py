"""Plain HTTP for asyncio: clients that see every byte, and may leave or stop reading."""

import asyncio
import json
import socket


async def send(port, path, body=None, *, receives=None):
    """Send a request, POST where it has a body; return its connection's reader and writer.

    ``receives``: bytes that the client's side of the connection holds before somebody reads.
    """
    connection = socket.socket()
    if receives:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receives)
    connection.setblocking(False)
    await asyncio.get_running_loop().sock_connect(connection, ("127.0.0.1", port))
    reader, writer = await asyncio.open_connection(sock=connection, limit=receives or 2**16)
    data = b"" if body is None else json.dumps(body).encode()
    method = "GET" if body is None else "POST"
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    writer.write(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
    return reader, writer


async def whole(reader, writer):
    """The status, the headers in small letters, and the text of an answer."""
    try:
        answer = await reader.read()
    finally:
        writer.close()
    head, _, rest = answer.partition(b"\r\n\r\n")
    if b"chunked" in head:
        rest = dechunked(rest)
    return int(head.split()[1]), head.decode().lower(), rest.decode()


def dechunked(data):
    """The bytes of a body that came in chunks."""
    parts = []
    begin = 0
    while begin < len(data):
        end = data.index(b"\r\n", begin)
        size = int(data[begin:end], 16)
        parts.append(data[end + 2 : end + 2 + size])
        begin = end + 4 + size
    return b"".join(parts)
