//! Bad input of every kind that the interface promises to refuse: an error with a code, a cause and a hint, and
//! nothing changed.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::notes::Notes;
use crate::checks::Count;
use crate::fault::{Context, Done, Fault};
use crate::home::{Home, Show, free_address, get};

/// What was started for a version that is refused must be gone by then.
const LEAVE_MAX: Duration = Duration::from_secs(15);

pub fn run(fairway: &Path) -> Count {
    let mut count = Count::default();
    let mut world = match World::new(fairway) {
        Ok(world) => world,
        Err(fault) => {
            count.check("a project is deployed before it is broken", || Err(fault));
            return count;
        }
    };
    world.file(&mut count);
    world.machine(&mut count);
    world.names(&mut count);
    world.servers(&mut count);
    count.check("after all of it the project serves as before", || world.still_serves());
    no_disk(&mut count, fairway);
    count
}

struct World {
    home: Home,
    notes: Notes,
}

/// What an error must say.
struct Expect<'a> {
    code: i32,
    says: &'a [&'a str],
}

impl World {
    fn new(fairway: &Path) -> Done<World> {
        let mut home = Home::new(fairway, Show::Nothing)?;
        home.start_server()?;
        let notes = Notes::write(home.path().join("notes"), free_address()?)?;
        home.must(notes.directory(), &["deploy", "-e", "dev"])?;
        Ok(World { home, notes })
    }

    /// Mistakes in fairway.toml: refused by `validate` and by `deploy` alike, with the place.
    fn file(&mut self, count: &mut Count) {
        let cases: [(&str, &str, &str, &[&str]); 7] = [
            ("unknown key", "port = 3000", "prot = 3000", &["prot", "port", "fairway.toml:6:"]),
            ("wrong type", "port = 3000", "port = \"often\"", &["port", "fairway.toml:6:"]),
            (
                "unknown reference",
                "port = 3000",
                "port = 3000\nenv = { X = { ref = \"wep.url\" } }",
                &["wep", "web"],
            ),
            ("cycle in after", "port = 3000", "port = 3000\nafter = [\"api\"]", &["after", "web", "api"]),
            ("two services on one route", "route = \"/api\"", "route = \"/\"", &["web", "route"]),
            ("unknown service in after", "after = [\"web\"]", "after = [\"wbe\"]", &["wbe", "web"]),
            ("not TOML", "[service.web]", "[service.web", &["fairway.toml:4:"]),
        ];
        for (name, from, to, says) in cases {
            for verb in [&["validate"][..], &["deploy", "-e", "dev"], &["plan", "-e", "dev"]] {
                count.check(&format!("{name}: {}", verb[0]), || {
                    self.notes.change(from, to)?;
                    self.refused(verb, &Expect { code: 2, says })
                });
            }
        }
        count.check("a project without services", || {
            self.notes.write_file("version = 1\nproject = \"notes\"\n[env.dev]\n")?;
            self.refused(&["deploy", "-e", "dev"], &Expect { code: 2, says: &["service"] })
        });
        count.check("no file at all", || {
            std::fs::remove_file(self.notes.directory().join("fairway.toml")).context("fairway.toml")?;
            self.refused(&["deploy", "-e", "dev"], &Expect { code: 2, says: &["fairway.toml", "init"] })
        });
    }

    /// What the file asks for and the machine cannot give: found out while the old version serves.
    fn machine(&mut self, count: &mut Count) {
        count.check("command not found", || {
            self.notes.change("[\"python3\", \"notes.py\"]", "[\"pyton3\", \"notes.py\"]")?;
            self.refused(&["deploy", "-e", "dev"], &Expect { code: 1, says: &["pyton3"] })
        });
        count.check("command is not executable", || {
            self.notes.add("start", "#!/bin/sh\nexec python3 notes.py\n", 0o644)?;
            self.notes.change("[\"python3\", \"notes.py\"]", "[\"./start\"]")?;
            self.refused(&["deploy", "-e", "dev"], &Expect { code: 1, says: &["start", "executable"] })
        });
        count.check("missing secret", || {
            self.notes.change("port = 3000", "port = 3000\nenv = { KEY = { secret = \"stripe_key\" } }")?;
            self.refused(
                &["deploy", "-e", "dev"],
                &Expect { code: 2, says: &["stripe_key", "fairway.toml:7:", "fairway secret set"] },
            )
        });
        count.check("a version that ends at once", || {
            self.notes.add("fall.py", "print('no ground below')\nraise SystemExit(3)\n", 0o644)?;
            self.notes.change("[\"python3\", \"notes.py\"]", "[\"python3\", \"fall.py\"]")?;
            self.refused(&["deploy", "-e", "dev"], &Expect { code: 1, says: &["no ground below", "3"] })
        });
        count.check("port taken", || {
            let taken = TcpListener::bind(("127.0.0.1", 0)).context("a port")?;
            let address = taken.local_addr().context("a port")?.to_string();
            self.notes.change(&self.notes.address().to_string(), &address)?;
            self.refused(&["deploy", "-e", "dev"], &Expect { code: 1, says: &[&address, "in use"] })
        });
    }

