use std::io;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tracing::subscriber::with_default;
use tracing::{debug, info, info_span, warn};

use super::*;

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What is logged in JSON while `body` runs.
fn logged(level: &str, body: impl FnOnce(&LevelHandle)) -> Vec<Value> {
    let lines = Lines::default();
    let writer = lines.clone();
    let (filter, handle) = reloadable(level).unwrap();
    let layer = json_lines(move || writer.clone());
    with_default(Registry::default().with(filter).with(layer), || {
        body(&handle)
    });
    let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn a_line_has_the_fields_of_the_contract_and_those_of_its_spans() {
    let lines = logged("info", |_| {
        let outer = info_span!(
            "request",
            tenant.id = "demo",
            request.id = 7,
            outcome = "ok"
        );
        let _outer = outer.entered();
        warn!(outcome = "deny", is_late = true, reason = %"said \"no\"", "refused\nfor a reason");
    });
    let mut line = lines[0].clone();
    let ts = line.as_object_mut().unwrap().remove("ts").unwrap();
    assert!(ts.as_str().unwrap().ends_with('Z'), "{ts}");
    assert_eq!(
        line,
        json!({
            "level": "WARN", "message": "refused\nfor a reason", "svc": "freshet",
            "src": "freshet_gateway::logging::tests", "tenant.id": "demo", "request.id": 7,
            "outcome": "deny", "is_late": true, "reason": "said \"no\"",
        })
    );
}

#[test]
fn no_field_takes_the_place_of_the_level_or_the_service() {
    let lines = logged("info", |_| {
        let _span = info_span!("outer", message = "of the span", svc = "other").entered();
        info!(level = "none", src = "elsewhere", "mine");
    });
    assert_eq!(lines[0]["message"], "mine");
    assert_eq!(lines[0]["svc"], "freshet");
    assert_eq!(lines[0]["level"], "INFO");
    assert_eq!(lines[0]["src"], "freshet_gateway::logging::tests");
}

/// So librdkafka's lines come: by `log`, whose bridge puts where they are from into fields.
#[test]
fn a_line_of_a_library_that_uses_log_says_where_it_is_from_in_src_alone() {
    let lines = logged("info", |_| {
        warn!(
            target: "log",
            {
                log.target = "librdkafka",
                log.module_path = "rdkafka::client",
                log.file = "/home/someone/client.rs",
                log.line = 7,
            },
            "a broker is gone"
        );
    });
    let mut line = lines[0].clone();
    line.as_object_mut().unwrap().remove("ts");
    assert_eq!(
        line,
        json!({
            "level": "WARN", "message": "a broker is gone", "svc": "freshet", "src": "librdkafka",
        })
    );
}

#[test]
fn the_level_changes_while_running() {
    let lines = logged("info", |handle| {
        debug!("too fine");
        handle.set("debug").unwrap();
        debug!("fine");
        assert_eq!(handle.current(), "debug");
        handle.set("warn,freshet_gateway::logging=info").unwrap();
        debug!("too fine again");
        info!("by its own directive");
    });
    let messages: Vec<_> = lines.iter().map(|line| line["message"].clone()).collect();
    assert_eq!(messages, ["fine", "by its own directive"]);
}

#[test]
fn a_directive_that_is_not_one_changes_nothing() {
    let lines = logged("info", |handle| {
        for wrong in ["", " ", "freshet=loudly", "info,=="] {
            let refused = handle.set(wrong);
            assert!(
                matches!(refused, Err(LoggingError::Directive { .. })),
                "{wrong:?}"
            );
        }
        assert_eq!(handle.current(), "info");
        info!("still here");
    });
    assert_eq!(lines.len(), 1);
}
