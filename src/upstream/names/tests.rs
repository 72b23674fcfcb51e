use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;

fn place(text: &str) -> Place {
    Place::new(text.parse().expect("an address"))
}

fn found(texts: &[&str], lifetime: Option<u32>) -> Answer {
    let places = texts.iter().map(|text| place(text)).collect();
    Answer::Found { places, lifetime, silent: Silent::None }
}

#[test]
fn addresses_join_and_leave() {
    let mut tracker = Tracker::new(60, &[place("192.0.2.1:80"), place("192.0.2.2:80")]);
    let (news, wait) = tracker.hear(found(&["192.0.2.3:80", "192.0.2.2:80"], Some(5)));
    let difference = news.set.expect("news");
    assert_eq!(difference.joined, [place("192.0.2.3:80")]);
    assert_eq!(difference.left, ["192.0.2.1:80".parse().expect("an address")]);
    assert_eq!(wait, 5000);
    // Servers turn their answers; that is no change.
    let (news, _) = tracker.hear(found(&["192.0.2.2:80", "192.0.2.3:80"], Some(5)));
    assert_eq!(news, News::default());
}

#[test]
fn the_time_to_live_has_bounds() {
    let mut tracker = Tracker::new(60, &[]);
    let mut wait = |lifetime| tracker.hear(found(&["192.0.2.1:80"], lifetime)).1;
    assert_eq!(
        [Some(0), Some(7), Some(61), Some(u32::MAX)].map(&mut wait),
        [1000, 7000, 60_000, 60_000]
    );
    assert_eq!(wait(None), 60_000);
}

#[test]
fn what_is_known_stays_and_trouble_is_told_once() {
    let mut tracker = Tracker::new(3600, &[place("192.0.2.1:80")]);
    let before = tracker.set().clone();
    let answers = [
        Answer::Failed("no answer".to_owned()),
        Answer::Nothing,
        found(&["0.0.0.0:80", "224.0.0.1:80", "255.255.255.255:80", "192.0.2.9:0"], Some(5)),
        Answer::Failed("no answer".to_owned()),
        Answer::Nothing,
        Answer::Nothing,
    ];
    let mut waits = Vec::new();
    for (number, answer) in answers.into_iter().enumerate() {
        let (news, wait) = tracker.hear(answer);
        assert_eq!((news.trouble.is_some(), news.set), (number == 0, None));
        waits.push(wait);
    }
    assert_eq!(waits, [1000, 2000, 4000, 8000, 16_000, 30_000]);
    assert_eq!(*tracker.set(), before);
    let (news, _) = tracker.hear(found(&["192.0.2.1:80"], Some(5)));
    assert!(news.recovered && news.set.is_none());
    assert_eq!(tracker.hear(Answer::Nothing).1, 1000);
}

#[test]
fn a_family_that_was_not_answered_for_stays() {
    let mut tracker = Tracker::new(3600, &[place("192.0.2.1:80"), place("[2001:db8::1]:80")]);
    let places = vec![place("192.0.2.2:80")];
    let (news, wait) =
        tracker.hear(Answer::Found { places, lifetime: Some(300), silent: Silent::V6 });
    assert_eq!(news.set.expect("news").left, ["192.0.2.1:80".parse().expect("an address")]);
    assert_eq!(wait, 1000);
    assert_eq!(tracker.set().places(), [place("192.0.2.2:80"), place("[2001:db8::1]:80")]);
}

#[test]
fn the_number_of_addresses_has_a_bound() {
    let many = |count: u32| Answer::Found {
        places: (0..count)
            .map(|n| Place::new(([10, 0, (n >> 8) as u8, n as u8], 80).into()))
            .collect(),
        lifetime: Some(5),
        silent: Silent::None,
    };
    let mut tracker = Tracker::new(60, &[]);
    let surplus = [1000, 1200, 1200, 1000, 1001].map(|count| tracker.hear(many(count)).0.surplus);
    assert_eq!(surplus, [None, Some(200), None, None, Some(1)]);
    assert_eq!(tracker.set().places().len(), MOST);
}

