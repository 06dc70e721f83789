//! PromQL: parsing with limits, and evaluation over a [`crate::select::Querier`].
