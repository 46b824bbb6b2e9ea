use std::collections::BTreeMap;

use super::options::OPTIONS;
use super::*;

type Env<'a> = BTreeMap<&'static str, &'a str>;

fn run(args: &[&str], env: &Env<'_>) -> Result<Command, ConfigError> {
    let args = std::iter::once(&"freshet").chain(args).map(OsString::from);
    from_args(args, |name| env.get(name).map(|&text| text.to_owned()))
}

fn serve_with(args: &[&str], env: &Env<'_>) -> Result<Config, ConfigError> {
    let args: Vec<_> = std::iter::once("serve")
        .chain(args.iter().copied())
        .collect();
    run(&args, env).map(|command| match command {
        Command::Serve(config) => *config,
        Command::ConfigPrint(text) => panic!("asked to serve, got {text}"),
    })
}

fn serve(args: &[&str]) -> Result<Config, ConfigError> {
    serve_with(args, &Env::new())
}

fn refusal(args: &[&str]) -> String {
    serve(args).unwrap_err().to_string()
}

fn print(args: &[&str], env: &Env<'_>) -> String {
    let args: Vec<_> = ["config", "print"].iter().chain(args).copied().collect();
    match run(&args, env).unwrap() {
        Command::ConfigPrint(text) => text,
        Command::Serve(config) => panic!("asked to print, got {config:?}"),
    }
}

fn file(text: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    file
}

#[test]
fn without_any_layer_the_defaults_hold() {
    let config = serve(&[]).unwrap();
    assert_eq!(config.role, Role::All);
    assert_eq!(config.listen.to_string(), "127.0.0.1:7400");
    assert_eq!(config.admin_listen.to_string(), "127.0.0.1:7402");
    assert_eq!(config.data, PathBuf::from("./freshet-data"));
    assert!(config.shards.get() >= 1);
    assert_eq!(config.source, SourceChoice::Embedded);
    assert_eq!(config.control_key, None);
    assert_eq!(config.connections_per_tenant_max, None);
    assert_eq!(config.heartbeat, Duration::from_secs(25));
    assert_eq!(config.coalesce_window_max, Duration::from_millis(200));
    assert_eq!(config.body_bytes_max, 1 << 20);
    assert_eq!(config.frame_memory_max_bytes, 256 << 20);
    assert_eq!(config.log_level, "info");
}

#[test]
fn a_flag_beats_the_environment_which_beats_the_file() {
    let file = file("heartbeat = \"1s\"\nidle-timeout = \"2m\"\nshards = 3\n");
    let path = file.path().to_str().unwrap();
    let env = Env::from([("FRESHET_HEARTBEAT", "2s"), ("FRESHET_IDLE_TIMEOUT", "3m")]);
    let config = serve_with(&["--config", path, "--heartbeat", "3s"], &env).unwrap();
    assert_eq!(config.heartbeat, Duration::from_secs(3));
    assert_eq!(config.idle_timeout, Duration::from_secs(180));
    assert_eq!(config.shards.get(), 3);
}

#[test]
fn the_file_may_be_named_by_the_environment() {
    let file = file("shards = 5");
    let env = Env::from([("FRESHET_CONFIG", file.path().to_str().unwrap())]);
    assert_eq!(serve_with(&[], &env).unwrap().shards.get(), 5);
}

#[test]
fn an_unknown_key_names_its_line_and_the_nearest_option() {
    let file = file("shards = 2\n\nheart_beat = \"5s\"\n");
    let path = file.path().to_str().unwrap();
    let message = refusal(&["--config", path]);
    let end = ":3: there is no option `heart_beat`; did you mean `heartbeat`?";
    assert_eq!(message, format!("{path}{end}"));
}

#[test]
fn a_table_or_a_list_in_the_file_is_refused_with_its_line() {
    let file = file("shards = 2\nlisten = [\"127.0.0.1:1\"]\n");
    let path = file.path().to_str().unwrap();
    let message = refusal(&["--config", path]);
    assert!(
        message.contains(&format!("listen: a array from {path}:2")),
        "{message}"
    );
}

#[test]
fn a_file_that_is_missing_or_not_toml_is_refused_by_name() {
    assert!(refusal(&["--config", "/nonexistent/f.toml"]).contains("/nonexistent/f.toml"));
    let file = file("heartbeat = 5s");
    let message = refusal(&["--config", file.path().to_str().unwrap()]);
    assert!(message.contains("is not TOML"), "{message}");
}

