#!/usr/bin/env python3
"""User-space instructions of a relay, for hot paths, by callgrind.

    instructions.py PROGRAM [--save | --monitored] [--tolerance PERCENT]

Each work runs twice, the second time with twice as much of it; the difference is free of what
starting and ending cost.  Traffic is in lock step, and the relay comes to rest in between, so that
the same program gives the same figures within a percent or so, on a busy machine too.  What the
kernel does is not counted, nor how long memory takes: bench.py tells that.

The figures are compared with instructions.tsv; --save writes it anew.  It holds for the compiler,
the TLS library and the processor that it names.  Status 1: something takes PERCENT (3) more.

--monitored compares the program with itself: with status, control and a probe, and without.
"""

import argparse
import glob
import os
import platform
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time

from relays import first_line, free_port, linked_tls

HERE = os.path.dirname(os.path.abspath(__file__))
BASELINE = os.path.join(HERE, "instructions.tsv")
MIB = 1 << 20
# Sent in one piece: a relay that is asleep finds all of it when it wakes up.
PIECE = 64 * 1024
REQUEST = bytes(1024)
# Long enough for a relay under callgrind to finish one step of a connection, so that no wake-up
# handles two steps.
REST = 0.01
PATIENCE = 60


class Relay:
    """A relay under callgrind, between this process as client and this process as backend."""

    def __init__(self, program, folder, monitored=False):
        self.folder = folder
        self.backend = socket.create_server(("127.0.0.1", 0), backlog=16)
        self.backend.settimeout(PATIENCE)
        self.plain, self.tls = free_port(), free_port()
        self.context = ssl._create_unverified_context()
        status = control = check = ""
        if monitored:
            status = f"status = {{ address = 127.0.0.1 port = {free_port()} }}"
            control = f"control = {{ path = {folder}/control mode = 0600 }}"
            check = f"check = tcp check port = {probed()}"
        config = os.path.join(folder, "tcprelay.cfg")
        with open(config, "w", encoding="ascii") as file:
            file.write(f"""
id = spawnd {{
    listen = {{ address = 127.0.0.1 port = {self.plain} }}
    listen = {{ address = 127.0.0.1 port = {self.tls} tls = yes }}
    spawn = {{ instances min = 1 instances max = 1 users min = 100 users max = 100 start timeout = 60 }}
    background = no
    {status}
    {control}
}}
id = tcprelay {{
    remote = {{ address = 127.0.0.1 port = {self.backend.getsockname()[1]} {check} }}
    tls cert-file = {folder}/certificate.pem
    tls key-file = {folder}/key.pem
    tls session timeout = 0
    # A confined worker could not write what callgrind has counted.
    sandbox = no
}}
""")
        with open(os.path.join(folder, "log"), "wb") as log:
            self.process = subprocess.Popen(
                [
                    shutil.which("valgrind"),
                    "--tool=callgrind",
                    "--trace-children=yes",
                    f"--callgrind-out-file={folder}/callgrind.%p",
                    program,
                    "-f",
                    "-i",
                    "tcprelay",
                    config,
                    "spawnd",
                ],
                # Always the same environment: its size is the room for process titles, which are
                # padded to fill it.
                env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def __enter__(self):
        try:
            self.wait_ready()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except OSError:
            pass
        self.process.wait()
        self.backend.close()

    def wait_ready(self):
        end = time.monotonic() + PATIENCE
        while self.process.poll() is None and time.monotonic() < end:
            try:
                with self.connect(False), self.accept():
                    return time.sleep(1)
            except ConnectionRefusedError:
                time.sleep(0.1)
        with open(os.path.join(self.folder, "log"), encoding="utf-8", errors="replace") as log:
            raise RuntimeError("the relay does not serve:\n" + log.read())

    def connect(self, tls):
        client = socket.create_connection(("127.0.0.1", self.tls if tls else self.plain), PATIENCE)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self.context.wrap_socket(client) if tls else client

    def accept(self):
        remote = self.backend.accept()[0]
        remote.settimeout(PATIENCE)
        remote.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return remote

    def instructions(self):
        """Ends the relay: the instructions of its worker and of its broker."""
        children = f"/proc/{self.process.pid}/task/{self.process.pid}/children"
        with open(children, encoding="ascii") as file:
            others = [int(pid) for pid in file.read().split()]
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(PATIENCE)
        wait_gone(others)
        counts = {"worker": 0, "broker": 0, "monitor": 0}
        for name in glob.glob(os.path.join(self.folder, "callgrind.*")):
            with open(name, encoding="utf-8", errors="replace") as file:
                text = file.read()
            command = re.search(r"^cmd:(.*)", text, re.MULTILINE)
            if not command:
                # Of a process that is confined, and cannot write there.
                continue
            # Only the broker's command line has options; the others are executed with source and
            # section, and told apart by what they have done.
            part = "monitor" if "monitor::process::Process::" in text else "worker"
            counts["broker" if " -f " in command.group(1) else part] += int(
                re.search(r"^(?:totals|summary): (\d+)", text, re.MULTILINE).group(1)
            )
        if not counts["worker"]:
            raise RuntimeError("nothing was counted in the worker")
        return counts


def wait_gone(processes):
    """Waits for processes that write their counts when they end."""
    end = time.monotonic() + PATIENCE
    for process in processes:
        while time.monotonic() < end:
            try:
                os.kill(process, 0)
            except ProcessLookupError:
                break
            time.sleep(0.05)


def probed():
    """The port of a server that only probes connect to, so that they do not take the place of a
    connection at the backend."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve():
        while True:
            server.accept()[0].close()

    threading.Thread(target=serve, daemon=True).start()
    return server.getsockname()[1]


def receive(connection, count):
    while count > 0:
        part = connection.recv(min(count, PIECE))
        if not part:
            raise RuntimeError("a connection ended too early")
        count -= len(part)


def connections(relay, count, tls=False):
    for _ in range(count):
        with relay.connect(tls) as client, relay.accept() as remote:
            time.sleep(REST)
            client.sendall(REQUEST)
            receive(remote, len(REQUEST))
            remote.sendall(REQUEST)
            receive(client, len(REQUEST))
            time.sleep(REST)
            remote.close()
            if client.recv(1):
                raise RuntimeError("there is more than was sent")
            time.sleep(REST)
        time.sleep(REST)


def requests(relay, count):
    with relay.connect(False) as client, relay.accept() as remote:
        for _ in range(count):
            client.sendall(REQUEST)
            receive(remote, len(REQUEST))
            remote.sendall(REQUEST)
            receive(client, len(REQUEST))


def bulk(relay, mebibytes, tls=False):
    """From the backend to the client."""
    with relay.connect(tls) as client, relay.accept() as remote:
        for _ in range(mebibytes * MIB // PIECE):
            remote.sendall(bytes(PIECE))
            receive(client, PIECE)
            # Otherwise a relay that is slow enough finds the next piece before it sleeps.
            time.sleep(REST)


# Name, parts that count, what is done, how often.
WORKS = (
    ("connection", ("worker", "broker"), connections, 200, False),
    ("request", ("worker",), requests, 2000, None),
    ("MiB", ("worker",), bulk, 32, False),
    ("TLS connection", ("worker",), connections, 100, True),
    ("TLS MiB", ("worker",), bulk, 32, True),
)


def measure(program, folder, work, count, tls, monitored):
    with tempfile.TemporaryDirectory(dir=folder) as own:
        for name in ("certificate.pem", "key.pem"):
            shutil.copy(os.path.join(folder, name), own)
        with Relay(program, own, monitored) as relay:
            if tls is None:
                work(relay, count)
            else:
                work(relay, count, tls)
            time.sleep(0.5)
            return relay.instructions()


def each(program, folder, work, count, tls, monitored=False):
    """Instructions of each part for one of what is done."""
    once = measure(program, folder, work, count, tls, monitored)
    twice = measure(program, folder, work, 2 * count, tls, monitored)
    return {part: round((twice[part] - once[part]) / count) for part in once}


def read_baseline():
    try:
        with open(BASELINE, encoding="utf-8") as file:
            rows = [line.rstrip("\n").split("\t") for line in file if not line.startswith("#")]
        return {(work, part): int(count) for work, part, count in rows}
    except FileNotFoundError:
        return {}


def made_with(program):
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        model = re.search(r"model name\s*: (.*)", file.read())
    parts = [
        platform.machine(),
        model.group(1) if model else "",
        first_line(["rustc", "--version"]),
        linked_tls(program),
        first_line(["valgrind", "--version"]),
    ]
    return "; ".join(filter(None, parts))


def save(counts, program):
    with open(BASELINE, "w", encoding="utf-8") as file:
        file.write("# User-space instructions, written by tools/bench-instructions --save.\n")
        file.write(f"# {made_with(program)}\n")
        file.writelines(f"{work}\t{part}\t{count}\n" for (work, part), count in counts.items())


def row(name, count, before):
    change = f"{before:14d}{100 * (count / before - 1):+9.1f}%" if before else ""
    return f"{name:24s}{count:14d}{change}"


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("program")
    against = parser.add_mutually_exclusive_group()
    against.add_argument("--save", action="store_true")
    against.add_argument("--monitored", action="store_true")
    parser.add_argument("--tolerance", type=float, default=3, metavar="PERCENT")
    options = parser.parse_args()
    program = os.path.abspath(options.program)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    baseline, counts, failed = read_baseline(), {}, False

    def worse(name, parts, found):
        limit = 1 + options.tolerance / 100
        before = {part: baseline.get((name, part), found[part]) for part in parts}
        return not options.save and any(found[part] > limit * before[part] for part in parts)

    print(f"{'':24s}{'instructions':>14s}{'baseline':>14s}{'change':>10s}")
    with tempfile.TemporaryDirectory(prefix="instructions") as folder:
        command = (
            "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 "
            "-subj /CN=localhost -keyout key.pem -out certificate.pem"
        )
        subprocess.run(command.split(), cwd=folder, check=True, capture_output=True)
        for name, parts, work, count, tls in WORKS:
            arguments = (program, folder, work, count, tls)
            if options.monitored:
                bare = each(*arguments)
                baseline.update(((name, part), bare[part]) for part in parts)
                arguments = (*arguments, True)
            found = each(*arguments)
            if worse(name, parts, found):
                # A busy machine may have caused extra wake-ups, so measure again.
                again = each(*arguments)
                found = {part: min(found[part], again[part]) for part in found}
            failed = failed or worse(name, parts, found)
            for part in parts:
                counts[name, part] = found[part]
                print(row(f"{name}, {part}", found[part], baseline.get((name, part))), flush=True)
    if options.save:
        save(counts, program)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
