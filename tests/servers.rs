//! Real servers behind the relay, driven by real clients: nginx, redis and an SSH server.

mod common;

use common::*;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

/// The maximum number of workers from the start, so that none becomes superfluous: a worker that
/// ends has failed.
const WORKERS: usize = 4;

#[test]
fn nginx_by_curl_and_wrk() {
    let directory = Directory::new();
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755))
        .expect("chmod");
    let data = pattern(1, 8 << 20);
    directory.write("large", &data);
    directory.write("small", [b'x'; 1024]);
    let root = directory.path().display();
    let server = |name: &str| {
        let port = free_port();
        let user = if is_root() { "user root;" } else { "" };
        let config = directory.write(
            name,
            format!(
                "daemon off; {user} pid {root}/{name}.pid; error_log {root}/{name}.log crit;\n\
                 events {{ worker_connections 4096; }}\n\
                 http {{ access_log off; client_body_temp_path {root}/{name}.body;\n\
                 proxy_temp_path {root}/{name}.p; fastcgi_temp_path {root}/{name}.f;\n\
                 uwsgi_temp_path {root}/{name}.u; scgi_temp_path {root}/{name}.s;\n\
                 server {{ listen 127.0.0.1:{port}; root {root};\n\
                 add_header X-Server {name}; client_max_body_size 64m; dav_methods PUT; }} }}\n"
            ),
        );
        let nginx = program("nginx");
        let mut command = Command::new(nginx);
        command.arg("-c").arg(config).arg("-p").arg(directory.path());
        (Server::start(&mut command, port), port)
    };
    let (_one, first) = server("one");
    let (_two, second) = server("two");
    let section = format!("{}{}", remote(first), remote(second));
    let (relay, port) = relay(section).on_all_addresses().workers(WORKERS).start();
    let curl = || {
        let mut command = Command::new(program("curl"));
        command.args(["-sS", "--fail", "--max-time", "60"]);
        command
    };
    // Downloads over IPv4 and IPv6.
    for host in ["127.0.0.1", "[::1]"] {
        let output = run(curl().arg(format!("http://{host}:{port}/large")));
        assert!(output.stdout == data, "unchanged over {host}");
    }
    // An upload, compared with what arrived.
    let upload = directory.file("large");
    let url = format!("http://127.0.0.1:{port}/uploaded");
    run(curl().arg("-T").arg(&upload).arg(&url));
    assert!(std::fs::read(directory.file("uploaded")).expect("the upload") == data);
    // Many requests at once: both servers answer, and none fails.
    let urls: Vec<String> = (0..40).map(|_| format!("http://127.0.0.1:{port}/small")).collect();
    let output = run(curl()
        .args(["--parallel", "--parallel-immediate", "--no-keepalive", "-H", "Connection: close"])
        .args(["-D", "-", "-o", "/dev/null"])
        .args(urls.iter().flat_map(|url| [url.as_str(), "-o", "/dev/null"])));
    let headers = text(&output);
    assert_eq!(headers.matches("200 OK").count(), 40, "{headers}");
    assert!(headers.contains("X-Server: one") && headers.contains("X-Server: two"));
    for close in [false, true] {
        let mut wrk = Command::new(program("wrk"));
        wrk.args(["-t2", "-c50", "-d2s", "--timeout", "20s"]);
        if close {
            wrk.args(["-H", "Connection: close"]);
        }
        let output = text(&run(wrk.arg(format!("http://127.0.0.1:{port}/small"))));
        assert!(!output.contains("Socket errors"), "{output}");
        assert!(!output.contains("Non-2xx"), "{output}");
    }
    assert!(!relay.log().contains("terminated"), "{}", relay.log());
}

#[test]
fn redis_by_its_own_tools() {
    let directory = Directory::new();
    let server_port = free_port();
    let mut command = Command::new(program("redis-server"));
    command
        .args(["--port", &server_port.to_string(), "--bind", "127.0.0.1", "--save", ""])
        .args(["--appendonly", "no", "--dir"])
        .arg(directory.path());
    let _server = Server::start(&mut command, server_port);
    let (_relay, port) = relay(remote(server_port)).workers(WORKERS).start();
    let port = port.to_string();
    let cli = |arguments: &[&str]| {
        text(&run(Command::new(program("redis-cli")).args(["-p", &port]).args(arguments)))
    };
    assert_eq!(cli(&["PING"]).trim(), "PONG");
    let value = "v".repeat(500_000);
    let file = directory.write("value", &value);
    let set = Command::new(program("redis-cli"))
        .args(["-p", &port, "-x", "SET", "key"])
        .stdin(std::fs::File::open(file).expect("the value"))
        .output()
        .expect("redis-cli");
    assert_eq!(text(&set).trim(), "OK");
    assert_eq!(cli(&["GET", "key"]).trim(), value);
    assert_eq!(cli(&["STRLEN", "key"]).trim(), "500000");
    let output = run(Command::new(program("redis-benchmark")).args([
        "-p",
        &port,
        "-n",
        "20000",
        "-c",
        "50",
        "-P",
        "4",
        "-q",
        "-t",
        "set,get,lpush,lrange_100",
    ]));
    let output = text(&output);
    assert!(output.contains("LRANGE_100") && !output.contains("rror"), "{output}");
}

#[test]
fn an_ssh_session() {
    let directory = Directory::new();
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o700))
        .expect("chmod");
    let key = |name: &str| {
        let file = directory.file(name);
        run(Command::new(program("ssh-keygen"))
            .args(["-q", "-t", "ed25519", "-N", "", "-f"])
            .arg(&file));
        file
    };
    let (host_key, user_key) = (key("host"), key("user"));
    std::fs::copy(directory.file("user.pub"), directory.file("authorized")).expect("a copy");
    if is_root() {
        std::fs::create_dir_all("/run/sshd").expect("the directory of sshd");
    }
    let server_port = free_port();
    let config = directory.write(
        "sshd_config",
        format!(
            "Port {server_port}\nListenAddress 127.0.0.1\nHostKey {}\nAuthorizedKeysFile {}\n\
             PidFile {}\nUsePAM no\nStrictModes no\nPasswordAuthentication no\n\
             PermitRootLogin yes\nMaxStartups 100\n",
            host_key.display(),
            directory.file("authorized").display(),
            directory.file("sshd.pid").display()
        ),
    );
    // sshd must be started by an absolute path.
    let mut command = Command::new(program("sshd"));
    command.arg("-D").arg("-f").arg(config);
    let _server = Server::start(&mut command, server_port);
    let (_relay, port) = relay(remote(server_port)).workers(WORKERS).start();
    let ssh = |command: &str| {
        let mut ssh = Command::new(program("ssh"));
        ssh.args(["-p", &port.to_string(), "-i"]).arg(&user_key).args([
            "-o",
            "StrictHostKeyChecking=no",
            "-o",
            "UserKnownHostsFile=/dev/null",
            "-o",
            "LogLevel=ERROR",
            "-o",
            "BatchMode=yes",
            "127.0.0.1",
            command,
        ]);
        ssh
    };
    assert_eq!(text(&run(&mut ssh("echo through the relay"))).trim(), "through the relay");
    // Bulk data in both directions comes out unchanged.
    let data = pattern(2, 4 << 20);
    let file = directory.write("data", &data);
    let output =
        ssh("cat").stdin(std::fs::File::open(file).expect("the data")).output().expect("ssh");
    assert!(output.status.success());
    assert!(output.stdout == data);
}
