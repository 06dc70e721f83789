use super::super::draft::DraftValue;
use super::*;

fn draft(text: &str) -> Draft {
    let directory = tempfile::tempdir().unwrap();
    read(&File { name: "compose.yaml".to_owned(), text: text.to_owned() }, &Files::new(directory.path()))
}

const SHOP: &str = r#"
services:
  api:
    image: shop/api
    command: node server.js
    ports: ["8080:3000"]
    environment:
      - DATABASE_URL=postgres://shop:${DB_PASSWORD:-pw}@db:5432/shop
      - DB_HOST=db
      - LOG_LEVEL=${LOG_LEVEL:-info}
      - STRIPE_SECRET=sk_test
      - FROM_SHELL
      - PORT=3000
    depends_on:
      db: { condition: service_healthy }
    healthcheck:
      test: ["CMD", "curl", "-f", "http://localhost:3000/healthz"]
      interval: 5s
      retries: 4
    deploy:
      replicas: 2
      resources: { limits: { cpus: "0.5", memory: 256mb } }
    restart: "no"
    stop_grace_period: 1m30s
    volumes: ["./data:/data"]
  db:
    image: postgres:16-alpine
    volumes: [pg:/var/lib/postgresql/data]
  mail:
    image: mailhog/mailhog
volumes:
  pg: {}
"#;

#[test]
fn what_has_a_counterpart_is_taken_over() {
    let draft = draft(SHOP);
    let api = draft.services.iter().find(|service| service.name == "api").unwrap();
    assert!(matches!(&api.runs, DraftRuns::Command(words) if words.len() == 2));
    assert_eq!((api.port, api.public, api.replicas), (Some(3000), true, Some(2)));
    assert_eq!(api.after, ["db"]);
    assert_eq!(api.ready.as_deref(), Some("http = \"/healthz\", every = \"5s\", failures = 4"));
    assert_eq!(api.limits.as_deref(), Some("cpu = 0.5, memory = \"256M\""));
    assert_eq!(api.restart.as_deref(), Some("burst = 0"));
    assert_eq!(api.stop.as_deref(), Some("timeout = \"90s\""));
    assert_eq!(api.env["DATABASE_URL"], DraftValue::Ref("db.url".into()));
    assert_eq!(api.env["LOG_LEVEL"], DraftValue::Text("info".into()));
    assert_eq!(api.env["STRIPE_SECRET"], DraftValue::Secret("stripe_secret".into()));
    assert!(!api.env.contains_key("PORT") && !api.env.contains_key("DB_HOST"));
    assert!(matches!(draft.services[1].runs, DraftRuns::Uses("postgres")));
}

#[test]
fn what_has_none_is_listed_with_its_line_and_reason() {
    let draft = draft(SHOP);
    let keys: Vec<&str> = draft.notes.unmapped.iter().map(|unmapped| unmapped.key.as_str()).collect();
    for key in [
        "services.api.image",
        "services.api.volumes",
        "services.api.environment.FROM_SHELL",
        "services.mail",
        "volumes",
        "services.db.volumes",
    ] {
        assert!(keys.contains(&key), "{key} is not listed: {keys:?}");
    }
    assert!(draft.notes.unmapped.iter().all(|unmapped| unmapped.line > 0 && !unmapped.why.is_empty()));
    let secret = draft.notes.unmapped.iter().find(|u| u.key.contains("STRIPE_SECRET")).unwrap();
    assert!(SHOP.lines().nth(secret.line as usize - 1).unwrap().contains("STRIPE_SECRET"));
    let said = format!("{:?}", draft.notes);
    assert!(!said.contains("sk_test"), "the value of a secret is repeated");
}

#[test]
fn a_health_check_that_is_no_get_stays_a_command() {
    let with = |test: &str| {
        let text = format!("services:\n  a:\n    command: x\n    healthcheck:\n      test: {test}\n");
        draft(&text).services[0].ready.clone()
    };
    assert_eq!(with("[\"CMD-SHELL\", \"a || exit 1\"]").unwrap(), "exec = [\"sh\", \"-c\", \"a || exit 1\"]");
    assert_eq!(with("[\"CMD\", \"bin/ok\"]").unwrap(), "exec = [\"bin/ok\"]");
    assert_eq!(with("[\"NONE\"]"), None);
}

#[test]
fn garbage_is_listed_and_nothing_more() {
    for text in [
        "",
        "a",
        "- 1",
        "services: 3",
        "services: [a]",
        "services:\n  a: b\n",
        "services:\n  a:\n    ports: x\n",
        "\t",
        "a: [",
        "services:\n  a:\n    build: ../..\n",
    ] {
        assert!(draft(text).services.is_empty(), "{text:?}");
    }
}
