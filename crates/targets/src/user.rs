//! Users of this machine, through the C library so that directory services count too.

use std::ffi::{CStr, CString};
use std::io;
use std::path::PathBuf;

/// The largest buffer offered to `getpw*_r`: an entry beyond a mebibyte is damage, not a user.
const ENTRY_BYTES_MAX: usize = 1 << 20;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) name: String,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) home: PathBuf,
    /// Every group, `gid` among them.
    pub(crate) groups: Vec<u32>,
}

impl User {
    /// By name, or by number when there is no such name.
    pub(crate) fn find(name_or_uid: &str) -> io::Result<Option<Self>> {
        let Ok(name) = CString::new(name_or_uid) else { return Ok(None) };
        // SAFETY: the pointers given by `entry` are valid for the call, and the name is NUL-terminated.
        let by_name = entry(|pwd, buffer, len, result| unsafe {
            libc::getpwnam_r(name.as_ptr(), pwd, buffer, len, result)
        })?;
        match (by_name, name_or_uid.parse()) {
            (Some(user), _) => Ok(Some(user)),
            (None, Ok(uid)) => Self::of_uid(uid),
            (None, Err(_)) => Ok(None),
        }
    }

    pub(crate) fn of_uid(uid: u32) -> io::Result<Option<Self>> {
        // SAFETY: the pointers given by `entry` are valid for the call.
        entry(|pwd, buffer, len, result| unsafe { libc::getpwuid_r(uid, pwd, buffer, len, result) })
    }

    /// The user this process runs as; by number when it has no name.
    pub(crate) fn current() -> Self {
        let uid = rustix::process::geteuid().as_raw();
        let gid = rustix::process::getegid().as_raw();
        let groups =
            rustix::process::getgroups().unwrap_or_default().iter().map(|gid| gid.as_raw()).collect();
        match Self::of_uid(uid) {
            Ok(Some(user)) => Self { gid, groups, ..user },
            Ok(None) | Err(_) => Self { name: uid.to_string(), uid, gid, home: PathBuf::from("/"), groups },
        }
    }

    fn is_in(&self, group: u32) -> bool {
        self.gid == group || self.groups.contains(&group)
    }

    /// Whether the mode bits let this user do `bits` (4 read, 2 write, 1 execute) with the file. Access control
    /// lists are not looked at: this explains a refusal, it does not decide one.
    pub(crate) fn allows(&self, metadata: &std::fs::Metadata, bits: u32) -> bool {
        use std::os::unix::fs::MetadataExt;
        let mode = metadata.mode();
        if self.uid == 0 {
            return metadata.is_dir() || bits & 1 == 0 || mode & 0o111 != 0;
        }
        let granted = if metadata.uid() == self.uid {
            mode >> 6
        } else if self.is_in(metadata.gid()) {
            mode >> 3
        } else {
            mode
        };
        granted & bits == bits
    }

    /// The first directory on the way to `path` that this user may not pass.
    pub(crate) fn stopped_at(&self, path: &std::path::Path) -> Option<PathBuf> {
        let mut above: Vec<_> = path.ancestors().skip(1).collect();
        above.reverse();
        above
            .into_iter()
            .filter(|dir| !dir.as_os_str().is_empty())
            .find(|dir| std::fs::metadata(dir).is_ok_and(|metadata| !self.allows(&metadata, 1)))
            .map(PathBuf::from)
    }
}

type Fill<'a> = dyn Fn(*mut libc::passwd, *mut libc::c_char, usize, *mut *mut libc::passwd) -> i32 + 'a;

fn entry(
    fill: impl Fn(*mut libc::passwd, *mut libc::c_char, usize, *mut *mut libc::passwd) -> i32,
) -> io::Result<Option<User>> {
    let fill: &Fill<'_> = &fill;
    let mut buffer: Vec<libc::c_char> = vec![0; 1024];
    loop {
        // SAFETY: `passwd` is plain data for which all zeros is a value.
        let mut pwd: libc::passwd = unsafe { std::mem::zeroed() };
        let mut result = std::ptr::null_mut();
        match fill(&raw mut pwd, buffer.as_mut_ptr(), buffer.len(), &raw mut result) {
            0 if result.is_null() => return Ok(None),
            0 => {
                // SAFETY: on success the strings point into `buffer`, which lives until the end of this arm.
                let (name, home) = unsafe { (CStr::from_ptr(pwd.pw_name), CStr::from_ptr(pwd.pw_dir)) };
                return Ok(Some(User {
                    name: name.to_string_lossy().into_owned(),
                    uid: pwd.pw_uid,
                    gid: pwd.pw_gid,
                    home: PathBuf::from(home.to_string_lossy().into_owned()),
                    groups: groups(name, pwd.pw_gid)?,
                }));
            }
            libc::ERANGE if buffer.len() < ENTRY_BYTES_MAX => buffer.resize(buffer.len() * 2, 0),
            // What some systems answer for "no such user".
            libc::ENOENT | libc::ESRCH | libc::EBADF | libc::EPERM => return Ok(None),
            error => return Err(io::Error::from_raw_os_error(error)),
        }
    }
}

fn groups(name: &CStr, gid: u32) -> io::Result<Vec<u32>> {
    let mut groups: Vec<u32> = vec![0; 64];
    // The kernel's own limit is 65536 groups: the second try is offered what the first one asked for.
    for _ in 0..3 {
        let mut count = i32::try_from(groups.len()).unwrap_or(i32::MAX);
        // SAFETY: `groups` has room for `count` entries and `name` is NUL-terminated.
        let answer = unsafe { libc::getgrouplist(name.as_ptr(), gid, groups.as_mut_ptr(), &raw mut count) };
        let wanted = usize::try_from(count).unwrap_or(0);
        if answer >= 0 {
            groups.truncate(wanted);
            return Ok(groups);
        }
        groups.resize(wanted.clamp(groups.len(), 65536), 0);
    }
    Err(io::Error::other("the list of groups does not end"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_found_by_name_and_by_number() {
        let root = User::find("root").unwrap().unwrap();
        assert_eq!((root.uid, root.gid), (0, 0));
        assert_eq!(User::find("0").unwrap().unwrap(), root);
        assert_eq!(User::find("no-such-user-here").unwrap(), None);
        assert_eq!(User::find("bad\0name").unwrap(), None);
    }

    #[test]
    fn the_directory_that_stops_a_user_is_named() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let shut = dir.path().join("shut");
        std::fs::create_dir(&shut).unwrap();
        for (path, mode) in [(dir.path(), 0o755), (shut.as_path(), 0o700)] {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        }
        let stranger = User {
            name: "stranger".into(),
            uid: 4_000_000_000,
            gid: 4_000_000_000,
            home: "/".into(),
            groups: vec![],
        };
        assert_eq!(stranger.stopped_at(&shut.join("bin/app")), Some(shut));
        assert_eq!(stranger.stopped_at(std::path::Path::new("/usr/bin/env")), None);
    }
}
