//! Everything that is known of one environment.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::autoscale::Autoscaler;
use crate::certificate::{CertificateNews, CertificateStanding};
use crate::id::{EnvironmentKey, InstanceId, JobNumber, ReleaseNumber, RolloutNumber, ServiceName};
use crate::instance::{EndedInstance, Instance, InstanceState};
use crate::job::Job;
use crate::purge::{PurgeAccount, PurgeDue, Purged};
use crate::release::{Release, ReleaseSpec};
use crate::rollout::{Phase, Rollout, RolloutSummary};
use crate::routes::Routes;
use crate::service::{Runs, ServiceSpec};
use crate::time::Timestamp;
use crate::trial::Trial;
use crate::upgrade::{UpgradeOver, UpgradeUnderWay};

/// Kept in memory for `history` and `status`; the log has them all.
pub const HISTORY_MAX: usize = 50;
/// Upgrades of the server kept for `history`: whoever looks wonders about the last days.
pub const UPGRADES_MAX: usize = 8;
/// Ended instances kept for status: enough to see the copies of a failed release with several services.
pub const ENDED_MAX: usize = 32;
/// Ended jobs kept for status.
pub const JOBS_MAX: usize = 32;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Environment {
    pub key: EnvironmentKey,
    /// Releases that can still be started.
    pub releases: BTreeMap<ReleaseNumber, Arc<Release>>,
    pub last_release: ReleaseNumber,
    /// The release that serves.
    pub stable: Option<ReleaseNumber>,
    pub stable_since: Option<Timestamp>,
    /// What each release replaced when it first became stable. A rollback follows this and so never comes back to
    /// the release that it left.
    pub predecessors: BTreeMap<ReleaseNumber, ReleaseNumber>,
    /// Releases that were committed at some time: they passed their checks and approvals and can come back without.
    #[serde(default)]
    pub served: BTreeSet<ReleaseNumber>,
    /// Releases that were rolled away from. Only a person who names one goes back to it.
    #[serde(default)]
    pub left: BTreeSet<ReleaseNumber>,
    /// Releases that had public traffic when their rollout ended otherwise than well, while copies of them are left.
    /// Those stand in for stable where more of its copies are missing than the number says.
    #[serde(default)]
    pub leaving: BTreeMap<ReleaseNumber, u32>,
    pub warm: Option<Warm>,
    pub rollout: Option<Rollout>,
    /// What the active rollout has shown so far.
    #[serde(default)]
    pub trial: Option<Trial>,
    /// Critical alerts that fire now, and since when.
    #[serde(default)]
    pub alerts: BTreeMap<String, FiringAlert>,
    pub last_rollout: RolloutNumber,
    /// Newest last.
    pub history: VecDeque<Arc<RolloutSummary>>,
    pub queue: VecDeque<Queued>,
    pub instances: BTreeMap<InstanceId, Instance>,
    pub ended: VecDeque<Arc<EndedInstance>>,
    /// The last ordinal given out, per service.
    pub ordinals: BTreeMap<ServiceName, u32>,
    pub routes: Routes,
    /// Copies that an operator asked for, in place of the release's own number.
    pub scale: BTreeMap<ServiceName, u32>,
    /// Of services whose copies follow the load.
    #[serde(default)]
    pub autoscalers: BTreeMap<ServiceName, Autoscaler>,
    pub epochs: BTreeMap<ServiceName, u32>,
    pub replacements: BTreeMap<ServiceName, Replacement>,
    pub maintenance: Option<String>,
    /// What stands before the environment is to be emptied.
    #[serde(default)]
    pub purge: Option<PurgeDue>,
    #[serde(default)]
    pub purged: Option<Purged>,
    /// Newest last.
    #[serde(default)]
    pub purges: VecDeque<PurgeAccount>,
    #[serde(default)]
    pub last_purge: u32,
    /// What was last written down of each, by its names ([`crate::certificate::key_of`]).
    #[serde(default)]
    pub certificates: BTreeMap<String, CertificateStanding>,
    /// Newest last.
    #[serde(default)]
    pub certificate_news: VecDeque<CertificateNews>,
    pub jobs: BTreeMap<JobNumber, Job>,
    pub last_job: JobNumber,
    pub contract_due: Option<ContractDue>,
    pub contracted_by: Option<ReleaseNumber>,
    pub power: Power,
    /// What served when the environment was taken down.
    pub resting: Option<ReleaseNumber>,
    #[serde(default)]
    pub upgrade: Option<UpgradeUnderWay>,
    /// Newest last.
    #[serde(default)]
    pub upgrades: VecDeque<UpgradeOver>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FiringAlert {
    pub since: Timestamp,
    pub why: String,
}

/// Still started after another release took over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Warm {
    pub release: ReleaseNumber,
    pub until: Timestamp,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Queued {
    pub spec: Arc<ReleaseSpec>,
    pub by: String,
    pub at: Timestamp,
    pub reason: Option<String>,
}

/// Copies of a service that keep failing are replaced more and more slowly.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replacement {
    pub failures: u32,
    pub not_before: Timestamp,
}

