//! What Fairway takes from the machine while nothing happens, with the example shop running.

use std::path::Path;
use std::time::{Duration, Instant};

use super::figure::Figure;
use crate::fault::{Context, Done, Fault};
use crate::home::{Home, Shop, Show, free_address};

/// After a deploy: memory is given back, logs are written, connections end.
const REST: Duration = Duration::from_secs(5);
const MEASURED: Duration = Duration::from_secs(30);

/// What `top` shows as nothing. The kernel counts CPU time in hundredths of a second, so that 0.03 % is the smallest
/// step that 30 s can show.
const CPU_PERCENT_MAX: f64 = 0.1;

pub fn measure(fairway: &Path) -> Done<Vec<Figure>> {
    let mut home = Home::new(fairway, Show::Nothing)?;
    home.start_server()?;
    let shop = Shop::new(home.path().join("shop"), free_address()?, "0s");
    shop.check_out("v1")?;
    home.must(shop.directory(), &["deploy", "-e", "demo"])?;
    std::thread::sleep(REST);

    let server = home.server_pid().context("the server")?;
    let with_role = |role: &str| -> Vec<u32> {
        let is = |pid: &u32| {
            let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            words.split(|byte| *byte == 0).nth(1) == Some(role.as_bytes())
        };
        home.processes().into_iter().filter(is).collect()
    };
    let [proxy] = with_role("proxy")[..] else { return Err(Fault::new("there is not exactly one proxy")) };
    let shims = with_role("shim");

    let before = cpu_ticks(server)? + cpu_ticks(proxy)?;
    let shims_before = sum(&shims, cpu_ticks)?;
    let started = Instant::now();
    std::thread::sleep(MEASURED);
    let seconds = started.elapsed().as_secs_f64();
    let percent = |ticks: u64| ticks as f64 / TICKS_PER_S / seconds * 100.0;
    let cpu = percent(cpu_ticks(server)? + cpu_ticks(proxy)? - before);
    let shims_cpu = percent(sum(&shims, cpu_ticks)? - shims_before);
    let (server_kib, proxy_kib) = (rss_kib(server)?, rss_kib(proxy)?);
    let mib = |kib: u64| kib as f64 / 1024.0;
    let shims_mib = mib(sum(&shims, rss_kib)?);
    Ok(vec![
        Figure::new("idle: memory of server and proxy", mib(server_kib + proxy_kib), "MiB", 57.0).detail(format!(
            "server {:.1}, proxy {:.1}; beside it {} shims with {shims_mib:.1} in all (goal: 60 MB = 57 MiB)",
            mib(server_kib),
            mib(proxy_kib),
            shims.len(),
        )),
        Figure::new("idle: CPU of server and proxy, of one core", cpu, "%", CPU_PERCENT_MAX)
            .detail(format!("over {seconds:.0} s; the shims, which probe every 50 ms as asked, {shims_cpu:.1} %")),
    ])
}

/// Linux tells user space about CPU time in this unit, whatever it counts in.
pub(super) const TICKS_PER_S: f64 = 100.0;

pub(super) fn cpu_ticks(pid: u32) -> Done<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).context("CPU time")?;
    // The name, in brackets, may hold anything; after it come the fields from the third on.
    let (_, fields) = stat.rsplit_once(") ").context("CPU time")?;
    let field = |number: usize| fields.split(' ').nth(number - 3).and_then(|text| text.parse::<u64>().ok());
    Ok(field(14).context("CPU time")? + field(15).context("CPU time")?)
}

fn rss_kib(pid: u32) -> Done<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).context("memory")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("memory")?;
    line.trim().trim_end_matches(" kB").parse().context("memory")
}

fn sum(pids: &[u32], of: fn(u32) -> Done<u64>) -> Done<u64> {
    pids.iter().map(|pid| of(*pid)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_is_read_as_it_writes() {
        let own = std::process::id();
        assert!(rss_kib(own).unwrap() > 100);
        let before = cpu_ticks(own).unwrap();
        let started = Instant::now();
        while cpu_ticks(own).unwrap() == before {
            assert!(started.elapsed() < Duration::from_secs(20), "busy and no tick");
        }
    }
}
