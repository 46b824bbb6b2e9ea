//! Replays the corpus of the fuzz targets through the same functions.

#![expect(clippy::unwrap_used, reason = "the helpers of a test may fail it")]

#[path = "../../fuzz/src/entries.rs"]
#[expect(unreachable_pub, reason = "the fuzz crate exports them")]
mod entries;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use entries::ENTRIES;
use freshet_proto::frame::{ClientFrame, ServerFrame};
use freshet_proto::signature::Signature;
use freshet_proto::timestamp::Timestamp;

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus")
}

fn names(directory: &Path) -> BTreeSet<String> {
    fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

#[test]
fn every_input_of_the_corpus_holds_what_its_entry_checks() {
    let known: BTreeSet<_> = ENTRIES.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(
        names(&corpus()),
        known,
        "a folder for each entry, and no other"
    );
    for (name, entry) in ENTRIES {
        let directory = corpus().join(name);
        let inputs = names(&directory);
        assert!(inputs.len() >= 3, "{name} has too few inputs");
        for input in inputs {
            entry(&fs::read(directory.join(input)).unwrap());
        }
    }
}

#[test]
fn every_entry_has_a_fuzz_target_that_calls_it() {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz");
    let manifest = fs::read_to_string(fuzz.join("Cargo.toml")).unwrap();
    for (name, _) in ENTRIES {
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name}");
        assert!(fuzz.join(format!("targets/{name}.rs")).exists(), "{name}");
    }
}

/// A corpus of refusals alone would replay without reading anything.
#[test]
fn the_corpus_holds_inputs_that_are_read() {
    let read = |path: &str| fs::read(corpus().join(path)).unwrap();
    for name in ["subscribe", "ack", "auth", "ping", "type-escaped"] {
        ClientFrame::decode(&read(&format!("client_frame/{name}"))).unwrap();
    }
    for name in [
        "delta", "snapshot", "resumed", "error", "goaway", "bookmark",
    ] {
        ServerFrame::decode(&read(&format!("server_frame/{name}"))).unwrap();
    }
    freshet_proto::envelope::Event::decode(&read("event/published")).unwrap();
    freshet_proto::envelope::Event::decode(&read("event/access-changed")).unwrap();
    freshet_proto::snapshot::ChannelSnapshot::decode(&read("snapshot/one-key")).unwrap();
    freshet_proto::read::ConfigBody::decode(&read("config_body/body")).unwrap();

    let text = String::from_utf8(read("signature/true")).unwrap();
    let signature: Signature = text.parse().unwrap();
    let channel = entries::channel();
    let key = entries::key();
    let claims = entries::claims(&channel);
    assert_eq!(
        signature.verify(&key.verifying_key(), "demo", &claims),
        Ok(Timestamp::from_millis(0).unwrap())
    );
}
