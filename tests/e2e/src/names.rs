//! Which channel, and what of it a client asks for.

use freshet_proto::cursor::Cursor;
use freshet_proto::filter::KeyFilter;
use freshet_proto::frame::{DeliveryMode, Subscribe};
use freshet_proto::ids::{
    AppName, ChannelId, Environment, Epoch, Revision, SetName, SubscriptionId, TenantId,
};

/// A channel as its own tenant names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    /// The environment.
    pub environment: String,
    /// The config set.
    pub set: String,
    /// The app.
    pub app: String,
}

impl Names {
    /// The channel `environment/storefront/app` of the demo.
    pub fn new(environment: &str, app: &str) -> Self {
        Self {
            environment: environment.to_owned(),
            set: "storefront".to_owned(),
            app: app.to_owned(),
        }
    }

    /// The demo's first channel.
    pub fn web() -> Self {
        Self::new("prod", "web")
    }

    /// As a query names it.
    pub fn query(&self) -> String {
        let Self {
            environment,
            set,
            app,
        } = self;
        format!("env={environment}&set={set}&app={app}")
    }

    /// With its tenant.
    pub fn of(&self, tenant: &str) -> ChannelId {
        ChannelId {
            tenant: TenantId::new(tenant).unwrap(),
            environment: Environment::new(&self.environment).unwrap(),
            set: SetName::new(&self.set).unwrap(),
            app: AppName::new(&self.app).unwrap(),
        }
    }

    /// A subscription to all of it, from nothing.
    pub fn subscribe(&self, sub: u32) -> Subscribe {
        Subscribe {
            sub: SubscriptionId(sub),
            environment: Environment::new(&self.environment).unwrap(),
            set: SetName::new(&self.set).unwrap(),
            app: AppName::new(&self.app).unwrap(),
            keys: KeyFilter::all(),
            mode: DeliveryMode::Delta,
            cursor: None,
        }
    }
}

/// A cursor.
pub fn cursor(epoch: u64, revision: u64) -> Cursor {
    Cursor {
        epoch: Epoch::new(epoch).unwrap(),
        revision: Revision::new(revision).unwrap(),
    }
}

/// What a client asks for.
#[derive(Clone, Debug)]
pub struct Ask {
    /// Its API key.
    pub key: String,
    /// The channel.
    pub names: Names,
    /// Patterns; empty means every key.
    pub patterns: Vec<String>,
    /// How changes come.
    pub mode: DeliveryMode,
    /// The kernel's buffer for what was not read yet, in bytes; the kernel's own choice if none.
    pub receive_buffer: Option<u32>,
}

impl Ask {
    /// All of a channel, with the demo's key.
    pub fn of(names: &Names) -> Self {
        Self {
            key: "demo-key".to_owned(),
            names: names.clone(),
            patterns: Vec::new(),
            mode: DeliveryMode::Delta,
            receive_buffer: None,
        }
    }

    /// With another key.
    #[must_use]
    pub fn with_key(mut self, key: &str) -> Self {
        key.clone_into(&mut self.key);
        self
    }

    /// Only keys that match.
    #[must_use]
    pub fn only(mut self, patterns: &[&str]) -> Self {
        self.patterns = patterns.iter().map(|&pattern| pattern.to_owned()).collect();
        self
    }

    /// Only that there are changes.
    #[must_use]
    pub fn hints(mut self) -> Self {
        self.mode = DeliveryMode::Hint;
        self
    }

    /// With so small a buffer that the server soon waits for a client that does not read.
    #[must_use]
    pub fn with_small_buffer(mut self) -> Self {
        // Source: arbitrary, because it is below every frame that a test means to get stuck.
        self.receive_buffer = Some(4096);
        self
    }

    /// As a subscription that goes on from `cursor`.
    pub fn subscribe(&self, sub: u32, cursor: Option<Cursor>) -> Subscribe {
        Subscribe {
            keys: KeyFilter::new(&self.patterns).unwrap(),
            mode: self.mode,
            cursor,
            ..self.names.subscribe(sub)
        }
    }

    /// As a query.
    pub fn query(&self) -> String {
        let mut query = self.names.query();
        for pattern in &self.patterns {
            query.push_str("&keys=");
            query.push_str(pattern);
        }
        if self.mode == DeliveryMode::Hint {
            query.push_str("&mode=hint");
        }
        query
    }
}
