//! Redis, or Valkey where that is what is installed: an append-only file, a password, loopback only.

use std::path::PathBuf;
use std::time::Duration;

use fairway_engine::edge::Protocol;
use fairway_engine::service::{Argument, Limits, Readiness, ReadyProbe, Stop, StopSignal};

use super::{
    Backing, BackingError, BackingRequest, failed, find_program, own_dir, password, restart_policy, searched,
    server_user, write_private,
};
use crate::spec::{InstanceSpec, LogPolicy, PortRequest, Variables};

pub(super) fn prepare(request: &BackingRequest) -> Result<Backing, BackingError> {
    let more = ["/usr/bin", "/usr/local/bin"].map(PathBuf::from);
    let program = ["redis-server", "valkey-server"].iter().find_map(|name| find_program(name, &more));
    let program = program.ok_or_else(|| BackingError::Missing {
        program: "redis-server",
        package: "redis-server",
        searched: searched(&more),
    })?;
    let user = server_user(&["redis", "nobody"]);
    let user = user.as_ref();
    let dir = &std::path::absolute(&request.data_dir).map_err(failed(&request.data_dir))?;
    own_dir(dir, user)?;
    let password = password(dir, user)?;
    let port = request.port;
    let config = dir.join("redis.conf");
    // In a file, because a command line can be read by everybody.
    write_private(&config, &configuration(&dir.to_string_lossy(), port, &password), user)?;
    let argv = [program, config].map(|word| Argument::Literal(word.to_string_lossy().into_owned()));
    let spec = InstanceSpec {
        argv: argv.to_vec(),
        env: Variables::default(),
        workdir: dir.clone(),
        port: PortRequest::Fixed { port, variable: None },
        protocol: Protocol::default(),
        ready: Readiness {
            // It accepts connections before it has read its data, and says this line after.
            probe: ReadyProbe::LogLine { contains: "Ready to accept connections".into() },
            within: Duration::from_secs(300),
            every: Duration::from_secs(5),
            timeout: Duration::from_secs(5),
            failures: 3,
        },
        live: None,
        stop: Stop { signal: StopSignal::Term, timeout: Duration::from_secs(60), drain: Duration::ZERO },
        restart: restart_policy(),
        limits: Limits::default(),
        user: user.map(|user| user.name.clone()),
        log: LogPolicy::default(),
    };
    Ok(Backing { spec, url: format!("redis://:{password}@127.0.0.1:{port}/0") })
}

fn configuration(dir: &str, port: u16, password: &str) -> String {
    let quoted = dir.replace('\\', "\\\\").replace('"', "\\\"");
    format!(
        "bind 127.0.0.1\nport {port}\nprotected-mode yes\nrequirepass {password}\ndaemonize no\n\
         dir \"{quoted}\"\nappendonly yes\nlogfile \"\"\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_with_quotes_stays_one_word() {
        let text = configuration("/a \"b\"", 7000, "pw");
        assert!(text.contains("dir \"/a \\\"b\\\"\"\n"), "{text}");
        assert!(text.contains("requirepass pw\n") && text.contains("bind 127.0.0.1\n"));
    }
}
