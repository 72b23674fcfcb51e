#!/usr/bin/env python3
"""How long one client waits while another opens 10,000 connections a second.

    benches/crowd.py target/release/tcprelay

One address opens connections at that rate, or as fast as this machine lets it, and resets each.
Another one connects every few milliseconds, sends a request and waits for the answer: the time that
takes is shown, without the crowd, with it, and with the limits of clients that are for such a crowd.
Then clients that never finish their TLS handshake take the crowd's place, with and without limits.

Needs redis-server, which answers, and a quiet machine: the load at the start is shown, as whatever
else runs is part of the times.
"""

import argparse
import multiprocessing
import os
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


def server(port):
    """Starts a server that answers each PING."""
    options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--maxclients", "20000"]
    options += ["--tcp-backlog", "4096", "--dir", tempfile.mkdtemp()]
    process = subprocess.Popen(["redis-server", *options], stdout=subprocess.DEVNULL)
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return process
        time.sleep(0.05)


def crowd(port, opened, rate):
    """Opens connections at this rate, and resets each when the next ones are open."""
    reset, waiting, start = struct.pack("ii", 1, 0), [], time.monotonic()
    while True:
        ahead = opened.value / rate - (time.monotonic() - start)
        if ahead > 0.001:
            time.sleep(ahead)
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


def dribble(port, opened, _rate):
    """Holds connections whose TLS handshake never ends, a byte at a time."""
    clients = []
    while True:
        while len(clients) < 1000:
            client = socket.socket()
            client.bind((CROWD, 0))
            try:
                client.connect(("127.0.0.1", port))
                client.send(b"\x16\x03\x01\x02\x00")
            except OSError:
                client.close()
                break
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
                client.send(b"PING\r\n")
                answered = client.recv(16) == b"+PONG\r\n"
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


def measure(relay, text, port, load, rate, seconds):
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
            workers = [multiprocessing.Process(target=load, args=(port, opened, rate))]
            for worker in workers:
                worker.start()
            time.sleep(1)
        before, start = opened.value, time.monotonic()
        times = guest(port, seconds)
        reached = (opened.value - before) / (time.monotonic() - start)
    finally:
        for worker in workers:
            worker.kill()
            worker.join()
        broker.send_signal(signal.SIGTERM)
        broker.wait()
        log.close()
    return times, reached


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("relay")
    parser.add_argument("--seconds", type=float, default=5, help="for each row")
    parser.add_argument("--rate", type=float, default=10000, help="connections a second")
    options = parser.parse_args()
    remote = free_port()
    peer = server(remote)
    tls = certificate(tempfile.mkdtemp())
    rate = "client rate = 100/1"
    rows = [
        ("nobody else", "", "", "", None),
        ("a crowd, no limits", "", "", "", crowd),
        ("client rate = 100/1", rate, "", "", crowd),
        ("client sessions max = 20", "client sessions max = 20", "", "", crowd),
        ("client rate, refuse = reset", rate + " client refuse = reset", "", "", crowd),
        ("1000 slow handshakes, 2 s each", "", "tls = auto", tls + " tls handshake timeout = 2", dribble),
        ("client sessions max = 20", "client sessions max = 20", "tls = auto",
         tls + " tls handshake timeout = 2", dribble),
    ]
    loads = " ".join(f"{load:.2f}" for load in os.getloadavg())
    print(f"{os.cpu_count()} processors, load {loads}, {options.seconds:g} s for each row")
    print(f"{'':31} {'opened/s':>8} {'served':>7} {'refused':>7} "
          f"{'median':>8} {'99 %':>8} {'longest':>8} ms {'over 10 ms':>10}")
    for name, broker, listen, relay, load in rows:
        port = free_port()
        text = config(port, remote, broker, listen, relay)
        times, opened = measure(options.relay, text, port, load, options.rate, options.seconds)
        served = sorted(value for value in times if value is not None)
        refused = len(times) - len(served)
        at = lambda part: served[min(len(served) - 1, int(part * len(served)))] if served else -1
        late = sum(value > 10 for value in served)
        print(f"{name:31} {opened:8.0f} {len(served):7} {refused:7} "
              f"{at(0.5):8.2f} {at(0.99):8.2f} {at(1):8.2f}    {late:10}", flush=True)
    peer.terminate()
    peer.wait()


if __name__ == "__main__":
    main()
