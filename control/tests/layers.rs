//! Every write against an oracle: five maps of layers, and a naive resolution over them.

#![expect(clippy::unwrap_used, reason = "in a test a panic is a failure")]

mod support;

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::VerifyingKey;
use freshet_proto::hash::{ContentHash, ValueHash};
use freshet_proto::ids::{AppName, ChannelId, Environment, SetName, TenantId};
use freshet_proto::signature::Claims;
use freshet_proto::snapshot::ChannelSnapshot;
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use serde_json::{Value as Json, json};
use support::Control;

/// `(tenant, edition)`; two share an edition.
const TENANTS: [(&str, &str); 3] = [("t0", "pro"), ("t1", "pro"), ("t2", "enterprise")];
const ENVIRONMENTS: [&str; 2] = ["prod", "test"];
const APPS: [&str; 2] = ["ios", "web"];

/// A place in the layers, as the body of a publish says it, below a tenant.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Global,
    Edition(&'static str),
    Tenant(&'static str),
    Environment(&'static str, &'static str),
    App(&'static str, &'static str, &'static str),
}

#[derive(Clone, Debug)]
enum Said {
    Value(u8),
    Unset,
    Inherit,
}

#[derive(Clone, Debug)]
enum Step {
    Write {
        place: Place,
        changes: BTreeMap<u8, Said>,
    },
    /// To one of the revisions there are, from the newest back.
    Rollback {
        channel: (usize, usize, usize),
        back: u64,
    },
    Promote {
        tenant: usize,
        edition: &'static str,
    },
}

type Map = BTreeMap<String, Json>;
type Name = (&'static str, &'static str, &'static str);

#[derive(Debug, Default)]
struct Oracle {
    layers: BTreeMap<Place, BTreeMap<u8, Option<u8>>>,
    editions: BTreeMap<&'static str, &'static str>,
    /// Each revision's map, the first at index 0.
    history: BTreeMap<Name, Vec<Map>>,
}

impl Oracle {
    fn value(&self, (tenant, environment, app): Name, key: u8) -> Option<u8> {
        let places = [
            Place::App(tenant, environment, app),
            Place::Environment(tenant, environment),
            Place::Tenant(tenant),
            Place::Edition(self.editions[tenant]),
            Place::Global,
        ];
        let said = places
            .iter()
            .find_map(|place| self.layers.get(place)?.get(&key));
        said.copied().flatten()
    }

    fn resolve(&self, channel: Name) -> Map {
        let keys = (0..6).filter_map(|key| Some((name(key), json!(self.value(channel, key)?))));
        keys.collect()
    }

    fn write(&mut self, place: &Place, changes: &BTreeMap<u8, Said>) {
        let layer = self.layers.entry(place.clone()).or_default();
        for (key, said) in changes {
            match said {
                Said::Value(value) => layer.insert(*key, Some(*value)),
                Said::Unset => layer.insert(*key, None),
                Said::Inherit => layer.remove(key),
            };
        }
    }

    /// The same words as the documentation: drop the override if the wider layers give the value.
    fn roll_back(&mut self, channel: Name, to: usize) {
        let target = self.history[&channel][to].clone();
        let (tenant, environment, app) = channel;
        let place = Place::App(tenant, environment, app);
        for key in 0..6 {
            let wanted = target
                .get(&name(key))
                .map(|value| value.as_u64().unwrap() as u8);
            if self.value(channel, key) == wanted {
                continue;
            }
            self.layers.entry(place.clone()).or_default().remove(&key);
            if self.value(channel, key) != wanted {
                self.layers
                    .entry(place.clone())
                    .or_default()
                    .insert(key, wanted);
            }
        }
    }
}

fn name(key: u8) -> String {
    format!("k/{key}")
}

fn channels() -> Vec<Name> {
    let mut all = Vec::new();
    for (tenant, _) in TENANTS {
        for environment in ENVIRONMENTS {
            all.extend(APPS.map(|app| (tenant, environment, app)));
        }
    }
    all
}

fn body(place: &Place, changes: &BTreeMap<u8, Said>) -> (&'static str, Json) {
    let (tenant, mut body) = match *place {
        Place::Global => ("platform", json!({"layer": "global"})),
        Place::Edition(edition) => ("platform", json!({"layer": "edition", "edition": edition})),
        Place::Tenant(tenant) => (tenant, json!({"layer": "tenant"})),
        Place::Environment(tenant, environment) => (
            tenant,
            json!({"layer": "environment", "environment": environment}),
        ),
        Place::App(tenant, environment, app) => {
            (tenant, json!({"environment": environment, "app": app}))
        }
    };
    let mut set = serde_json::Map::new();
    let (mut unset, mut inherit) = (Vec::new(), Vec::new());
    for (key, said) in changes {
        match said {
            Said::Value(value) => drop(set.insert(name(*key), json!(value))),
            Said::Unset => unset.push(name(*key)),
            Said::Inherit => inherit.push(name(*key)),
        }
    }
    body["set"] = json!("s");
    body["changes"] = json!({"set": set, "unset": unset, "inherit": inherit});
    (tenant, body)
}

struct Subject {
    control: Control,
    key: VerifyingKey,
    kid: String,
}

impl Subject {
    async fn new() -> Self {
        let control = Control::demo().await;
        let jwks = control.get("", "/v1/keys/signing").await.expect(200).json;
        let jwk = &jwks["keys"][0];
        let bytes = URL_SAFE_NO_PAD.decode(jwk["x"].as_str().unwrap()).unwrap();
        let key = VerifyingKey::from_bytes(&bytes.try_into().unwrap()).unwrap();
        let subject = Self {
            control,
            key,
            kid: jwk["kid"].as_str().unwrap().to_owned(),
        };
        for (tenant, edition) in TENANTS {
            subject
                .post(
                    "platform",
                    "/v1/tenants",
                    json!({"tenantId": tenant, "edition": edition}),
                )
                .await;
            subject.post(tenant, "/v1/sets", json!({"set": "s"})).await;
            // Channels come from an app's creation and from an environment's.
            subject
                .post(tenant, "/v1/environments", json!({"environment": "prod"}))
                .await;
            subject
                .post(tenant, "/v1/sets/s/apps", json!({"app": "ios"}))
                .await;
            subject
                .post(tenant, "/v1/sets/s/apps", json!({"app": "web"}))
                .await;
            subject
                .post(tenant, "/v1/environments", json!({"environment": "test"}))
                .await;
        }
        subject
    }

    async fn post(&self, tenant: &str, path: &str, body: Json) -> Json {
        let named = [("x-tenant-id", tenant)];
        let reply = self
            .control
            .call("demo-admin-key", "POST", path, &named, body)
            .await;
        assert!(reply.status.is_success(), "{}", reply.json);
        reply.json
    }

    async fn snapshot(&self, (tenant, environment, app): Name) -> ChannelSnapshot {
        let channel = ChannelId {
            tenant: TenantId::new(tenant).unwrap(),
            environment: Environment::new(environment).unwrap(),
            set: SetName::new("s").unwrap(),
            app: AppName::new(app).unwrap(),
        };
        self.control
            .plane
            .snapshot(&channel)
            .await
            .unwrap()
            .unwrap()
    }

    /// Compares every channel with the oracle and takes the new revisions into it.
    async fn check(&self, oracle: &mut Oracle) {
        for channel in channels() {
            let snapshot = self.snapshot(channel).await;
            let map = live(&snapshot);
            let expected = oracle.resolve(channel);
            assert_eq!(map, expected, "{channel:?}");
            let history = oracle.history.entry(channel).or_default();
            if history.last() != Some(&expected) {
                history.push(expected);
            }
            let revision = snapshot.head.revision.get();
            assert_eq!(
                revision,
                history.len() as u64,
                "+1 only on a real change: {channel:?}"
            );
            let values = snapshot.items.iter().filter_map(|item| {
                Some((
                    item.key.as_str(),
                    ValueHash::of(item.value.as_ref()?.as_bytes()),
                ))
            });
            let values: BTreeMap<_, _> = values.collect();
            assert_eq!(ContentHash::of(values), snapshot.head.hash);
            let claims = Claims {
                channel: &snapshot.channel,
                epoch: snapshot.head.epoch,
                revision: snapshot.head.revision,
                hash: snapshot.head.hash,
            };
            let signed = snapshot
                .head
                .signature
                .verify(&self.key, &self.kid, &claims);
            assert_eq!(signed, Ok(snapshot.head.issued_at));
        }
    }
}

fn live(snapshot: &ChannelSnapshot) -> Map {
    let items = snapshot.items.iter().filter_map(|item| {
        let value = serde_json::from_str(item.value.as_ref()?.as_str()).unwrap();
        Some((item.key.to_string(), value))
    });
    items.collect()
}

fn place() -> impl Strategy<Value = Place> {
    let tenant = || proptest::sample::select(&TENANTS[..]).prop_map(|(tenant, _)| tenant);
    let environment = || proptest::sample::select(&ENVIRONMENTS[..]);
    prop_oneof![
        Just(Place::Global),
        proptest::sample::select(&["free", "pro", "enterprise"][..]).prop_map(Place::Edition),
        tenant().prop_map(Place::Tenant),
        (tenant(), environment()).prop_map(|(t, e)| Place::Environment(t, e)),
        (tenant(), environment(), proptest::sample::select(&APPS[..]))
            .prop_map(|(t, e, a)| Place::App(t, e, a)),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let said = prop_oneof![
        3 => (0u8..3).prop_map(Said::Value),
        1 => Just(Said::Unset),
        1 => Just(Said::Inherit),
    ];
    let edition = proptest::sample::select(&["free", "pro", "enterprise"][..]);
    prop_oneof![
        6 => (place(), btree_map(0u8..6, said, 1..4))
            .prop_map(|(place, changes)| Step::Write { place, changes }),
        2 => ((0..TENANTS.len(), 0..2usize, 0..2usize), 0u64..6)
            .prop_map(|(channel, back)| Step::Rollback { channel, back }),
        1 => (0..TENANTS.len(), edition).prop_map(|(tenant, edition)| Step::Promote { tenant, edition }),
    ]
}

async fn run(steps: Vec<Step>) {
    let subject = Subject::new().await;
    let mut oracle = Oracle {
        editions: TENANTS.into_iter().collect(),
        ..Oracle::default()
    };
    subject.check(&mut oracle).await;
    for step in steps {
        match &step {
            Step::Write { place, changes } => {
                oracle.write(place, changes);
                let (tenant, body) = body(place, changes);
                subject.post(tenant, "/v1/config/publish", body).await;
            }
            Step::Rollback {
                channel: (tenant, environment, app),
                back,
            } => {
                let name = (TENANTS[*tenant].0, ENVIRONMENTS[*environment], APPS[*app]);
                let head = oracle.history[&name].len() as u64;
                let to = head.saturating_sub(*back).max(1);
                oracle.roll_back(name, usize::try_from(to).unwrap() - 1);
                let body =
                    json!({"environment": name.1, "set": "s", "app": name.2, "toRevision": to});
                subject.post(name.0, "/v1/config/rollback", body).await;
            }
            Step::Promote { tenant, edition } => {
                let tenant = TENANTS[*tenant].0;
                oracle.editions.insert(tenant, edition);
                let body = json!({"tenantId": tenant, "edition": edition});
                subject.post("platform", "/v1/tenants", body).await;
            }
        }
        subject.check(&mut oracle).await;
    }
    subject.control.plane.close().await;
}

proptest! {
    // Source: arbitrary, because 24 lists of up to 24 steps take some ten seconds.
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn every_channel_is_what_a_naive_resolution_of_the_layers_says(steps in vec(step(), 1..24)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(run(steps));
    }
}