#[test]
fn a_wrong_value_names_option_source_value_and_what_is_expected() {
    assert_eq!(
        refusal(&["--heartbeat", "25"]),
        "heartbeat: \"25\" from --heartbeat is not a duration from 10ms to 24h, such as 250ms, \
         25s or 5m"
    );
    let env = Env::from([("FRESHET_SHARDS", "many")]);
    assert_eq!(
        serve_with(&[], &env).unwrap_err().to_string(),
        "shards: \"many\" from FRESHET_SHARDS is not a number from 0 to 1024"
    );
}

#[test]
fn values_out_of_bounds_are_refused() {
    for args in [
        ["--connections-max", "0"],
        ["--connections-max", "-1"],
        ["--connections-max", "99999999999999999999"],
        ["--body-bytes-max", "12"],
        ["--body-bytes-max", "1 parsec"],
        ["--heartbeat", "0s"],
        ["--heartbeat", "25h"],
        ["--heartbeat", "18446744073709551615h"],
        ["--listen", "7400"],
        ["--source", "kafka://"],
        ["--source", "kafka://host"],
        ["--source", "kafka://host:0"],
        ["--source", "nats://host:1"],
        ["--control", "https://host"],
        ["--control", "http://user@host:1"],
        ["--control", "http://host:1/path"],
        ["--log-level", "freshet=loudly"],
        ["--role", "both"],
        ["--demo=maybe", "--shards=1"],
    ] {
        assert!(
            matches!(serve(&args), Err(ConfigError::WrongValue { .. })),
            "{args:?}"
        );
    }
}

#[test]
fn sizes_and_durations_take_units() {
    let config = serve(&[
        "--body-bytes-max",
        "64KiB",
        "--head-bytes-max",
        "8192",
        "--channel-linger=5m",
        "--coalesce-window-min=0s",
        "--import-bytes-max",
        "1_000_000",
    ])
    .unwrap();
    assert_eq!(config.body_bytes_max, 65536);
    assert_eq!(config.head_bytes_max, 8192);
    assert_eq!(config.channel_linger, Duration::from_secs(300));
    assert_eq!(config.coalesce_window_min, Duration::ZERO);
    assert_eq!(config.import_bytes_max, 1_000_000);
}

#[test]
fn a_kafka_source_keeps_its_brokers() {
    let brokers = |text| serve(&["--source", text]).unwrap().source;
    assert_eq!(
        brokers("kafka://a.example:9092,127.0.0.1:9093"),
        SourceChoice::Kafka {
            brokers: "a.example:9092,127.0.0.1:9093".to_owned()
        }
    );
}

#[test]
fn roles_that_cannot_work_say_what_to_set() {
    let message = refusal(&["--role", "control"]);
    assert!(
        message.contains("publishes to nobody") && message.contains("kafka://"),
        "{message}"
    );
    let message = refusal(&["--role", "gateway"]);
    assert!(message.contains("Set source to kafka://"), "{message}");
    let kafka = ["--role", "gateway", "--source", "kafka://127.0.0.1:9092"];
    assert!(refusal(&kafka).contains("Set control,"));
    let control = [&kafka[..], &["--control", "http://127.0.0.1:7401"]].concat();
    assert!(refusal(&control).contains("FRESHET_CONTROL_KEY"));
    let key = [&control[..], &["--control-key", "k"]].concat();
    assert_eq!(serve(&key).unwrap().role, Role::Gateway);
    let control = ["--role", "control", "--source", "kafka://127.0.0.1:9092"];
    assert_eq!(serve(&control).unwrap().role, Role::Control);
}

#[test]
fn the_demo_is_refused_on_an_address_that_is_not_loopback() {
    for option in ["--listen", "--control-listen", "--admin-listen"] {
        let message = refusal(&["--demo", option, "0.0.0.0:7400"]);
        assert!(
            message.contains(&option[2..]) && message.contains("loopback"),
            "{message}"
        );
    }
    assert!(serve(&["--listen", "0.0.0.0:7400"]).is_ok());
    assert!(serve(&["--demo", "--listen", "[::1]:7400"]).unwrap().demo);
}

#[test]
fn a_demo_is_not_forgotten_while_it_runs_nor_where_there_is_no_store() {
    let message = refusal(&["--demo", "--forget-demo"]);
    assert!(message.contains("Leave one of them off"), "{message}");
    let gateway = ["--role", "gateway", "--source", "kafka://127.0.0.1:1"];
    let control = ["--control", "http://127.0.0.1:1", "--control-key", "k"];
    let args = [&gateway[..], &control, &["--forget-demo"]].concat();
    assert!(refusal(&args).contains("no store"));
    assert!(serve(&["--forget-demo"]).unwrap().forget_demo);
}

