//! docs/recipes.md: each recipe is run as it is printed, in a network namespace in which it has its
//! addresses and ports. Only the folders of files are others.
#![cfg(target_os = "linux")]

mod common;

use common::namespace::{enter, must, Host};
use common::pki::Identity;
use common::*;
use openssl::ssl::{SslAcceptor, SslConnector, SslMethod, SslVerifyMode};
use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::thread;
use std::time::Instant;

const RECIPES: &str = include_str!("../docs/recipes.md");

/// The block in this language in the recipe of this title.
fn block(title: &str, language: &str) -> String {
    let text = RECIPES.split("\n## ").find(|recipe| recipe.starts_with(title));
    let text = text.unwrap_or_else(|| panic!("no recipe {title}"));
    let start = format!("\n```{language}\n");
    let text = text.split(&start).nth(1).unwrap_or_else(|| panic!("{title}: no {language}"));
    text.split("\n```").next().unwrap_or(text).to_owned()
}

/// The same with other folders.
fn moved(text: &str) -> String {
    text.replace("/etc/tcprelay/tcprelay.cfg", "@CFG@")
        .replace("/etc/tcprelay", "@DIR@")
        .replace("/run/redis", "@DIR@")
        .replace("/run", "@DIR@")
}

/// Enters a namespace for the relay and its clients: 198.51.100.7, and 10.0.0.5 in the relay's own
/// network. Returns the host of the servers, which has these addresses. `None`, reported, where that
/// is impossible.
fn place(addresses: &[&'static str]) -> Option<Host> {
    if !enter() {
        return None;
    }
    let servers = Host::new()?;
    servers.link("eth1", ["10.0.0.1/24", "2001:db8::1/64"], ["10.0.0.2/24", "2001:db8::2/64"]);
    for address in ["192.0.2.1", "198.51.100.7", "10.0.0.5"] {
        must(&format!("addr add {address}/32 dev lo"));
    }
    for address in addresses {
        let address = *address;
        servers.run(move || must(&format!("addr add {address}/32 dev peer")));
    }
    Some(servers)
}

fn launch(title: &str) -> Launch {
    Launch::new(moved(&block(title, "tcprelay")))
}

/// A server that says its name, then echoes.
fn named(servers: &Host, address: &'static str, name: &'static str) {
    serve(servers, address, move |mut stream| {
        if stream.write_all(name.as_bytes()).is_ok() {
            echo(stream);
        }
    });
}

fn serve(
    servers: &Host,
    address: &'static str,
    answer: impl Fn(TcpStream) + Send + Sync + 'static,
) {
    let listener = servers.run(move || TcpListener::bind(address).expect("a listener"));
    let answer = Arc::new(answer);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let answer = answer.clone();
            thread::spawn(move || answer(stream));
        }
    });
}

/// An HTTPS server that says its name.
fn secure(servers: &Host, address: &'static str, name: &'static str) {
    let identity = Identity::own(&["localhost"]);
    let mut builder = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls()).expect("a server");
    builder.set_certificate(&identity.certificate).expect("a certificate");
    builder.set_private_key(&identity.key).expect("its key");
    let acceptor = builder.build();
    serve(servers, address, move |stream| {
        if let Ok(mut stream) = acceptor.accept(stream) {
            let _ = stream.write_all(name.as_bytes());
            let _ = stream.read(&mut [0]);
        }
    });
}

/// An HTTP server that says its name while it is well.
fn web(servers: &Host, address: &'static str, name: &'static str, well: &Arc<AtomicBool>) {
    let well = well.clone();
    serve(servers, address, move |mut stream| {
        let mut request = [0; 4096];
        let _ = stream.read(&mut request);
        let status = if well.load(Ordering::SeqCst) { "200 OK" } else { "503 Unwell" };
        let length = name.len() + 1;
        let head = format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {length}");
        let _ = write!(stream, "{head}\r\n\r\n{name}\n");
    });
}

fn webs(servers: &Host, list: &[(&'static str, &'static str)]) {
    let well = Arc::new(AtomicBool::new(true));
    list.iter().for_each(|(address, name)| web(servers, address, name, &well));
}

