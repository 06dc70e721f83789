//! The proxy as the control plane meets it: it takes whole tables, later than asked, or refuses them, or dies and
//! serves the last one that it made durable.

use std::collections::BTreeSet;
use std::sync::Arc;

use fairway_engine::RouteTable;
use fairway_engine::id::{Generation, InstanceId};

#[derive(Clone, Debug, Default)]
pub struct Proxy {
    pub is_down: bool,
    pub serves: (Generation, Arc<RouteTable>),
    pub durable: (Generation, Arc<RouteTable>),
}

/// What the proxy makes of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Taken {
    /// Durable and in force; these instances are in it no more.
    Applied {
        gone: BTreeSet<InstanceId>,
    },
    /// It had it already.
    Known,
    Older,
}

#[must_use]
pub fn instances(table: &RouteTable) -> BTreeSet<InstanceId> {
    let versions = table.services.values().flat_map(|service| service.versions.values());
    versions.flat_map(|version| version.instances.keys().cloned()).collect()
}

impl Proxy {
    pub fn take(&mut self, generation: Generation, table: Arc<RouteTable>) -> Taken {
        if generation < self.serves.0 {
            return Taken::Older;
        }
        if generation == self.serves.0 {
            self.durable = self.serves.clone();
            return Taken::Known;
        }
        let after = instances(&table);
        let gone = instances(&self.serves.1).into_iter().filter(|id| !after.contains(id)).collect();
        self.serves = (generation, table);
        self.durable = self.serves.clone();
        Taken::Applied { gone }
    }

    /// Serves a table that it does not live to make durable.
    pub fn take_and_die(&mut self, generation: Generation, table: Arc<RouteTable>) {
        if generation > self.serves.0 {
            self.serves = (generation, table);
        }
        self.is_down = true;
    }

    pub fn come_back(&mut self) {
        self.is_down = false;
        self.serves = self.durable.clone();
    }
}