#[test]
fn a_key_of_the_demo_is_no_operators_key() {
    for option in ["--admin-key", "--control-key"] {
        for key in [
            "demo-key",
            "demo2-key",
            "demo-gateway-key",
            "demo-admin-key",
        ] {
            let message = refusal(&[option, key]);
            assert!(
                message.contains(option.trim_start_matches('-')),
                "{message}"
            );
        }
    }
    let gateway = ["--role", "gateway", "--source", "kafka://127.0.0.1:1"];
    let of_demo = [
        "--control",
        "http://127.0.0.1:1",
        "--control-key",
        "demo-gateway-key",
    ];
    assert!(serve(&[gateway, of_demo].concat()).is_ok());
}

#[test]
fn the_demo_brings_its_gateway_key_unless_another_is_set() {
    let key = |args: &[&str]| {
        serve(args)
            .unwrap()
            .control_key
            .unwrap()
            .reveal()
            .to_owned()
    };
    assert_eq!(key(&["--demo"]), "demo-gateway-key");
    assert_eq!(key(&["--demo", "--control-key", "mine"]), "mine");
    assert_eq!(serve(&["--demo=false"]).unwrap().control_key, None);
}

#[test]
fn combinations_that_contradict_are_refused() {
    for args in [
        ["--coalesce-window-min", "300ms"],
        ["--idle-timeout", "20s"],
        ["--connections-per-tenant-max", "200001"],
        ["--import-bytes-max", "1024"],
        ["--admin-listen", "127.0.0.1:7400"],
    ] {
        assert!(
            matches!(serve(&args), Err(ConfigError::Combination { .. })),
            "{args:?}"
        );
    }
    let any_port = ["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
    assert!(serve(&any_port).is_ok());
}

#[test]
fn a_secret_is_never_shown() {
    let env = Env::from([("FRESHET_CONTROL_KEY", "s3cret")]);
    let config = serve_with(&[], &env).unwrap();
    assert!(!format!("{config:?}").contains("s3cret"));
    let text = print(&[], &env);
    assert!(!text.contains("s3cret"));
    assert!(text.contains("# control-key = \"(set)\""), "{text}");
    assert!(text.contains("# From: FRESHET_CONTROL_KEY."), "{text}");
    let error = refusal(&["--control-key", "with space s3cret"]);
    assert!(!error.contains("s3cret"), "{error}");
}

#[test]
fn what_is_printed_is_a_file_that_sets_the_same_values() {
    let args = ["--heartbeat", "7s", "--body-bytes-max", "2048", "--demo"];
    let text = print(&args, &Env::new());
    assert!(
        text.contains("# From: --heartbeat. Default: 25s."),
        "{text}"
    );
    let file = file(&text);
    let again = serve(&["--config", file.path().to_str().unwrap()]).unwrap();
    assert_eq!(format!("{again:?}"), format!("{:?}", serve(&args).unwrap()));
}

#[test]
fn every_option_is_printed_with_its_documentation_and_stands_in_the_help() {
    let text = print(&[], &Env::new());
    let ConfigError::Usage(help) = serve(&["--help"]).unwrap_err() else {
        panic!("help is clap's output")
    };
    let help = help.to_string();
    for option in OPTIONS {
        assert!(
            text.contains(&format!("# {}.\n", option.help)),
            "{}",
            option.name
        );
        assert!(text.contains(&format!("\n{} = ", option.name)) || option.default.is_empty());
        assert!(
            help.contains(&format!("--{}", option.name)),
            "{}",
            option.name
        );
        assert!(!option.help.ends_with('.'), "{}", option.name);
    }
}

#[test]
fn names_are_kebab_case_and_unique() {
    let mut names: Vec<_> = OPTIONS.iter().map(|option| option.name).collect();
    assert!(
        names
            .iter()
            .all(|name| name.bytes().all(|b| b.is_ascii_lowercase() || b == b'-'))
    );
    names.sort_unstable();
    let count = names.len();
    names.dedup();
    assert_eq!(names.len(), count);
    assert_eq!(
        options::find("heartbeat").unwrap().variable(),
        "FRESHET_HEARTBEAT"
    );
}

#[test]
fn an_unknown_flag_or_no_command_is_a_usage_error() {
    for args in [
        &["serve", "--heartbeet", "1s"][..],
        &[],
        &["config"],
        &["dance"],
    ] {
        assert!(
            matches!(run(args, &Env::new()), Err(ConfigError::Usage(_))),
            "{args:?}"
        );
    }
    let ConfigError::Usage(version) = run(&["--version"], &Env::new()).unwrap_err() else {
        panic!("the version is clap's output")
    };
    assert_eq!(
        version.to_string(),
        format!("freshet {}\n", env!("CARGO_PKG_VERSION"))
    );
}