/// What curl gets from the relay, coming from `source`; empty if it was refused.
fn get(source: &str) -> String {
    let mut curl = Command::new(program("curl"));
    curl.args(["-s", "--max-time", "20", "--interface", source, "http://192.0.2.1/"]);
    let output = curl.output().expect("curl");
    String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
}

/// The name of the HTTPS server that is reached by this name.
fn reached(name: &str) -> Option<String> {
    let mut builder = SslConnector::builder(SslMethod::tls_client()).expect("a client");
    builder.set_verify(SslVerifyMode::NONE);
    let mut client = builder.build().configure().expect("a client");
    client.set_use_server_name_indication(!name.is_empty());
    let stream = TcpStream::connect("192.0.2.1:443").expect("the relay");
    let name = if name.is_empty() { "localhost" } else { name };
    let mut stream = client.connect(name, stream).ok()?;
    let mut text = [0; 64];
    let count = stream.read(&mut text).ok()?;
    Some(String::from_utf8_lossy(&text[..count]).into_owned())
}

/// The greeting of a plain server.
fn greeting(address: &str, length: usize) -> String {
    let mut stream = TcpStream::connect(address).expect("the relay");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let mut text = Vec::new();
    let _ = (&mut stream).take(length as u64).read_to_end(&mut text);
    if !text.is_empty() {
        ping(&mut stream, b"and more");
    }
    String::from_utf8_lossy(&text).into_owned()
}

#[test]
fn there_are_ten_and_each_is_in_the_list() {
    let titles: Vec<&str> =
        RECIPES.split("\n## ").skip(1).filter_map(|recipe| recipe.lines().next()).collect();
    assert_eq!(titles.len(), 10);
    let tests = include_str!("recipes.rs");
    for (title, number) in titles.iter().zip(1..) {
        let anchor: String = title
            .to_lowercase()
            .chars()
            .filter(|c| c.is_alphanumeric() || *c == ' ')
            .map(|c| if c == ' ' { '-' } else { c })
            .collect();
        assert!(RECIPES.contains(&format!("\n{number}. [{title}](#{anchor})\n")), "{title}");
        assert!(tests.contains(&format!("launch(\"{title}\")")), "{title} has no test");
    }
}

#[test]
fn by_name() {
    let Some(servers) = place(&["10.0.0.11", "10.0.0.12"]) else {
        return;
    };
    secure(&servers, "10.0.0.11:443", "www");
    secure(&servers, "10.0.0.12:443", "net");
    let _relay = launch("By name, without ending TLS").start();
    for (name, expected) in [
        ("www.example.org", Some("www")),
        ("example.org", Some("www")),
        ("a.b.example.net", Some("net")),
        ("example.net", None),
        ("", None),
    ] {
        assert_eq!(reached(name).as_deref(), expected, "{name}");
    }
}

/// Recipe and sample: a web server each by name and in turn, mail by port, and the database for the
/// office.
fn one_process(launch: Launch) {
    let Some(servers) = place(&["10.0.0.11", "10.0.0.12", "10.0.0.13", "10.0.0.25", "10.0.0.54"])
    else {
        return;
    };
    secure(&servers, "10.0.0.11:443", "web");
    secure(&servers, "10.0.0.12:443", "web");
    secure(&servers, "10.0.0.13:443", "shop");
    named(&servers, "10.0.0.25:25", "220 mx");
    named(&servers, "10.0.0.25:587", "220 submission");
    named(&servers, "10.0.0.54:5432", "database");
    let _relay = launch.start();
    assert_eq!(reached("shop.example.org").as_deref(), Some("shop"));
    assert_eq!(reached("www.example.org").as_deref(), Some("web"));
    assert_eq!(reached("").as_deref(), Some("web"));
    assert_eq!(greeting("192.0.2.1:25", 6), "220 mx");
    assert_eq!(greeting("192.0.2.1:587", 14), "220 submission");
    // The client has the address that it connects to, unless it binds another.
    assert_eq!(greeting("10.0.0.5:5432", 8), "database");
    assert_eq!(greeting("192.0.2.1:5432", 8), "");
}

#[test]
fn web_mail_and_a_database() {
    one_process(launch("Web, mail and a database in one process"));
}

#[test]
fn web_mail_and_a_database_by_the_sample() {
    one_process(Launch::new(include_str!("../samples/routes.cfg")));
}

