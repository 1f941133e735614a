#![allow(clippy::unwrap_used)]
use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};

use mesh_model::Key;
use proptest::prelude::*;

use super::*;

fn name(text: &str) -> Name {
    Name::from_labels(text.split('.').filter(|label| !label.is_empty())).unwrap()
}

/// A question as a stub resolver asks it.
fn ask(text: &str, kind: u16, edns: Option<u16>) -> Vec<u8> {
    let mut message = vec![0x12, 0x34, 0x01, 0x00, 0, 1, 0, 0, 0, 0, 0, 0];
    message.extend_from_slice(name(text).wire());
    message.extend_from_slice(&kind.to_be_bytes());
    message.extend_from_slice(&INTERNET.to_be_bytes());
    if let Some(size) = edns {
        message[11] = 1;
        message.extend_from_slice(&[0, 0, 41]);
        message.extend_from_slice(&size.to_be_bytes());
        message.extend_from_slice(&[0, 0, 0x80, 0, 0, 0]);
    }
    message
}

fn parse(message: &[u8]) -> Question {
    Question::parse(message).unwrap()
}

fn addresses() -> Addresses {
    Addresses {
        ip4: Some(Ipv4Addr::new(240, 1, 2, 3)),
        ip6: Some("fd6d:6573:6876::f001:203".parse::<Ipv6Addr>().unwrap()),
    }
}

/// Sixteen bytes a line, as `xxd` writes them.
fn hex(message: &[u8]) -> String {
    let mut text = String::new();
    for line in message.chunks(16) {
        for byte in line {
            let _ = write!(text, "{byte:02x} ");
        }
        let shown = line.iter().map(|byte| match byte {
            0x20..=0x7e => char::from(*byte),
            _ => '.',
        });
        let _ = writeln!(text, " {}", shown.collect::<String>());
    }
    text
}

#[test]
fn answers_to_the_byte() {
    let a = parse(&ask("Web.Virtual.Consul", kind::A, Some(1232)));
    insta::assert_snapshot!("a", hex(&a.addresses(&addresses())));
    let aaaa = parse(&ask("web.virtual.consul", kind::AAAA, None));
    insta::assert_snapshot!("aaaa", hex(&aaaa.addresses(&addresses())));
    let srv = parse(&ask("_web._tcp.service.consul", kind::SRV, None));
    let target = name("web.virtual.consul");
    insta::assert_snapshot!("srv", hex(&srv.service(&target, &addresses())));
    insta::assert_snapshot!("no_data", hex(&aaaa.nothing(Rcode::NoError)));
    insta::assert_snapshot!("no_name", hex(&a.nothing(Rcode::NxDomain)));
    insta::assert_snapshot!("failure", hex(&a.failure(Rcode::ServFail)));
}

#[test]
fn only_what_is_asked_for() {
    let any = parse(&ask("web", kind::ANY, None));
    assert_eq!(any.addresses(&addresses())[7], 2);
    let txt = parse(&ask("web", 16, None)).addresses(&addresses());
    assert_eq!((txt[3] & 0xf, txt[7], txt[9]), (0, 0, 1));
    let only_ip4 = Addresses {
        ip6: None,
        ..addresses()
    };
    let aaaa = parse(&ask("web", kind::AAAA, None)).addresses(&only_ip4);
    assert_eq!((aaaa[3] & 0xf, aaaa[7], aaaa[9]), (0, 0, 1));
}

#[test]
fn meanings() {
    let service = |text: &str| Meaning::Service(Key::of(text));
    for (text, expected) in [
        ("web.virtual.consul", service("web")),
        ("WEB.Service.CONSUL", service("web")),
        ("_web._tcp.service.consul", service("web")),
        ("_web._tcp.consul", service("web")),
        ("web.service.dc1.consul", service("web")),
        ("web.virtual.dc1.dc.consul", service("web")),
        ("_web._tcp.service.dc1.consul", service("web")),
        ("web.virtual.default.ns.consul", service("web")),
        (
            "web.service.team.ns.dc1.dc.consul",
            Meaning::Service(Key::new("team", "web")),
        ),
        ("my_app.virtual.consul", service("my_app")),
        ("web", Meaning::Short(Key::of("web"))),
        ("consul", Meaning::Zone),
        ("virtual.consul", Meaning::Between),
        ("service.dc1.consul", Meaning::Between),
        ("dc1.consul", Meaning::Between),
        // A tag, another datacenter, and what Consul has and the mesh has not.
        ("v1.web.service.consul", Meaning::Absent),
        ("_web._v1.service.consul", Meaning::Absent),
        ("_web._udp.service.consul", Meaning::Absent),
        ("web._tcp.service.consul", Meaning::Absent),
        ("web.service.dc2.consul", Meaning::Absent),
        ("web.service.dc2.dc.consul", Meaning::Absent),
        ("web.node.consul", Meaning::Absent),
        ("web.query.consul", Meaning::Absent),
        ("web.connect.consul", Meaning::Absent),
        ("-web.service.consul", Meaning::Absent),
        ("w\u{e9}b.service.consul", Meaning::Absent),
        ("web.consul", Meaning::Absent),
        ("localhost", Meaning::Other),
        ("_web", Meaning::Other),
        ("web.", Meaning::Short(Key::of("web"))),
        ("web.example.com", Meaning::Other),
        ("web.virtual.consul.example.com", Meaning::Other),
        ("", Meaning::Other),
    ] {
        assert_eq!(meaning(&name(text), "dc1"), expected, "{text}");
    }
}

