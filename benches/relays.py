"""The relays that bench.py compares: how each is configured, started, measured and ended."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

TICK = os.sysconf("SC_CLK_TCK")
CPUS = sorted(os.sched_getaffinity(0))
RELAY_CPU, LOAD_CPU = CPUS[0], CPUS[min(1, len(CPUS) - 1)]

# The maximum number of connections configured in each relay, and its limit on descriptors: as on a
# machine set up for such a load.
USERS, DESCRIPTORS = 6000, 20000


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def on_cpu(cpu, argv):
    return argv if cpu is None else ["taskset", "-c", str(cpu)] + argv


def write(path, text):
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    return path


def process_tree(pid):
    """A process and its descendants, the process first."""
    found, todo = [], [pid]
    while todo:
        one = todo.pop()
        found.append(one)
        try:
            for thread in os.listdir(f"/proc/{one}/task"):
                with open(f"/proc/{one}/task/{thread}/children", encoding="ascii") as file:
                    todo += map(int, file.read().split())
        except OSError:
            pass
    return found


def cpu_seconds(pid):
    total = 0.0
    for one in process_tree(pid):
        try:
            # Living threads, in nanoseconds, ...
            for thread in os.listdir(f"/proc/{one}/task"):
                with open(f"/proc/{one}/task/{thread}/schedstat", encoding="ascii") as file:
                    total += int(file.read().split()[0]) / 1e9
            # ... and children that have ended, in clock ticks.
            with open(f"/proc/{one}/stat", encoding="ascii") as file:
                fields = file.read().rsplit(")", 1)[1].split()
            total += (int(fields[13]) + int(fields[14])) / TICK
        except OSError:
            pass
    return total


def memory(pid):
    total = 0
    for one in process_tree(pid):
        try:
            with open(f"/proc/{one}/smaps_rollup", encoding="ascii") as file:
                total += sum(int(line.split()[1]) for line in file if line.startswith("Pss:"))
        except OSError:
            pass
    return total * 1024


def wait_port(port, process=None, seconds=10):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if process and process.poll() is not None:
            raise RuntimeError(f"it ended with status {process.returncode}")
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise RuntimeError(f"port {port} did not open")


def start(argv, cpu, log, env=None):
    return subprocess.Popen(
        on_cpu(cpu, argv),
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        env={**os.environ, **(env or {})},
        start_new_session=True,
    )


def stop(process):
    """Ends a process and all that it has started, whatever group that is in."""
    tree = process_tree(process.pid)[1:]
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.wait(2)
            break
        except (OSError, subprocess.TimeoutExpired):
            pass
    for pid in tree:
        try:
            os.kill(pid, signal.SIGKILL)
        except OSError:
            pass


class Relay:
    """A relay: how it is configured and started, with a plain listener and one with TLS.

    Every relay gets what its own manual recommends for relaying TCP, and otherwise its defaults.
    Common to all: one worker, room for the connections of the works, a backlog of 4096, timeouts
    that do not interfere, no log of connections, the same certificate, no resumption of TLS
    sessions (wrk never asks for it either).
    """

    tls_listener = True

    def __init__(self, name, path, folder, certificate, key, settings=None):
        self.name, self.path = name, path
        self.folder = os.path.join(folder, name)
        self.certificate, self.key = certificate, key
        self.settings = settings or {}
        self.process = self.plain = self.tls = None

    def command(self, backend):
        raise NotImplementedError

    def start(self, backend, cpu=RELAY_CPU):
        os.makedirs(self.folder, exist_ok=True)
        self.plain, self.tls = free_port(), free_port()
        argv = self.command(backend)
        with open(os.path.join(self.folder, "log"), "wb") as log:
            self.process = start(argv, cpu, log)
        wait_port(self.plain, self.process)
        time.sleep(0.3)

    def stop(self):
        if self.process:
            stop(self.process)
            self.process = None

    def last_words(self):
        try:
            with open(os.path.join(self.folder, "log"), encoding="utf-8", errors="replace") as log:
                return " / ".join(log.read().split("\n")[-4:]).strip(" /")
        except OSError:
            return ""

    def file(self, name):
        return os.path.join(self.folder, name)

    def cpu(self):
        return cpu_seconds(self.process.pid)

    def version(self):
        """Of the relay."""
        return first_line([self.path, "-v"])

    def tls_library(self):
        return linked_tls(self.path)


class Tcprelay(Relay):
    def monitored(self):
        """What the broker's section and each remote have besides."""
        return "", ""

    def command(self, backend):
        remotes = self.settings.get("remotes", 1)
        workers = self.settings.get("workers", 1)
        users = self.settings.get("users", USERS)
        broker, check = self.monitored()
        remote = f"    remote = {{ address = 127.0.0.1 port = {backend} {check} }}\n"
        config = write(
            self.file("tcprelay.cfg"),
            f"""
id = spawnd {{
    listen = {{ address = 127.0.0.1 port = {self.plain} backlog = 4096 }}
    listen = {{ address = 127.0.0.1 port = {self.tls} tls = yes backlog = 4096 }}
    spawn = {{
        instances min = {workers} instances max = {workers}
        users min = {users} users max = {users}
    }}
    background = no
    {broker}
}}
id = tcprelay {{
{remote * remotes}
    tls cert-file = {self.certificate}
    tls key-file = {self.key}
{self.settings.get("more", "")}
}}
""",
        )
        return [self.path, "-f", "-i", "tcprelay", config, "spawnd"]

    def version(self):
        return super().version().split("/")[0]