    /// Names that nothing has, most with one that is near.
    fn names(&mut self, count: &mut Count) {
        let cases: [(&str, &[&str], &[&str]); 11] = [
            ("unknown environment", &["deploy", "-e", "dve"], &["dve", "dev"]),
            ("unknown verb", &["deplyo"], &["deplyo", "deploy"]),
            ("unknown option", &["deploy", "-e", "dev", "--detahc"], &["--detahc", "--detach"]),
            ("unknown service", &["scale", "wbe", "2", "-e", "dev"], &["wbe", "web"]),
            (
                "logs of a release that never was",
                &["logs", "--release", "r99", "-e", "dev"],
                &["r99", "history"],
            ),
            (
                "logs of a copy of a release that never was",
                &["logs", "--instance", "web.r99.1", "-e", "dev"],
                &["r99", "newest"],
            ),
            ("logs of a job that never ran", &["logs", "--job", "99", "-e", "dev"], &["j99", "dev"]),
            ("unknown release", &["rollback", "r99", "-e", "dev"], &["r99"]),
            ("not a release", &["rollback", "latest", "-e", "dev"], &["latest"]),
            ("unknown strategy", &["deploy", "-e", "dev", "--strategy", "roling"], &["roling", "rolling"]),
            ("unknown service in logs", &["logs", "wbe", "-e", "dev"], &["wbe", "web"]),
        ];
        for (name, line, says) in cases {
            count.check(name, || {
                self.notes.restore()?;
                self.refused(line, &Expect { code: 2, says })
            });
        }
        count.check("promote without a rollout", || {
            self.refused(&["promote", "-e", "dev"], &Expect { code: 1, says: &["rollout"] })
        });
        count.check("rollback with nothing before", || {
            self.refused(&["rollback", "-e", "dev"], &Expect { code: 1, says: &["release"] })
        });
    }

    fn servers(&mut self, count: &mut Count) {
        count.check("two servers on one state directory", || {
            let pid = self.home.server_pid().context("the server")?.to_string();
            self.refused(&["server", "run"], &Expect { code: 1, says: &[&pid, "another directory"] })
        });
        count.check("no server", || {
            let output = self
                .home
                .command(self.notes.directory(), &["status"])
                .env("FAIRWAY_STATE", self.home.path().join("nobody"))
                .stdin(Stdio::null())
                .output()
                .context("fairway status")?;
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            Ok(lacking(
                output.status.code(),
                &said,
                &Expect { code: 1, says: &["server", "fairway server run"] },
            ))
        });
    }

