//! Artifacts on their way to the server: captured by content, only what is missing travels.

use std::path::Path;

use fairway_api::ApiError;
use fairway_api::client::{Client, ClientError, Endpoint, full};
use fairway_store::{CaptureError, Captured, Digest, Exclude, Trees};

/// Digests asked about in one request.
const ASK_MAX: usize = 10_000;

/// Captures `dir` (or one file) below `project_root` and brings what the server lacks to it. The answer is the tree's
/// digest.
///
/// # Errors
/// When the tree cannot be read or the server refuses it.
pub async fn push(client: &Client, project_root: &Path, dir: &Path) -> Result<String, ApiError> {
    // A server of the same user on the same machine: captured straight into its store.
    if let Endpoint::Unix(socket) = client.endpoint()
        && let Some(state_dir) = socket.parent()
        && is_writable(&state_dir.join("blobs"))
    {
        return capture(state_dir, dir).map(|captured| captured.digest.to_string());
    }
    let own = project_root.join(".fairway").join("upload");
    std::fs::create_dir_all(&own).map_err(|error| {
        ApiError::new("upload/no-room", format!("{} cannot be made", own.display())).cause(error.to_string())
    })?;
    let captured = capture(&own, dir)?;
    send(client, &own, &captured).await?;
    Ok(captured.digest.to_string())
}

fn is_writable(path: &Path) -> bool {
    rustix::fs::access(path, rustix::fs::Access::WRITE_OK).is_ok()
}

fn capture(store: &Path, path: &Path) -> Result<Captured, ApiError> {
    let trees = Trees::open(store).map_err(|error| refused(&error.into()))?;
    let (dir, exclude) = match (path.is_file(), path.parent(), path.file_name()) {
        // One file is a tree that holds it under its own name.
        (true, Some(parent), Some(name)) => {
            let name = name.to_string_lossy();
            (parent, Exclude { patterns: vec!["/*".to_owned(), format!("!/{name}")] })
        }
        (_, _, _) => (path, Exclude::default()),
    };
    trees.capture(dir, &exclude).map_err(|error| refused(&error))
}

fn refused(error: &CaptureError) -> ApiError {
    let text = error.to_string();
    let (message, hint) = match text.split_once("\nhint: ") {
        Some((message, hint)) => (message, Some(hint.to_owned())),
        None => (text.as_str(), None),
    };
    let exit = match error {
        // The machine's fault, not the project's.
        CaptureError::Blob(_) | CaptureError::Read { .. } => 1,
        CaptureError::NotADirectory { .. }
        | CaptureError::Special { .. }
        | CaptureError::NotUtf8 { .. }
        | CaptureError::Path(_)
        | CaptureError::Changing { .. }
        | CaptureError::TooManyEntries
        | CaptureError::TooLarge { .. }
        | CaptureError::Pattern { .. }
        | CaptureError::Manifest(_) => 2,
    };
    let mut api = ApiError::new("upload/capture", message).exit(exit);
    api.hint = hint;
    api
}

async fn send(client: &Client, store: &Path, captured: &Captured) -> Result<(), ApiError> {
    let trees = Trees::open(store).map_err(|error| ApiError::new("upload/store", error.to_string()))?;
    let manifest = Digest::try_from(&captured.digest)
        .map_err(|error| ApiError::new("upload/store", error.to_string()))?;
    let mut digests: Vec<String> = captured.manifest.blobs().map(Digest::to_hex).collect();
    digests.push(manifest.to_hex());
    digests.sort();
    digests.dedup();
    for some in digests.chunks(ASK_MAX) {
        for missing in client.missing_blobs(some).await.map_err(told)? {
            let digest: Digest = missing.parse().map_err(|_| {
                ApiError::new("upload/protocol", "the server asked for something that is not a digest")
            })?;
            let bytes = trees
                .blobs()
                .read(digest, u64::MAX)
                .map_err(|error| ApiError::new("upload/store", error.to_string()))?;
            client.put_blob(&missing, full(bytes)).await.map_err(told)?;
        }
    }
    Ok(())
}

fn told(error: ClientError) -> ApiError {
    match error {
        ClientError::Api(error) => error,
        other @ (ClientError::NotRunning { .. }
        | ClientError::Interrupted { .. }
        | ClientError::Protocol { .. }) => ApiError::new("upload/connection", other.to_string()),
    }
}