#[test]
fn what_is_no_question() {
    let good = ask("web.virtual.consul", kind::A, Some(1232));
    let parsed = parse(&good);
    assert_eq!(parsed.name().to_string(), "web.virtual.consul.");
    let edns = Edns {
        size: 1232,
        dnssec: true,
    };
    assert_eq!((parsed.edns(), parsed.udp_limit()), (Some(edns), 1232));

    let changed = |at: usize, byte: u8| {
        let mut message = good.clone();
        message[at] = byte;
        Question::parse(&message)
    };
    let rcode = |parsed: Result<Question, Fault>| match parsed {
        Err(Fault::Answer(answer)) => answer[3] & 0xf,
        other => panic!("{other:?}"),
    };
    for length in 0..HEADER {
        assert_eq!(Question::parse(&good[..length]), Err(Fault::Silence));
    }
    for length in HEADER..good.len() {
        assert_eq!(rcode(Question::parse(&good[..length])), 1, "{length}");
    }
    assert_eq!(changed(2, 0x81), Err(Fault::Silence)); // an answer
    assert_eq!(rcode(changed(2, 0x28)), 4); // an update
    assert_eq!(rcode(changed(5, 2)), 1); // two questions
    assert_eq!(rcode(changed(5, 0)), 1);
    assert_eq!(rcode(changed(7, 1)), 1); // EDNS among the answers
    assert_eq!(rcode(changed(11, 2)), 1); // a record that is not there
    assert_eq!(rcode(changed(HEADER, 0xc0)), 1); // a pointer into the header
    assert_eq!(rcode(changed(HEADER, 0x40)), 1); // no form of a label
    let version = HEADER + name("web.virtual.consul").wire().len() + 4 + 6;
    let Err(Fault::Answer(answer)) = changed(version, 1) else {
        panic!("a version of EDNS that is not known");
    };
    let opt = &answer[answer.len() - 11..];
    assert_eq!((answer[3] & 0xf, opt[5]), (0, 1));
}

#[test]
fn pointers_only_lead_back() {
    // Two names: "a", and one that is "b" and then the first.
    let mut message = vec![0; HEADER];
    message.extend_from_slice(&[1, b'a', 0, 1, b'b', 0xc0, 12]);
    let (read, after) = Name::read(&message, 15).unwrap();
    assert_eq!((read.to_string().as_str(), after), ("b.a.", 19));
    for pointer in [15, 17, 18, 40, 0, 11] {
        message[18] = pointer;
        assert_eq!(Name::read(&message, 15), None, "{pointer}");
    }
    // Each goes back, to the one before; longer than a name may be.
    let mut message = vec![0; HEADER];
    message.extend_from_slice(&[1, b'a', 0]);
    let mut last = HEADER;
    for _ in 0..130 {
        let here = message.len();
        message.extend_from_slice(&[1, b'a', 0xc0 | (last >> 8) as u8, last as u8]);
        last = here;
    }
    assert!(Name::read(&message, last).is_none());
    assert!(Name::read(&message, last - 4 * 10).is_some());
}

#[test]
fn answers_of_others() {
    let asked = parse(&ask("example.com", kind::A, None));
    let mut answer = parse(&ask("EXAMPLE.com", kind::A, None)).addresses(&addresses());
    answer[0] = 0;
    let passed = pass_back(&asked, &answer, 512).unwrap();
    assert_eq!(&passed[..2], &[0x12, 0x34]);
    assert_eq!(passed[2..], answer[2..]);
    let cut = pass_back(&asked, &answer, 40).unwrap();
    assert_eq!((cut[2] & 2, cut[7]), (2, 0));
    assert_eq!(
        &cut[HEADER..],
        &answer[HEADER..HEADER + 17][..].to_ascii_lowercase()
    );
    for other in [
        ask("example.com", kind::A, None),
        parse(&ask("example.org", kind::A, None)).addresses(&addresses()),
        parse(&ask("example.com", kind::AAAA, None)).addresses(&addresses()),
        Vec::new(),
        vec![0; 12],
    ] {
        assert_eq!(pass_back(&asked, &other, 512), None);
    }
}