    /// Runs the line, which must be refused as expected, and leave everything as it is.
    fn refused(&self, line: &[&str], expect: &Expect) -> Done<Vec<String>> {
        let before = self.what_is()?;
        let ran = self.home.run(self.notes.directory(), line)?;
        let mut findings = lacking(Some(ran.code), &ran.stderr, expect);
        // Copies of the refused version may still be on their way out.
        let deadline = Instant::now() + LEAVE_MAX;
        let mut after = self.what_is()?;
        while before != after && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(50));
            after = self.what_is()?;
        }
        if before != after {
            findings.push(format!("something changed:\n  before {before}\n  after  {after}"));
        }
        let json = self.home.run(self.notes.directory(), &[line, &["--json"]].concat())?;
        let last: Value =
            json.stdout.lines().last().and_then(|line| serde_json::from_str(line).ok()).unwrap_or_default();
        if last["exit"].as_i64() != Some(i64::from(expect.code))
            || last["errors"][0]["code"].as_str().is_none()
        {
            findings.push(format!("--json does not end in the error: {last}"));
        }
        Ok(findings)
    }

    /// What serves, in a form that must not change: release, copies with their processes, route generation apart.
    fn what_is(&self) -> Done<Value> {
        let status = self.home.ask(self.home.path(), &["status"])?;
        let environments = status["environments"].as_array().context("status without environments")?;
        let of_environment = |env: &Value| {
            let services: Vec<Value> = env["services"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|service| {
                    serde_json::json!([
                        service["name"],
                        service["wanted"],
                        service["ready"],
                        service["instances"]
                            .as_array()
                            .map(|all| all.iter().map(|one| one["pid"].clone()).collect::<Vec<_>>())
                    ])
                })
                .collect();
            serde_json::json!([env["environment"], env["stable"]["name"], env["listen"], services])
        };
        Ok(environments.iter().map(of_environment).collect())
    }

    fn still_serves(&self) -> Done<Vec<String>> {
        self.notes.restore()?;
        let answer = get(self.notes.address(), "/")?;
        if answer.status != 200 || answer.body != "notes" {
            return Ok(vec![format!("answered {} {:?}", answer.status, answer.body)]);
        }
        self.home.must(self.notes.directory(), &["deploy", "-e", "dev"])?;
        Ok(Vec::new())
    }
}

fn lacking(code: Option<i32>, said: &str, expect: &Expect) -> Vec<String> {
    let mut findings = Vec::new();
    if code != Some(expect.code) {
        findings.push(format!("exit code {code:?} instead of {}", expect.code));
    }
    for word in expect.says.iter().chain(&["error", "hint:"]) {
        if !said.contains(word) {
            findings.push(format!("does not say {word:?}"));
        }
    }
    if !findings.is_empty() {
        findings.push(format!("it said:\n{}", said.trim_end()));
    }
    findings
}

/// A disk that fills up: what was acknowledged stays, what cannot be stored is refused, and space is all it takes.
fn no_disk(count: &mut Count, fairway: &Path) {
    let is_root =
        std::fs::metadata("/proc/self").is_ok_and(|meta| std::os::unix::fs::MetadataExt::uid(&meta) == 0);
    if !is_root {
        println!("skipped no disk left: a small disk can be mounted by root alone");
        return;
    }
    count.check("no disk left", || {
        let mut home = Home::new(fairway, Show::Nothing)?;
        // Dropped before the home, which could not remove a directory that something is mounted on.
        let disk = Disk::mount(&home.state_dir())?;
        home.start_server()?;
        let notes = Notes::write(home.path().join("notes"), free_address()?)?;
        home.must(notes.directory(), &["deploy", "-e", "dev"])?;
        let filler = home.state_dir().join("filler");
        disk.fill(&filler)?;
        notes.change("[env.dev]", "[vars]\nWORDS = \"more\"\n[env.dev]")?;
        let ran = home.run(notes.directory(), &["deploy", "-e", "dev"])?;
        let mut findings =
            lacking(Some(ran.code), &ran.stderr, &Expect { code: 1, says: &["room", "fairway gc"] });
        let answer = get(notes.address(), "/")?;
        if answer.body != "notes" {
            findings.push(format!("{:?} serves instead of the old version", answer.body));
        }
        std::fs::remove_file(&filler).context("the filler")?;
        let ran = home.run(notes.directory(), &["deploy", "-e", "dev"])?;
        let answer = get(notes.address(), "/")?;
        if ran.code != 0 || answer.body != "more" {
            findings.push(format!("with space again, the deploy ended with {}: {}", ran.code, ran.stderr));
        }
        Ok(findings)
    });
}

/// A disk of 24 MiB, unmounted when dropped.
struct Disk {
    at: std::path::PathBuf,
}

impl Disk {
    fn mount(at: &Path) -> Done<Disk> {
        std::fs::create_dir_all(at).context("the small disk")?;
        let status = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=24m,mode=711", "fairway-test"])
            .arg(at)
            .status()
            .context("mount")?;
        if !status.success() {
            return Err(Fault::new("cannot mount a small disk"));
        }
        Ok(Disk { at: at.to_owned() })
    }

    /// Writes until nothing more fits.
    fn fill(&self, file: &Path) -> Done {
        use std::io::Write;
        let mut file = std::fs::File::create(file).context("the filler")?;
        let mut size = 1 << 20;
        while size > 0 {
            if file.write_all(&vec![0; size]).is_err() {
                size /= 2;
            }
        }
        Ok(())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("--lazy").arg(&self.at).status());
    }
}
