//! Clients with TLS.

use openssl::ssl::{SslConnector, SslMethod, SslVerifyMode, SslVersion};

/// A client that offers these protocols, if there are any, and this version. It accepts any server.
pub fn client(protocols: &[u8], version: SslVersion) -> SslConnector {
    let mut builder = SslConnector::builder(SslMethod::tls_client()).expect("a client");
    builder.set_verify(SslVerifyMode::NONE);
    builder.set_min_proto_version(Some(version)).expect("a version");
    builder.set_max_proto_version(Some(version)).expect("a version");
    if !protocols.is_empty() {
        builder.set_alpn_protos(protocols).expect("protocols");
    }
    builder.build()
}
