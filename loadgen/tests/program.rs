//! The program as people start it: several processes in one run, files, and exit codes.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests are not told from other code"
)]

#[path = "../src/fake.rs"]
mod fake;

use std::path::Path;
use std::process::{Command, Output};

use fake::{Fake, Fault};

fn loadgen(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_loadgen"))
        .args(arguments)
        .output()
        .unwrap()
}

/// A short run on 20 connections, with more arguments.
fn short(fake: &Fake, more: &[&str]) -> Output {
    let url = format!("http://{}", fake.address);
    let mut line = vec!["steady", "--url", &url, "--connections", "20"];
    line.extend(["--publish-rate", "50", "--duration", "1s", "--quiet"]);
    line.extend(more);
    loadgen(&line)
}

fn code(output: &Output) -> Option<i32> {
    output.status.code()
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn json(path: &Path) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

#[test]
fn workers_share_one_run_and_their_figures_are_put_together() {
    let fake = Fake::start(Fault::None);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.json");
    let report = path.display().to_string();
    let output = short(&fake, &["--workers", "3", "--report", &report]);
    assert_eq!(code(&output), Some(0), "{}", errors(&output));
    let report = json(&path);
    let counts = &report["totals"]["counts"];
    assert_eq!(report["asked"]["workers"], 3);
    // The leader is a process beside them.
    assert_eq!(report["own"]["processes"], 4);
    assert_eq!(counts["connectionsHeld"], 20);
    let sent = counts["publishesSent"].as_u64().unwrap();
    assert!(sent > 10, "{sent}");
    // Every client of every worker knows when every publish was meant to be sent.
    let staleness = &report["totals"]["latencies"]["staleness"];
    assert_eq!(staleness["count"].as_u64(), Some(20 * sent));
    assert_eq!(counts["revisionsUnmatched"], 0);
    assert_eq!(report["curves"]["lastPublish"]["expected"], 20);
    assert!(!report["asked"].to_string().contains("demo-key"));
}

#[test]
fn violations_that_workers_find_fail_the_run() {
    let fake = Fake::start(Fault::Hash);
    let output = short(&fake, &["--workers", "2", "--transport", "ws"]);
    assert_eq!(code(&output), Some(1), "{}", errors(&output));
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(table.contains("HashMismatch"), "{table}");
}

#[test]
fn each_kind_of_failure_has_its_exit_code() {
    let fake = Fake::start(Fault::None);
    let missed = short(&fake, &["--slo", "p99<1us"]);
    assert_eq!(code(&missed), Some(4), "{}", errors(&missed));
    let unreachable = loadgen(&["steady", "--url", "http://127.0.0.1:1"]);
    assert_eq!(code(&unreachable), Some(3));
    assert!(errors(&unreachable).contains("does not answer"));
    let nonsense = loadgen(&["steady", "--connections", "many"]);
    assert_eq!(code(&nonsense), Some(2));
}

#[test]
fn a_file_is_run_and_options_behind_it_win() {
    let fake = Fake::start(Fault::None);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("run.toml");
    let report = folder.path().join("run.json");
    let text = format!(
        "scenario = \"stalled\"\nurl = \"http://{}\"\nconnections = 50\nduration = \"500ms\"\n\
         report = [{:?}]\nquiet = true\n",
        fake.address,
        report.display().to_string()
    );
    std::fs::write(&file, text).unwrap();
    let file = file.display().to_string();
    let output = loadgen(&["run", &file, "--connections", "10"]);
    assert_eq!(code(&output), Some(0), "{}", errors(&output));
    let report = json(&report);
    assert_eq!(report["asked"]["scenario"], "stalled");
    assert_eq!(report["totals"]["counts"]["connectionsHeld"], 10);

    std::fs::write(&file, "scenario = \"steady\"\nconections = 5\n").unwrap();
    let output = loadgen(&["run", &file]);
    assert_eq!(code(&output), Some(2));
    assert!(errors(&output).contains("the nearest one is \"connections\""));
}
