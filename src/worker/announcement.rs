//! What a remote with `proxy protocol` is told about a client.

use super::access::Access;
use super::client::{KnownClient, Speech};
use crate::os::socket::Addressed;
use crate::os::Socket;
use crate::tls::summary::Summary;
use crate::upstream::proxy::{Certificate, Header, Origin, Tls};
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::LazyLock;

/// The header for a client. What a proxy before us has said about it is passed on, as far as it is
/// not for us to say.
pub(super) fn announcement(
    socket: &Socket,
    client: Option<&KnownClient>,
    access: Option<&Access>,
) -> Header {
    let received = client.and_then(|client| client.introduction.as_deref());
    let summary = client.and_then(|client| client.stream()?.summary());
    let bytes = |text: &String| text.clone().into_bytes();
    let received_id = received.and_then(|header| header.unique_id.clone());
    let mut header = Header {
        origin: match received {
            Some(Header { origin: origin @ Origin::Client { .. }, .. }) => origin.clone(),
            _ => own_origin(socket),
        },
        alpn: received.and_then(|header| header.alpn.clone()),
        authority: received.and_then(|header| header.authority.clone()),
        unique_id: received_id.or_else(|| match access {
            Some(access) => Some(access.id.get_or_init(new_id).clone().into_bytes()),
            None => Some(new_id().into_bytes()),
        }),
        tls: received.and_then(|header| header.tls.clone()),
    };
    // With TLS that is passed on, it is not known yet what will be negotiated.
    if let Some(KnownClient { speech: Speech::Sealed(_, offer), .. }) = client {
        header.authority = offer.server_name.as_ref().map(bytes).or(header.authority);
    }
    if let Some(summary) = summary {
        header.alpn = summary.protocol.as_ref().map(bytes);
        header.authority = summary.server_name.as_ref().map(bytes);
        header.tls = Some(tls(summary));
    }
    header
}

/// The addresses of the connection itself.
fn own_origin(client: &Socket) -> Origin {
    match (client.peer_address(), client.local_address()) {
        (Some(source), Some(destination)) => Origin::Client { source, destination },
        _ => Origin::Unknown,
    }
}

fn tls(summary: &Summary) -> Tls {
    let bytes = |text: &String| text.clone().into_bytes();
    Tls {
        version: bytes(&summary.version),
        cipher: (!summary.cipher.is_empty()).then(|| bytes(&summary.cipher)),
        common_name: summary.common_name.as_ref().map(bytes),
        certificate: match summary.certificate {
            None => Certificate::None,
            Some(_) if summary.resumed => Certificate::OfSession,
            Some(_) => Certificate::Presented,
        },
        verified: summary.verified,
    }
}

/// An id that no other connection has, here or elsewhere, as good as certain.
fn new_id() -> String {
    static PROCESS: LazyLock<u64> = LazyLock::new(|| RandomState::new().build_hasher().finish());
    static COUNT: AtomicU64 = AtomicU64::new(0);
    format!("{:016x}-{:x}", *PROCESS, COUNT.fetch_add(1, Ordering::Relaxed))
}