#[test]
fn nginx_knows_the_client() {
    let title = "The client's address for nginx";
    let Some(servers) = place(&["10.0.0.11"]) else {
        return;
    };
    let folder = Directory::new();
    let path = folder.path().display();
    let server = block(title, "nginx");
    let configuration = folder.write(
        "nginx.conf",
        format!(
            "daemon off;\nmaster_process off;\npid {path}/pid;\nevents {{ }}\nhttp {{\n\
             access_log off;\nclient_body_temp_path {path}/1;\nproxy_temp_path {path}/2;\n\
             fastcgi_temp_path {path}/3;\nuwsgi_temp_path {path}/4;\nscgi_temp_path {path}/5;\n\
             {server}\n}}\n"
        ),
    );
    let mut nginx = Command::new(program("nginx"));
    nginx.arg("-c").arg(configuration).arg("-p").arg(folder.path());
    nginx.args(["-e", "/dev/null"]);
    let mut server = servers.run(move || nginx.spawn().expect("nginx"));
    wait_for("nginx", || TcpStream::connect("10.0.0.11:8080").ok());
    let _relay = launch("The client's address for nginx").start();
    let seen = get("198.51.100.7");
    kill(server.id() as i32, nix::sys::signal::Signal::SIGTERM);
    let _ = server.wait();
    assert_eq!(seen, "hello 198.51.100.7");
}

/// A PostgreSQL server on `address`, as the user 65534, with this line of pg_hba.conf and a password
/// for its superuser.
fn postgres(folder: &Path, address: &str, rules: &str) -> Option<Command> {
    const PLACES: [&str; 5] = ["17", "16", "15", "14", "13"];
    let place = PLACES.iter().map(|version| format!("/usr/lib/postgresql/{version}/bin"));
    let place = place.into_iter().find(|place| Path::new(place).join("initdb").is_file())?;
    let data = folder.join("data");
    fs::create_dir(&data).expect("a folder");
    std::os::unix::fs::chown(&data, Some(65534), Some(65534)).expect("chown");
    std::os::unix::fs::chown(folder, Some(65534), Some(65534)).expect("chown");
    let password = folder.join("password");
    fs::write(&password, "secret\n").expect("a file");
    let as_nobody = |name: &str| {
        let mut command = Command::new(format!("{place}/{name}"));
        command.uid(65534).gid(65534).current_dir(folder);
        command
    };
    let mut initdb = as_nobody("initdb");
    initdb.args(["-U", "owner", "-A", "scram-sha-256", "--no-sync", "-D"]).arg(&data);
    run(initdb.arg(format!("--pwfile={}", password.display())));
    fs::write(data.join("pg_hba.conf"), rules).expect("a file");
    let mut server = as_nobody("postgres");
    server.arg("-D").arg(&data).arg("-k").arg(folder).args(["-h", address, "-F"]);
    Some(server)
}

#[test]
fn postgresql_knows_the_client() {
    let title = "The client's address for PostgreSQL";
    if !enter() {
        return;
    }
    let (Some(client), Some(database)) = (Host::new(), Host::new()) else {
        return;
    };
    client.link("eth0", ["192.0.2.1/24", "2001:db8:1::1/64"], ["192.0.2.7/24", "2001:db8:1::7/64"]);
    database.link("eth1", ["10.0.0.1/24", "2001:db8:2::1/64"], ["10.0.0.54/24", "2001:db8::9/64"]);
    client.run(|| must("addr add 198.51.100.7/32 dev peer"));
    must("route add 198.51.100.7/32 dev eth0");
    database.run(|| must("route add default via 10.0.0.1"));
    for line in block(title, "sh").lines() {
        must(line.strip_prefix("ip ").expect("ip(8)"));
    }
    let folder = Directory::new();
    let server = postgres(folder.path(), "10.0.0.54", &block(title, "pg_hba"));
    let Some(mut server) = server else {
        left_out("PostgreSQL is not installed; another server stands for it");
        serve(&database, "10.0.0.54:5432", |mut stream| {
            let peer = stream.peer_addr().expect("a client").ip();
            let _ = write!(stream, "{peer}");
        });
        let _relay = launch("The client's address for PostgreSQL").start();
        let seen = client.run(|| {
            let mut text = String::new();
            let mut stream = TcpStream::connect("192.0.2.1:5432").expect("the relay");
            stream.read_to_string(&mut text).expect("an answer");
            text
        });
        assert_eq!(seen, "192.0.2.7");
        return;
    };
    let mut server = database.run(move || server.spawn().expect("postgres"));
    database
        .run(|| {
            wait_for("PostgreSQL", || TcpStream::connect("10.0.0.54:5432").ok())
                .shutdown(std::net::Shutdown::Both)
        })
        .expect("to close");
    let relay = launch("The client's address for PostgreSQL").start();
    // From the network that pg_hba.conf lets in, and from another.
    let ask = |route: &'static str| {
        client.run(move || {
            must(&format!("route replace 192.0.2.1/32 dev peer src {route}"));
            let mut psql = Command::new(program("psql"));
            psql.env("PGPASSWORD", "secret").args(["-h", "192.0.2.1", "-U", "owner", "-At"]);
            psql.args(["-c", "select host(inet_client_addr())", "postgres"]);
            let output = psql.output().expect("psql");
            format!("{}{}", text(&output), String::from_utf8_lossy(&output.stderr))
        })
    };
    let (permitted, refused) = (ask("198.51.100.7"), ask("192.0.2.7"));
    kill(server.id() as i32, nix::sys::signal::Signal::SIGQUIT);
    let _ = server.wait();
    assert_eq!(permitted.trim(), "198.51.100.7", "{}", relay.log());
    assert!(refused.contains("pg_hba.conf rejects connection for host \"192.0.2.7\""), "{refused}");
}

