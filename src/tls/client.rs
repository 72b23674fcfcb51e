//! The connecting side, for one remote.

use super::error::{own, Error};
use super::identity::identity;
use super::policy::{self, ciphers, groups, Handler};
use super::stream::Stream;
use super::trust::{self, set_verify, trust};
use crate::config::tls::{RecordLayer, RemoteTls};
use crate::os::tls as library;
use crate::snapshot::material::Material;
use openssl::error::ErrorStack;
use openssl::ssl::{Ssl, SslContext, SslSession, SslSessionCacheMode, SslVerifyMode, SslVersion};
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};

/// The connecting side, for one remote.
pub struct Connector {
    context: SslContext,
    handler: Handler,
    name: Option<String>,
    /// Sessions to resume, the latest last. Encoded, as OpenSSL marks the session that follows a
    /// resumed one as not to be resumed, and encoding drops that mark.
    sessions: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl fmt::Debug for Connector {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Connector {:?}", self.name)
    }
}

/// The most sessions kept for one remote. More than one, as a TLS 1.3 ticket is used only once.
const MOST_SESSIONS: usize = 16;

impl Connector {
    /// Loads certificates and settings. `records` applies if the remote has no such setting of its
    /// own.
    pub fn new(
        settings: &RemoteTls,
        records: RecordLayer,
        material: &Material,
    ) -> Result<Connector, Error> {
        let own = |errors: ErrorStack| own(&errors);
        let mut builder = policy::client_context().map_err(own)?;
        ciphers(&mut builder, settings.ciphers.as_deref(), settings.cipher_suites.as_deref())?;
        groups(&mut builder, settings.groups.as_deref())?;
        if let Some((least, most)) = settings.versions {
            let version = |minor| match minor {
                3 => SslVersion::TLS1_2,
                _ => SslVersion::TLS1_3,
            };
            builder.set_min_proto_version(Some(version(least))).map_err(own)?;
            builder.set_max_proto_version(Some(version(most))).map_err(own)?;
        }
        if !settings.alpn.is_empty() {
            let list: Vec<u8> = settings
                .alpn
                .iter()
                .flat_map(|name| std::iter::once(name.len() as u8).chain(name.bytes()))
                .collect();
            builder.set_alpn_protos(&list).map_err(own)?;
        }
        if !settings.verify && !settings.checks.is_empty() {
            return Err(Error::wrong("tls verify subject, san and spki need tls verify = yes"));
        }
        if settings.verify {
            trust(&mut builder, &settings.authorities, material)?;
        }
        if settings.certificate.chain.is_some() || settings.certificate.key.is_some() {
            identity(&mut builder, &settings.certificate, material)?;
        }
        let verify = if settings.verify { SslVerifyMode::PEER } else { SslVerifyMode::NONE };
        set_verify(&mut builder, verify, &settings.authorities, &settings.checks);
        builder
            .set_session_cache_mode(SslSessionCacheMode::CLIENT | SslSessionCacheMode::NO_INTERNAL);
        let sessions = Arc::new(Mutex::new(Vec::new()));
        let store = sessions.clone();
        builder.set_new_session_callback(move |_, session| {
            if let (Ok(mut sessions), Ok(session)) = (store.lock(), session.to_der()) {
                if sessions.len() == MOST_SESSIONS {
                    sessions.remove(0);
                }
                sessions.push(session);
            }
        });
        Ok(Connector {
            context: builder.build(),
            handler: policy::handler(settings.records.unwrap_or(records)),
            name: settings.server_name.clone(),
            sessions,
        })
    }

    /// Starts a connection.
    pub fn connect(&self) -> Result<Stream, ErrorStack> {
        let mut ssl = Ssl::new(&self.context)?;
        if let Some(name) = &self.name {
            match name.parse::<IpAddr>() {
                Ok(address) => ssl.param_mut().set_ip(address)?,
                Err(_) => {
                    ssl.set_hostname(name)?;
                    ssl.param_mut().set_host(name)?;
                }
            }
        }
        if let Some(session) = self.resumable() {
            library::resume(&mut ssl, &session)?;
        }
        ssl.set_connect_state();
        trust::watch(&mut ssl)?;
        Stream::new(ssl, self.handler)
    }

    /// A session to resume. A TLS 1.3 session is taken out, as its ticket should not be seen twice
    /// (RFC 8446 appendix C.4).
    fn resumable(&self) -> Option<SslSession> {
        let mut sessions = self.sessions.lock().ok()?;
        let last = SslSession::from_der(sessions.last()?).ok()?;
        if last.protocol_version() == SslVersion::TLS1_3 {
            sessions.pop();
        }
        Some(last)
    }
}
