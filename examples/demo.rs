//! `make demo`: the relay on an embedded configuration, in front of two small local servers.
//!
//! Nothing outside this machine is used, nothing is left behind.

use openssl::asn1::Asn1Time;
use openssl::bn::{BigNum, MsbOption};
use openssl::ec::{EcGroup, EcKey};
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::PKey;
use openssl::ssl::{SslConnector, SslMethod};
use openssl::x509::extension::{BasicConstraints, SubjectAlternativeName};
use openssl::x509::{X509Name, X509};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{fs, io, thread};

/// The embedded default.
const CONFIGURATION: &str = "\
id = spawnd {
    listen = { address = 127.0.0.1 port = @LISTEN@ }
    listen = { address = 127.0.0.1 port = @TLS@ tls = yes }
    # What it does, as a page and as metrics.
    status = { address = 127.0.0.1 port = @STATUS@ }
    # For tcprelayctl.
    control = { path = @DIRECTORY@/control }
    spawn { instances min = 1 instances max = 2 }
}
id = tcprelay {
    # The second one gets two sessions for each of the first.
    remote = { address = 127.0.0.1 port = @ONE@ weight = 1 }
    remote = { address = 127.0.0.1 port = @TWO@ weight = 2 }
    # The key may belong to root: the broker reads it, not the workers.
    tls cert-file = \"@DIRECTORY@/cert.pem\"
    tls key-file = \"@DIRECTORY@/key.pem\"
    access log = yes
}
";

fn main() -> io::Result<()> {
    let (one, two) = (serve("one")?, serve("two")?);
    let ports = {
        let bind = || TcpListener::bind("127.0.0.1:0");
        let (plain, tls, status) = (bind()?, bind()?, bind()?);
        [plain.local_addr()?.port(), tls.local_addr()?.port(), status.local_addr()?.port()]
    };
    let directory = std::env::temp_dir().join(format!("tcprelay-demo-{}", std::process::id()));
    let configuration = CONFIGURATION
        .replace("@LISTEN@", &ports[0].to_string())
        .replace("@TLS@", &ports[1].to_string())
        .replace("@STATUS@", &ports[2].to_string())
        .replace("@ONE@", &one.to_string())
        .replace("@TWO@", &two.to_string())
        .replace("@DIRECTORY@", &directory.to_string_lossy());
    println!("The configuration:\n\n{configuration}");

    fs::create_dir_all(&directory)?;
    let result = show(&directory, &configuration, ports);
    fs::remove_dir_all(&directory)?;
    result
}

/// Starts the relay, sends traffic through it, and ends it.
fn show(
    directory: &Path,
    configuration: &str,
    [port, tls_port, status]: [u16; 3],
) -> io::Result<()> {
    let file = directory.join("tcprelay.cfg");
    let log = directory.join("log");
    fs::write(&file, configuration)?;
    make_certificate(directory)?;
    // The example stands in target/PROFILE/examples, the program in target/PROFILE.
    let program = std::env::current_exe()?
        .parent()
        .and_then(Path::parent)
        .map(|profile| profile.join("tcprelay"))
        .ok_or_else(|| io::Error::other("where is tcprelay?"))?;
    println!("$ {} -f {}\n", program.display(), file.display());
    let relay = Command::new(&program)
        .arg("-f")
        .arg(&file)
        .env("TCPRELAY_LOG_STDERR", "1")
        .stdin(Stdio::null())
        .stderr(fs::File::create(&log)?)
        .spawn()?;
    let mut relay = Killed(relay);
    wait_for(|| {
        let text = fs::read_to_string(&log).ok()?;
        (text.matches("is being used").count() >= 3).then_some(())
    })?;

    println!("Six sessions at once through 127.0.0.1:{port}:\n");
    let mut sessions = Vec::new();
    for number in 1..=6 {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.write_all(format!("hello {number}\n").as_bytes())?;
        let mut answer = [0; 18];
        stream.read_exact(&mut answer)?;
        print!("  session {number}: {}", String::from_utf8_lossy(&answer));
        sessions.push(stream);
    }
    for stream in sessions {
        stream.shutdown(Shutdown::Write)?;
    }

    let start = Instant::now();
    let bytes = bulk(port)?;
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "\n{} MiB sent, half-closed, and received again unchanged in {seconds:.2} s.",
        bytes >> 20
    );

    over_tls(directory, tls_port)?;
    look(status)?;

    // An orderly end: the broker leaves at once, the workers when their sessions have ended.
    let control = directory.join("control");
    for command in ["show", "stop"] {
        println!("\n$ tcprelayctl -s {} {command}\n", control.display());
        let program = program.with_file_name("tcprelayctl");
        Command::new(program).arg("-s").arg(&control).arg(command).status()?;
    }
    let status = relay.0.wait()?;
    let text = wait_for(|| {
        fs::read_to_string(&log).ok().filter(|text| text.contains("no longer needed"))
    })?;
    println!("\nWhat the relay logged:\n");
    for line in text.lines() {
        println!("  {line}");
    }
    println!("\nIt ended with {status}. The manual: tcprelay(8), tcprelay.cfg(5) and tcprelayctl(8) in man/.");
    Ok(())
}

