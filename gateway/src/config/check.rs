//! Values that are right alone and wrong together.

use std::net::SocketAddr;

use freshet_control::is_demo_key;

use super::{Config, ConfigError, Role, SourceChoice};

fn refuse(problem: impl Into<String>, remedy: &'static str) -> Result<(), ConfigError> {
    Err(ConfigError::Combination {
        problem: problem.into(),
        remedy,
    })
}

/// Refuses what cannot run, and says what to do.
pub(super) fn combinations(config: &Config) -> Result<(), ConfigError> {
    role(config)?;
    demo(config)?;
    addresses(config)?;
    times(config)?;
    sizes(config)
}

fn role(config: &Config) -> Result<(), ConfigError> {
    let is_embedded = config.source == SourceChoice::Embedded;
    match config.role {
        Role::All => Ok(()),
        Role::Control if is_embedded => refuse(
            "role control with source embedded publishes to nobody: the embedded bus reaches only \
             a gateway in the same process",
            "Set source to kafka://host:port, the log that the gateways read, or use role all",
        ),
        Role::Gateway if is_embedded => refuse(
            "role gateway has no control plane in its process, so source embedded carries nothing",
            "Set source to kafka://host:port, the log that the control plane writes, or use role \
             all",
        ),
        Role::Gateway if config.control.is_none() => refuse(
            "role gateway needs the control plane's address, to load channels from",
            "Set control, for example --control http://127.0.0.1:7401",
        ),
        Role::Gateway if config.control_key.is_none() => refuse(
            "role gateway needs an API key with the gateway's scope, to load channels with",
            "Set control-key, best by the variable FRESHET_CONTROL_KEY",
        ),
        Role::Gateway | Role::Control => Ok(()),
    }
}

/// The listeners this process opens, with their options.
fn listeners(config: &Config) -> [(&'static str, SocketAddr); 2] {
    let admin = ("admin-listen", config.admin_listen);
    match config.role {
        Role::All | Role::Gateway => [("listen", config.listen), admin],
        Role::Control => [("control-listen", config.control_listen), admin],
    }
}

fn demo(config: &Config) -> Result<(), ConfigError> {
    let addresses = [
        ("listen", config.listen),
        ("control-listen", config.control_listen),
        ("admin-listen", config.admin_listen),
    ];
    for (option, address) in addresses {
        if config.demo && !address.ip().is_loopback() {
            return refuse(
                format!("demo adds keys that everyone knows, and {option} is {address}"),
                "Leave demo off, or let every address be loopback, such as 127.0.0.1:7400",
            );
        }
    }
    forget_demo(config)?;
    demo_secrets(config)
}

fn forget_demo(config: &Config) -> Result<(), ConfigError> {
    if !config.forget_demo {
        return Ok(());
    }
    if config.demo {
        return refuse(
            "demo adds the keys that forget-demo removes",
            "Leave one of them off",
        );
    }
    if config.role == Role::Gateway {
        return refuse(
            "role gateway has no store, so forget-demo removes nothing",
            "Start the control plane with it instead",
        );
    }
    Ok(())
}

/// A gateway alone may show the key of a demo elsewhere.
fn demo_secrets(config: &Config) -> Result<(), ConfigError> {
    if config.demo || config.role == Role::Gateway {
        return Ok(());
    }
    let keys = [
        ("admin-key", &config.admin_key),
        ("control-key", &config.control_key),
    ];
    for (option, key) in keys {
        if key.as_ref().is_some_and(|key| is_demo_key(key.reveal())) {
            return refuse(
                format!("{option} is a key of the demo, which everyone knows"),
                "Choose another text, best 32 random bytes in hex",
            );
        }
    }
    Ok(())
}

fn addresses(config: &Config) -> Result<(), ConfigError> {
    let [(one, address), (two, other)] = listeners(config);
    if address == other && address.port() != 0 {
        return refuse(
            format!("{one} and {two} are both {address}"),
            "Give one of them another port",
        );
    }
    Ok(())
}

fn times(config: &Config) -> Result<(), ConfigError> {
    if config.coalesce_window_min > config.coalesce_window_max {
        return refuse(
            format!(
                "coalesce-window-min ({:?}) is above coalesce-window-max ({:?})",
                config.coalesce_window_min, config.coalesce_window_max
            ),
            "Lower the first or raise the second",
        );
    }
    // A peer shows that it is alive by answering heartbeats.
    if config.idle_timeout <= config.heartbeat {
        return refuse(
            format!(
                "idle-timeout ({:?}) is not above heartbeat ({:?}), so healthy quiet streams would \
                 be closed",
                config.idle_timeout, config.heartbeat
            ),
            "Raise idle-timeout to at least twice the heartbeat",
        );
    }
    Ok(())
}

fn sizes(config: &Config) -> Result<(), ConfigError> {
    if let Some(per_tenant) = config.connections_per_tenant_max
        && per_tenant > config.connections_max
    {
        return refuse(
            format!(
                "connections-per-tenant-max ({per_tenant}) is above connections-max ({})",
                config.connections_max
            ),
            "Lower the first or raise the second",
        );
    }
    if config.import_bytes_max < config.body_bytes_max {
        return refuse(
            format!(
                "import-bytes-max ({}) is below body-bytes-max ({})",
                config.import_bytes_max, config.body_bytes_max
            ),
            "Raise the first or lower the second",
        );
    }
    Ok(())
}