impl Replacement {
    /// Until a person says otherwise: a second copy could do harm beside one that is beyond control.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.not_before == Timestamp(u64::MAX)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContractDue {
    pub release: ReleaseNumber,
    pub due: Timestamp,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "is")]
pub enum Power {
    Up,
    /// Taken down by a person; the next deploy or rollback brings it up.
    Down {
        by: String,
        at: Timestamp,
    },
}

impl Environment {
    #[must_use]
    pub fn new(key: EnvironmentKey) -> Self {
        Self {
            key,
            releases: BTreeMap::new(),
            last_release: ReleaseNumber(0),
            stable: None,
            stable_since: None,
            predecessors: BTreeMap::new(),
            served: BTreeSet::new(),
            left: BTreeSet::new(),
            leaving: BTreeMap::new(),
            warm: None,
            rollout: None,
            trial: None,
            alerts: BTreeMap::new(),
            last_rollout: RolloutNumber(0),
            history: VecDeque::new(),
            queue: VecDeque::new(),
            instances: BTreeMap::new(),
            ended: VecDeque::new(),
            ordinals: BTreeMap::new(),
            routes: Routes::default(),
            scale: BTreeMap::new(),
            autoscalers: BTreeMap::new(),
            epochs: BTreeMap::new(),
            replacements: BTreeMap::new(),
            maintenance: None,
            purge: None,
            purged: None,
            purges: VecDeque::new(),
            last_purge: 0,
            certificates: BTreeMap::new(),
            certificate_news: VecDeque::new(),
            jobs: BTreeMap::new(),
            last_job: JobNumber(0),
            contract_due: None,
            contracted_by: None,
            power: Power::Up,
            resting: None,
            upgrade: None,
            upgrades: VecDeque::new(),
        }
    }

    #[must_use]
    pub fn release(&self, number: ReleaseNumber) -> Option<&Release> {
        self.releases.get(&number).map(Arc::as_ref)
    }

    #[must_use]
    pub fn service(&self, release: ReleaseNumber, service: &ServiceName) -> Option<&ServiceSpec> {
        self.release(release)?.spec.services.get(service)
    }

    /// When a copy that was ready and is not any more has had as long to become it again as a new one has. Before traffic
    /// has moved a rollout waits for each of its copies, and one that flaps must not hold it until the phase is over.
    pub(crate) fn recovery_deadline(&self, instance: &Instance) -> Option<Timestamp> {
        let since = match &instance.state {
            InstanceState::Suspect { since, .. } | InstanceState::Down { since, .. } => *since,
            InstanceState::Starting { .. }
            | InstanceState::Ready { .. }
            | InstanceState::Draining { .. }
            | InstanceState::Stopping { .. } => return None,
        };
        let rollout = self.rollout.as_ref()?;
        let spec = self.service(instance.id.release, &instance.id.service)?;
        let waits = match rollout.phase {
            Phase::Planned | Phase::Migrating { .. } | Phase::Starting | Phase::Verifying { .. } => true,
            // Copies of the new version take the place of old ones, and it ends when all are ready. Whoever pauses it
            // looks at what there is, and nothing waits.
            Phase::Shifting { .. } => rollout.is_rolling() && !rollout.is_paused(),
            Phase::Baking { .. } | Phase::Committing | Phase::Aborting { .. } => false,
        };
        let is_waited_for = waits && rollout.to == instance.id.release && !spec.is_backing();
        // One that was kept warm may have been like that for long.
        is_waited_for.then(|| since.max(rollout.phase_since) + spec.ready.within)
    }