/// Some of the metrics, and where the page is.
fn look(port: u16) -> io::Result<()> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    println!("\nThe status page is http://127.0.0.1:{port}/; from its metrics:\n");
    let shown = ["tcprelay_remote_up", "tcprelay_remote_sessions", "tcprelay_tls_handshakes"];
    let shown =
        |line: &&str| shown.iter().any(|name| line.starts_with(name)) && !line.ends_with(" 0");
    text.lines().filter(shown).for_each(|line| println!("  {line}"));
    Ok(())
}

/// One request over TLS, by a client that trusts nothing but the certificate of the relay.
fn over_tls(directory: &Path, port: u16) -> io::Result<()> {
    let mut connector = SslConnector::builder(SslMethod::tls_client())?;
    connector.set_ca_file(directory.join("cert.pem"))?;
    let stream = TcpStream::connect(("127.0.0.1", port))?;
    // The name is asked for, and must be in the certificate.
    let mut stream = connector.build().connect("localhost", stream).map_err(io::Error::other)?;
    stream.write_all(b"hello over TLS\n")?;
    let mut answer = [0; 25];
    stream.read_exact(&mut answer)?;
    let cipher = stream.ssl().current_cipher().map_or("no cipher", |cipher| cipher.name());
    println!("\nOne session over TLS through 127.0.0.1:{port}, with the certificate verified:\n");
    println!("  {} {cipher}", stream.ssl().version_str());
    print!("  {}", String::from_utf8_lossy(&answer));
    // The end of our direction; the server's follows.
    stream.shutdown().map_err(io::Error::other)?;
    match stream.read(&mut answer)? {
        0 => Ok(()),
        _ => Err(io::Error::other("more than was expected")),
    }
}

/// A certificate for localhost that is its own authority, and its key; good for a day.
fn make_certificate(directory: &Path) -> io::Result<()> {
    let make = || -> Result<(Vec<u8>, Vec<u8>), ErrorStack> {
        let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1)?;
        let key = PKey::from_ec_key(EcKey::generate(&group)?)?;
        let mut name = X509Name::builder()?;
        name.append_entry_by_nid(Nid::COMMONNAME, "localhost")?;
        let name = name.build();
        let mut serial = BigNum::new()?;
        serial.rand(100, MsbOption::MAYBE_ZERO, false)?;
        let mut builder = X509::builder()?;
        builder.set_version(2)?;
        builder.set_serial_number(&*serial.to_asn1_integer()?)?;
        builder.set_subject_name(&name)?;
        builder.set_issuer_name(&name)?;
        builder.set_pubkey(&key)?;
        builder.set_not_before(&*Asn1Time::days_from_now(0)?)?;
        builder.set_not_after(&*Asn1Time::days_from_now(1)?)?;
        builder.append_extension(BasicConstraints::new().critical().ca().build()?)?;
        let names = SubjectAlternativeName::new()
            .dns("localhost")
            .build(&builder.x509v3_context(None, None))?;
        builder.append_extension(names)?;
        builder.sign(&key, MessageDigest::sha256())?;
        Ok((builder.build().to_pem()?, key.private_key_to_pem_pkcs8()?))
    };
    let (certificate, key) = make()?;
    fs::write(directory.join("cert.pem"), certificate)?;
    let mut options = fs::OpenOptions::new();
    let mut file =
        options.write(true).create_new(true).mode(0o600).open(directory.join("key.pem"))?;
    file.write_all(&key)
}

/// Sends 64 MiB through the relay and back.
fn bulk(port: u16) -> io::Result<usize> {
    let data: Vec<u8> = (0..64u32 << 20).map(|n| (n ^ (n >> 8) ^ (n >> 17)) as u8).collect();
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    let mut writer = stream.try_clone()?;
    let sent = data.clone();
    let sender = thread::spawn(move || {
        writer.write_all(&sent)?;
        writer.shutdown(Shutdown::Write)
    });
    let mut name = [0; 10];
    stream.read_exact(&mut name)?;
    let mut received = Vec::with_capacity(data.len());
    stream.read_to_end(&mut received)?;
    sender.join().map_err(|_| io::Error::other("the sender failed"))??;
    if received != data {
        return Err(io::Error::other("the data came back changed"));
    }
    Ok(received.len())
}

/// A server that says its name and sends back what it gets; returns its port.
fn serve(name: &'static str) -> io::Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || answer(stream, name));
        }
    });
    Ok(port)
}

fn answer(mut stream: TcpStream, name: &str) -> io::Result<()> {
    let mut buffer = vec![0; 65536];
    let mut greeted = false;
    loop {
        let count = stream.read(&mut buffer)?;
        if !greeted {
            greeted = true;
            stream.write_all(format!("from {name}: ").as_bytes())?;
        }
        if count == 0 {
            return stream.shutdown(Shutdown::Write);
        }
        stream.write_all(&buffer[..count])?;
    }
}

fn wait_for<T>(mut condition: impl FnMut() -> Option<T>) -> io::Result<T> {
    let end = Instant::now() + Duration::from_secs(10);
    while Instant::now() < end {
        if let Some(value) = condition() {
            return Ok(value);
        }
        thread::sleep(Duration::from_millis(10));
    }
    Err(io::Error::other("timed out"))
}

/// Killed, if the demonstration fails on the way.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
