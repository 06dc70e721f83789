//! `POST …/certificates/NAME/retry`. What there is stands in the status.

use axum::extract::{Path, State};
use axum::{Extension, Json};
use fairway_api::{ApiError, CertificateStatus};
use fairway_engine::{Command, Input};

use super::{Answer, App, Caller, key};
use crate::certificates::NotRetried;
use crate::status;
use crate::warn::warn;

pub async fn retry(
    State(app): State<App>,
    Path((project, environment, name)): Path<(String, String, String)>,
    Extension(Caller(caller)): Extension<Caller>,
) -> Answer<CertificateStatus> {
    let key = key(&project, &environment)?;
    let environment = key.to_string();
    let certificates = app.routes.certificates();
    let name = name.to_ascii_lowercase();
    let refused = |why| {
        let known = certificates.status().into_iter().filter(|one| one.environment == environment);
        refusal(why, &environment, &name, &known.map(|one| one.name).collect::<Vec<_>>())
    };
    let names = certificates.retried(&environment, &name).map_err(refused)?;
    let command = Command::RetryCertificate { names };
    app.pump.command(Input::Command { environment: key, by: caller.clone(), command }).await?;
    certificates.retry(&environment, &name).map_err(refused)?;
    warn(format_args!("{caller} wants the certificate of {name} to be tried again"));
    let found =
        certificates.status().into_iter().find(|one| one.environment == environment && one.name == name);
    // Between the two somebody may have deployed without it.
    let found = found.ok_or_else(|| refusal(NotRetried::Unknown, &environment, &name, &[]))?;
    Ok(Json(status::certificate(&found, app.pump.shared.clock.now())))
}

fn refusal(why: NotRetried, environment: &str, name: &str, known: &[String]) -> ApiError {
    match why {
        NotRetried::Unknown => {
            let error = ApiError::new(
                "certificate/unknown",
                format!("{environment} wants no certificate for {name:?}"),
            );
            let hint = match known {
                [] => "it speaks no TLS; tls in fairway.toml makes it".to_owned(),
                known => format!("there are {}", known.join(", ")),
            };
            error.exit(2).hint(hint)
        }
        NotRetried::UnderWay => {
            ApiError::new("certificate/under-way", format!("the certificate of {name} is being ordered"))
                .hint("fairway certificate list shows how far that is")
        }
        NotRetried::Good { .. } => {
            ApiError::new("certificate/good", format!("nothing has failed with the certificate of {name}"))
                .hint("it is renewed by itself; fairway certificate list shows when")
        }
        NotRetried::Limited { why, .. } => {
            ApiError::new("certificate/limited", format!("{name} has to wait: {why}"))
                .hint("the authority itself has said when; fairway certificate list shows it")
                .exit(4)
        }
    }
}

#[cfg(test)]
mod tests {
    use fairway_engine::time::Timestamp;

    use super::*;

    #[test]
    fn each_refusal_says_what_to_do() {
        let until = Timestamp(0);
        let check = |why: NotRetried, known: &[String], code: &str, hint: &str| {
            let error = refusal(why, "shop/prod", "a.example", known);
            assert_eq!(error.code, code);
            assert!(error.hint.as_ref().is_some_and(|said| said.contains(hint)), "{error:?}");
        };
        check(NotRetried::Unknown, &["b.example".to_owned()], "certificate/unknown", "there are b.example");
        check(NotRetried::Unknown, &[], "certificate/unknown", "tls in fairway.toml");
        check(NotRetried::UnderWay, &[], "certificate/under-way", "how far");
        check(NotRetried::Good { until }, &[], "certificate/good", "by itself");
        let limited = NotRetried::Limited { why: "too many".to_owned(), until };
        check(limited, &[], "certificate/limited", "has said when");
    }
}
