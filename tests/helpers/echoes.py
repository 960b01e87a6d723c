"""Flows of UDP datagrams that are sent back, to see how long each is interrupted.

echoes.py serve PORT                              sends back what comes, until it is ended
echoes.py send ADDRESS PORT FLOWS MILLISECONDS    sends each flow a datagram every 10 ms; prints JSON
"""

import json
import select
import socket
import sys
import time

INTERVAL = 0.01


def serve(port):
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("", port))
    print("ready", flush=True)
    while True:
        data, address = sock.recvfrom(2048)
        sock.sendto(data, address)


def send(address, port, count, milliseconds):
    flows = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(count)]
    for flow in flows:
        flow.connect((address, port))
        flow.setblocking(False)
    start = time.monotonic()
    end = start + milliseconds / 1000
    last, gaps, sent, received = [start] * count, [0.0] * count, 0, 0
    due = start
    while (now := time.monotonic()) < end + 0.2:
        if now >= due and now < end:
            due += INTERVAL
            for flow in flows:
                try:
                    flow.send(b"x" * 64)
                    sent += 1
                except OSError:
                    pass
        readable, _, _ = select.select(flows, [], [], max(0, min(due, end + 0.2) - time.monotonic()))
        for flow in readable:
            try:
                flow.recv(2048)
            except OSError:
                continue
            index = flows.index(flow)
            now = time.monotonic()
            gaps[index] = max(gaps[index], now - last[index])
            last[index] = now
            received += 1
    gaps = [max(gap, end - seen) for gap, seen in zip(gaps, last)]
    print(json.dumps({"sent": sent, "received": received, "gaps": [gap * 1000 for gap in gaps]}))


if sys.argv[1] == "serve":
    serve(int(sys.argv[2]))
else:
    send(sys.argv[2], *map(int, sys.argv[3:6]))
