//! PostgreSQL: a cluster of the environment's own, reached over loopback TCP with a password (SCRAM).

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fairway_engine::edge::Protocol;
use fairway_engine::service::{Argument, Limits, Readiness, ReadyProbe, Stop, StopSignal};

use super::{
    Backing, BackingError, BackingRequest, failed, find_program, is_program, own_dir, password,
    restart_policy, run, searched, server_user,
};
use crate::spec::{InstanceSpec, LogPolicy, PortRequest, Variables};
use crate::user::User;

/// The superuser of the cluster, which is the environment's own.
const ROLE: &str = "fairway";

/// PostgreSQL's own bound, less one for the terminator.
const DATABASE_NAME_BYTES_MAX: usize = 63;

struct Programs {
    postgres: PathBuf,
    initdb: PathBuf,
    pg_isready: Option<PathBuf>,
}

pub(super) async fn prepare(request: &BackingRequest) -> Result<Backing, BackingError> {
    check_name(&request.database)?;
    let programs = programs()?;
    let user = server_user(&["postgres", "nobody"]);
    let user = user.as_ref();
    let dir = &std::path::absolute(&request.data_dir).map_err(failed(&request.data_dir))?;
    own_dir(dir, user)?;
    let cluster = dir.join("cluster");
    if cluster.join("PG_VERSION").exists() {
        check_version(&programs, &cluster, user).await?;
        if !dir.join("password").exists() {
            return Err(BackingError::PasswordMissing { dir: dir.clone() });
        }
    }
    let password = password(dir, user)?;
    if !cluster.join("PG_VERSION").exists() {
        set_up(&programs, dir, user, &request.database).await?;
    }
    let port = request.port;
    let address = ["-h", "127.0.0.1", "-p", &port.to_string(), "-q"].map(String::from);
    let probe = match &programs.pg_isready {
        Some(pg_isready) => ReadyProbe::Exec { command: [vec![text(pg_isready)], address.to_vec()].concat() },
        None => ReadyProbe::Tcp,
    };
    let argv = [
        text(&programs.postgres),
        "-D".into(),
        text(&cluster),
        "-p".into(),
        port.to_string(),
        "-c".into(),
        "listen_addresses=127.0.0.1".into(),
        // Its default place is shared by every cluster on the machine and has a bound on the path.
        "-c".into(),
        "unix_socket_directories=".into(),
    ];
    let spec = InstanceSpec {
        argv: argv.map(Argument::Literal).to_vec(),
        env: Variables::default(),
        workdir: dir.clone(),
        port: PortRequest::Fixed { port, variable: None },
        protocol: Protocol::default(),
        ready: Readiness {
            probe,
            // After a crash it reads its log first, which takes as long as it takes.
            within: Duration::from_secs(300),
            every: Duration::from_secs(5),
            timeout: Duration::from_secs(5),
            failures: 3,
        },
        live: None,
        // A "fast" shutdown: transactions are rolled back, the data is written; killing it costs a recovery.
        stop: Stop { signal: StopSignal::Int, timeout: Duration::from_secs(60), drain: Duration::ZERO },
        restart: restart_policy(),
        limits: Limits::default(),
        user: user.map(|user| user.name.clone()),
        log: LogPolicy::default(),
    };
    Ok(Backing { spec, url: format!("postgres://{ROLE}:{password}@127.0.0.1:{port}/{}", request.database) })
}

fn check_name(database: &str) -> Result<(), BackingError> {
    let plain =
        database.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-');
    if plain && !database.is_empty() && database.len() <= DATABASE_NAME_BYTES_MAX {
        return Ok(());
    }
    Err(BackingError::DatabaseName { database: database.to_owned() })
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// Debian keeps the servers of several versions out of `PATH`; the newest comes first.
fn debian_dirs() -> Vec<PathBuf> {
    let mut versions: Vec<(u32, PathBuf)> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let entry = entry.ok()?;
            Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin")))
        })
        .collect();
    versions.sort();
    versions.into_iter().rev().map(|(_, dir)| dir).collect()
}

fn programs() -> Result<Programs, BackingError> {
    let more = debian_dirs();
    let missing =
        |program| BackingError::Missing { program, package: "postgresql", searched: searched(&more) };
    let initdb = find_program("initdb", &more).ok_or_else(|| missing("initdb"))?;
    // Of the same installation: two versions do not understand each other's data.
    let beside = initdb.with_file_name("postgres");
    let postgres = if is_program(&beside) { Some(beside) } else { find_program("postgres", &more) };
    let postgres = postgres.ok_or_else(|| missing("postgres"))?;
    Ok(Programs { postgres, initdb, pg_isready: find_program("pg_isready", &more) })
}

async fn check_version(programs: &Programs, cluster: &Path, user: Option<&User>) -> Result<(), BackingError> {
    let file = cluster.join("PG_VERSION");
    let data = fs::read_to_string(&file).map_err(failed(&file))?.trim().to_owned();
    let argv = [text(&programs.postgres), "--version".into()];
    let said = run("postgres --version", &argv, Path::new("/"), user, "").await?;
    // `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`
    let installed = said.split(' ').nth(2).unwrap_or_default();
    let installed = installed.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default().to_owned();
    if data == installed {
        return Ok(());
    }
    Err(BackingError::Version { dir: cluster.to_path_buf(), data, installed })
}

/// Everything happens under another name, so that a cluster is either whole or not there.
async fn set_up(
    programs: &Programs,
    dir: &Path,
    user: Option<&User>,
    database: &str,
) -> Result<(), BackingError> {
    let new = dir.join("cluster.new");
    if new.exists() {
        fs::remove_dir_all(&new).map_err(failed(&new))?;
    }
    let initdb = [
        text(&programs.initdb),
        format!("--pgdata={}", text(&new)),
        format!("--username={ROLE}"),
        format!("--pwfile={}", text(&dir.join("password"))),
        "--auth=scram-sha-256".into(),
        "--encoding=UTF8".into(),
        // The same order of text on every machine.
        "--locale=C".into(),
        "--no-instructions".into(),
    ];
    run("initdb", &initdb, dir, user, "").await?;
    // Without a server, and so without a moment in which the cluster runs half set up.
    let single = [text(&programs.postgres), "--single".into(), "-D".into(), text(&new), "postgres".into()];
    let said =
        run("CREATE DATABASE", &single, dir, user, &format!("CREATE DATABASE \"{database}\";\n")).await?;
    // The single-user mode ends with success whatever became of its statements.
    if said.contains("ERROR:") || said.contains("FATAL:") {
        let exit = crate::exit::Exit::Code(0);
        return Err(BackingError::Setup { step: "CREATE DATABASE", exit, output: said });
    }
    let cluster = dir.join("cluster");
    fs::rename(&new, &cluster).map_err(failed(&cluster))?;
    fs::File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed(dir))
}
