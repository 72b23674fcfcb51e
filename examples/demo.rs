//! `make demo`: the relay on an embedded configuration, in front of two small local servers.
//!
//! Nothing outside this machine is used, nothing is left behind.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{fs, io, thread};

/// The embedded default.
const CONFIGURATION: &str = "\
id = spawnd {
    listen = { address = 127.0.0.1 port = @LISTEN@ }
    spawn { instances min = 1 instances max = 2 }
}
id = tcprelay {
    # The second one gets two sessions for each of the first.
    remote = { address = 127.0.0.1 port = @ONE@ weight = 1 }
    remote = { address = 127.0.0.1 port = @TWO@ weight = 2 }
    access log = yes
}
";

fn main() -> io::Result<()> {
    let (one, two) = (serve("one")?, serve("two")?);
    let listen = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let configuration = CONFIGURATION
        .replace("@LISTEN@", &listen.to_string())
        .replace("@ONE@", &one.to_string())
        .replace("@TWO@", &two.to_string());
    println!("The configuration:\n\n{configuration}");

    let directory = std::env::temp_dir().join(format!("tcprelay-demo-{}", std::process::id()));
    fs::create_dir_all(&directory)?;
    let result = show(&directory, &configuration, listen);
    fs::remove_dir_all(&directory)?;
    result
}

/// Starts the relay, sends traffic through it, and ends it.
fn show(directory: &Path, configuration: &str, port: u16) -> io::Result<()> {
    let file = directory.join("tcprelay.cfg");
    let log = directory.join("log");
    fs::write(&file, configuration)?;
    // The example stands in target/PROFILE/examples, the program in target/PROFILE.
    let program = std::env::current_exe()?
        .parent()
        .and_then(Path::parent)
        .map(|profile| profile.join("tcprelay"))
        .ok_or_else(|| io::Error::other("where is tcprelay?"))?;
    println!("$ {} -f {}\n", program.display(), file.display());
    let relay = Command::new(program)
        .arg("-f")
        .arg(&file)
        .env("TCPRELAY_LOG_STDERR", "1")
        .stdin(Stdio::null())
        .stderr(fs::File::create(&log)?)
        .spawn()?;
    let mut relay = Killed(relay);
    wait_for(|| {
        let text = fs::read_to_string(&log).ok()?;
        (text.matches("is being used").count() == 2).then_some(())
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

    // An orderly end: the broker leaves at once, the workers when their sessions have ended.
    let pid = relay.0.id().to_string();
    Command::new("kill").arg(pid).status()?;
    let status = relay.0.wait()?;
    let text = wait_for(|| {
        fs::read_to_string(&log).ok().filter(|text| text.contains("no longer needed"))
    })?;
    println!("\nWhat the relay logged:\n");
    for line in text.lines() {
        println!("  {line}");
    }
    println!("\nIt ended with {status}. The manual: tcprelay(8) and tcprelay.cfg(5) in man/.");
    Ok(())
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
