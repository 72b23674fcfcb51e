//! Which remotes a session may go to: the first route that matches decides.

use super::client::KnownClient;
use super::session::{Next, Session};
use super::shared::Shared;
use crate::config::route::{Name, Route, Routes, Target};
use crate::os::address::{Address, ScopedIp};
use crate::os::log;
use crate::os::socket::Addressed;
use crate::upstream::registry::Tag;
use crate::upstream::zone::counters::Refusal;

/// What is known of a session before it has a remote.
#[derive(Clone, Debug, Default)]
struct Facts<'a> {
    /// The `realm` of the listener.
    realm: &'a [u8],
    /// The server name that the client asks for, in lower case and without a final dot.
    server_name: Option<String>,
    /// The application protocols that the client offers, or the one that was negotiated.
    protocols: Vec<&'a [u8]>,
    /// `None` for clients of UNIX sockets.
    client: Option<ScopedIp>,
    /// The port that the client has connected to.
    port: Option<u16>,
}

/// The route that decides and its number, from 1; `None` for the default.
fn choose<'a>(routes: &'a Routes, facts: &Facts<'_>) -> Option<(usize, &'a Route)> {
    (1..).zip(&routes.list).find(|(_, route)| holds(route, facts))
}

fn holds(route: &Route, facts: &Facts<'_>) -> bool {
    fn any<T>(list: &[T], matches: impl Fn(&T) -> bool) -> bool {
        list.is_empty() || list.iter().any(matches)
    }
    any(&route.listeners, |realm| realm.as_bytes() == facts.realm)
        && any(&route.names, |name| {
            facts.server_name.as_ref().is_some_and(|known| is_named(known, name))
        })
        && any(&route.protocols, |protocol| facts.protocols.contains(&protocol.as_bytes()))
        && any(&route.networks, |network| facts.client.is_some_and(|ip| network.contains(ip)))
        && any(&route.ports, |ports| facts.port.is_some_and(|port| ports.contains(&port)))
}

fn is_named(known: &str, name: &Name) -> bool {
    match name {
        Name::Exact(name) => known == name,
        Name::Below(suffix) => known.len() > suffix.len() && known.ends_with(suffix),
    }
}

/// Why a route has matched, for the access log: each condition, with what fulfilled it.
fn reason(route: &Route, facts: &Facts<'_>) -> String {
    let mut reasons = Vec::new();
    if !route.listeners.is_empty() {
        reasons.push(format!("listener {:?}", String::from_utf8_lossy(facts.realm)));
    }
    if let (false, Some(name)) = (route.names.is_empty(), &facts.server_name) {
        reasons.push(format!("sni {name:?}"));
    }
    let offered = |protocol: &&String| facts.protocols.contains(&protocol.as_bytes());
    if let Some(protocol) = route.protocols.iter().find(offered) {
        reasons.push(format!("alpn {protocol:?}"));
    }
    if let (false, Some(client)) = (route.networks.is_empty(), facts.client) {
        reasons.push(format!("from {}", client.ip.to_canonical()));
    }
    if let (false, Some(port)) = (route.ports.is_empty(), facts.port) {
        reasons.push(format!("port {port}"));
    }
    match &reasons[..] {
        [] => String::new(),
        reasons => format!(" ({})", reasons.join(", ")),
    }
}

impl Session {
    /// The tag that the remote of this session must have, by the routes; `None` if any will do. Or
    /// what to do if there is no remote for it.
    pub(super) fn route(
        &mut self,
        client: Option<&KnownClient>,
        realm: u8,
        shared: &Shared,
    ) -> Result<Option<Tag>, Next> {
        let routes = &shared.settings.routes;
        let facts = self.facts(client, &shared.realms[usize::from(realm)], routes)?;
        let (name, target) = match choose(routes, &facts) {
            Some((number, route)) => (number.to_string(), &route.target),
            None => ("default".to_owned(), &routes.default),
        };
        if let Some(access) = &mut self.access {
            let why = choose(routes, &facts).map(|(_, route)| reason(route, &facts));
            access.route = Some(name.clone() + &why.unwrap_or_default());
        }
        match target {
            Target::Any => Ok(None),
            Target::Tag(tag) => match shared.registry.tag(tag) {
                Some(tag) => Ok(Some(tag)),
                None => Err(Next::refuse(Refusal::Route, format!("no remote has the tag {tag:?}"))),
            },
            Target::Reject => {
                let text = format!("rejected by route {name}");
                let address = client.and_then(|client| client.address.clone());
                let address = address.or_else(|| self.client.peer_address());
                let address = address.map_or_else(|| "local".to_owned(), |one| one.to_string());
                log::braked(log::Kind::Denied, || format!("client {address}: {text}"));
                Err(Next::refuse(Refusal::Route, text))
            }
        }
    }