#[test]
fn blue_and_green() {
    let title = "Blue and green";
    let Some(servers) = place(&["10.0.0.11", "10.0.0.12", "10.0.0.21", "10.0.0.22"]) else {
        return;
    };
    webs(&servers, &[("10.0.0.11:80", "blue"), ("10.0.0.12:80", "blue")]);
    webs(&servers, &[("10.0.0.21:80", "green"), ("10.0.0.22:80", "green")]);
    let relay = launch("Blue and green").start();
    for _ in 0..4 {
        assert_eq!(get("198.51.100.7"), "blue");
        assert_eq!(get("10.0.0.5"), "green");
    }
    let folder = relay.directory.path().display().to_string();
    let script = moved(&block(title, "sh"))
        .replace("@CFG@", &format!("{folder}/relay.cfg"))
        .replace("@DIR@", &folder)
        .replace("tcprelay -P", &format!("{} -P", TCPRELAY));
    run(ours("sh").args(["-e", "-c", &script]));
    wait_for("the reload", || (get("198.51.100.7") == "green").then_some(()));
    for _ in 0..4 {
        assert_eq!(get("198.51.100.7"), "green");
    }
}

#[test]
fn a_canary() {
    let Some(servers) = place(&["10.0.0.11", "10.0.0.21"]) else {
        return;
    };
    named(&servers, "10.0.0.11:80", "old");
    named(&servers, "10.0.0.21:80", "new");
    let _relay = launch("A canary by weight").start();
    let mut counts = BTreeMap::<String, usize>::new();
    let mut open = Vec::new();
    for _ in 0..100 {
        let mut stream = TcpStream::connect("192.0.2.1:80").expect("the relay");
        let mut name = [0; 3];
        stream.read_exact(&mut name).expect("a name");
        *counts.entry(String::from_utf8_lossy(&name).into_owned()).or_default() += 1;
        open.push(stream);
    }
    assert_eq!((counts["old"], counts["new"]), (95, 5));
}

#[test]
fn limits() {
    let Some(servers) = place(&["10.0.0.11"]) else {
        return;
    };
    named(&servers, "10.0.0.11:80", "web");
    let _relay = launch("A limit for each client").start();
    let connect = |address: &str| {
        let mut stream = TcpStream::connect(address).expect("the relay");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let mut name = [0; 3];
        stream.read_exact(&mut name).ok().map(|()| stream)
    };
    let open: Vec<_> = (0..20).map(|_| connect("192.0.2.1:80").expect("a place")).collect();
    for _ in 0..5 {
        assert!(connect("192.0.2.1:80").is_none());
    }
    // Another client, and one that is exempt.
    assert!(connect("198.51.100.7:80").is_some());
    let exempt: Vec<_> = (0..30).map(|_| connect("10.0.0.5:80").expect("a place")).collect();
    drop((open, exempt));
    wait_for("a place", || connect("192.0.2.1:80"));
    // A hundred at once, one of which was used, and ten in a second.
    let start = Instant::now();
    let served = (0..150).filter(|_| connect("198.51.100.7:80").is_some()).count();
    let most = 101 + start.elapsed().as_secs() as usize * 10 + 10;
    assert!((99..=most).contains(&served), "{served} of {most}");
}

