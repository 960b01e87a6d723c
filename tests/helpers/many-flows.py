"""Sends UDP datagrams of very many flows and counts them. Usage: many-flows.py DESTINATION PORTS FLOWS PACKETS FIRST RATE

FLOWS flows to each of the comma-separated PORTS, by source ports from FIRST on and source addresses 10.1.0.10, .11 …
(those of this host), PACKETS datagrams each, RATE a second. Prints as JSON how many the kernel took, by port.
"""

import json
import socket
import struct
import sys
import time

destination, ports = sys.argv[1], [int(port) for port in sys.argv[2].split(",")]
flows, packets, first, rate = map(int, sys.argv[3:7])

out = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
out.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 22)
far = socket.inet_aton(destination)
near = socket.inet_aton("10.1.0.10")
payload = bytes(20)
# Identification, checksum and source are the kernel's to fill; UDP without checksum (RFC 768).
header = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 48, 0, 0, 64, 17, 0, near, far)
taken = dict.fromkeys(ports, 0)
begun, sent = time.monotonic(), 0
for _ in range(packets):
    for flow in range(flows):
        for port in ports:
            datagram = header + struct.pack("!HHHH", (first + flow) % 65536, port, 28, 0) + payload
            if out.sendto(datagram, (destination, 0)) == len(datagram):
                taken[port] += 1
            sent += 1
        if sent % 256 < len(ports):
            time.sleep(max(0, begun + sent / rate - time.monotonic()))
print(json.dumps(taken))
