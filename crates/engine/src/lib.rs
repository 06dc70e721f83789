//! The engine decides. It does no IO, reads no clock, draws no random number and keeps only ordered maps, so that
//! the same inputs give the same bytes: restart is replay, audit is reading, and a test is inputs and a clock.
//!
//! [`decide`] answers an [`Input`] with a [`Decision`]: events (facts for the log) and effects (things to do once the
//! events are durable). [`State::apply`] is the only thing that changes state.

mod autoscale;
mod capacity;
pub mod certificate;
mod decide;
pub mod edge;
mod effect;
mod environment;
mod event;
pub mod evidence;
mod evidence_state;
pub mod id;
mod input;
mod instance;
mod job;
pub mod monitoring;
mod observation;
pub mod purge;
mod refusal;
pub mod release;
mod rollout;
mod routes;
pub mod service;
mod state;
pub mod strategy;
mod table;
pub mod time;
mod trial;
mod upgrade;
pub mod verdict;
mod waiting;

pub use autoscale::{Autoscaler, PIN_LASTS, Pin};
pub use capacity::Capacity;
pub use decide::{Decision, REPLICAS_MAX, decide, next_deadline, outstanding};
pub use effect::Effect;
pub use environment::{ContractDue, Environment, FiringAlert, Power, Queued, Replacement, Warm};
pub use event::{Event, Fact};
pub use input::{Command, Input, Outcome};
pub use instance::{Address, EndedInstance, Failure, Instance, InstanceEnd, InstanceState};
pub use job::{Job, JobEnd, JobKind, JobState};
pub use observation::{ArmCounters, LATENCY_BOUNDS_MS, Observation, Reading, ScaleReading};
pub use refusal::Refusal;
pub use rollout::{
    AbortCause, Check, Pace, Phase, Rollout, RolloutKind, RolloutOutcome, RolloutSummary, Rung, StepState,
};
pub use routes::{RouteTable, Routes, ServiceRoute, VersionRoute};
pub use state::{IllegalTransition, State};
pub use trial::{Arm, Arms, Asked, Held, Kept, Recorded, Segment, SegmentCount, Silence, Trial};
pub use upgrade::{Upgrade, UpgradeEnd, UpgradeOver, UpgradeStep, UpgradeUnderWay};
pub use verdict::{
    ArmCount, ArmReport, BadEvent, Bound, EvidenceView, Finding, GateDue, GateId, Reason, TestCounts, Verdict,
};
pub use waiting::Waiting;
