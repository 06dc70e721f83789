//! `maintenance on|off`: visitors get a page instead of the services.

use super::Decider;
use crate::event::Fact;
use crate::refusal::Refusal;

impl Decider {
    pub(super) fn maintenance_on(&mut self, message: &str) -> Result<(), Refusal> {
        if self.env.maintenance.as_deref() == Some(message) {
            return Err(Refusal::MaintenanceAlready { state: "on" });
        }
        self.emit(Fact::MaintenanceOn { message: message.to_owned() })
    }

    pub(super) fn maintenance_off(&mut self) -> Result<(), Refusal> {
        if self.env.maintenance.is_none() {
            return Err(Refusal::MaintenanceAlready { state: "off" });
        }
        self.emit(Fact::MaintenanceOff)
    }
}
