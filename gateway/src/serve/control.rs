//! The control plane's part of a process.

use std::sync::Arc;

use freshet_control::{
    ControlOptions, ControlPlane, EventSink, KafkaSink, OperatorKeys, RelayError, is_demo_key,
};
use tokio_util::sync::CancellationToken;

use super::ServeError;
use super::port::{CONTROL_CONNECTIONS_MAX, Port, PortStats};
use crate::config::{Config, Secret, SourceChoice};
use crate::source::{EmbeddedSource, embedded};
use crate::supervise::{Lifeline, Supervisor};

/// Opens the store, and puts in it the demo's data and the keys that the configuration names.
pub(super) async fn open(config: &Config) -> Result<ControlPlane, ServeError> {
    let options = ControlOptions {
        data_dir: config.data.clone(),
        clock: crate::clock::wall,
    };
    let control = ControlPlane::open(options)
        .await
        .map_err(|error| ServeError::Store {
            data: config.data.clone(),
            error,
        })?;
    match fill(config, &control).await {
        Ok(()) => Ok(control),
        Err(error) => {
            control.close().await;
            Err(error)
        }
    }
}

async fn fill(config: &Config, control: &ControlPlane) -> Result<(), ServeError> {
    if config.demo {
        control.seed_demo().await?;
    } else if config.forget_demo {
        control.forget_demo_keys().await?;
    } else if control.holds_demo_keys().await? {
        let data = config.data.clone();
        return Err(ServeError::DemoKeys { data });
    }
    // The demo's own key is no operator's: it must not take the place of one.
    let named = |key: &'_ Option<Secret>| {
        let secret = key.as_ref().map(|key| key.reveal().to_owned());
        secret.filter(|secret| !(config.demo && is_demo_key(secret)))
    };
    let (admin, gateway) = (named(&config.admin_key), named(&config.control_key));
    let keys = OperatorKeys {
        admin: admin.as_deref(),
        gateway: gateway.as_deref(),
    };
    Ok(control.ensure_operator_keys(keys).await?)
}

/// Starts the relay from the outbox; answers the gateway's end of the bus, if it is embedded.
pub(super) async fn start_relay(
    config: &Config,
    control: &ControlPlane,
    (stop, parts): (&CancellationToken, &Supervisor),
) -> Result<Option<EmbeddedSource>, ServeError> {
    let life = parts.part("relay");
    parts.watch("relay", control.relay_pulse().clone());
    match &config.source {
        SourceChoice::Embedded => {
            let (source, sink) = embedded();
            relay(control, sink, (stop, life));
            Ok(Some(source))
        }
        SourceChoice::Kafka { brokers } => {
            relay(control, KafkaSink::connect(brokers).await?, (stop, life));
            Ok(None)
        }
    }
}

/// Ends the process when the writer ends before the control plane was closed.
pub(super) fn watch_writer(control: &ControlPlane, parts: &Supervisor) {
    let (control, life) = (control.clone(), parts.part("writer"));
    parts.watch("writer", control.writer_pulse().clone());
    // The task ends with the writer.
    drop(tokio::spawn(async move {
        control.writer_ended().await;
        drop(life);
    }));
}

fn relay(
    control: &ControlPlane,
    sink: impl EventSink + 'static,
    (stop, life): (&CancellationToken, Lifeline),
) {
    let (control, stop) = (control.clone(), stop.clone());
    // The task ends with `stop`.
    drop(tokio::spawn(async move {
        match control.relay(sink, stop.clone()).await {
            Ok(()) => {}
            // The plane may be closed while the relay looks at the outbox for the last time.
            Err(RelayError::Closed) if stop.is_cancelled() => {}
            Err(error @ (RelayError::Closed | RelayError::Running)) => {
                tracing::error!(%error, "the relay ended; publishes wait in the outbox");
            }
        }
        drop(life);
    }));
}

/// Serves the control plane's own listener, for gateways elsewhere.
pub(super) async fn listen(
    config: &Config,
    control: &ControlPlane,
    (stats, stop, life): (Arc<PortStats>, &CancellationToken, Lifeline),
) -> Result<(), ServeError> {
    let address = config.control_listen;
    let failed = |error| ServeError::Listen {
        address,
        option: "control-listen",
        error,
    };
    let listener = tokio::net::TcpListener::bind(address)
        .await
        .map_err(failed)?;
    let port = Port {
        listener,
        connections_max: CONTROL_CONNECTIONS_MAX,
        head_timeout: config.handshake_timeout,
        stats,
    };
    let serving = port.serve(control.router(), stop.clone());
    // The task ends with `stop`.
    drop(tokio::spawn(async move {
        serving.await;
        drop(life);
    }));
    Ok(())
}