#[test]
fn priorities_become_tiers() {
    let map = tiers(&[20, 10, 20, 65535, 0]);
    assert_eq!(map.into_iter().collect::<Vec<_>>(), [(0, 0), (10, 1), (20, 2), (65535, 3)]);
    let many: Vec<u16> = (0..300).collect();
    assert_eq!(tiers(&many)[&299], LAST_TIER);
}

fn address() -> impl Strategy<Value = SocketAddr> {
    prop_oneof![
        (0u8..4, 0u16..3).prop_map(|(ip, port)| SocketAddr::from(([192, 0, 2, ip], port))),
        (0u8..4, 0u32..2).prop_map(|(ip, scope)| {
            SocketAddrV6::new(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, ip.into()), 80, 0, scope)
                .into()
        }),
    ]
}

fn places() -> impl Strategy<Value = Vec<Place>> {
    let place = (address(), 0u32..3, 0u8..3).prop_map(|(address, weight, tier)| Place {
        address,
        weight,
        tier,
    });
    prop::collection::vec(place, 0..20)
}

fn answers() -> impl Strategy<Value = Answer> {
    let silent = prop_oneof![Just(Silent::None), Just(Silent::V4), Just(Silent::V6)];
    prop_oneof![
        (places(), any::<Option<u32>>(), silent)
            .prop_map(|(places, lifetime, silent)| Answer::Found { places, lifetime, silent }),
        Just(Answer::Nothing),
        Just(Answer::Failed(String::new())),
    ]
}

proptest! {
    /// Doing what a difference says turns the old set into the new one, and nothing is done twice.
    #[test]
    fn a_difference_leads_from_old_to_new(old in places(), new in places()) {
        let (old, new) = (Set::new(old), Set::new(new));
        let difference = compare(old.places(), new.places());
        let mut map: BTreeMap<SocketAddr, Place> =
            old.places().iter().map(|place| (place.address, *place)).collect();
        for address in &difference.left {
            prop_assert!(map.remove(address).is_some());
        }
        for place in &difference.changed {
            prop_assert!(map.insert(place.address, *place).is_some_and(|before| before != *place));
        }
        for place in &difference.joined {
            prop_assert!(map.insert(place.address, *place).is_none());
        }
        let wanted: BTreeSet<Place> = new.places().iter().copied().collect();
        prop_assert_eq!(map.into_values().collect::<BTreeSet<Place>>(), wanted);
    }

    /// Whatever is answered: a set that was there is never empty again, waits are within bounds, and
    /// trouble and recovery take turns.
    #[test]
    fn no_answer_takes_everything_away(
        bound in 1u32..100, start in places(), answers in prop::collection::vec(answers(), 0..40)
    ) {
        let mut tracker = Tracker::new(bound, &start);
        let mut troubled = false;
        for answer in answers {
            let before = tracker.set().clone();
            let (news, wait) = tracker.hear(answer);
            prop_assert!(!tracker.set().places().is_empty() || before.places().is_empty());
            prop_assert!((1000..=u64::from(bound) * 1000).contains(&wait));
            prop_assert!(news.set.is_some() || tracker.set().places() == before.places());
            prop_assert!(!(news.recovered && news.trouble.is_some()));
            prop_assert!(!news.recovered || troubled);
            prop_assert!(news.trouble.is_none() || !troubled);
            troubled = news.trouble.is_some() || troubled && !news.recovered;
        }
    }

    #[test]
    fn words_give_back_what_they_were_made_of(places in places()) {
        for place in Set::new(places).places() {
            prop_assert_eq!(decode(encode(place)), Some(*place));
        }
    }

    /// Any words are a usable address or none.
    #[test]
    fn any_words_are_an_address_or_none(words: [u64; WORDS]) {
        if let Some(place) = decode(words) {
            prop_assert!(is_usable(place.address) && place.tier <= LAST_TIER);
            prop_assert_eq!(decode(encode(&place)), Some(place));
        }
    }
}
