//! From the words of a command to the file that will be executed, or the reason why there is none.

use std::ffi::{CString, OsStr, OsString};
use std::fs;
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use crate::spawn_error::SpawnError;
use crate::spec::Variables;
use crate::user::User;

/// Where commands are looked for when nobody says.
pub(crate) const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// How alike (Jaro-Winkler, 1 = equal) a name must be to be suggested: below it, guesses are noise.
const LIKENESS_MIN: f64 = 0.85;

/// How many directory entries are compared with a misspelt command; a PATH has a few thousand.
const SUGGESTIONS_READ_MAX: usize = 20_000;

/// A command that can be handed to `execve`.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) program: CString,
    pub(crate) argv: Vec<CString>,
    pub(crate) env: Vec<CString>,
    pub(crate) workdir: CString,
    /// Present only when it is another user than the one Fairway runs as.
    pub(crate) user: Option<User>,
    program_path: PathBuf,
    runs_as: User,
}

/// # Errors
/// What is wrong with the command, its directory or its user, as far as it shows before the attempt.
pub(crate) fn prepare(
    argv: &[String],
    env: &Variables,
    workdir: &Path,
    user: Option<&str>,
) -> Result<Prepared, SpawnError> {
    let command = argv.first().filter(|word| !word.is_empty()).ok_or(SpawnError::EmptyCommand)?;
    let current = User::current();
    let wanted = match user {
        None => None,
        Some(name) => {
            let found = User::find(name).map_err(|error| SpawnError::System {
                command: command.clone(),
                stage: format!("looking up the user {name}"),
                why: error.to_string(),
            })?;
            let found = found.ok_or_else(|| SpawnError::UnknownUser { user: name.to_owned() })?;
            (found.uid != current.uid || found.gid != current.gid).then_some(found)
        }
    };
    if let Some(user) = &wanted
        && current.uid != 0
    {
        return Err(SpawnError::CannotBecomeUser { user: user.name.clone(), running_as: current.name });
    }
    let runs_as = wanted.clone().unwrap_or(current);
    let env = environment(env, &runs_as, wanted.is_some());
    // After the change of directory a relative path would name another file.
    let workdir = &std::path::absolute(workdir)
        .map_err(|_| SpawnError::WorkdirMissing { path: workdir.to_path_buf() })?;
    check_workdir(workdir, &runs_as)?;
    let path = env.0.get("PATH").map_or(DEFAULT_PATH, String::as_str);
    let program_path = find(command, path, workdir)?;
    Ok(Prepared {
        program: nul_terminated(program_path.as_os_str(), "the command")?,
        argv: argv
            .iter()
            .map(|word| nul_terminated(OsStr::new(word), "an argument"))
            .collect::<Result<_, _>>()?,
        env: env
            .0
            .iter()
            .map(|(name, value)| {
                nul_terminated(OsStr::new(&format!("{name}={value}")), &format!("the variable {name}"))
            })
            .collect::<Result<_, _>>()?,
        workdir: nul_terminated(workdir.as_os_str(), "the working directory")?,
        user: wanted,
        program_path,
        runs_as,
    })
}

/// The given variables over the small base that nearly every program expects.
fn environment(given: &Variables, user: &User, other_user: bool) -> Variables {
    let mut env = Variables::default();
    let inherited = |name: &str| std::env::var(name).ok();
    env.0.insert("PATH".into(), inherited("PATH").unwrap_or_else(|| DEFAULT_PATH.into()));
    let own_home = inherited("HOME").filter(|_| !other_user);
    env.0.insert("HOME".into(), own_home.unwrap_or_else(|| user.home.to_string_lossy().into_owned()));
    env.0.insert("LANG".into(), inherited("LANG").unwrap_or_else(|| "C.UTF-8".into()));
    if let Some(zone) = inherited("TZ") {
        env.0.insert("TZ".into(), zone);
    }
    env.0.extend(given.0.clone());
    env
}

fn nul_terminated(text: &OsStr, what: &str) -> Result<CString, SpawnError> {
    CString::new(text.as_bytes()).map_err(|_| SpawnError::NulByte { what: what.to_owned() })
}

fn check_workdir(workdir: &Path, user: &User) -> Result<(), SpawnError> {
    let denied =
        |at: PathBuf| SpawnError::WorkdirDenied { path: workdir.to_path_buf(), at, user: user.name.clone() };
    match fs::metadata(workdir) {
        Ok(metadata) if !metadata.is_dir() => Err(SpawnError::WorkdirMissing { path: workdir.to_path_buf() }),
        Ok(metadata) => match user.stopped_at(workdir) {
            Some(at) => Err(denied(at)),
            None if !user.allows(&metadata, 1) => Err(denied(workdir.to_path_buf())),
            None => Ok(()),
        },
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            Err(denied(user.stopped_at(workdir).unwrap_or_else(|| workdir.to_path_buf())))
        }
        Err(_) => Err(SpawnError::WorkdirMissing { path: workdir.to_path_buf() }),
    }
}

