"""Sends or receives UDP datagrams, and prints as JSON what came of it.

datagrams.py receive PORT            until standard input ends and nothing has come for a while
datagrams.py send ADDRESS PORT SIZE COUNT {dont|want|do} [SEGMENT]

A digest is the sum of the datagrams' SHA-256, so that it does not depend on their order.
SEGMENT is the UDP_SEGMENT of udp(7): each write of SIZE bytes leaves in datagrams of that length.
"""

import errno
import hashlib
import json
import random
import select
import socket
import sys

IP_MTU_DISCOVER, UDP_SEGMENT = 10, 103
DISCOVER = {"dont": 0, "want": 1, "do": 2}
IDLE_SECONDS = 0.1


def digest(datagram):
    return int.from_bytes(hashlib.sha256(datagram).digest(), "big")


def receive(port):
    sink = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sink.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    sink.bind(("", port))
    print("ready", flush=True)
    count, total, waiting = 0, 0, [sink, sys.stdin]
    while True:
        readable, _, _ = select.select(waiting, [], [], None if sys.stdin in waiting else IDLE_SECONDS)
        if sink in readable:
            count, total = count + 1, total + digest(sink.recv(65535))
        elif sys.stdin in readable:
            waiting = [sink]
        else:
            return {"count": count, "digest": f"{total % 2**256:x}"}


def send(address, port, size, count, discover, segment=0):
    source = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    source.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, DISCOVER[discover])
    if segment:
        source.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, segment)
    source.connect((address, port))
    sent, refused, denied, total = 0, 0, 0, 0
    for number in range(count):
        payload = random.Random(number).randbytes(size)
        parts = [payload[i : i + (segment or size)] for i in range(0, size, segment or size)]
        try:
            source.send(payload)
        except OSError as error:
            if error.errno not in (errno.EMSGSIZE, errno.EPERM):
                raise
            refused += error.errno == errno.EMSGSIZE
            denied += error.errno == errno.EPERM
            continue
        sent += len(parts)
        total += sum(map(digest, parts))
        select.select([], [], [], 0.002)  # an ICMP error takes its time to come back
    return {"sent": sent, "refused": refused, "denied": denied, "digest": f"{total % 2**256:x}"}


if sys.argv[1] == "receive":
    result = receive(int(sys.argv[2]))
else:
    words = sys.argv[2:]
    result = send(words[0], *map(int, words[1:4]), words[4], *map(int, words[5:]))
print(json.dumps(result))
