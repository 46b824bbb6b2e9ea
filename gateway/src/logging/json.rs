//! One log line as JSON, with the field names of the contract.

use std::fmt;

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::{FormatEvent, JsonFields, Writer};
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormattedFields};
use tracing_subscriber::registry::LookupSpan;

/// The service's name in `svc`.
const SERVICE: &str = "freshet";

/// The target of events that the bridge from `log` makes. Source: tracing-log.
const BRIDGE: &str = "log";

/// Writes `ts`, `level`, `message`, `svc`, `src`, then the fields of the spans around the event,
/// outermost first, then its own. An inner field wins over an outer one of the same name; none wins
/// over the first five. Source of the names: ledger 2.13.
#[derive(Debug)]
pub(super) struct JsonLine;

impl<S> FormatEvent<S, JsonFields> for JsonLine
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, JsonFields>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut fields = Map::new();
        if let Some(scope) = context.event_scope() {
            for span in scope.from_root() {
                let extensions = span.extensions();
                if let Some(text) = extensions.get::<FormattedFields<JsonFields>>()
                    && let Ok(of_span) = serde_json::from_str::<Map<String, Value>>(text)
                {
                    fields.extend(of_span);
                }
            }
        }
        // Each in its own map, so that a span's `message` is not taken for the event's.
        let mut own = Fields(Map::new());
        event.record(&mut own);
        fields.remove("message");
        fields.append(&mut own.0);

        let metadata = event.metadata();
        let src = take_log_target(&mut fields, metadata.target());
        let message = fields
            .remove("message")
            .unwrap_or(Value::from(metadata.name()));
        let head = [
            ("ts", Value::from(now()?)),
            ("level", Value::from(metadata.level().as_str())),
            ("message", message),
            ("svc", Value::from(SERVICE)),
            ("src", src),
        ];
        let mut separator = '{';
        for (name, value) in &head {
            fields.remove(*name);
            write!(writer, "{separator}\"{name}\":{value}")?;
            separator = ',';
        }
        for (name, value) in &fields {
            write!(writer, ",{}:{value}", Value::from(name.as_str()))?;
        }
        writeln!(writer, "}}")
    }
}

/// The module an event is from. What comes by the crate `log` has the target [`BRIDGE`]; where it
/// is from stands in fields, of which the line keeps none: a file's path is the builder's own.
fn take_log_target(fields: &mut Map<String, Value>, target: &str) -> Value {
    if target != BRIDGE {
        return Value::from(target);
    }
    let src = fields.remove("log.target");
    fields.retain(|name, _| !name.starts_with("log."));
    src.unwrap_or(Value::from(target))
}

/// RFC 3339 in UTC.
fn now() -> Result<String, fmt::Error> {
    let mut text = String::new();
    SystemTime.format_time(&mut Writer::new(&mut text))?;
    Ok(text)
}

struct Fields(Map<String, Value>);

impl Fields {
    fn put(&mut self, field: &Field, value: impl Into<Value>) {
        // `r#type = …` is the only way to name a field by a keyword.
        let name = field.name();
        let name = name.strip_prefix("r#").unwrap_or(name);
        self.0.insert(name.to_owned(), value.into());
    }
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value);
    }
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value);
    }
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value);
    }
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value);
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value);
    }
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}"));
    }
}