    /// What the routes go by. Fails if the client has broken its connection: it then has no address
    /// any more, and no route may be taken for want of it.
    fn facts<'a>(
        &self,
        client: Option<&'a KnownClient>,
        realm: &'a [u8],
        routes: &Routes,
    ) -> Result<Facts<'a>, Next> {
        let told = client.and_then(KnownClient::told);
        let name = client.and_then(KnownClient::server_name);
        let mut facts = Facts {
            realm: realm.split(|&byte| byte == 0).next().unwrap_or(realm),
            server_name: name.map(|name| name.trim_end_matches('.').to_ascii_lowercase()),
            protocols: client.map(KnownClient::protocols).unwrap_or_default(),
            ..Facts::default()
        };
        if routes.list.iter().any(|route| !route.networks.is_empty()) {
            let known = client.and_then(|client| client.address.clone());
            let address = told.map(|(source, _)| source.clone()).or(known);
            let address = address.or_else(|| self.client.peer_address());
            facts.client = address.as_ref().and_then(Address::scoped_ip);
            if address.is_none() && !matches!(self.client.local_address(), Some(Address::Unix(_))) {
                return Err(Next::client_broke());
            }
        }
        if routes.list.iter().any(|route| !route.ports.is_empty()) {
            let address = told.map(|(_, destination)| destination.clone());
            facts.port = match address.or_else(|| self.client.local_address()) {
                Some(Address::Ip(address)) => Some(address.port()),
                _ => None,
            };
        }
        Ok(facts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::network::parse_network;
    use crate::os::address::Address;

    fn client(text: &str) -> Option<ScopedIp> {
        Address::parse(text).expect("an address").scoped_ip()
    }

    fn routes() -> Routes {
        let network = |text| parse_network(text).expect("a network");
        let tag = |name: &str| Target::Tag(name.into());
        let list = vec![
            Route {
                names: vec![Name::Exact("a.example".into()), Name::Below(".b.example".into())],
                target: tag("web"),
                ..Route::default()
            },
            Route {
                listeners: vec!["inner".into()],
                networks: vec![network("10.0.0.0/8"), network("2001:db8::/32")],
                target: tag("mail"),
                ..Route::default()
            },
            Route { ports: vec![25..=25, 587..=590], target: Target::Reject, ..Route::default() },
            Route { protocols: vec!["h2".into()], target: Target::Any, ..Route::default() },
        ];
        let mut routes = Routes::default();
        (routes.list, routes.default) = (list, tag("rest"));
        routes
    }

    #[test]
    fn the_first_route_whose_conditions_all_hold_decides() {
        let routes = routes();
        let number = |facts: Facts<'_>| choose(&routes, &facts).map(|(number, _)| number);
        let named = |name: &str| Facts { server_name: Some(name.into()), ..Facts::default() };
        for (name, expected) in [
            ("a.example", Some(1)),
            ("x.a.example", None),
            ("b.example", None),
            ("x.b.example", Some(1)),
            ("x.y.b.example", Some(1)),
            ("c.example", None),
        ] {
            assert_eq!(number(named(name)), expected, "{name}");
        }
        let inner = |text| Facts { realm: b"inner", client: client(text), ..Facts::default() };
        assert_eq!(number(inner("10.9.9.9")), Some(2));
        assert_eq!(number(inner("2001:db8::1")), Some(2));
        assert_eq!(number(inner("11.0.0.1")), None);
        assert_eq!(number(Facts { realm: b"outer", ..inner("10.9.9.9") }), None);
        assert_eq!(number(Facts { client: None, ..inner("10.9.9.9") }), None);
        for (port, expected) in [(25, Some(3)), (589, Some(3)), (26, None)] {
            assert_eq!(number(Facts { port: Some(port), ..Facts::default() }), expected);
        }
        let protocols: Vec<&[u8]> = vec![b"http/1.1", b"h2"];
        assert_eq!(number(Facts { protocols, ..Facts::default() }), Some(4));
        assert_eq!(number(Facts::default()), None);
        // An earlier route wins.
        let both = Facts { port: Some(25), ..named("a.example") };
        assert_eq!(number(both), Some(1));
    }

    #[test]
    fn the_reason_has_each_condition_with_what_fulfilled_it() {
        let routes = routes();
        let why = |facts: Facts<'_>| {
            choose(&routes, &facts).map(|(_, route)| reason(route, &facts)).unwrap_or_default()
        };
        let client = client("::ffff:10.9.9.9");
        let inner = Facts { realm: b"inner", client, port: Some(1), ..Facts::default() };
        assert_eq!(why(inner), " (listener \"inner\", from 10.9.9.9)");
        let protocols: Vec<&[u8]> = vec![b"http/1.1", b"h2"];
        assert_eq!(why(Facts { protocols, ..Facts::default() }), " (alpn \"h2\")");
        assert_eq!(why(Facts { port: Some(25), ..Facts::default() }), " (port 25)");
    }
}
