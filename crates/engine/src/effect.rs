//! What the outside world is asked to do. Every effect names a thing by an id that is never used twice, or a
//! generation that only grows, so that doing it twice is the same as once.

use crate::id::{EnvironmentKey, Generation, InstanceId, JobNumber};

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effect {
    /// Spec: the release of the instance's number.
    StartInstance {
        environment: EnvironmentKey,
        instance: InstanceId,
    },
    StopInstance {
        environment: EnvironmentKey,
        instance: InstanceId,
    },
    /// Table: the environment's current one.
    ApplyRoutes {
        environment: EnvironmentKey,
        generation: Generation,
    },
    RunJob {
        environment: EnvironmentKey,
        job: JobNumber,
    },
    CancelJob {
        environment: EnvironmentKey,
        job: JobNumber,
    },
}
