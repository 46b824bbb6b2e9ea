//! Creates what a scenario needs and is not there.

use std::time::Duration;

use super::NeededSet;
use crate::api::{Api, ApiError};

/// How long an import may take. Source: arbitrary, because 200 apps take a second or two.
const IMPORT_TIMEOUT: Duration = Duration::from_secs(120);
/// Pause between two looks at an import. Source: arbitrary, because it is no load.
const LOOK: Duration = Duration::from_millis(100);

/// Why a scenario's channels are not there.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProvisionError {
    #[error("creating {set}: {source}")]
    Api { set: String, source: ApiError },
    #[error("creating {set} ended with {status}: {detail}")]
    Failed {
        set: String,
        status: String,
        detail: String,
    },
    #[error("creating {set} is not done after {} s", IMPORT_TIMEOUT.as_secs())]
    Late { set: String },
}

/// Makes sure that each set is there with its apps. What is there stays as it is.
///
/// # Errors
///
/// [`ProvisionError`]; what was created stays.
pub(crate) async fn provision(api: &Api, sets: &[NeededSet]) -> Result<(), ProvisionError> {
    for needed in sets {
        let set = needed.set.to_string();
        let late = |_| ProvisionError::Late { set: set.clone() };
        tokio::time::timeout(IMPORT_TIMEOUT, create(api, needed))
            .await
            .map_err(late)??;
    }
    Ok(())
}

async fn create(api: &Api, needed: &NeededSet) -> Result<(), ProvisionError> {
    let set = needed.set.to_string();
    let failed = |source| ProvisionError::Api {
        set: set.clone(),
        source,
    };
    let started = api.import(&set, &needed.apps).await.map_err(failed)?;
    loop {
        let import = api.import_status(&started.id).await.map_err(failed)?;
        match import.status.as_str() {
            "done" => return Ok(()),
            "running" => tokio::time::sleep(LOOK).await,
            status => {
                let detail = import.problem.map(|problem| problem.to_string());
                return Err(ProvisionError::Failed {
                    set: set.clone(),
                    status: status.to_owned(),
                    detail: detail.unwrap_or_default(),
                });
            }
        }
    }
}
