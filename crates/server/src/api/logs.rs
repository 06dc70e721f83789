//! `GET …/logs`: what instances and jobs wrote.

use axum::extract::{Path, State};
use axum::response::Response;

use super::{App, Failure, key, lines};

pub async fn logs(
    State(_app): State<App>,
    Path((project, environment)): Path<(String, String)>,
) -> Result<Response, Failure> {
    key(&project, &environment)?;
    Ok(lines(futures_util::stream::empty()))
}