#[test]
fn a_cloud_balancer() {
    let Some(servers) = place(&["10.0.0.11"]) else {
        return;
    };
    named(&servers, "10.0.0.11:80", "web");
    let relay = launch("Behind a cloud balancer").start();
    // Who comes to 10.0.0.5 comes from there.
    let ask = |address: &str, client: &str| {
        let mut stream = TcpStream::connect(address).expect("the relay");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let _ = write!(stream, "PROXY TCP4 {client} 192.0.2.1 5000 80\r\n");
        let mut name = [0; 3];
        stream.read_exact(&mut name).is_ok()
    };
    assert!(ask("10.0.0.5:80", "198.51.100.99"));
    assert!(!ask("10.0.0.5:80", "203.0.113.5"));
    assert!(!ask("198.51.100.7:80", "198.51.100.99"));
    relay.expect_log("access: client [198.51.100.99]:5000");
    relay.expect_log("rejected by route 1 route 1 (from 203.0.113.5)");
}

#[test]
fn client_certificates() {
    let Some(_servers) = place(&[]) else {
        return;
    };
    let launch = launch("Client certificates in front of Redis");
    let folder = launch.directory.path().to_owned();
    let (authority, ours) = (Identity::authority("clients"), Identity::own(&["redis.example.org"]));
    authority.write(&folder, "clients-ca");
    ours.write(&folder, "redis");
    let client = authority.sign(&["client"], pki::ec_key());
    client.write(&folder, "client");
    Identity::own(&["client"]).write(&folder, "stranger");
    fs::copy(folder.join("redis.pem"), folder.join("ca.pem")).expect("a copy");
    let mut redis = Command::new(program("redis-server"));
    redis.args(["--port", "0", "--save", "", "--dir"]).arg(&folder);
    redis.arg("--unixsocket").arg(folder.join("redis.sock"));
    let mut server = redis.stdout(std::process::Stdio::null()).spawn().expect("redis");
    wait_for("redis", || folder.join("redis.sock").exists().then_some(()));
    let relay = launch.start();
    let printed = block("Client certificates in front of Redis", "sh");
    let ask = |who: &str| {
        // The name is not in the hosts file.
        let command = printed
            .replace("client.", &format!("{who}."))
            .replace("-h redis.example.org", "-h 192.0.2.1 --sni redis.example.org");
        let output = Command::new("sh").args(["-c", &command]).current_dir(&folder).output();
        text(&output.expect("redis-cli"))
    };
    let answers = (ask("client"), ask("stranger"));
    kill(server.id() as i32, nix::sys::signal::Signal::SIGTERM);
    let _ = server.wait();
    assert_eq!(answers.0.trim(), "PONG", "{}", relay.log());
    assert!(!answers.1.contains("PONG"), "{}", answers.1);
}

#[test]
fn a_spare() {
    let Some(servers) = place(&["10.0.0.11", "10.0.0.12", "10.0.0.99"]) else {
        return;
    };
    let [first, second] = [(); 2].map(|()| Arc::new(AtomicBool::new(true)));
    web(&servers, "10.0.0.11:80", "first", &first);
    web(&servers, "10.0.0.12:80", "second", &second);
    webs(&servers, &[("10.0.0.99:80", "sorry")]);
    let _relay = launch("A spare server and a maintenance page").start();
    let all = |wanted: &str| {
        let answers: Vec<String> = (0..4).map(|_| get("198.51.100.7")).collect();
        answers.iter().all(|one| wanted.split(' ').any(|name| name == one)).then_some(())
    };
    assert!(all("first second").is_some());
    first.store(false, Ordering::SeqCst);
    wait_for("the first to be noticed", || all("second"));
    second.store(false, Ordering::SeqCst);
    wait_for("the second to be noticed", || all("sorry"));
    first.store(true, Ordering::SeqCst);
    wait_for("the first to be back", || all("first"));
}
