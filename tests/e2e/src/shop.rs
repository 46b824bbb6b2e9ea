//! A running demo with its keys, as most tests want it.

use std::net::SocketAddr;

use freshet_test_harness::FreshetProcess;
use http::Method;
use serde_json::json;

use crate::api::Api;
use crate::names::{Ask, Names};
use crate::replica::Replica;
use crate::transport::{Transport as _, WebSocket};

/// A server that runs the demo.
#[derive(Debug)]
pub struct Shop {
    /// The process.
    pub server: FreshetProcess,
    /// The tenant `demo`, with all its scopes.
    pub demo: Api,
    /// The tenant `demo2`, with all its scopes.
    pub demo2: Api,
    /// The platform.
    pub platform: Api,
}

impl Shop {
    /// Starts the demo, on two shards unless the options say otherwise.
    ///
    /// # Panics
    ///
    /// If it does not start.
    pub fn open(options: &[&str]) -> Self {
        let shards: &[&str] = if options.contains(&"--shards") {
            &[]
        } else {
            &["--shards", "2"]
        };
        let options = [&["--demo"], shards, options].concat();
        let server = FreshetProcess::start(&options).unwrap_or_else(|error| panic!("{error}"));
        let address = server.public();
        Self {
            server,
            demo: Api::new(address, "demo-key"),
            demo2: Api::new(address, "demo2-key"),
            platform: Api::new(address, "demo-admin-key"),
        }
    }

    /// Makes a tenant of the smallest edition with the channel `prod/storefront/web`, which is
    /// empty; answers its API.
    ///
    /// # Panics
    ///
    /// If it is refused.
    pub async fn free_tenant(&self, name: &str) -> Api {
        let tenant = json!({"tenantId": name, "edition": "free"});
        let made = self.platform.post("/v1/tenants", &tenant).await;
        assert_eq!(made.status, 201, "{made:?}");
        let scopes = ["read", "write", "admin"].map(|scope| format!("ecs:{scope}:{name}"));
        let body = json!({"name": "of a test", "scopes": scopes}).to_string();
        let line = (Method::POST, "/v1/keys");
        let key = self
            .platform
            .send(line, &[("X-Tenant-Id", name)], body)
            .await;
        assert_eq!(key.status, 201, "{key:?}");
        let api = Api::new(self.address(), key.json()["secret"].as_str().unwrap());
        for (path, body) in [
            ("/v1/environments", json!({"environment": "prod"})),
            ("/v1/sets", json!({"set": "storefront"})),
            ("/v1/sets/storefront/apps", json!({"app": "web"})),
        ] {
            let made = api.post(path, &body).await;
            assert_eq!(made.status, 201, "{made:?}");
        }
        api
    }

    /// Its public port.
    pub fn address(&self) -> SocketAddr {
        self.server.public()
    }
}

/// A subscriber that did nothing wrong: the tenant `demo2`, on the same server.
#[derive(Debug)]
pub struct Innocent {
    api: Api,
    client: WebSocket<false>,
    published: u32,
}

impl Shop {
    /// Someone else on the same server.
    pub async fn innocent(&self) -> Innocent {
        let ask = Ask::of(&Names::web()).with_key("demo2-key");
        let followed = WebSocket::follow(self.address(), &ask, Replica::default()).await;
        let mut client = followed.unwrap();
        client.moved().await;
        Innocent {
            api: self.demo2.clone(),
            client,
            published: 0,
        }
    }
}

impl Innocent {
    /// Checks that a publish still reaches it.
    pub async fn is_served(&mut self) {
        self.published += 1;
        let head = self
            .api
            .set(&Names::web(), "innocent", self.published)
            .await;
        self.client.reach(head).await;
        let value = self.published.to_string();
        assert_eq!(
            self.client.replica().value("innocent"),
            Some(value.as_str())
        );
    }
}
