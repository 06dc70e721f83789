//! Fork and exec, step by step, so that a refusal says at which step. The standard library reports one errno for
//! all of them and falls back to `sh` for files that are not programs.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use rustix::pipe::{PipeFlags, pipe_with};

use crate::command::{Prepared, Stage};

/// What a new process is given besides its command.
#[derive(Debug)]
pub(crate) struct Setting<'a> {
    pub(crate) stdin: BorrowedFd<'a>,
    pub(crate) stdout: BorrowedFd<'a>,
    pub(crate) stderr: BorrowedFd<'a>,
    /// `cgroup.procs` of the group that it enters before it runs anything.
    pub(crate) cgroup: Option<BorrowedFd<'a>>,
    /// `RLIMIT_…` and its value, soft and hard.
    pub(crate) rlimits: &'a [(u32, u64)],
}

/// Starts the command in a process group of its own and returns its pid once `execve` has succeeded.
///
/// The process is killed when the *thread* that called this ends (`PR_SET_PDEATHSIG`): the shim has one thread, and
/// an exec session has a thread of its own, so in both cases that is when nobody watches the process any more.
///
/// # Errors
/// The step that failed and what the kernel said.
pub(crate) fn spawn(command: &Prepared, setting: &Setting<'_>) -> Result<i32, (Stage, io::Error)> {
    let fork_failed = |error: io::Error| (Stage::Fork, error);
    let (read, write) = pipe_with(PipeFlags::CLOEXEC).map_err(|error| fork_failed(error.into()))?;
    let argv = pointers(&command.argv);
    let env = pointers(&command.env);
    let parent = rustix::process::getpid().as_raw_nonzero().get();
    let in_child = InChild { command, setting, argv: &argv, env: &env, parent, status: write.as_raw_fd() };

    // SAFETY: the child calls nothing but async-signal-safe functions on memory prepared above, and never returns.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        // SAFETY: this is the child of the fork above.
        unsafe { in_child.run() }
    }
    drop(write);
    if pid < 0 {
        return Err(fork_failed(io::Error::last_os_error()));
    }
    let mut answer = Vec::new();
    let read = File::from(read).take(8).read_to_end(&mut answer);
    match (read, answer.as_slice()) {
        (Ok(_), []) => Ok(pid),
        (Ok(_), [stage, errno @ ..]) => {
            // The child has only `_exit` left to call.
            // SAFETY: `pid` is a child of this process that nobody else waits for.
            unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) };
            let errno = errno.try_into().map(i32::from_ne_bytes).unwrap_or(libc::EIO);
            Err((stage_of(*stage), io::Error::from_raw_os_error(errno)))
        }
        (Err(error), _) => Err(fork_failed(error)),
    }
}

fn pointers(words: &[CString]) -> Vec<*const libc::c_char> {
    words.iter().map(|word| word.as_ptr()).chain([std::ptr::null()]).collect()
}

fn stage_of(number: u8) -> Stage {
    [Stage::Fork, Stage::Cgroup, Stage::Limits, Stage::User, Stage::Workdir, Stage::Exec]
        .into_iter()
        .find(|stage| *stage as u8 == number)
        .unwrap_or(Stage::Fork)
}

struct InChild<'a> {
    command: &'a Prepared,
    setting: &'a Setting<'a>,
    argv: &'a [*const libc::c_char],
    env: &'a [*const libc::c_char],
    parent: i32,
    status: RawFd,
}

impl InChild<'_> {
    /// # Safety
    /// Only to be called in a freshly forked child: it replaces or ends the process.
    unsafe fn run(&self) -> ! {
        // SAFETY: as above; only async-signal-safe calls follow.
        unsafe {
            let stage = self.prepare_and_exec();
            let errno = *libc::__errno_location();
            let mut message = [stage as u8, 0, 0, 0, 0];
            message[1..].copy_from_slice(&errno.to_ne_bytes());
            libc::write(self.status, message.as_ptr().cast(), message.len());
            libc::_exit(127)
        }
    }

    /// Returns the step that failed, with `errno` set; does not return on success.
    unsafe fn prepare_and_exec(&self) -> Stage {
        // SAFETY: async-signal-safe calls on memory that was prepared before the fork.
        unsafe {
            if libc::setpgid(0, 0) != 0 {
                return Stage::Fork;
            }
            let streams = [
                self.setting.stdin.as_raw_fd(),
                self.setting.stdout.as_raw_fd(),
                self.setting.stderr.as_raw_fd(),
            ];
            for (target, source) in (0..).zip(streams) {
                // dup2 onto itself would keep the close-on-exec flag; the sources are never 0 to 2 (see `above_stdio`).
                if libc::dup2(source, target) < 0 {
                    return Stage::Fork;
                }
            }
            if let Some(cgroup) = self.setting.cgroup
                && libc::write(cgroup.as_raw_fd(), c"0".as_ptr().cast(), 1) != 1
            {
                return Stage::Cgroup;
            }
            for (resource, value) in self.setting.rlimits {
                let limit = libc::rlimit64 { rlim_cur: *value, rlim_max: *value };
                if libc::setrlimit64(*resource, &raw const limit) != 0 {
                    return Stage::Limits;
                }
            }
            if let Some(user) = &self.command.user
                && (libc::setgroups(user.groups.len(), user.groups.as_ptr()) != 0
                    || libc::setresgid(user.gid, user.gid, user.gid) != 0
                    || libc::setresuid(user.uid, user.uid, user.uid) != 0)
            {
                return Stage::User;
            }
            // After the change of user, which clears it.
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            if libc::getppid() != self.parent {
                libc::_exit(127);
            }
            if libc::chdir(self.command.workdir.as_ptr()) != 0 {
                return Stage::Workdir;
            }
            for signal in 1..32 {
                // Ignored signals stay ignored over execve: a program that expects SIGPIPE would hang instead.
                libc::signal(signal, libc::SIG_DFL);
            }
            let mut none: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&raw mut none);
            libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
            libc::syscall(libc::SYS_close_range, 3u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC);
            libc::execve(self.command.program.as_ptr(), self.argv.as_ptr(), self.env.as_ptr());
            Stage::Exec
        }
    }
}

