//! The ways a session's bytes may take: event mechanism, splicing, TLS.

use super::*;

/// An event mechanism, and what the data passes through.
#[derive(Clone, Copy)]
pub struct Way {
    pub mechanism: &'static str,
    pub tls: Option<Tls>,
    /// Further directives of the worker's section.
    pub directives: &'static str,
}

/// How TLS is used.
#[derive(Clone, Copy)]
pub struct Tls {
    pub name: &'static str,
    /// The versions of the listener.
    pub versions: &'static str,
    /// Further directives of the worker's section.
    pub directives: &'static str,
}

pub const TLS: [Tls; 4] = [
    Tls { name: "TLS 1.3", versions: "TLSv1.3", directives: "" },
    Tls { name: "TLS 1.2", versions: "TLSv1.2", directives: "" },
    Tls { name: "TLS 1.3 by OpenSSL", versions: "TLSv1.3", directives: "tls records = openssl\n" },
    // Where the kernel cannot, this behaves as plain TLS 1.3. `make test-vm` boots a kernel that
    // can.
    Tls { name: "TLS 1.3 in the kernel", versions: "TLSv1.3", directives: KERNEL },
];
pub const KERNEL: &str = "tls kernel = yes\n";

/// Values of `splice` other than the default, which decides by the amount of data.
pub const SPLICE: [&str; 2] = ["splice = always\n", "splice = never\n"];

impl From<&'static str> for Way {
    fn from(mechanism: &'static str) -> Way {
        Way { mechanism, tls: None, directives: "" }
    }
}

/// One worker in front of `section`, on a port of its own. With TLS, a second relay stands between
/// the client and that worker and turns plain TCP into TLS. So a test needs no TLS itself, and both
/// ends of the relay's TLS are tested.
pub fn through(way: impl Into<Way>, section: &str) -> (Relay, u16) {
    let way = way.into();
    let Some(tls) = way.tls else {
        let (launch, port) = relay(format!("{}{section}", way.directives)).launch();
        return (launch.mechanism(way.mechanism).start(), port);
    };
    let files = Directory::new();
    let identity = pki::Identity::own(&["localhost", "127.0.0.1"]);
    let directives = identity.directives(files.path(), "relay");
    let (launch, port) = relay(format!("{section}\n{directives}{}", tls.directives))
        .listen(&format!("tls = {}", tls.versions))
        .launch();
    let mut behind = launch.mechanism(way.mechanism).start();
    let remote = format!(
        "remote = {{ address = 127.0.0.1 port = {port} tls = yes tls ca-file = {} {} }}",
        files.file("relay.pem").display(),
        if tls.directives == KERNEL { "" } else { tls.directives }
    );
    let front_section = format!("{remote}\n{}", if tls.directives == KERNEL { KERNEL } else { "" });
    let (launch, front) = relay(front_section).launch();
    behind.companions.push(launch.mechanism(way.mechanism).start());
    (behind, front)
}

/// Runs a test for each mechanism and each way for the data. TCPRELAY_TEST_WAY limits it to the
/// ways with TLS whose name contains that text.
pub fn each(test: impl Fn(Way)) {
    let only = std::env::var("TCPRELAY_TEST_WAY").ok();
    for (index, (mechanism, name)) in mechanisms().into_iter().enumerate() {
        if only.is_none() {
            eprintln!("--- {name}");
            test(mechanism.into());
            // Of the emulations only kqueue runs these; the rest of them is covered by the native
            // mechanisms.
            let splice = if cfg!(event_shims) && name != "kqueue" { &[][..] } else { &SPLICE };
            for &directives in splice {
                eprintln!("--- {name}, {directives}");
                test(Way { directives, ..mechanism.into() });
            }
        }
        // One native mechanism runs all kinds of TLS, the others only the first.
        let most = if index == 0 && !cfg!(event_shims) { TLS.len() } else { 1 };
        let chosen = |tls: &&Tls| only.as_ref().is_none_or(|only| tls.name.contains(only));
        for &tls in TLS.iter().take(most).filter(chosen) {
            eprintln!("--- {name}, {}", tls.name);
            test(Way { tls: Some(tls), ..mechanism.into() });
        }
    }
}