#[test]
fn questions_of_our_own() {
    let asked = parse(&super::ask(&name("db.example"), kind::A));
    assert_eq!(
        (asked.name().to_string().as_str(), asked.kind()),
        ("db.example.", kind::A)
    );
    let answer = asked.addresses(&addresses());
    let ip4 = std::net::IpAddr::from([240, 1, 2, 3]);
    assert_eq!(addresses_in(&answer), [ip4]);
    // Through another name, and with what is no address.
    let target = name("db.other");
    let srv = parse(&ask("db.example", kind::SRV, None)).service(&target, &addresses());
    assert!(addresses_in(&srv).is_empty());
    let any = parse(&ask("db.example", kind::ANY, None)).addresses(&addresses());
    assert_eq!(addresses_in(&any).len(), 2);
    for cut in 0..answer.len() {
        assert!(addresses_in(&answer[..cut]).is_empty(), "{cut}");
    }
    assert!(addresses_in(&asked.nothing(Rcode::NxDomain)).is_empty());
}

#[test]
fn the_corpus_is_replayed() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/corpus");
    let mut count = 0;
    for file in std::fs::read_dir(folder).unwrap() {
        fuzz(&std::fs::read(file.unwrap().path()).unwrap());
        count += 1;
    }
    assert!(count >= 8, "{count} files");
}

proptest! {
    #[test]
    fn any_bytes(data in proptest::collection::vec(any::<u8>(), 0..600)) {
        fuzz(&data);
    }

    #[test]
    fn damaged_questions(at in 0usize..60, with in any::<u8>(), cut in 0usize..60, kind in any::<u16>()) {
        let mut message = ask("web.service.consul", kind, Some(4096));
        let length = message.len();
        message[at % length] = with;
        fuzz(&message);
        fuzz(&message[..length - cut % length]);
    }

    #[test]
    fn names_keep_their_bytes(labels in proptest::collection::vec("[a-zA-Z0-9_-]{1,63}", 0..5)) {
        if let Some(name) = Name::from_labels(labels.iter().map(String::as_str)) {
            let mut message = vec![0; HEADER];
            message.extend_from_slice(name.wire());
            let (read, after) = Name::read(&message, HEADER).unwrap();
            prop_assert_eq!(&read, &name);
            prop_assert_eq!(after, message.len());
            prop_assert_eq!(Name::skip(&message, HEADER), Some(after));
            let _ = meaning(&name, "dc1");
        }
    }
}

fn hosts(count: u8) -> Vec<Host> {
    let host = |number| {
        let address = Ipv4Addr::new(10, 0, 0, number).into();
        Host {
            address,
            port: 8000 + u16::from(number),
            weight: 1,
            target: name_of(address, "dc1").unwrap(),
        }
    };
    (1..=count).map(host).collect()
}

#[test]
fn instances_to_the_byte() {
    let a = parse(&ask("web.service.consul", kind::A, Some(1232)));
    insta::assert_snapshot!("instances_a", hex(&a.instances(&hosts(2), 1232)));
    let srv = parse(&ask("_web._tcp.service.consul", kind::SRV, None));
    insta::assert_snapshot!("instances_srv", hex(&srv.instances(&hosts(2), 512)));
}

#[test]
fn what_does_not_fit_is_asked_for_over_tcp() {
    let count = |answer: &[u8]| u16::from_be_bytes([answer[6], answer[7]]);
    for (kind, least) in [(kind::A, 20), (kind::SRV, 5)] {
        let asked = parse(&ask("web.service.consul", kind, None));
        let cut = asked.instances(&hosts(200), 512);
        assert!(cut.len() <= 512 && is_truncated(&cut), "{kind}");
        assert!(count(&cut) > least && count(&cut) < 200, "{}", count(&cut));
        let whole = asked.instances(&hosts(200), usize::from(u16::MAX));
        assert!(!is_truncated(&whole) && count(&whole) == 200, "{kind}");
        assert!(asked.is_answered_by(&cut, 0x1234) && asked.is_answered_by(&whole, 0x1234));
    }
    // Two ports of one address are one address.
    let asked = parse(&ask("web.service.consul", kind::A, None));
    let mut twice = hosts(1);
    twice.extend(hosts(1));
    assert_eq!(count(&asked.instances(&twice, 512)), 1);
    // There is no such record: that is said, and that the name is there.
    let aaaa = parse(&ask("web.service.consul", kind::AAAA, None));
    let nothing = aaaa.instances(&hosts(2), 512);
    assert_eq!((nothing[3] & 0xf, count(&nothing)), (0, 0));
    assert!(!is_failure(&nothing));
}

#[test]
fn an_answer_is_of_the_same_id_and_question() {
    let message = ask("example.org", kind::A, None);
    let asked = parse(&message);
    let answer = |name: &str, id: u16| {
        let mut answer = with_id(&ask(name, kind::A, None), id);
        answer[2] |= 0x80;
        answer
    };
    assert!(asked.is_answered_by(&answer("EXAMPLE.org", 9), 9));
    assert!(!asked.is_answered_by(&answer("example.org", 8), 9));
    assert!(!asked.is_answered_by(&answer("example.net", 9), 9));
    assert!(
        !asked.is_answered_by(&with_id(&message, 9), 9),
        "a question"
    );
    let mut other_type = answer("example.org", 9);
    let at = other_type.len() - 3;
    other_type[at] = 28;
    assert!(!asked.is_answered_by(&other_type, 9));
    assert!(!asked.is_answered_by(&[], 9));
}
