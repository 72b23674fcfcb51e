#!/usr/bin/env python3
"""How long one client waits while another connects as often as it can.

    benches/crowd.py target/release/tcprelay

One address opens connections as fast as this machine lets it, and resets each. Another one connects
every few milliseconds, sends a byte and waits for the answer: the time that takes is shown, without
the crowd, with it, and with the limits of clients that are for such a crowd. Then clients that never
finish their TLS handshake take the crowd's place.
"""

import argparse
import multiprocessing
import os
import select
import signal
import socket
import struct
import subprocess
import tempfile
import time

CROWD, GUEST = "127.0.0.2", "127.0.0.3"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def echo(port):
    """Answers each connection with what it sends."""
    listener = socket.create_server(("127.0.0.1", port), backlog=4096)
    listener.setblocking(False)
    poll, clients = select.epoll(), {}
    poll.register(listener, select.EPOLLIN)
    while True:
        for fd, _ in poll.poll():
            if fd == listener.fileno():
                try:
                    client, _ = listener.accept()
                except OSError:
                    continue
                client.setblocking(False)
                clients[client.fileno()] = client
                poll.register(client, select.EPOLLIN)
                continue
            try:
                data = clients[fd].recv(4096)
                if data:
                    clients[fd].send(data)
                    continue
            except BlockingIOError:
                continue
            except OSError:
                pass
            poll.unregister(fd)
            clients.pop(fd).close()


def crowd(port, opened):
    """Opens connections as fast as it can, and resets each when the next ones are open."""
    reset, waiting = struct.pack("ii", 1, 0), []
    while True:
        client = socket.socket()
        client.setblocking(False)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
        client.bind((CROWD, 0))
        try:
            client.connect(("127.0.0.1", port))
        except BlockingIOError:
            pass
        except OSError:
            client.close()
            continue
        waiting.append(client)
        opened.value += 1
        if len(waiting) > 64:
            waiting.pop(0).close()


def dribble(port, opened):
    """Holds connections whose TLS handshake never ends, a byte at a time."""
    clients = []
    while True:
        while len(clients) < 1000:
            client = socket.socket()
            client.bind((CROWD, 0))
            client.connect(("127.0.0.1", port))
            client.send(b"\x16\x03\x01\x02\x00")
            clients.append(client)
            opened.value += 1
        left = []
        for client in clients:
            try:
                client.send(b"\x01")
                left.append(client)
            except OSError:
                client.close()
        clients = left
        time.sleep(0.05)


def guest(port, seconds):
    """The times that a connection of another client takes, in milliseconds; None if refused."""
    times, end = [], time.monotonic() + seconds
    while time.monotonic() < end:
        start = time.monotonic()
        with socket.socket() as client:
            client.settimeout(5)
            client.bind((GUEST, 0))
            try:
                client.connect(("127.0.0.1", port))
                client.send(b"x")
                answered = client.recv(1) == b"x"
            except OSError:
                answered = False
        times.append(1000 * (time.monotonic() - start) if answered else None)
        time.sleep(0.005)
    return times


def config(port, remote, broker, listen="", relay=""):
    return f"""id = spawnd {{
 {broker}
 listen = {{ address = 127.0.0.1 port = {port} {listen} }}
 spawn {{ instances min = 1 instances max = 1 users max = 4000 }}
}}
id = tcprelay {{ remote = {{ address = 127.0.0.1 port = {remote} }} {relay} }}
"""


def certificate(folder):
    key, cert = os.path.join(folder, "key.pem"), os.path.join(folder, "cert.pem")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
         "-nodes", "-keyout", key, "-out", cert, "-subj", "/CN=localhost", "-days", "2"],
        check=True, capture_output=True)
    return f"tls cert-file = {cert} tls key-file = {key}"


def measure(relay, text, port, load, seconds):
    """Runs the relay, and the load, and returns the guest's times and what the load has opened."""
    folder = tempfile.mkdtemp()
    path = os.path.join(folder, "relay.cfg")
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    log = open(os.path.join(folder, "log"), "w", encoding="utf-8")
    environment = {**os.environ, "TCPRELAY_LOG_STDERR": "1"}
    broker = subprocess.Popen([relay, path], stderr=log, env=environment)
    workers, opened = [], multiprocessing.Value("q", 0)
    try:
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        if load:
            workers = [multiprocessing.Process(target=load, args=(port, opened))]
            for worker in workers:
                worker.start()
            time.sleep(1)
        before, start = opened.value, time.monotonic()
        times = guest(port, seconds)
        rate = (opened.value - before) / (time.monotonic() - start)
    finally:
        for worker in workers:
            worker.kill()
            worker.join()
        broker.send_signal(signal.SIGTERM)
        broker.wait()
        log.close()
    return times, rate


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("relay")
    parser.add_argument("--seconds", type=float, default=5)
    options = parser.parse_args()
    remote = free_port()
    peer = multiprocessing.Process(target=echo, args=(remote,), daemon=True)
    peer.start()
    tls = certificate(tempfile.mkdtemp())
    rate = "client rate = 100/1"
    rows = [
        ("nobody else", "", "", "", None),
        ("a crowd, no limits", "", "", "", crowd),
        ("a crowd, client rate = 100/1", rate, "", "", crowd),
        ("a crowd, sessions max = 20", "client sessions max = 20", "", "", crowd),
        ("and refuse = reset", rate + " client refuse = reset", "", "", crowd),
        ("1000 slow handshakes, 2 s each", "", "tls = auto", tls + " tls handshake timeout = 2", dribble),
    ]
    print(f"{'':32} {'opened/s':>9} {'refused':>8} {'median':>8} {'99 %':>8} {'longest':>8} ms")
    for name, broker, listen, relay, load in rows:
        port = free_port()
        text = config(port, remote, broker, listen, relay)
        times, opened = measure(options.relay, text, port, load, options.seconds)
        served = sorted(value for value in times if value is not None)
        refused = len(times) - len(served)
        at = lambda part: served[min(len(served) - 1, int(part * len(served)))] if served else -1
        print(f"{name:32} {opened:9.0f} {refused:8} {at(0.5):8.2f} {at(0.99):8.2f} {at(1):8.2f}")
    peer.terminate()


if __name__ == "__main__":
    main()
