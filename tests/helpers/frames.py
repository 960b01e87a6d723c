"""Sends or watches raw frames on one device.

frames.py send DEVICE     sends each line of hex digits as a frame; answers with a line once the kernel has taken it
frames.py split DEVICE    the same, for lines "PAGE HEX": all but the Ethernet header lies in page fragments of the
                          skb, and a new page begins PAGE bytes behind the start of the IPv4 header
frames.py segment DEVICE  the same, for lines "SIZE HEX": a TCP packet that is to be cut into segments of SIZE bytes
frames.py watch DEVICE    prints what has come in, in hex, once standard input ends
"""

import mmap
import socket
import struct
import sys

ETH_P_ALL, ETHERNET = 3, 14
SOL_PACKET, PACKET_VERSION, PACKET_TX_RING, PACKET_STATISTICS, PACKET_VNET_HDR, PACKET_TX_HAS_OFF = (
    263, 10, 13, 6, 15, 19,
)  # fmt: skip
TPACKET_V2, TP_STATUS_SEND_REQUEST = 1, 1
SO_RCVBUFFORCE = 33
PAGE = mmap.PAGESIZE


def open_socket(device, protocol=0):
    packets = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(protocol))
    packets.bind((device, protocol))
    return packets


def answer_lines(take):
    print("ready", flush=True)
    for line in sys.stdin:
        *number, frame = line.split()
        take(bytes.fromhex(frame), *map(int, number))
        print(flush=True)


def send(device):
    answer_lines(open_socket(device).send)


def split(device):
    """A transmit ring of one block: the kernel copies the Ethernet header and maps the rest, page by page."""
    packets = open_socket(device)
    packets.setsockopt(SOL_PACKET, PACKET_VERSION, TPACKET_V2)
    packets.setsockopt(SOL_PACKET, PACKET_TX_HAS_OFF, 1)
    size = 2 * PAGE
    packets.setsockopt(SOL_PACKET, PACKET_TX_RING, struct.pack("4I", size, 1, size, 1))
    ring = mmap.mmap(packets.fileno(), size)

    def take(frame, page):
        start = PAGE - ETHERNET - page
        ring[start : start + len(frame)] = frame
        # struct tpacket2_hdr: status, length, snapshot length, offsets of MAC and network header
        ring[4:16] = struct.pack("IIHH", len(frame), len(frame), start, start)
        ring[0:4] = struct.pack("I", TP_STATUS_SEND_REQUEST)
        packets.send(b"")

    answer_lines(take)


def segment(device):
    packets = open_socket(device)
    packets.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)

    def take(frame, size):
        header = ETHERNET + (frame[ETHERNET] & 15) * 4
        # struct virtio_net_hdr: NEEDS_CSUM, TCPV4, header length, segment size, where L4 begins, its checksum
        packets.send(struct.pack("BBHHHH", 1, 1, header + 20, size, header, 16) + frame)

    answer_lines(take)


def watch(device):
    packets = open_socket(device, ETH_P_ALL)
    packets.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 64 << 20)
    print("ready", flush=True)
    sys.stdin.read()
    packets.setblocking(False)
    try:
        while True:
            frame, (_, _, kind, _, _) = packets.recvfrom(65535 + ETHERNET)
            if kind != socket.PACKET_OUTGOING:
                print(frame.hex())
    except BlockingIOError:
        pass
    _, lost = struct.unpack("II", packets.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))
    if lost:
        sys.exit(f"{lost} frames did not fit the socket's buffer")


{"send": send, "split": split, "segment": segment, "watch": watch}[sys.argv[1]](sys.argv[2])