fn find(command: &str, path: &str, workdir: &Path) -> Result<PathBuf, SpawnError> {
    if command.contains('/') {
        let file = workdir.join(command);
        return match fs::metadata(&file) {
            Ok(metadata) if metadata.is_dir() => Err(SpawnError::IsADirectory { path: file }),
            Ok(_) => Ok(file),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(file),
            Err(_) => {
                let suggestion = suggest_beside(&file, command);
                Err(SpawnError::FileNotFound { path: file, suggestion })
            }
        };
    }
    let mut not_executable = None;
    for dir in path.split(':') {
        // POSIX: an empty entry is the working directory.
        let file = workdir.join(dir).join(command);
        let Ok(metadata) = fs::metadata(&file) else { continue };
        if metadata.is_dir() {
            continue;
        }
        if is_executable(&metadata) {
            return Ok(file);
        }
        not_executable.get_or_insert(file);
    }
    match not_executable {
        Some(path) => Err(SpawnError::NotExecutable { path }),
        None => Err(SpawnError::CommandNotFound {
            command: command.to_owned(),
            path: path.to_owned(),
            suggestion: suggest(command, path, workdir),
        }),
    }
}

fn is_executable(metadata: &fs::Metadata) -> bool {
    use std::os::unix::fs::PermissionsExt;
    metadata.permissions().mode() & 0o111 != 0
}

/// First where people forget the directory, then where they misspell the name.
fn suggest(command: &str, path: &str, workdir: &Path) -> Option<String> {
    for dir in [".", "node_modules/.bin", ".venv/bin", "venv/bin", "bin"] {
        if fs::metadata(workdir.join(dir).join(command)).is_ok_and(|metadata| metadata.is_file()) {
            return Some(format!(
                "./{}{command}",
                if dir == "." { String::new() } else { format!("{dir}/") }
            ));
        }
    }
    let names = path.split(':').flat_map(|dir| fs::read_dir(workdir.join(dir)).into_iter().flatten());
    most_alike(command, names)
}

fn suggest_beside(file: &Path, command: &str) -> Option<String> {
    let name = file.file_name()?.to_str()?;
    let found = most_alike(name, fs::read_dir(file.parent()?).ok()?)?;
    Some(format!("{}{found}", command.strip_suffix(name)?))
}

fn most_alike(name: &str, entries: impl Iterator<Item = io::Result<fs::DirEntry>>) -> Option<String> {
    entries
        .take(SUGGESTIONS_READ_MAX)
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .map(|other| (strsim::jaro_winkler(name, &other), other))
        .filter(|(likeness, _)| *likeness >= LIKENESS_MIN)
        .max_by(|(a, x), (b, y)| a.total_cmp(b).then_with(|| y.cmp(x)))
        .map(|(_, other)| other)
}

/// What the kernel was doing when it refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Fork,
    Cgroup,
    Limits,
    User,
    Workdir,
    Exec,
}

impl Prepared {
    /// Turns the errno of an attempt into a cause. `execve` says ENOENT both for a missing file and for a missing
    /// interpreter, and EACCES for five different things: so the file is looked at again, afterwards.
    pub(crate) fn explain(&self, stage: Stage, error: &io::Error) -> SpawnError {
        let path = self.program_path.clone();
        let system = |stage: &str| SpawnError::System {
            command: self.argv.first().map(|word| word.to_string_lossy().into_owned()).unwrap_or_default(),
            stage: stage.to_owned(),
            why: error.to_string(),
        };
        let user = self.runs_as.name.clone();
        match stage {
            Stage::Fork => system("creating the process"),
            Stage::Cgroup => system("entering the cgroup"),
            Stage::Limits => system("setting its limits"),
            Stage::User => SpawnError::CannotBecomeUser { user, running_as: User::current().name },
            Stage::Workdir => {
                let workdir = PathBuf::from(OsString::from_vec(self.workdir.to_bytes().to_vec()));
                check_workdir(&workdir, &self.runs_as)
                    .err()
                    .unwrap_or_else(|| system("entering its working directory"))
            }
            Stage::Exec => match error.raw_os_error() {
                Some(libc::ENOENT) => match interpreter(&path) {
                    Some(interpreter) => SpawnError::InterpreterMissing { script: path, interpreter },
                    None if path.exists() => SpawnError::ExecFormat {
                        path,
                        why: "the loader that it names is missing (built for another system?)".into(),
                    },
                    None => SpawnError::FileNotFound { path, suggestion: None },
                },
                Some(libc::EACCES) => match (self.runs_as.stopped_at(&path), fs::metadata(&path)) {
                    (Some(at), _) => SpawnError::PermissionDenied { path, at, user },
                    (None, Ok(metadata)) if !is_executable(&metadata) => SpawnError::NotExecutable { path },
                    (None, Ok(metadata)) if !self.runs_as.allows(&metadata, 1) => {
                        SpawnError::PermissionDenied { at: path.clone(), path, user }
                    }
                    (None, Ok(_)) if interpreter(&path).is_some() => SpawnError::PermissionDenied {
                        at: interpreter(&path).map(PathBuf::from).unwrap_or_default(),
                        path,
                        user,
                    },
                    (None, Ok(_)) => SpawnError::ExecFormat {
                        path,
                        why: "the file system that holds it is mounted noexec, or a policy forbids it".into(),
                    },
                    (None, Err(_)) => SpawnError::PermissionDenied { at: path.clone(), path, user },
                },
                Some(libc::ENOEXEC) => {
                    let why = format_problem(&path);
                    SpawnError::ExecFormat { path, why }
                }
                _ => system("executing it"),
            },
        }
    }
}