class Monitored(Tcprelay):
    """With everything that is there to watch it."""

    status = None

    def start(self, backend, cpu=RELAY_CPU):
        self.status = free_port()
        super().start(backend, cpu)
        wait_port(self.status, self.process)

    def monitored(self):
        status = f"status = {{ address = 127.0.0.1 port = {self.status} }}"
        control = f"control = {{ path = {self.file('control')} mode = 0600 }}"
        return f"{status}\n    {control}", "check = tcp"


class Haproxy(Relay):
    def command(self, backend):
        # splice-auto is what its manual has for relaying TCP on Linux: "haproxy uses heuristics to
        # estimate if kernel splicing might improve performance or not". It warns against changing
        # the sizes of buffers and pipes without need.
        both = self.file("both.pem")
        with (
            open(self.certificate, encoding="ascii") as one,
            open(self.key, encoding="ascii") as two,
        ):
            write(both, one.read() + two.read())
        config = write(
            self.file("haproxy.cfg"),
            f"""
global
    maxconn {USERS}
    nbthread 1
    tune.ssl.cachesize 0
defaults
    mode tcp
    option splice-auto
    maxconn {USERS}
    timeout connect 5s
    timeout client 1h
    timeout server 1h
frontend plain
    bind 127.0.0.1:{self.plain} backlog 4096
    default_backend backend
frontend tls
    bind 127.0.0.1:{self.tls} backlog 4096 ssl crt {both} no-tls-tickets
    default_backend backend
backend backend
    server one 127.0.0.1:{backend}
""",
        )
        return [self.path, "-db", "-f", config]

    def version(self):
        return super().version().split(" - ")[0]

    def tls_library(self):
        match = re.search(r"Running on OpenSSL version : (.*)", output([self.path, "-vv"]))
        return match.group(1) if match else linked_tls(self.path)


class Nginx(Relay):
    def command(self, backend):
        # multi_accept accepts all new connections at once, which suits one worker under load. The
        # rest are the stream modules' defaults: tcp_nodelay on, proxy_buffer_size 16k.
        details = output([self.path, "-V"])
        folder = re.search(r"--modules-path=(\S+)", details)
        module = os.path.join(folder.group(1) if folder else "", "ngx_stream_module.so")
        load = f"load_module {module};" if "--with-stream=dynamic" in details else ""
        config = write(
            self.file("nginx.conf"),
            f"""
{load}
daemon off;
worker_processes 1;
worker_rlimit_nofile {DESCRIPTORS};
pid {self.file("pid")};
error_log {self.file("error.log")} crit;
events {{ worker_connections {DESCRIPTORS}; multi_accept on; }}
stream {{
    access_log off;
    proxy_timeout 1h;
    ssl_certificate {self.certificate};
    ssl_certificate_key {self.key};
    ssl_protocols TLSv1.2 TLSv1.3;
    ssl_session_cache off;
    ssl_session_tickets off;
    server {{ listen 127.0.0.1:{self.plain} backlog=4096; proxy_pass 127.0.0.1:{backend}; }}
    server {{ listen 127.0.0.1:{self.tls} ssl backlog=4096; proxy_pass 127.0.0.1:{backend}; }}
}}
""",
        )
        return [self.path, "-c", config, "-p", self.folder]

    def tls_library(self):
        found = re.findall(r"OpenSSL [^()\n]*", output([self.path, "-V"]))
        return found[-1].strip() if found else linked_tls(self.path)


class Pen(Relay):
    # pen can do TLS, but its manual calls that experimental, and not all packages include it.
    tls_listener = False

    def command(self, backend):
        # -r: no client tracking table; -m: accepts several new connections at once; -x and -c: room
        # for connections and their clients.
        return [
            self.path,
            "-f",
            "-r",
            "-m",
            "64",
            "-c",
            str(DESCRIPTORS),
            "-x",
            str(USERS),
            f"127.0.0.1:{self.plain}",
            f"127.0.0.1:{backend}",
        ]

    def version(self):
        return ""  # it has no option for that


