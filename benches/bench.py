#!/usr/bin/env python3
"""Side-by-side cost of TCP relays: the same work through every relay, in one run.

    bench.py [--relay NAME=PATH ...] [--only NAME,...] [--work NAME,...]
             [--seconds S] [--rounds R] [--json FILE] [--table]

Relays known: tcprelay (give --relay tcprelay=PATH, several allowed under other
names such as c=PATH; under one that begins with "monitored", with status, control
and probes), haproxy, nginx, pen, envoy (ENVOY=PATH or on PATH); those that are not
installed are left out.  Every relay runs with one worker on one CPU; load
generators and backends run on another.  The figure is what the RELAY spends
(user+sys CPU of its whole process tree), so it holds on a noisy machine:

  bulk1, bulk16   CPU seconds per GiB relayed, 1 and 16 streams      (iperf3)
  keepalive       CPU microseconds per 1 KiB request on kept-alive connections (wrk)
  connect         CPU microseconds per short connection              (wrk, Connection: close)
  latency         p99 microseconds of one connection in lock step    (wrk -c1)
  idle, tlsidle   bytes of memory (PSS) per idle connection, N=4000 (TLS: 1000)
  tlsconnect      CPU microseconds per full TLS handshake + request  (wrk https)
  tlsbulk         CPU seconds per GiB of TLS download                (curl)

Works that are not part of a run unless --work names them; for tcprelay only:

  scale-sessions  CPU microseconds per short connection, beside idle sessions
  scale-remotes   CPU microseconds per short connection, by remotes configured
  scale-workers   the same by workers, on all CPUs

Columns floor-*: a bare relay loop (floor.c), for what the kernel takes of it all.

Needs: iperf3, wrk, nginx (backend), curl, openssl, cc (for the floors).  Loopback only.
"""

import argparse
import json
import os
import platform
import re
import resource
import signal
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import threading
import time

from relays import CPUS, DESCRIPTORS, FLOORS, LOAD_CPU, PEERS, USERS
from relays import Floor, Tcprelay
from relays import find, free_port, kind, memory, on_cpu, start, stop, wait_port, write

GIB = 1 << 30
HERE = os.path.dirname(os.path.abspath(__file__))

# Connections for the memory workloads.
IDLE, TLS_IDLE = 4000, 1000
# The steps of the scaling workloads.
IDLE_STEPS = (100, 1000, 5000, 20000)
REMOTE_STEPS = (1, 10, 100, 1000)
WORKER_STEPS = (1, 2, 4)
# For this many idle sessions, each of which takes two descriptors of one process.
MANY_DESCRIPTORS = 65536

# For each workload: the main figure, what accompanies it, and its unit.
WORKS = {
    "bulk1": ("cpu_s_per_GiB", "Gbit_s", "Gbit/s"),
    "bulk16": ("cpu_s_per_GiB", "Gbit_s", "Gbit/s"),
    "keepalive": ("cpu_us", "per_s", "/s"),
    "connect": ("cpu_us", "per_s", "/s"),
    "latency": ("p99_us", "per_s", "/s"),
    "idle": ("B_per_conn", "MiB_in_all", " MiB in all"),
    "tlsidle": ("B_per_conn", "MiB_in_all", " MiB in all"),
    "tlsconnect": ("cpu_us", "per_s", "/s"),
    "tlsbulk": ("cpu_s_per_GiB", "Gbit_s", "Gbit/s"),
}
SCALES = {
    "scale-sessions": ("idle sessions", IDLE_STEPS),
    "scale-remotes": ("remotes", REMOTE_STEPS),
    "scale-workers": ("workers", WORKER_STEPS),
}


def allow_descriptors(count):
    """True if this process and what it starts may have so many."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, max(hard, count)))
    except (OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(count, hard), hard))
        return hard >= count
    return True


class Backends:
    """What the relays connect to: a web server, iperf3, and a place where connections stay."""

    def __init__(self, folder):
        self.web, self.iperf, self.sink = free_port(), free_port(), free_port()
        pages = os.path.join(folder, "www")
        os.makedirs(pages)
        with open(os.path.join(pages, "1k"), "wb") as file:
            file.write(os.urandom(1024))
        with open(os.path.join(pages, "big"), "wb") as file:
            file.truncate(GIB)
        user = "user root;" if os.geteuid() == 0 else ""
        config = write(
            os.path.join(folder, "backend.conf"),
            f"""
