//! `restart`: every copy replaced by a fresh one of the same release, one at a time.

use super::Decider;
use crate::event::Fact;
use crate::id::ServiceName;
use crate::refusal::Refusal;

impl Decider {
    pub(super) fn restart(&mut self, service: Option<&ServiceName>) -> Result<(), Refusal> {
        let Some(stable) = self.env.stable else {
            return Err(Refusal::NothingDeployed { environment: self.env.key.clone() });
        };
        let services: Vec<ServiceName> = match service {
            Some(service) => {
                self.known_service(service)?;
                vec![service.clone()]
            }
            // Data stays up unless it is named.
            None => self
                .env
                .release(stable)
                .into_iter()
                .flat_map(|release| &release.spec.services)
                .filter(|(_, spec)| !spec.is_backing())
                .map(|(name, _)| name.clone())
                .collect(),
        };
        for service in services {
            self.emit(Fact::RestartRequested { service })?;
        }
        Ok(())
    }
}
