use std::fmt;

/// Why a verb failed, for the person who started it.
#[derive(Debug)]
pub struct Fault {
    what: String,
    hint: Option<String>,
}

pub type Done<T = ()> = Result<T, Fault>;

impl Fault {
    pub fn new(what: impl Into<String>) -> Fault {
        Fault { what: what.into(), hint: None }
    }

    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Fault {
        self.hint = Some(hint.into());
        self
    }

    /// Says whose it is.
    #[must_use]
    pub fn of(self, whose: &str) -> Fault {
        Fault { what: format!("{whose}: {}", self.what), ..self }
    }

    /// For several checks that need the same thing: each says why it could not be had.
    pub fn again(&self) -> Fault {
        Fault { what: self.what.clone(), hint: self.hint.clone() }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "error: {}", self.what)?;
        if let Some(hint) = &self.hint {
            writeln!(f, "hint: {hint}")?;
        }
        Ok(())
    }
}

/// Says what was being done when something failed.
pub trait Context<T> {
    fn context(self, doing: impl fmt::Display) -> Done<T>;
}

impl<T, E: fmt::Display> Context<T> for Result<T, E> {
    fn context(self, doing: impl fmt::Display) -> Done<T> {
        self.map_err(|error| Fault::new(format!("{doing}: {error}")))
    }
}

impl<T> Context<T> for Option<T> {
    fn context(self, doing: impl fmt::Display) -> Done<T> {
        self.ok_or_else(|| Fault::new(doing.to_string()))
    }
}
