//! The alerts and dashboards that come with Fairway.