/// The same file on a descriptor above the standard three, so that `dup2` in a child always copies.
pub(crate) fn above_stdio(fd: impl AsFd) -> io::Result<OwnedFd> {
    Ok(rustix::io::fcntl_dupfd_cloexec(fd, 3)?)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::command::prepare;
    use crate::exit::Exit;
    use crate::spawn_error::SpawnError;
    use crate::spec::Variables;

    fn start(argv: &[&str], workdir: &std::path::Path, user: Option<&str>) -> Result<Exit, SpawnError> {
        let argv: Vec<String> = argv.iter().map(|word| (*word).to_owned()).collect();
        let command = prepare(&argv, &Variables::default(), workdir, user)?;
        let null = above_stdio(File::options().read(true).write(true).open("/dev/null").unwrap()).unwrap();
        let setting = Setting {
            stdin: null.as_fd(),
            stdout: null.as_fd(),
            stderr: null.as_fd(),
            cgroup: None,
            rlimits: &[(libc::RLIMIT_NOFILE, 64)],
        };
        let pid = spawn(&command, &setting).map_err(|(stage, error)| command.explain(stage, &error))?;
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        let (_, status) =
            rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty()).unwrap().unwrap();
        Ok(Exit::from_wait(status))
    }

    fn script(dir: &std::path::Path, text: &[u8], mode: u32) {
        let path = dir.join("run");
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn limits_signals_and_exit_codes_arrive() {
        let dir = tempfile::tempdir().unwrap();
        let check = |line: &str| start(&["sh", "-c", line], dir.path(), None).unwrap();
        assert_eq!(check("test $(ulimit -n) = 64; exit $?"), Exit::Code(0));
        assert_eq!(check("exit 7"), Exit::Code(7));
        assert_eq!(check("kill -9 $$"), Exit::Signal(9));
        // SIGPIPE is ignored in a Rust process; in a child it must be deadly again.
        assert_eq!(check("kill -PIPE $$; exit 3"), Exit::Signal(13));
    }

    #[test]
    fn each_refusal_has_its_own_cause() {
        let dir = tempfile::tempdir().unwrap();
        let attempt = |text: &[u8], mode| {
            script(dir.path(), text, mode);
            // Another test's fork may hold the script open for writing until its exec.
            let errors =
                std::iter::repeat_with(|| start(&["./run"], dir.path(), None).unwrap_err().to_string());
            errors.take(1000).find(|error| !error.contains("Text file busy")).unwrap()
        };
        let path = dir.path().join("./run").display().to_string();
        assert_eq!(attempt(b"#!/bin/sh\n", 0o644), format!("{path} is not executable; try chmod +x"));
        assert_eq!(
            attempt(b"#!/usr/bin/pyton3\n", 0o755),
            format!("the #! line of {path} names /usr/bin/pyton3, which does not exist")
        );
        assert!(attempt(b"#!/bin/sh\r\n", 0o755).contains("Windows line ends"));
        let cannot = format!("{path} cannot be executed on this machine: ");
        assert_eq!(
            attempt(b"echo hi\n", 0o755),
            cannot.clone() + "it is neither a program nor a script with a #! line"
        );
        assert_eq!(attempt(b"", 0o755), cannot.clone() + "the file is empty");
        let mut elf = std::fs::read("/bin/sh").unwrap();
        elf[18..20].copy_from_slice(&183u16.to_le_bytes());
        assert_eq!(
            attempt(&elf, 0o755),
            cannot
                + &format!(
                    "it is a 64-bit program built for aarch64, this machine is {}",
                    std::env::consts::ARCH
                )
        );
    }

    #[test]
    fn another_user_needs_root_and_a_way_to_the_file() {
        if !rustix::process::geteuid().is_root() {
            assert!(matches!(
                start(&["true"], std::path::Path::new("/"), Some("root")),
                Err(SpawnError::CannotBecomeUser { .. })
            ));
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        script(dir.path(), b"#!/bin/sh\n", 0o755);
        let run = dir.path().join("run").display().to_string();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
        assert_eq!(
            start(&[&run], std::path::Path::new("/"), Some("nobody")).unwrap_err().to_string(),
            format!("permission denied: nobody may not run {run}, stopped at {}", dir.path().display())
        );
        assert!(matches!(
            start(&["true"], dir.path(), Some("nobody")),
            Err(SpawnError::WorkdirDenied { .. })
        ));
        let id = ["sh", "-c", "test $(id -u) = $(id -u nobody) && test $(id -g) = $(id -g nobody)"];
        assert_eq!(start(&id, std::path::Path::new("/"), Some("nobody")), Ok(Exit::Code(0)));
    }
}
