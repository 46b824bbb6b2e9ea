//! A real Kafka broker: one JVM, on ports and a directory of its own.

use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::types::RDKafkaErrorCode;
use tempfile::TempDir;

/// How long a broker may take to answer. Source: arbitrary, because it needs some 5 s on an idle
/// machine and a loaded one is allowed to be ten times slower.
const READY: Duration = Duration::from_secs(60);
/// One question to the broker, of the many until it is ready.
const ASK: Duration = Duration::from_secs(1);
/// The cluster's id. Source: arbitrary, because any 16 bytes in URL-safe base64 do.
const CLUSTER_ID: &str = "4L6g3nShT-eMCtK--X86sw";
/// Heap. Source: measured, the broker of the tests stays under 150 MB.
const HEAP: &str = "-Xmx384m";

/// A broker that is killed when it is dropped.
#[derive(Debug)]
pub struct KafkaBroker {
    /// None while it is killed.
    process: Option<Child>,
    port: u16,
    directory: TempDir,
}

/// Why there is no broker.
#[derive(Debug, thiserror::Error)]
pub enum KafkaError {
    /// A file or a process could not be made.
    #[error("{what}: {error}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        error: io::Error,
    },
    /// A helper process failed.
    #[error("{what} ended with {status}; {output}")]
    Failed {
        /// What it was to do.
        what: &'static str,
        /// How it ended.
        status: ExitStatus,
        /// The end of what it wrote.
        output: String,
    },
    /// The broker did not answer in time.
    #[error("the broker does not answer; the end of its log: {log}")]
    Silent {
        /// The end of its log.
        log: String,
    },
    /// The broker refused something.
    #[error("the broker refuses: {0}")]
    Refused(#[from] rdkafka::error::KafkaError),
    /// The broker refused something about a topic.
    #[error("the topic {topic}: {code}")]
    Topic {
        /// Which topic.
        topic: String,
        /// Why.
        code: RDKafkaErrorCode,
    },
}

fn io_error(what: &'static str) -> impl FnOnce(io::Error) -> KafkaError {
    move |error| KafkaError::Io { what, error }
}

impl KafkaBroker {
    /// Starts a broker and waits until it answers. The jars are fetched if they are not there.
    ///
    /// # Errors
    ///
    /// [`KafkaError`], with the broker's own words where it has some.
    pub fn start() -> Result<Self, KafkaError> {
        fetch_jars()?;
        let directory = TempDir::new().map_err(io_error("a directory for the broker"))?;
        let (port, controller_port) = free_ports().map_err(io_error("free ports"))?;
        write_properties(directory.path(), port, controller_port)
            .map_err(io_error("the broker's properties"))?;
        let output = java("kafka.tools.StorageTool", directory.path())
            .args(["format", "-t", CLUSTER_ID, "-c"])
            .arg(directory.path().join("server.properties"))
            .output()
            .map_err(io_error("java, which the broker needs"))?;
        if !output.status.success() {
            return Err(KafkaError::Failed {
                what: "formatting the broker's storage",
                status: output.status,
                output: String::from_utf8_lossy(&output.stderr).into_owned(),
            });
        }
        let mut broker = Self {
            process: None,
            port,
            directory,
        };
        broker.restart()?;
        Ok(broker)
    }

