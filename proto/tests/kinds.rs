//! How an event says what kind of publish it is, to old readers and new ones.

use freshet_proto::envelope::{Event, EventBody, PublishKind};

const PUBLISHED: &[u8] = include_bytes!("../../fuzz/corpus/event/published");

fn kind(text: &str) -> PublishKind {
    let event = Event::decode(text.as_bytes()).expect("an event of the right shape");
    match event.body {
        EventBody::Published(published) => published.kind,
        EventBody::AccessChanged { .. } | EventBody::TenantSuspended => {
            panic!("it is about a channel")
        }
    }
}

/// The event of the corpus, with a word for its kind.
fn with_kind(word: &str) -> String {
    let text = std::str::from_utf8(PUBLISHED).expect("JSON is text");
    text.replacen(
        r#""payload":{"#,
        &format!(r#""payload":{{"kind":"{word}","#),
        1,
    )
}

#[test]
fn a_kill_switch_is_a_publish_to_who_does_not_know_it() {
    let text = with_kind("kill_switch");
    assert_eq!(kind(&text), PublishKind::KillSwitch);
    let event = Event::decode(text.as_bytes()).expect("an event of the right shape");
    let written = String::from_utf8(event.encode()).unwrap();
    assert_eq!(kind(&written), PublishKind::KillSwitch);
    assert!(written.contains(r#""eventType":"ConfigVersionPublished""#));
    assert_eq!(kind(&with_kind("a_word_of_tomorrow")), PublishKind::Publish);
}

#[test]
fn a_publish_says_nothing_of_its_kind() {
    let event = Event::decode(PUBLISHED).unwrap();
    let written = String::from_utf8(event.encode()).unwrap();
    assert_eq!(kind(&written), PublishKind::Publish);
    assert!(!written.contains("\"kind\""));
}
