//! Other software that speaks the PROXY protocol, and how it is told to.

use crate::common::*;
use std::fmt::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Software {
    Haproxy,
    Nginx,
    Envoy,
    Relay,
}

use Software::*;

/// A running proxy.
pub enum Running {
    Other(#[allow(dead_code, reason = "runs until it is dropped")] Server),
    Ours(#[allow(dead_code, reason = "runs until it is dropped")] super::common::Relay),
}

/// Where a proxy listens, the port it passes connections on to, and what a test calls that way.
pub type Way = (SocketAddr, u16, String);

/// A Python that has the package proxy-protocol.
pub fn parser() -> Option<PathBuf> {
    optional("proxyprotocol-echo").map(|program| program.with_file_name("python3"))
}

impl Software {
    /// All that are installed.
    pub fn present() -> Vec<Software> {
        let mut all = vec![Haproxy, Nginx, Relay];
        all.extend(optional("envoy").map(|_| Envoy));
        all
    }

    /// The versions that it can send.
    pub fn sends(self) -> &'static [&'static str] {
        match self {
            Nginx => &["v1"],
            Haproxy | Envoy | Relay => &["v1", "v2"],
        }
    }

    /// Answers each request with the client's address and port, and those that it has connected to,
    /// as the header before the request has them.
    pub fn answer(self, directory: &Directory, port: u16) -> Running {
        let name = format!("{self:?}-{port}");
        let text = match self {
            Haproxy => haproxy(
                "http",
                &format!(
                    "frontend f\n bind 127.0.0.1:{port} accept-proxy\n http-request return \
                     status 200 content-type text/plain lf-string \
                     \"%[src] %[src_port] %[dst] %[dst_port]\"\n"
                ),
            ),
            Nginx => {
                let root = directory.path().display();
                let folders: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
                    .map(|kind| format!("{kind}_temp_path {root}/{kind};\n"))
                    .concat();
                nginx(
                    directory,
                    &name,
                    &format!(
                        "http {{ access_log off;\n{folders}\
                         server {{ listen 127.0.0.1:{port} proxy_protocol; location / {{ \
                         return 200 \"$proxy_protocol_addr $proxy_protocol_port \
                         $proxy_protocol_server_addr $proxy_protocol_server_port\"; }} }} }}\n"
                    ),
                )
            }
            Envoy => {
                let answer = "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT% \
                     %DOWNSTREAM_REMOTE_PORT% %DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT% \
                     %DOWNSTREAM_LOCAL_PORT%";
                let http = envoy::filter(
                    "network.http_connection_manager",
                    "network.http_connection_manager.v3.HttpConnectionManager",
                    &format!(
                        r#""stat_prefix": "a",
                        "local_reply_config": {{ "body_format": {{
                            "text_format_source": {{ "inline_string": "{answer}" }} }} }},
                        "route_config": {{ "virtual_hosts": [ {{
                            "name": "a", "domains": ["*"], "routes": [ {{
                                "match": {{ "prefix": "/" }},
                                "direct_response": {{ "status": 200, "body": {{ "inline_string": "-" }} }}
                            }} ] }} ] }},
                        "http_filters": [{}]"#,
                        envoy::filter("http.router", "http.router.v3.Router", "")
                    ),
                );
                let header = envoy::filter(
                    "listener.proxy_protocol",
                    "listener.proxy_protocol.v3.ProxyProtocol",
                    "",
                );
                let address = SocketAddr::from(([127, 0, 0, 1], port));
                envoy::configuration(&[envoy::listener(address, &header, &http)], &[])
            }
            Relay => unreachable!("the relay answers nothing itself"),
        };
        Running::Other(self.start(directory, &name, &text, port))
    }

    /// Passes connections on, with a header of this version before each.
    pub fn send(self, directory: &Directory, version: &str, ways: &[Way]) -> Running {
        let name = format!("{self:?}-{version}");
        let mut text = String::new();
        match self {
            Haproxy => {
                let send = if version == "v1" { "send-proxy" } else { "send-proxy-v2" };
                for (address, port, _) in ways {
                    let _ = write!(
                        text,
                        "listen l{0}\n bind {address}\n server s 127.0.0.1:{port} {send}\n",
                        address.port()
                    );
                }
                text = haproxy("tcp", &text);
            }
            Nginx => {
                for (address, port, _) in ways {
                    let _ = writeln!(
                        text,
                        "server {{ listen {address}; proxy_pass 127.0.0.1:{port}; \
                         proxy_protocol on; }}"
                    );
                }
                text = nginx(directory, &name, &format!("stream {{\n{text}}}\n"));
            }
            Envoy => {
                let (mut listeners, mut clusters) = (Vec::new(), Vec::new());
                for (address, port, _) in ways {
                    let name = format!("c{}", address.port());
                    let proxy = envoy::filter(
                        "network.tcp_proxy",
                        "network.tcp_proxy.v3.TcpProxy",
                        &format!(r#""stat_prefix": "{name}", "cluster": "{name}""#),
                    );
                    listeners.push(envoy::listener(*address, "", &proxy));
                    clusters.push(envoy::cluster(&name, *port, version));
                }
                text = envoy::configuration(&listeners, &clusters);
            }
            Relay => {
                let (mut listeners, mut section) = (String::new(), String::new());
                for (address, port, _) in ways {
                    let (own, host) = (address.port(), address.ip());
                    let _ = writeln!(
                        listeners,
                        "listen = {{ address = {host} port = {own} realm = r{own} }}"
                    );
                    let _ = writeln!(
                        section,
                        "route = {{ listener = r{own} to = r{own} }}\nremote = {{ \
                         address = 127.0.0.1 port = {port} proxy protocol = {version} \
                         tag = r{own} }}"
                    );
                }
                return Running::Ours(
                    Launch::new(format!(
                        "id = spawnd {{\n{listeners}spawn {{ instances min = 1 instances max = 1 \
                         }}\n}}\nid = tcprelay {{\n{section}}}\n"
                    ))
                    .start(),
                );
            }
        }
        let ready = ways.iter().find(|way| way.0.is_ipv4()).expect("an IPv4 listener");
        Running::Other(self.start(directory, &name, &text, ready.0.port()))
    }

    fn start(self, directory: &Directory, name: &str, text: &str, port: u16) -> Server {
        let file = directory.write(&format!("{name}.conf"), text);
        let mut command;
        match self {
            Haproxy => {
                command = Command::new(program("haproxy"));
                command.arg("-db").arg("-f").arg(file);
            }
            Nginx => {
                command = Command::new(program("nginx"));
                command
                    .arg("-c")
                    .arg(file)
                    .arg("-p")
                    .arg(directory.path())
                    .args(["-e", "/dev/null"]);
            }
            Envoy => {
                command = Command::new(optional("envoy").expect("it was there"));
                command.args(["--disable-hot-restart", "--concurrency", "1", "-c"]).arg(file);
            }
            Relay => unreachable!("the relay is started as such"),
        }
        Server::start(&mut command, port)
    }
}

fn haproxy(mode: &str, text: &str) -> String {
    format!(
        "defaults\n mode {mode}\n timeout connect 30s\n timeout client 30s\n \
         timeout server 30s\n{text}"
    )
}

fn nginx(directory: &Directory, name: &str, text: &str) -> String {
    // Some systems have it as a module.
    let module = ["/usr/lib/nginx/modules", "/usr/lib64/nginx/modules"]
        .map(|folder| format!("{folder}/ngx_stream_module.so"))
        .into_iter()
        .find(|file| text.starts_with("stream") && std::path::Path::new(file).exists())
        .map_or(String::new(), |file| format!("load_module {file};\n"));
    let user = if is_root() { "user root;" } else { "" };
    let root = directory.path().display();
    format!(
        "{module}daemon off; {user} pid {root}/{name}.pid; error_log {root}/{name}.log crit;\n\
         events {{ }}\n{text}"
    )
}

/// Envoy's configuration, which is JSON.
mod envoy {
    use std::net::SocketAddr;

    /// A filter or transport with its type, as extensions are given.
    pub fn filter(name: &str, kind: &str, fields: &str) -> String {
        let folder = match name.split('.').next() {
            Some("transport_sockets") => name,
            _ => "filters",
        };
        let comma = if fields.is_empty() { "" } else { ", " };
        let prefix = if folder == name { "envoy." } else { "envoy.filters." };
        let package = if folder == name { "" } else { "filters." };
        format!(
            r#"{{ "name": "{prefix}{name}", "typed_config": {{
               "@type": "type.googleapis.com/envoy.extensions.{package}{kind}"{comma}{fields} }} }}"#
        )
    }

    fn address(address: SocketAddr) -> String {
        format!(
            r#"{{ "socket_address": {{ "address": "{}", "port_value": {} }} }}"#,
            address.ip(),
            address.port()
        )
    }

    pub fn listener(on: SocketAddr, before: &str, filter: &str) -> String {
        format!(
            r#"{{ "name": "l{}", "address": {}, "listener_filters": [{before}],
               "filter_chains": [ {{ "filters": [{filter}] }} ] }}"#,
            on.port(),
            address(on)
        )
    }

    pub fn cluster(name: &str, port: u16, version: &str) -> String {
        let raw =
            filter("transport_sockets.raw_buffer", "transport_sockets.raw_buffer.v3.RawBuffer", "");
        let header = filter(
            "transport_sockets.upstream_proxy_protocol",
            "transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport",
            &format!(
                r#""config": {{ "version": "{}" }}, "transport_socket": {raw}"#,
                version.to_uppercase()
            ),
        );
        format!(
            r#"{{ "name": "{name}", "type": "STATIC", "connect_timeout": "30s",
               "load_assignment": {{ "cluster_name": "{name}", "endpoints": [ {{ "lb_endpoints": [
               {{ "endpoint": {{ "address": {} }} }} ] }} ] }},
               "transport_socket": {header} }}"#,
            address(SocketAddr::from(([127, 0, 0, 1], port)))
        )
    }

    pub fn configuration(listeners: &[String], clusters: &[String]) -> String {
        format!(
            r#"{{ "static_resources": {{ "listeners": [{}], "clusters": [{}] }} }}"#,
            listeners.join(","),
            clusters.join(",")
        )
    }
}
