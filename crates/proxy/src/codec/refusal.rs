/// Why a request is not passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// 400, with what is wrong with it.
    #[error("{0}")]
    Bad(&'static str),
    /// 413
    #[error("the request body is too large")]
    BodyTooLarge,
    /// 414
    #[error("the request target is too long")]
    TargetTooLong,
    /// 417
    #[error("only 100-continue can be expected")]
    Expectation,
    /// 431
    #[error("the request head is too large")]
    HeadTooLarge,
    /// 501, with what is not implemented.
    #[error("{0}")]
    NotImplemented(&'static str),
    /// 505
    #[error("only HTTP/1.0 and HTTP/1.1 are spoken here")]
    Version,
}

impl Refusal {
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Self::Bad(_) => 400,
            Self::BodyTooLarge => 413,
            Self::TargetTooLong => 414,
            Self::Expectation => 417,
            Self::HeadTooLarge => 431,
            Self::NotImplemented(_) => 501,
            Self::Version => 505,
        }
    }
}
