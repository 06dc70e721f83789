use serde::Serialize;

/// What a simulated client does: the method, and whether it keeps its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// GET over a pooled connection.
    KeepAliveGet,
    /// GET over a connection of its own, announced with `Connection: close`.
    FreshGet,
    /// POST with a unique id over a pooled connection.
    KeepAlivePost,
    /// POST with a unique id over a connection of its own.
    FreshPost,
    /// POST with a unique id over a connection of its own, whose body comes in pieces over [`crate::Plan::slow_post`].
    SlowPost,
    /// GET over a connection of HTTP/2 that all of its kind share; without TLS it is begun without asking.
    H2Get,
    /// POST with a unique id, as [`Kind::H2Get`].
    H2Post,
    /// As [`Kind::H2Post`], whose body comes in pieces over [`crate::Plan::slow_post`].
    H2SlowPost,
}

impl Kind {
    pub const ALL: [Kind; 8] = [
        Kind::KeepAliveGet,
        Kind::FreshGet,
        Kind::KeepAlivePost,
        Kind::FreshPost,
        Kind::SlowPost,
        Kind::H2Get,
        Kind::H2Post,
        Kind::H2SlowPost,
    ];

    pub fn is_post(self) -> bool {
        match self {
            Kind::KeepAlivePost | Kind::FreshPost | Kind::SlowPost | Kind::H2Post | Kind::H2SlowPost => true,
            Kind::KeepAliveGet | Kind::FreshGet | Kind::H2Get => false,
        }
    }

    /// Holds connections of HTTP/1.1 open between its requests.
    pub fn keeps_alive(self) -> bool {
        match self {
            Kind::KeepAliveGet | Kind::KeepAlivePost => true,
            Kind::FreshGet
            | Kind::FreshPost
            | Kind::SlowPost
            | Kind::H2Get
            | Kind::H2Post
            | Kind::H2SlowPost => false,
        }
    }

    pub fn is_h2(self) -> bool {
        match self {
            Kind::H2Get | Kind::H2Post | Kind::H2SlowPost => true,
            Kind::KeepAliveGet | Kind::KeepAlivePost | Kind::FreshGet | Kind::FreshPost | Kind::SlowPost => {
                false
            }
        }
    }

    pub(crate) fn index(self) -> usize {
        match self {
            Kind::KeepAliveGet => 0,
            Kind::FreshGet => 1,
            Kind::KeepAlivePost => 2,
            Kind::FreshPost => 3,
            Kind::SlowPost => 4,
            Kind::H2Get => 5,
            Kind::H2Post => 6,
            Kind::H2SlowPost => 7,
        }
    }

    /// Its body takes its time.
    pub fn is_slow(self) -> bool {
        match self {
            Kind::SlowPost | Kind::H2SlowPost => true,
            Kind::KeepAliveGet
            | Kind::FreshGet
            | Kind::KeepAlivePost
            | Kind::FreshPost
            | Kind::H2Get
            | Kind::H2Post => false,
        }
    }

    /// As the ids of its requests end.
    pub fn name(self) -> &'static str {
        match self {
            Kind::KeepAliveGet => "keep-alive-get",
            Kind::FreshGet => "fresh-get",
            Kind::KeepAlivePost => "keep-alive-post",
            Kind::FreshPost => "fresh-post",
            Kind::SlowPost => "slow-post",
            Kind::H2Get => "h2-get",
            Kind::H2Post => "h2-post",
            Kind::H2SlowPost => "h2-slow-post",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn index_is_the_place_in_all() {
        for (place, kind) in Kind::ALL.into_iter().enumerate() {
            assert_eq!(kind.index(), place);
        }
    }
}
