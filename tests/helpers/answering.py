"""
Servers that say on which port they are, and where the client had wanted to go: what is captured
shows in the answer.

    python -m tests.helpers.answering [--captured] ADDRESS:PORT…
"""

import selectors
import socket
import sys

from meshproxy.downstream.original_destination import original_destination


def main() -> None:
    captured = sys.argv[1] == "--captured"
    selector = selectors.DefaultSelector()
    for place in sys.argv[2 if captured else 1 :]:
        host, _, port = place.rpartition(":")
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host, int(port)), family=family, backlog=64)
        selector.register(listener, selectors.EVENT_READ, port)
    print("listening", flush=True)
    while True:
        for key, _ in selector.select():
            assert isinstance(key.fileobj, socket.socket)
            connection, _ = key.fileobj.accept()
            with connection:
                there = original_destination(connection) if captured else None
                wanted = f" for {there[0]} {there[1]}" if there else ""
                connection.sendall(f"{key.data}{wanted}".encode())


if __name__ == "__main__":
    main()
