//! `freshet`: the gateway, the control plane, or both in one process.

use std::io::Write as _;
use std::process::ExitCode;

use freshet_gateway::config::{self, Command};
use freshet_gateway::{logging, serve, supervise};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let command = config::from_args(std::env::args_os(), |name| std::env::var(name).ok());
    let config = match command {
        Ok(Command::Serve(config)) => *config,
        Ok(Command::ConfigPrint(text)) => return print(&text),
        Err(error) => return error.report(),
    };
    let level = match logging::init(config.log_format, &config.log_level) {
        Ok(level) => level,
        Err(error) => return fail(&error),
    };
    supervise::end_at_panics();
    match serve::run(config, level) {
        Ok(code) => code,
        Err(error) => fail(&error),
    }
}

/// A reader that went away early, as in `| head`, is no failure.
fn print(text: &str) -> ExitCode {
    drop(std::io::stdout().write_all(text.as_bytes()));
    ExitCode::SUCCESS
}

fn fail(error: &dyn std::error::Error) -> ExitCode {
    drop(writeln!(std::io::stderr(), "freshet: {error}"));
    ExitCode::FAILURE
}
