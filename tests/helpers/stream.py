"""One TCP connection that carries random bytes both ways at once; each end prints JSON when it has all.

stream.py serve PORT BYTES             accepts one connection
stream.py connect ADDRESS PORT BYTES
"""

import hashlib
import json
import random
import socket
import sys
import threading

CHUNK = 1 << 16


def carry(connection, count, seed):
    sent, received, total = hashlib.sha256(), hashlib.sha256(), 0

    def write():
        numbers, left = random.Random(seed), count
        while left:
            chunk = numbers.randbytes(min(CHUNK, left))
            sent.update(chunk)
            connection.sendall(chunk)
            left -= len(chunk)
        connection.shutdown(socket.SHUT_WR)

    writer = threading.Thread(target=write)
    writer.start()
    while chunk := connection.recv(CHUNK):
        received.update(chunk)
        total += len(chunk)
    writer.join()
    return {"sent": sent.hexdigest(), "received": received.hexdigest(), "bytes": total}


if sys.argv[1] == "serve":
    listener = socket.create_server(("", int(sys.argv[2])))
    print("ready", flush=True)
    connection, _ = listener.accept()
    result = carry(connection, int(sys.argv[3]), "server")
else:
    connection = socket.create_connection((sys.argv[2], int(sys.argv[3])), timeout=20)
    result = carry(connection, int(sys.argv[4]), "client")
print(json.dumps(result))
