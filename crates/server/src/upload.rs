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
        (true, Some(parent), Some(name)) => (
            parent,
            Exclude { patterns: vec!["/*".to_owned(), format!("!/{}", literal(&name.to_string_lossy()))] },
        ),
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

/// A name as a pattern that means this name alone.
fn literal(name: &str) -> String {
    let special = |c: char| matches!(c, '*' | '?' | '[' | ']' | '\\' | '!' | '#' | ' ');
    name.chars().flat_map(|c| special(c).then_some('\\').into_iter().chain([c])).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    fn names(captured: &Captured) -> Vec<&str> {
        captured.manifest.entries().keys().map(|path| path.as_str()).collect()
    }

    #[test]
    fn a_directory_is_captured_whole() {
        let (store, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::create_dir(dir.path().join("bin")).unwrap();
        std::fs::write(dir.path().join("bin/api"), "run").unwrap();
        std::fs::write(dir.path().join("README"), "read").unwrap();
        let captured = capture(store.path(), dir.path()).unwrap();
        assert_eq!(names(&captured), ["README", "bin", "bin/api"]);
        let again = capture(store.path(), dir.path()).unwrap();
        assert_eq!(again.digest, captured.digest);
    }

    #[test]
    fn one_file_is_captured_under_its_own_name_and_nothing_beside_it() {
        for name in ["app.jar", "app[1].jar", "what?.jar", "#app", "!app", "a b ", "a\\b", "a*"] {
            let (store, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
            std::fs::write(dir.path().join(name), "run").unwrap();
            std::fs::write(dir.path().join("app1.jar"), "other").unwrap();
            let captured = capture(store.path(), &dir.path().join(name)).unwrap();
            assert_eq!(names(&captured), [name]);
        }
    }

    #[test]
    fn what_is_not_there_is_said_with_its_path() {
        let store = tempfile::tempdir().unwrap();
        let error = capture(store.path(), &store.path().join("dist")).unwrap_err();
        assert!(error.message.contains("dist"), "{error:?}");
    }
}
