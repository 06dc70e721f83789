//! Artifacts on their way to the server: captured by content, only what is missing travels.

use std::path::Path;

use fairway_api::ApiError;
use fairway_api::client::Client;

/// Captures `dir` and uploads what the server does not have. The answer is the tree's digest.
///
/// # Errors
/// When the tree cannot be read or the server refuses it.
pub async fn push(client: &Client, project_root: &Path, dir: &Path) -> Result<String, ApiError> {
    let _ = (client, project_root, dir);
    Err(ApiError::new("server/unfinished", "not there yet"))
}
