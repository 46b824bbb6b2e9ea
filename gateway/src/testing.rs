//! What unit tests stand on: the default configuration, and the demo's control plane.

use freshet_control::{ControlOptions, ControlPlane};
use tempfile::TempDir;

use crate::config::{self, Command, Config};

/// The configuration of `freshet serve`.
pub(crate) fn config() -> Config {
    config_with(&[])
}

/// The same, with options.
pub(crate) fn config_with(options: &[&str]) -> Config {
    let args = ["freshet", "serve"].iter().chain(options);
    let args = args.map(std::ffi::OsString::from);
    match config::from_args(args, |_| None).unwrap() {
        Command::Serve(config) => *config,
        Command::ConfigPrint(_) => panic!("it was asked to serve"),
    }
}

/// The demo's control plane, and the folder of its store, which goes with it.
pub(crate) async fn demo() -> (ControlPlane, TempDir) {
    let data = tempfile::tempdir().unwrap();
    let options = ControlOptions {
        data_dir: data.path().to_owned(),
        clock: crate::clock::wall,
    };
    let control = ControlPlane::open(options).await.unwrap();
    control.seed_demo().await.unwrap();
    (control, data)
}