    /// `host:port` for clients; the same after a restart.
    pub fn address(&self) -> String {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port)).to_string()
    }

    /// What `--source` takes.
    pub fn source(&self) -> String {
        format!("kafka://{}", self.address())
    }

    /// Ends the broker with SIGKILL and waits until the process is gone. Nothing if it is gone.
    ///
    /// # Errors
    ///
    /// [`KafkaError::Io`].
    pub fn kill(&mut self) -> Result<(), KafkaError> {
        if let Some(mut process) = self.process.take() {
            process.kill().map_err(io_error("killing the broker"))?;
            process
                .wait()
                .map_err(io_error("waiting for the broker's end"))?;
        }
        Ok(())
    }

    /// Starts the broker again on the same ports and directory, and waits until it answers.
    ///
    /// # Errors
    ///
    /// [`KafkaError`].
    pub fn restart(&mut self) -> Result<(), KafkaError> {
        self.kill()?;
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.log_path())
            .map_err(io_error("the broker's log"))?;
        let errors = log.try_clone().map_err(io_error("the broker's log"))?;
        let process = java("kafka.Kafka", self.directory.path())
            .arg(self.directory.path().join("server.properties"))
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .spawn()
            .map_err(io_error("java, which the broker needs"))?;
        self.process = Some(process);
        self.wait_until_ready()
    }

    /// Makes a topic and waits until it is there.
    ///
    /// # Errors
    ///
    /// [`KafkaError::Topic`] if it exists already.
    pub async fn create_topic(&self, topic: &str, partitions: i32) -> Result<(), KafkaError> {
        let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
        let made = self.admin()?.create_topics([&new], &patient()).await?;
        topic_outcome(made)
    }

    /// Deletes a topic with all it holds.
    ///
    /// # Errors
    ///
    /// [`KafkaError::Topic`] if there is none.
    pub async fn delete_topic(&self, topic: &str) -> Result<(), KafkaError> {
        let gone = self.admin()?.delete_topics(&[topic], &patient()).await?;
        topic_outcome(gone)
    }

    /// Gives a topic more partitions, `partitions` in all.
    ///
    /// # Errors
    ///
    /// [`KafkaError::Topic`] if it does not have fewer.
    pub async fn grow_topic(&self, topic: &str, partitions: usize) -> Result<(), KafkaError> {
        let more = NewPartitions::new(topic, partitions);
        let grown = self.admin()?.create_partitions([&more], &patient()).await?;
        topic_outcome(grown)
    }

    fn admin(&self) -> Result<AdminClient<DefaultClientContext>, KafkaError> {
        Ok(self.client().create()?)
    }

    fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", self.address())
            .set("reconnect.backoff.max.ms", "200")
            .set_log_level(RDKafkaLogLevel::Emerg);
        config
    }

    /// Asks until the broker answers; each question waits by itself, so nothing sleeps here.
    fn wait_until_ready(&mut self) -> Result<(), KafkaError> {
        let admin = self.admin()?;
        let attempts = READY.as_secs() / ASK.as_secs();
        for _ in 0..attempts {
            let process = self.process.as_mut().expect("it was just started");
            if process
                .try_wait()
                .map_err(io_error("asking for the broker"))?
                .is_some()
            {
                break;
            }
            let answer = admin.inner().fetch_metadata(None, ASK);
            if answer.is_ok_and(|metadata| !metadata.brokers().is_empty()) {
                return Ok(());
            }
        }
        let log = std::fs::read_to_string(self.log_path()).unwrap_or_default();
        Err(KafkaError::Silent { log: tail(&log) })
    }

    fn log_path(&self) -> PathBuf {
        self.directory.path().join("broker.log")
    }
}

impl Drop for KafkaBroker {
    fn drop(&mut self) {
        // Nobody is left to tell.
        drop(self.kill());
    }
}

fn patient() -> AdminOptions {
    AdminOptions::new()
        .operation_timeout(Some(READY))
        .request_timeout(Some(READY))
}

fn topic_outcome(
    outcome: Vec<Result<String, (String, RDKafkaErrorCode)>>,
) -> Result<(), KafkaError> {
    for one in outcome {
        one.map_err(|(topic, code)| KafkaError::Topic { topic, code })?;
    }
    Ok(())
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn jars() -> PathBuf {
    repository().join(".cache/kafka/libs")
}

fn fetch_jars() -> Result<(), KafkaError> {
    // Tests of one process run side by side.
    static FETCHING: Mutex<()> = Mutex::new(());
    let _fetching = FETCHING.lock();
    let output = Command::new(repository().join("tests/kafka/fetch"))
        .arg(jars())
        .output()
        .map_err(io_error("tests/kafka/fetch"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(KafkaError::Failed {
        what: "fetching the broker's jars",
        status: output.status,
        output: tail(&String::from_utf8_lossy(&output.stderr)),
    })
}

fn java(main: &str, directory: &Path) -> Command {
    let settings = repository().join("tests/kafka/log4j2.properties");
    let mut command = Command::new("java");
    command
        .arg(HEAP)
        .arg(format!("-Dlog4j2.configurationFile={}", settings.display()))
        .arg("-cp")
        .arg(jars().join("*"))
        .arg(main)
        .current_dir(directory);
    command
}

/// Two ports that were free a moment ago: both are held while they are chosen.
fn free_ports() -> io::Result<(u16, u16)> {
    let one = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let two = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    Ok((one.local_addr()?.port(), two.local_addr()?.port()))
}

fn write_properties(directory: &Path, port: u16, controller_port: u16) -> io::Result<()> {
    let template = std::fs::read_to_string(repository().join("tests/kafka/server.properties"))?;
    let text = template
        .replace("@BROKER_PORT@", &port.to_string())
        .replace("@CONTROLLER_PORT@", &controller_port.to_string())
        .replace("@DATA@", &directory.display().to_string());
    std::fs::write(directory.join("server.properties"), text)
}

/// The last lines. Source of 20: arbitrary, because a stack trace's head fits.
fn tail(text: &str) -> String {
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}