    /// Copies of `service` that `release` is to have when it serves alone.
    #[must_use]
    pub fn replicas(&self, release: ReleaseNumber, service: &ServiceName) -> u32 {
        match self.service(release, service) {
            None => 0,
            Some(spec) if spec.is_backing() => 1,
            Some(spec) => {
                let by_hand = self.scale.get(service).copied().unwrap_or(spec.replicas);
                spec.autoscale.as_ref().map_or(by_hand, |settings| {
                    self.autoscalers
                        .get(service)
                        .and_then(Autoscaler::replicas)
                        .unwrap_or_else(|| settings.clamp(by_hand))
                })
            }
        }
    }

    /// Live copies of one service in one release.
    pub fn live(&self, release: ReleaseNumber, service: &ServiceName) -> impl Iterator<Item = &Instance> {
        self.instances
            .values()
            .filter(move |i| i.id.release == release && i.id.service == *service && i.is_live())
    }

    #[must_use]
    pub fn ready_count(&self, release: ReleaseNumber, service: &ServiceName) -> u32 {
        count(self.live(release, service).filter(|i| self.serves(i)))
    }

    /// Ready, and reachable where it has to be: a copy whose address is not known yet serves nobody.
    #[must_use]
    pub fn serves(&self, instance: &Instance) -> bool {
        instance.is_ready()
            && (instance.address.is_some() || !self.takes(instance.id.release, &instance.id.service))
    }

    /// Does `release` have `service`, and does it take requests there?
    #[must_use]
    pub fn takes(&self, release: ReleaseNumber, service: &ServiceName) -> bool {
        self.service(release, service).is_some_and(ServiceSpec::takes_requests)
    }

    /// Releases that something still depends on.
    #[must_use]
    pub fn active_releases(&self) -> BTreeSet<ReleaseNumber> {
        let rollout = self.rollout.iter().flat_map(|r| [Some(r.to), r.from]).flatten();
        self.stable
            .into_iter()
            .chain(self.resting)
            .chain(self.warm.iter().map(|w| w.release))
            .chain(rollout)
            .collect()
    }

    /// Releases that must not be dropped: the active ones, and those whose copies or jobs still need their spec.
    #[must_use]
    pub fn needed_releases(&self) -> BTreeSet<ReleaseNumber> {
        let mut needed = self.active_releases();
        needed.extend(self.instances.keys().map(|id| id.release));
        needed.extend(self.jobs.values().filter(|job| job.is_running()).map(|job| job.release));
        needed.extend(self.contract_due.as_ref().map(|due| due.release));
        needed
    }

    /// Where a rollback without a name goes: what the serving release replaced, as long as it is kept and was not
    /// rolled away from itself.
    #[must_use]
    pub fn rollback_target(&self) -> Option<ReleaseNumber> {
        let Some(mut at) = self.stable else { return self.resting };
        // Bounded: predecessors only ever point to lower numbers (checked where they are set).
        while let Some(&before) = self.predecessors.get(&at) {
            if self.releases.contains_key(&before) && !self.left.contains(&before) {
                return Some(before);
            }
            at = before;
        }
        None
    }

    /// Can a rollback go to it? Only what has served may come back without checks, and nothing from before a contraction
    /// of the schema.
    #[must_use]
    pub fn can_come_back(&self, release: ReleaseNumber) -> bool {
        self.stable != Some(release)
            && self.releases.contains_key(&release)
            && self.served.contains(&release)
            && self.contracted_by.is_none_or(|contracted_by| contracted_by <= release)
    }

    /// Every release that a rollback can go to, oldest first.
    #[must_use]
    pub fn rollback_targets(&self) -> Vec<ReleaseNumber> {
        self.releases.keys().copied().filter(|release| self.can_come_back(*release)).collect()
    }

    #[must_use]
    pub fn running_job(&self, number: JobNumber) -> Option<&Job> {
        self.jobs.get(&number).filter(|job| job.is_running())
    }

    /// A migration that is under way, whoever asked for it.
    #[must_use]
    pub fn running_migration(&self) -> Option<&Job> {
        self.jobs.values().find(|job| job.kind.is_migration() && job.is_running())
    }
}

impl ServiceSpec {
    /// Does it take requests through the proxy?
    #[must_use]
    pub fn takes_requests(&self) -> bool {
        match &self.runs {
            Runs::Process { port, .. } => port.is_some(),
            Runs::Static { .. } => true,
            Runs::Backing { .. } => false,
        }
    }
}

/// Length of an iterator over things that are bounded by the replica limit.
pub(crate) fn count<T>(iter: impl Iterator<Item = T>) -> u32 {
    u32::try_from(iter.count()).unwrap_or(u32::MAX)
}