class Envoy(Relay):
    def listener(self, name, port, tls):
        chain = {
            "filters": [
                {
                    "name": "envoy.filters.network.tcp_proxy",
                    "typed_config": {
                        "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
                        "stat_prefix": name,
                        "cluster": "backend",
                    },
                }
            ]
        }
        if tls:
            chain["transport_socket"] = {
                "name": "envoy.transport_sockets.tls",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3."
                    "DownstreamTlsContext",
                    "disable_stateless_session_resumption": True,
                    "disable_stateful_session_resumption": True,
                    "common_tls_context": {
                        "tls_certificates": [
                            {
                                "certificate_chain": {"filename": self.certificate},
                                "private_key": {"filename": self.key},
                            }
                        ]
                    },
                },
            }
        return {
            "name": name,
            "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
            "tcp_backlog_size": 4096,
            "filter_chains": [chain],
        }

    def command(self, backend):
        # Envoy's advice for edge proxies, buffers of 32 KiB instead of 1 MiB, is about hostile
        # clients, not speed, so the default is used. Its circuit breakers would refuse connections.
        endpoint = {"address": {"socket_address": {"address": "127.0.0.1", "port_value": backend}}}
        config = write(
            self.file("envoy.json"),
            json.dumps(
                {
                    "static_resources": {
                        "listeners": [
                            self.listener("plain", self.plain, False),
                            self.listener("tls", self.tls, True),
                        ],
                        "clusters": [
                            {
                                "name": "backend",
                                "type": "STATIC",
                                "connect_timeout": "5s",
                                "circuit_breakers": {
                                    "thresholds": [
                                        {
                                            "max_connections": DESCRIPTORS,
                                            "max_pending_requests": DESCRIPTORS,
                                        }
                                    ]
                                },
                                "load_assignment": {
                                    "cluster_name": "backend",
                                    "endpoints": [{"lb_endpoints": [{"endpoint": endpoint}]}],
                                },
                            }
                        ],
                    }
                }
            ),
        )
        return [
            self.path,
            "-c",
            config,
            "--concurrency",
            "1",
            "-l",
            "error",
            "--disable-hot-restart",
        ]

    def version(self):
        match = re.search(r"version: \w+/([^/\s]+)", output([self.path, "--version"]))
        return f"envoy {match.group(1)}" if match else ""

    def tls_library(self):
        match = re.search(r"BoringSSL\S*", output([self.path, "--version"]))
        return match.group(0) if match else linked_tls(self.path)


class Floor(Relay):
    """Not a relay to compare with: what the kernel alone takes. NAME is floor-MODE[-CONGESTION]."""

    tls_listener = False

    def command(self, backend):
        mode, *congestion = self.name.split("-")[1:]
        return [self.path, mode, str(self.plain), str(backend)] + congestion

    def version(self):
        return ""

    def tls_library(self):
        return ""


PEERS = {"haproxy": Haproxy, "nginx": Nginx, "pen": Pen, "envoy": Envoy}
FLOORS = ("floor-copy", "floor-splice", "floor-splice-reno")


def kind(name):
    if name.startswith("floor-"):
        return Floor
    return Monitored if name.startswith("monitored") else PEERS.get(name, Tcprelay)


def output(argv):
    try:
        done = subprocess.run(
            argv, capture_output=True, text=True, timeout=20, check=False, stdin=subprocess.DEVNULL
        )
        return done.stdout + done.stderr
    except (OSError, subprocess.TimeoutExpired):
        return ""


def first_line(argv):
    return (output(argv).strip().splitlines() or [""])[0]


def linked_tls(path):
    """The TLS library that a program gets: asked itself if it is shared, looked for otherwise."""
    files = re.findall(r"=> (/\S+)", output(["ldd", path]))
    for library in files:
        if "libcrypto" in library:
            ask = (
                f"import ctypes; version = ctypes.CDLL({library!r}).OpenSSL_version; "
                "version.restype = ctypes.c_char_p; print(version(0).decode())"
            )
            return first_line([sys.executable, "-c", ask])
    for file in [path] + [library for library in files if "mavis" in library]:
        with open(file, "rb") as binary:
            found = re.search(rb"OpenSSL \d+\.\d+\.\d+\w* +\d+ \w+ \d{4}", binary.read())
        if found:
            return found.group(0).decode() + " (static)"
    return "no TLS library found"


def find(program):
    """Where a program is; those for administrators may not be on the PATH."""
    for folder in (None, "/usr/sbin:/usr/local/sbin:/sbin"):
        path = shutil.which(program, path=folder)
        if path:
            return path
    return None