fn head(path: &Path) -> Vec<u8> {
    let mut head = Vec::new();
    if let Ok(file) = fs::File::open(path) {
        // The kernel itself reads no more than 256 bytes of a #! line.
        let _ = file.take(256).read_to_end(&mut head);
    }
    head
}

fn interpreter(path: &Path) -> Option<String> {
    let head = head(path);
    let line = head.strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?;
    // A carriage return is part of the name for the kernel; showing it is what explains the error.
    let name = String::from_utf8_lossy(line).trim_matches([' ', '\t']).split([' ', '\t']).next()?.to_owned();
    Some(name.replace('\r', "\\r (the file has Windows line ends)"))
}

fn format_problem(path: &Path) -> String {
    let head = head(path);
    match head.as_slice() {
        [] => "the file is empty".into(),
        [0x7f, b'E', b'L', b'F', class, ..] if head.len() >= 20 => {
            let machine = u16::from_le_bytes([head[18], head[19]]);
            let built_for = match machine {
                3 => "x86",
                40 => "arm",
                62 => "x86_64",
                183 => "aarch64",
                243 => "riscv64",
                _ => "another machine",
            };
            let bits = if *class == 1 { "32" } else { "64" };
            format!(
                "it is a {bits}-bit program built for {built_for}, this machine is {}",
                std::env::consts::ARCH
            )
        }
        [b'M', b'Z', ..] => "it is a Windows program".into(),
        _ => "it is neither a program nor a script with a #! line".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(argv: &[&str], path: &str, workdir: &Path) -> Result<PathBuf, SpawnError> {
        let argv: Vec<String> = argv.iter().map(|word| (*word).to_owned()).collect();
        prepare(&argv, &[("PATH", path)].into_iter().collect(), workdir, None).map(|it| it.program_path)
    }

    #[test]
    fn a_misspelt_command_gets_the_path_and_a_suggestion() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(
            resolve(&["slep"], "/usr/bin:/bin", dir.path()).unwrap_err().to_string(),
            "command not found: slep (PATH is /usr/bin:/bin); did you mean sleep?"
        );
        std::fs::create_dir_all(dir.path().join("node_modules/.bin")).unwrap();
        std::fs::write(dir.path().join("node_modules/.bin/next"), "").unwrap();
        assert_eq!(
            resolve(&["next"], "/bin", dir.path()).unwrap_err().to_string(),
            "command not found: next (PATH is /bin); did you mean ./node_modules/.bin/next?"
        );
    }

    #[test]
    fn a_relative_command_is_looked_for_in_the_working_directory() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("run.sh"), "").unwrap();
        assert_eq!(resolve(&["./run.sh"], "/bin", dir.path()).unwrap(), dir.path().join("./run.sh"));
        let error = resolve(&["./rum.sh"], "/bin", dir.path()).unwrap_err();
        assert!(error.to_string().ends_with("did you mean ./run.sh?"), "{error}");
    }

    #[test]
    fn what_cannot_be_run_says_so() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(resolve(&[], "/bin", dir.path()), Err(SpawnError::EmptyCommand));
        assert!(resolve(&["."], "/bin", dir.path()).is_err());
        assert!(matches!(resolve(&["./"], "/bin", dir.path()), Err(SpawnError::IsADirectory { .. })));
        assert!(matches!(resolve(&["sleep", "a\0b"], "/bin", dir.path()), Err(SpawnError::NulByte { .. })));
        let gone = dir.path().join("gone");
        assert_eq!(resolve(&["sleep"], "/bin", &gone), Err(SpawnError::WorkdirMissing { path: gone }));
        let unknown = prepare(&["sleep".into()], &Variables::default(), dir.path(), Some("nobody-here"));
        assert_eq!(unknown.unwrap_err(), SpawnError::UnknownUser { user: "nobody-here".into() });
    }
}
