//! Reads that wait.

use std::net::SocketAddr;

use freshet_proto::frame::{ResumeMode, ResumeReason};
use freshet_proto::read::ConfigBody;
use http::Method;

use super::{Began, Refused, Step, Transport};
use crate::api::{Answer, Api};
use crate::names::Ask;
use crate::patience::within;
use crate::replica::{Moved, Replica};

/// Follows by `GET /v1/config` with `wait`, one after the other.
#[derive(Debug)]
pub struct LongPoll {
    api: Api,
    path: String,
    replica: Replica,
    began: Began,
    /// What the first read brought.
    first: Option<Moved>,
}

impl Transport for LongPoll {
    async fn follow(server: SocketAddr, ask: &Ask, replica: Replica) -> Result<Self, Refused> {
        let mut client = Self {
            api: Api::new(server, &ask.key),
            path: format!("/v1/config?{}", ask.query()),
            replica,
            began: Began::UNSAID,
            first: None,
        };
        let answer = client.read("0").await;
        match answer.status {
            304 => {}
            200 => {
                client.first = Some(client.take(&answer));
                client.began.mode = ResumeMode::Snapshot;
            }
            status => {
                let reasons = answer.problem().reason_codes;
                return Err(Refused::Answer { status, reasons });
            }
        }
        Ok(client)
    }

    fn began(&self) -> Began {
        self.began
    }

    async fn step(&mut self) -> Step {
        if let Some(first) = self.first.take() {
            return Step::Moved(first);
        }
        within("a change", async {
            loop {
                let answer = self.read("20s").await;
                match answer.status {
                    304 => {}
                    200 => return Step::Moved(self.take(&answer)),
                    _ => panic!("{answer:?}"),
                }
            }
        })
        .await
    }

    fn replica(&self) -> &Replica {
        &self.replica
    }

    fn announces(mode: ResumeMode, _: ResumeReason) -> Began {
        // A read says nothing of why, and answers all or nothing.
        let mode = match mode {
            ResumeMode::Unchanged => ResumeMode::Unchanged,
            ResumeMode::Delta | ResumeMode::Snapshot => ResumeMode::Snapshot,
        };
        Began { mode, why: None }
    }
}

impl LongPoll {
    async fn read(&self, wait: &str) -> Answer {
        let path = format!("{}&wait={wait}", self.path);
        let tag = self.replica.tag();
        let known: Vec<_> = tag
            .iter()
            .map(|tag| ("If-None-Match", tag.as_str()))
            .collect();
        self.api.send((Method::GET, &path), &known, "").await
    }

    fn take(&mut self, answer: &Answer) -> Moved {
        let body = ConfigBody::decode(&answer.body).unwrap();
        self.replica.take_read(body, answer.etag())
    }
}
