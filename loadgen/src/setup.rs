//! Why a run could not take place.

use crate::api::ApiError;
use crate::drain::DrainError;
use crate::file::FileError;
use crate::options::OptionError;
use crate::process::ProcessError;
use crate::raw::RawError;
use crate::report::MergeError;
use crate::report::output::ReportError;
use crate::scenario::provision::ProvisionError;
use crate::selftest::SelfTestError;
use crate::workers::WorkerError;

#[derive(Debug, thiserror::Error)]
pub(crate) enum SetupError {
    #[error(transparent)]
    Options(#[from] OptionError),
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Process(#[from] ProcessError),
    #[error("the channel {channel} cannot be read: {source}")]
    Head { channel: String, source: ApiError },
    #[error("the channel cannot be read: {0}")]
    Channel(#[from] ApiError),
    #[error(transparent)]
    Provision(#[from] ProvisionError),
    #[error("{what}: {source}")]
    System {
        what: &'static str,
        source: std::io::Error,
    },
    #[error(transparent)]
    Drain(#[from] DrainError),
    #[error(transparent)]
    Raw(#[from] RawError),
    #[error(transparent)]
    SelfTest(#[from] SelfTestError),
    #[error(transparent)]
    Output(#[from] ReportError),
    #[error(transparent)]
    Worker(#[from] WorkerError),
    #[error("what workers measured does not fit together: {0}")]
    Merge(#[from] MergeError),
}

impl SetupError {
    /// Whether what was asked for makes no sense, whatever the server is like.
    pub(crate) const fn is_usage(&self) -> bool {
        match self {
            Self::Options(_) | Self::File(_) => true,
            Self::Process(_)
            | Self::Head { .. }
            | Self::Channel(_)
            | Self::Provision(_)
            | Self::System { .. }
            | Self::Drain(_)
            | Self::Raw(_)
            | Self::SelfTest(_)
            | Self::Output(_)
            | Self::Worker(_)
            | Self::Merge(_) => false,
        }
    }
}
