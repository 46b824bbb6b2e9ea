//! Query strings: which channel, which keys.

use std::borrow::Cow;
use std::time::Duration;

use freshet_proto::cursor::Cursor;
use freshet_proto::filter::KeyFilter;
use freshet_proto::frame::{DeliveryMode, Subscribe};
use freshet_proto::ids::{AppName, ChannelId, Environment, SetName, SubscriptionId, TenantId};
use freshet_proto::limits::FILTER_PATTERNS_MAX;

use crate::refusal::{Cause, Refusal};

/// The number of the one subscription that an SSE stream or a read has, and of the one that a
/// WebSocket's request makes.
pub(crate) const ONLY: SubscriptionId = SubscriptionId(1);

/// What a read, an SSE stream, or a WebSocket that names its channel asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ChannelQuery {
    pub(crate) environment: Environment,
    pub(crate) set: SetName,
    pub(crate) app: AppName,
    pub(crate) keys: KeyFilter,
    pub(crate) mode: DeliveryMode,
    pub(crate) wait: Option<Duration>,
}

/// Longest a read waits. Source: arbitrary, because proxies close a silent request after a minute.
const WAIT_MAX: Duration = Duration::from_secs(55);

impl ChannelQuery {
    /// Reads `env`, `set`, `app`, `keys` (repeatable, or separated by commas), `mode` and `wait`. Of
    /// the others the first of a name counts.
    pub(crate) fn parse(query: &str) -> Result<Self, Refusal> {
        Self::from_fields(Fields::read(query))
    }

    /// What a WebSocket's request subscribes to, and the cursor it brings; none if its query names no
    /// channel.
    pub(crate) fn parse_subscription(query: &str) -> Result<Option<Subscribe>, Refusal> {
        let mut fields = Fields::read(query);
        if !fields.name_a_channel() {
            return Ok(None);
        }
        let cursor = fields.cursor.take().map(|text| text.parse());
        let cursor = cursor
            .transpose()
            .map_err(|_| Refusal::malformed("cursor is not one; leave it out to start anew"))?;
        Ok(Some(Self::from_fields(fields)?.subscribe(cursor)))
    }

    fn from_fields(fields: Fields<'_>) -> Result<Self, Refusal> {
        let bad = |error: freshet_proto::ids::NameError| Refusal::malformed(error.to_string());
        let keys = KeyFilter::new(&fields.keys)
            .map_err(|error| Refusal::new(Cause::Filter, error.to_string()))?;
        Ok(Self {
            environment: named(fields.environment, "env")?.parse().map_err(bad)?,
            set: named(fields.set, "set")?.parse().map_err(bad)?,
            app: named(fields.app, "app")?.parse().map_err(bad)?,
            keys,
            mode: match fields.mode.as_deref() {
                None | Some("delta") => DeliveryMode::Delta,
                Some("hint") => DeliveryMode::Hint,
                Some(_) => return Err(Refusal::malformed("mode is delta or hint")),
            },
            wait: fields.wait.map(|text| wait(&text)).transpose()?,
        })
    }

    pub(crate) fn channel(&self, tenant: &TenantId) -> ChannelId {
        ChannelId {
            tenant: tenant.clone(),
            environment: self.environment.clone(),
            set: self.set.clone(),
            app: self.app.clone(),
        }
    }

    pub(crate) fn subscribe(self, cursor: Option<Cursor>) -> Subscribe {
        Subscribe {
            sub: ONLY,
            environment: self.environment,
            set: self.set,
            app: self.app,
            keys: self.keys,
            mode: self.mode,
            cursor,
        }
    }
}

fn named<'a>(value: Option<Cow<'a, str>>, name: &str) -> Result<Cow<'a, str>, Refusal> {
    value.ok_or_else(|| Refusal::malformed(format!("the query must name {name}, as in ?{name}=…")))
}

/// The fields of a query, decoded.
#[derive(Default)]
struct Fields<'a> {
    environment: Option<Cow<'a, str>>,
    set: Option<Cow<'a, str>>,
    app: Option<Cow<'a, str>>,
    keys: Vec<String>,
    mode: Option<Cow<'a, str>>,
    wait: Option<Cow<'a, str>>,
    cursor: Option<Cow<'a, str>>,
}

impl<'a> Fields<'a> {
    fn read(query: &'a str) -> Self {
        let mut fields = Self::default();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let field = match &*name {
                "env" => &mut fields.environment,
                "set" => &mut fields.set,
                "app" => &mut fields.app,
                "mode" => &mut fields.mode,
                "wait" => &mut fields.wait,
                "cursor" => &mut fields.cursor,
                "keys" => {
                    let keys = value.split(',').filter(|key| !key.is_empty());
                    fields.keys.extend(keys.map(str::to_owned));
                    // The bound of the filter is checked with its own words later; this one keeps
                    // the list short whatever the head's size.
                    fields.keys.truncate(FILTER_PATTERNS_MAX + 1);
                    continue;
                }
                _ => continue,
            };
            field.get_or_insert(value);
        }
        fields
    }

    fn name_a_channel(&self) -> bool {
        self.environment.is_some() || self.set.is_some() || self.app.is_some()
    }
}

/// `30s`, `500ms` or plain seconds, at most [`WAIT_MAX`].
fn wait(text: &str) -> Result<Duration, Refusal> {
    let bad = || Refusal::malformed("wait is a time such as 30s or 500ms");
    let (digits, is_millis) = match text.strip_suffix("ms") {
        Some(digits) => (digits, true),
        None => (text.strip_suffix('s').unwrap_or(text), false),
    };
    let number: u64 = digits.parse().map_err(|_| bad())?;
    let wait = if is_millis {
        Duration::from_millis(number)
    } else {
        Duration::from_secs(number)
    };
    Ok(wait.min(WAIT_MAX))
}

/// The first value of a name, decoded.
pub(crate) fn first(query: &str, name: &str) -> Option<String> {
    form_urlencoded::parse(query.as_bytes())
        .find(|(held, _)| held == name)
        .map(|(_, value)| value.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_ledger_is_read() {
        let query = "env=prod&set=storefront&app=checkout&keys=features/*,app%2Ftheme&keys=x";
        let parsed = ChannelQuery::parse(query).unwrap();
        assert_eq!(
            parsed.keys,
            KeyFilter::new(&["features/*", "app/theme", "x"]).unwrap()
        );
        assert_eq!(parsed.wait, None);
    }

    #[test]
    fn what_is_missing_or_wrong_is_named() {
        let detail = |query: &str| ChannelQuery::parse(query).unwrap_err().detail().to_owned();
        assert!(detail("set=s&app=a").contains("env"));
        assert!(detail("env=a/b&set=s&app=a").contains("environment"));
        assert!(detail("env=e&set=s&app=a&wait=soon").contains("30s"));
        let many = format!("env=e&set=s&app=a&keys={}", "k,".repeat(10_000));
        assert!(detail(&many).contains("at most 64"));
    }

    #[test]
    fn a_wait_is_bounded() {
        assert_eq!(wait("500ms").unwrap(), Duration::from_millis(500));
        assert_eq!(wait("30").unwrap(), Duration::from_secs(30));
        assert_eq!(wait("900s").unwrap(), WAIT_MAX);
    }
}
