#!/usr/bin/env python3
"""How long a crowd of TLS clients delays others.

Many clients connect from 127.0.0.1 and send a ClientHello each, all at once. Meanwhile a new client
from 127.0.0.2 does a whole handshake, and a session that was there before sends a word and waits for
its echo, again and again. Prints how long these two took, in milliseconds.

usage: hellos.py --relay NAME=PROGRAM [--relay ...] [--clients 2000] [--rounds 3]
"""

import argparse
import os
import resource
import socket
import ssl
import subprocess
import tempfile
import threading
import time


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def echo(listener):
    """Echoes each connection until it ends."""

    def serve(connection):
        with connection:
            while data := connection.recv(65536):
                connection.sendall(data)

    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        threading.Thread(target=serve, args=(connection,), daemon=True).start()


def client_hello():
    """The bytes of a ClientHello."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    side = anybody().wrap_bio(incoming, outgoing, server_hostname="localhost")
    try:
        side.do_handshake()
    except ssl.SSLWantReadError:
        pass
    return outgoing.read()


def anybody():
    """A client that takes any certificate."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def newcomer(port):
    """A whole handshake from another address, and an echo."""
    plain = socket.create_connection(("127.0.0.1", port), 60, ("127.0.0.2", 0))
    with anybody().wrap_socket(plain, server_hostname="localhost") as client:
        word(client)


def word(client):
    client.sendall(b"word")
    left = 4
    while left:
        left -= len(client.recv(left))


def milliseconds(action):
    start = time.monotonic()
    action()
    return 1000 * (time.monotonic() - start)


def measure(port, count, hello):
    """The time of the newcomer, and the longest and the median of the lasting session."""
    plain = socket.create_connection(("127.0.0.1", port), 60)
    lasting = anybody().wrap_socket(plain, server_hostname="localhost")
    word(lasting)
    crowd = [socket.create_connection(("127.0.0.1", port), 60) for _ in range(count)]
    time.sleep(1)
    for one in crowd:
        one.send(hello)
    took = []
    thread = threading.Thread(target=lambda: took.append(milliseconds(lambda: newcomer(port))))
    thread.start()
    echoes = []
    while thread.is_alive():
        echoes.append(milliseconds(lambda: word(lasting)))
        time.sleep(0.001)
    thread.join()
    for one in crowd:
        one.close()
    lasting.close()
    echoes.sort()
    return took[0], echoes[-1], echoes[len(echoes) // 2]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--relay", action="append", required=True)
    parser.add_argument("--clients", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    hello = client_hello()
    listener = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=echo, args=(listener,), daemon=True).start()
    with tempfile.TemporaryDirectory() as folder:
        certificate, key = os.path.join(folder, "own.pem"), os.path.join(folder, "own.key")
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
             "-nodes", "-days", "2", "-subj", "/CN=localhost", "-out", certificate, "-keyout", key],
            check=True, capture_output=True)
        for number in range(options.rounds):
            for relay in options.relay:
                name, program = relay.split("=", 1)
                port, file = free_port(), os.path.join(folder, "relay.cfg")
                with open(file, "w") as text:
                    text.write(
                        f"id = spawnd {{ listen = {{ address = 127.0.0.1 port = {port} tls = yes "
                        f"backlog = 4096 }} spawn {{ instances min = 1 instances max = 1 "
                        f"users max = 10000 }} }}\n"
                        f"id = tcprelay {{ remote = {{ address = 127.0.0.1 "
                        f"port = {listener.getsockname()[1]} }}\n"
                        f"tls cert-file = {certificate}\ntls key-file = {key}\n}}\n")
                process = subprocess.Popen([program, "-f", file], stderr=subprocess.DEVNULL)
                try:
                    for _ in range(500):
                        try:
                            socket.create_connection(("127.0.0.1", port), 1).close()
                            break
                        except OSError:
                            time.sleep(0.02)
                    new, longest, median = measure(port, options.clients, hello)
                finally:
                    process.terminate()
                    process.wait()
                print(f"{name} round {number + 1}: new client {new:.0f} ms, lasting session "
                      f"at most {longest:.0f} ms, median {median:.1f} ms", flush=True)


if __name__ == "__main__":
    main()
