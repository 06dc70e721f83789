//! `POST /v1/blobs/missing`, `PUT /v1/blobs/DIGEST`: artifacts by content.

use axum::Json;
use axum::extract::{Path, State};
use bytes::Bytes;
use fairway_api::ApiError;
use fairway_store::Digest;

use super::{Answer, App, blocking};

fn parse(text: &str) -> Result<Digest, ApiError> {
    text.parse().map_err(|error: fairway_store::digest::InvalidDigest| {
        ApiError::new("blob/invalid-digest", error.to_string()).exit(2)
    })
}

pub async fn missing(State(app): State<App>, Json(digests): Json<Vec<String>>) -> Answer<Vec<String>> {
    blocking(move || {
        let digests = digests.iter().map(|text| parse(text)).collect::<Result<Vec<_>, _>>()?;
        Ok(app.trees.blobs().missing(&digests).into_iter().map(Digest::to_hex).collect())
    })
    .await
    .map(Json)
}

pub async fn put(State(app): State<App>, Path(digest): Path<String>, body: Bytes) -> Answer<()> {
    blocking(move || {
        let expected = parse(&digest)?;
        // Looked at before it is stored: a blob under a wrong name would stay for ever.
        if Digest::of(&body) != expected {
            return Err(
                ApiError::new("blob/wrong-content", "the content is not what the digest says").exit(2)
            );
        }
        app.trees.blobs().put(&body).map(drop).map_err(|error| {
            ApiError::new("blob/not-stored", "the artifact could not be stored").cause(error.to_string())
        })
    })
    .await
    .map(Json)
}
