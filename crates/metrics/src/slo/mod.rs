//! Service level objectives as burn-rate rules and error budgets.