daemon off;
{user}
worker_processes 1;
worker_rlimit_nofile {MANY_DESCRIPTORS};
pid {folder}/backend.pid;
error_log {folder}/backend.err crit;
events {{ worker_connections 30000; multi_accept on; }}
http {{
    access_log off;
    keepalive_requests 1000000000;
    keepalive_timeout 1h;
    client_header_timeout 1h;
    sendfile on;
    open_file_cache max=10;
    server {{ listen 127.0.0.1:{self.web} backlog=4096; root {pages}; }}
}}
""",
        )
        self.server = start(
            [find("nginx"), "-c", config, "-p", folder], LOAD_CPU, subprocess.DEVNULL
        )
        try:
            wait_port(self.web, self.server)
        except RuntimeError:
            stop(self.server)
            raise
        self.socket = socket.create_server(("127.0.0.1", self.sink), backlog=4096)
        self.held = []
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                self.held.append(self.socket.accept()[0])
            except OSError:
                return

    def release(self):
        for one in self.held:
            one.close()
        self.held.clear()

    def start_iperf(self):
        argv = ["iperf3", "-s", "-1", "-p", str(self.iperf), "-B", "127.0.0.1"]
        process = start(argv, LOAD_CPU, subprocess.DEVNULL)
        time.sleep(0.4)
        return process

    def stop(self):
        stop(self.server)
        self.socket.close()
        self.release()


def load(argv, cpu=LOAD_CPU, seconds=120):
    """Runs a load generator."""
    done = subprocess.run(
        on_cpu(cpu, argv), capture_output=True, text=True, timeout=seconds, check=False
    )
    if done.returncode != 0:
        raise RuntimeError(f"{argv[0]}: {(done.stderr or done.stdout).strip()[-200:]}")
    return done.stdout


def bulk(relay, backends, seconds, streams):
    server = backends.start_iperf()
    try:
        before = relay.cpu()
        out = load(
            [
                "iperf3",
                "-c",
                "127.0.0.1",
                "-p",
                str(relay.plain),
                "-t",
                str(seconds),
                "-P",
                str(streams),
                "-J",
            ]
        )
        spent = relay.cpu() - before
        server.wait(10)
    finally:
        stop(server)
    count = json.loads(out)["end"]["sum_received"]["bytes"]
    return {"cpu_s_per_GiB": spent / (count / GIB), "Gbit_s": count * 8 / seconds / 1e9}


class Requests:
    """Requests of wrk."""

    def __init__(self, folder, seconds):
        self.seconds = seconds
        self.script = write(
            os.path.join(folder, "close.lua"), 'wrk.headers["Connection"] = "close"\n'
        )

    def run(self, relay, tls=False, connections=64, close=False, cpu=LOAD_CPU):
        url = f"https://127.0.0.1:{relay.tls}/1k" if tls else f"http://127.0.0.1:{relay.plain}/1k"
        argv = ["wrk", "-t1", f"-c{connections}", "--latency"]
        argv += ["-s", self.script] if close else []
        load(argv + ["-d1s", url], cpu)  # to warm up
        before = relay.cpu()
        out = load(argv + [f"-d{self.seconds}s", url], cpu)
        spent = relay.cpu() - before
        count = int(re.search(r"(\d+) requests in", out).group(1))
        if count == 0:
            raise RuntimeError("no request was answered")
        result = {"cpu_us": spent / count * 1e6, "per_s": count / self.seconds}
        units = {"us": 1, "ms": 1e3, "s": 1e6}
        for part, value, unit in re.findall(r"\s(50|99)%\s+([\d.]+)(\w+)", out):
            result[f"p{part}_us"] = float(value) * units[unit]
        trouble = re.search(r"Socket errors: (.*)|(Non-2xx.*)", out)
        if trouble:
            result["errors"] = trouble.group(0)
        return result


def idle(relay, backends, tls):
    count = TLS_IDLE if tls else IDLE
    context = ssl._create_unverified_context()
    time.sleep(0.5)
    backends.release()
    before = memory(relay.process.pid)
    clients = []
    try:
        for _ in range(count):
            client = socket.create_connection(("127.0.0.1", relay.tls if tls else relay.plain), 5)
            if tls:
                client = context.wrap_socket(client)
            client.send(b"x")
            clients.append(client)
        end = time.monotonic() + 20
        while len(backends.held) < count and time.monotonic() < end:
            time.sleep(0.05)
        time.sleep(1)
        in_all = memory(relay.process.pid)
        # Both are shown: some relays allocate for all connections when they start.
        result = {"B_per_conn": (in_all - before) / count, "MiB_in_all": in_all / (1 << 20)}
        if len(backends.held) < count:
            result["errors"] = f"only {len(backends.held)} of {count} reached the backend"
        return result
    finally:
        for client in clients:
            client.close()
        backends.release()
        time.sleep(0.5)


def tls_bulk(relay, backend):
    # The file may have dropped out of the page cache: nobody shall wait for the disk.
    load(["curl", "-s", "-o", "/dev/null", f"http://127.0.0.1:{backend}/big"])
    before = relay.cpu()
    out = load(
        [
            "curl",
            "-sk",
            "-o",
            "/dev/null",
            "-w",
            "%{size_download} %{time_total}",
            f"https://127.0.0.1:{relay.tls}/big",
        ]
    )
    spent = relay.cpu() - before
    count, seconds = out.split()
    return {
        "cpu_s_per_GiB": spent / (int(count) / GIB),
        "Gbit_s": int(count) * 8 / float(seconds) / 1e9,
    }


class Bench:
    """All works on all relays."""

    def __init__(self, paths, folder, seconds):
        self.paths, self.folder, self.seconds = paths, folder, seconds
        self.certificate, self.key = f"{folder}/certificate.pem", f"{folder}/key.pem"
        subprocess.run(
            [
                "openssl",
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:prime256v1",
                "-nodes",
                "-days",
                "30",
                "-subj",
                "/CN=localhost",
                "-keyout",
                self.key,
                "-out",
                self.certificate,
            ],
            check=True,
            capture_output=True,
        )
        self.requests = Requests(folder, seconds)
        self.backends = Backends(folder)

    def relay(self, name, **settings):
        return kind(name)(name, self.paths[name], self.folder, self.certificate, self.key, settings)

    def run(self, work, name):
        """One work on one relay."""
        if work in SCALES:
            return self.scale(work, name)
        more = self.no_resumption(name) if work.startswith("tls") else ""
        relay = self.relay(name, more=more)
        backends = self.backends
        try:
            if work.startswith("bulk"):
                probe = backends.start_iperf()  # so that the relay is found to be ready
                try:
                    relay.start(backends.iperf)
                finally:
                    stop(probe)
                return bulk(relay, backends, self.seconds, int(work[4:]))
            relay.start(backends.sink if work.endswith("idle") else backends.web)
            if work.endswith("idle"):
                return idle(relay, backends, work == "tlsidle")
            if work == "tlsbulk":
                return tls_bulk(relay, self.backends.web)
            return self.requests.run(
                relay,
                tls=work == "tlsconnect",
                connections=1 if work == "latency" else 64,
                close=work.endswith("connect"),
            )
        except Exception as error:
            words = relay.last_words()
            raise RuntimeError(f"{error}; it said: {words}" if words else str(error)) from error
        finally:
            relay.stop()

    def no_resumption(self, name):
        """The directive against resumption, for a tcprelay that has it: the C program does not."""
        if kind(name) is not Tcprelay:
            return ""
        line = "    tls session timeout = 0"
        folder = os.path.join(self.folder, "probe")
        os.makedirs(folder, exist_ok=True)
        probe = self.relay(name, more=line)
        probe.folder, probe.plain, probe.tls = folder, 1, 2
        program, *_, config, _ = probe.command(3)
        checked = subprocess.run(
            [program, "-P", "-i", "tcprelay", config, "spawnd"],
            capture_output=True,
            timeout=20,
            check=False,
        )
        return line if checked.returncode == 0 else ""

    def scale(self, work, name):
        """Short connections, by something that there may be much of."""
        points = {}
        for step in SCALES[work][1]:
            try:
                points[step] = getattr(self, work.replace("-", "_"))(name, step)
            except Exception as error:
                points[step] = {"failed": str(error)}
        return {"points": points}

    def scale_sessions(self, name, count):
        if not allow_descriptors(MANY_DESCRIPTORS) and 2 * count > DESCRIPTORS:
            raise RuntimeError(f"a process may not have {2 * count} descriptors here")
        relay = self.relay(name, users=count + USERS)
        clients = []
        try:
            relay.start(self.backends.web)
            for _ in range(count):
                clients.append(socket.create_connection(("127.0.0.1", relay.plain), 5))
            time.sleep(1)
            return self.requests.run(relay, close=True)
        finally:
            relay.stop()
            for client in clients:
                client.close()
            allow_descriptors(DESCRIPTORS)

    def scale_remotes(self, name, count):
        relay = self.relay(name, remotes=count)
        try:
            relay.start(self.backends.web)
            return self.requests.run(relay, close=True)
        finally:
            relay.stop()

    def scale_workers(self, name, count):
        relay = self.relay(name, workers=count)
        try:
            relay.start(self.backends.web, cpu=None)
            return self.requests.run(relay, close=True, cpu=None)
        finally:
            relay.stop()

    def applies(self, work, name):
        if work in SCALES:
            return kind(name) is Tcprelay
        if kind(name) is Floor and work == "idle":
            return False  # its sessions are the kernel's memory, which is not counted
        return kind(name).tls_listener or not work.startswith("tls")


def number(value):
    """Four digits."""
    return f"{value:.4g}" if abs(value) < 10000 else f"{value:.0f}"


def count_of(value):
    return f"{value / 1000:.3g}k" if value >= 1000 else f"{value:.3g}"


def median(results, figure):
    values = [one[figure] for one in results if one.get(figure) is not None]
    return statistics.median(values) if values else None


def trouble(results):
    """What did not go well, for the table."""
    failed = sum("failed" in one for one in results)
    if failed:
        return f"FAILED {failed} of {len(results)}"
    return "ERRORS" if any("errors" in one for one in results) else ""


def cell(results, work, best, is_floor):
    """A figure, its ratio to the best of the row, and the throughput."""
    figure, throughput, unit = WORKS[work]
    value = median(results, figure)
    words = [trouble(results)]
    if value is not None:
        words.insert(0, number(value))
        if best and not is_floor:
            words.append(f"{value / best:.2f}x")
        if median(results, throughput) is not None:
            words.append(count_of(median(results, throughput)) + unit)
    first, *rest = [word for word in words if word] or ["-"]
    return f"{first} ({', '.join(rest)})" if rest else first


def row(work, results, names):
    """The cells of a work by relay, best first; floors last."""
    figure = WORKS[work][0]
    medians = {name: median(results[name], figure) for name in names if name in results}
    peers = [
        value for name, value in medians.items() if value is not None and kind(name) is not Floor
    ]
    best = min(peers, default=None)

    def order(name):
        value = medians[name]
        return (kind(name) is Floor, value is None, value or 0)

    return {
        name: cell(results[name], work, best, kind(name) is Floor)
        for name in sorted(medians, key=order)
    }


def print_works(results, works, names, rounds, table):
    print(
        f"\nmedian over {rounds} rounds (lower is better; ratio to the best of the row, "
        "floors aside; what goes with it)"
    )
    if table:
        print("\n| work | figure |", " | ".join(names), "|")
        print("| --- " * (2 + len(names)) + "|")
    for work in works:
        cells = row(work, results.get(work, {}), names)
        if table:
            print(
                f"| {work} | {WORKS[work][0]} |",
                " | ".join(cells.get(name, "") for name in names),
                "|",
            )
        elif cells:
            print(
                f"{work:11s} {WORKS[work][0]:14s} "
                + "  ".join(f"{name} {text}" for name, text in cells.items())
            )


def print_scale(work, results, names, table):
    """A table: what there is much of downwards, relays to the right."""
    what, steps = SCALES[work]
    names = [name for name in names if name in results]
    print(f"\n{work}: CPU microseconds per short connection (connections per second)")
    if table:
        print(f"\n| {what} |", " | ".join(names), "|")
        print("| --- " * (1 + len(names)) + "|")
    else:
        print(f"{what:>14s}  " + "  ".join(f"{name:>18s}" for name in names))
    for step in steps:
        cells = []
        for name in names:
            points = [one["points"][step] for one in results[name] if "points" in one]
            value, rate = median(points, "cpu_us"), median(points, "per_s")
            words = [trouble(points)]
            if value is not None:
                words.insert(0, f"{number(value)} ({count_of(rate)}/s)")
            cells.append(" ".join(filter(None, words)) or trouble(results[name]))
        if table:
            print(f"| {step} |", " | ".join(cells), "|")
        else:
            print(f"{step:14d}  " + "  ".join(f"{text:>18s}" for text in cells))


def print_troubles(results):
    """Why there is no figure, once for each reason."""
    troubles = {}
    for work, columns in results.items():
        for name, runs in columns.items():
            for one in runs:
                points = one.get("points", {"": one})
                for step, point in points.items():
                    why = point.get("failed") or point.get("errors")
                    if why:
                        troubles[f"{work} {name} {step}".strip() + f": {why}"] = None
    if troubles:
        print()
    for line in troubles:
        print(line)


def describe(paths, folder):
    """What the figures depend on."""

    def read(path):
        try:
            with open(path, encoding="ascii") as file:
                return file.read().strip()
        except OSError:
            return "unknown"

    cpuinfo = re.search(r"model name\s*: (.*)", read("/proc/cpuinfo"))
    about = {
        "kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cpus": f"{len(CPUS)} x {cpuinfo.group(1) if cpuinfo else platform.processor()}",
        "congestion control": read("/proc/sys/net/ipv4/tcp_congestion_control"),
    }
    for name, path in paths.items():
        relay = kind(name)(name, path, folder, "", "")
        words = [relay.version(), relay.tls_library()]
        if any(words):
            about[name] = "; ".join(word for word in words if word)
    return about


def choose(options, folder):
    paths = dict(one.split("=", 1) for one in options.relay)
    for name in PEERS:
        path = os.environ.get("ENVOY") if name == "envoy" else None
        path = path or find(name)
        if path and os.path.exists(path):
            paths.setdefault(name, path)
    if find("cc"):
        source, program = os.path.join(HERE, "floor.c"), os.path.join(folder, "floor")
        subprocess.run(["cc", "-O2", "-o", program, source], check=True)
        paths.update((name, program) for name in FLOORS)
    if options.only:
        wanted = options.only.split(",")
        unknown = [name for name in wanted if name not in paths]
        if unknown:
            print("not here:", ", ".join(unknown), file=sys.stderr)
        paths = {name: path for name, path in paths.items() if name in wanted}
    return paths


def rounded(result):
    if isinstance(result, dict):
        return {key: rounded(value) for key, value in result.items()}
    return round(result, 3) if isinstance(result, float) else result


def arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--relay", action="append", default=[], metavar="NAME=PATH")
    parser.add_argument("--only", metavar="NAME,...")
    parser.add_argument("--work", default=",".join(WORKS), metavar="NAME,...")
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--table", action="store_true", help="the results as Markdown")
    options = parser.parse_args()
    options.work = options.work.split(",")
    for work in options.work:
        if work not in WORKS and work not in SCALES:
            parser.error(f"unknown work {work}")
    missing = [
        program
        for program in ("iperf3", "wrk", "nginx", "curl", "openssl", "taskset")
        if not find(program)
    ]
    if missing:
        parser.error(f"not installed: {', '.join(missing)}")
    return options


def main():
    options = arguments()
    # Nothing that was started or written here may outlive this process.
    for number_ in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number_, lambda *_: sys.exit(1))
    allow_descriptors(DESCRIPTORS)
    with tempfile.TemporaryDirectory(prefix="relaybench") as folder:
        os.chmod(folder, 0o755)  # backends may run as another user
        paths = choose(options, folder)
        about = describe(paths, folder)
        for key, value in about.items():
            print(f"{key}: {value}")
        print(flush=True)
        bench = Bench(paths, folder, options.seconds)
        results = {}
        try:
            for turn in range(options.rounds):
                for work in options.work:
                    for name in paths:
                        if not bench.applies(work, name):
                            continue
                        try:
                            result = bench.run(work, name)
                        except Exception as error:  # shown, not hidden
                            result = {"failed": str(error)}
                        results.setdefault(work, {}).setdefault(name, []).append(result)
                        print(turn, work, name, rounded(result), flush=True)
        finally:
            bench.backends.stop()
    works = [work for work in options.work if work in WORKS]
    if works:
        print_works(results, works, list(paths), options.rounds, options.table)
    for work in options.work:
        if work in SCALES:
            print_scale(work, results.get(work, {}), list(paths), options.table)
    print_troubles(results)
    if options.json:
        write(options.json, json.dumps({"about": about, **results}, indent=1))


if __name__ == "__main__":
    main()
